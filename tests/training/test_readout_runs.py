"""A readout page on the command line: of its own student, and of another page's checkpoint."""

import json
from pathlib import Path

import pytest

from spatialbench.cli.main import main
from spatialbench.config.experiment import resolve
from spatialbench.training.fit import fit
from tests.support import tiny

pytestmark = [pytest.mark.usefixtures("place"), pytest.mark.slow]
REST = "  init_args: {vfm: rooms-vfm}\ntrainer: {max_steps: 0}\n"


def test_a_readout_of_the_student_and_of_another_page_s_checkpoint(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tiny.page(folder, "readout", "spatialbench.methods.readout.Readout", REST)
    flags = ["--config", str(page), "--track", "tiny", "--budget", "smoke"]
    last = fit(resolve(folder / "clip.yaml", "tiny", "smoke", 0), show=False).checkpoint

    def scores(*more: str) -> tuple[list[float], str]:
        capsys.readouterr()
        assert main(["predict", *flags, *more]) == 0
        shown = capsys.readouterr()
        records = [json.loads(line) for line in shown.out.splitlines()]
        assert len(records) == 24
        assert all(record["positive"] == -record["negative"] for record in records)
        return [record["positive"] for record in records], shown.err

    before, _ = scores()
    after, said = scores("--ckpt_path", str(last))
    assert f"reading {last} (page clip, spatialbench.methods.clip.Clip)" in said
    assert after != before
    record = fit(resolve(page, "tiny", "smoke", 0), show=False)
    assert record.finished
    assert record.info["train_steps"] == 0
    assert not record.checkpoint.exists()
    assert scores()[0] == before
    assert main(["test", *flags, "--evaluation", "controls"]) == 0
