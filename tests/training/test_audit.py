"""The audit with a made-up fit: which rows it makes, resuming, and the check of what is stored."""

from pathlib import Path

import pytest

from spatialbench.cli.main import main
from spatialbench.config.experiment import Resolved
from spatialbench.results.files import AUDIT, read_row
from spatialbench.results.run_folder import RunRecord
from spatialbench.results.stale import Today
from spatialbench.training.audit import audit
from spatialbench.verify.check_results import check_stored
from tests.support import fakes
from tests.support.checks import refused

WHERE = ("results", "benchmarks", "rooms", "quick")
ALL = [
    ("rooms+none", "clip_finetune"),
    ("rooms+none", "spatial_attn"),
    ("rooms+worse", "clip_finetune"),
    ("rooms+worse", "spatial_attn"),
    ("rooms+vfm", "spatial_attn"),
]


class FakeFit:
    """Writes finished run folders; stops before the run that is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.widths: dict[str, int] = {}
        self.stop_at: tuple[str, str] | None = None

    def __call__(self, resolved: Resolved, force: bool) -> RunRecord:
        run = resolved.track.name, resolved.page.name
        if run == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(run)
        self.widths[run[0]] = resolved.config["model"]["init_args"].get("width", 1)
        return fakes.write_run(resolved, {"pairs": fakes.pairs(len(self.calls))})


@pytest.fixture
def fit() -> FakeFit:
    return FakeFit()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fakes.audited(Path("benchmarks"))


def test_each_flaw_is_trained_on_the_pages_that_it_changes(fit: FakeFit) -> None:
    assert audit(*WHERE, seeds=[0], fit=fit) == 0
    assert fit.calls == ALL
    assert fit.widths == {"rooms+none": 1, "rooms+worse": 2, "rooms+vfm": 3}
    row = read_row(Path("results/audit/rooms+vfm/quick/spatial_attn.json"))
    assert list(row.evidence) == ["pairs"], "the audit is about the pair test alone"
    assert not Path("results/rooms").exists()


def test_what_is_done_is_kept_and_a_stopped_audit_goes_on(
    fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.stop_at = ALL[3]
    with pytest.raises(KeyboardInterrupt):
        audit(*WHERE, seeds=[0], fit=fit)
    assert "stopped: 3 of 5 runs done" in capsys.readouterr().err
    fit.stop_at = None
    assert audit(*WHERE, seeds=[0], fit=fit) == 0
    assert fit.calls == ALL
    flaws = Path("benchmarks/audit/flaws.yaml")
    flaws.write_text(flaws.read_text().replace("width: 2", "width: 4"))
    assert audit(*WHERE, seeds=[0], fit=fit) == 0
    assert fit.calls[5:] == ALL[2:4], "only what the change concerns"


def test_stored_rows_are_checked_like_any_other(fit: FakeFit) -> None:
    audit(*WHERE, seeds=[0], fit=fit)
    results, benchmarks = Path("results"), Path("benchmarks")

    def problems() -> list[str]:
        today = Today.read(benchmarks, audit=True)
        return check_stored(results, today) + check_stored(results / AUDIT, today)

    assert problems() == []
    fakes.audited(benchmarks, fakes.FLAWS.replace("width: 3", "width: 4"))
    again = "spatialbench audit --track rooms --budget quick --seeds 0"
    path = "results/audit/rooms+vfm/quick/spatial_attn.json"
    assert problems() == [f"{path}: stale, track rooms+vfm changed; {again}"]
    fakes.audited(benchmarks)
    (results / "audit/rooms+none/quick/spatial_attn.json").unlink()
    assert "spatial_attn.pairs.npz: no result file names it" in "".join(problems())


def test_the_command_prints_what_is_stored(
    fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    audit(*WHERE, seeds=[0], fit=fit)
    assert main(["audit", "--seeds", "0", "--format", "csv"]) == 0  # nothing is left to train
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("name,about,column,stale,effect,clip_finetune,clip_finetune_low")
    assert len(lines) == 1 + 2 * 4


def test_a_track_without_flaws_is_one_line(fit: FakeFit) -> None:
    track = Path("benchmarks/tracks/rooms.yaml")
    track.write_text(track.read_text().replace("source: rooms", "source: embspatial"))
    with refused(r"no audit of track rooms: .*flaws\.yaml"):
        audit(*WHERE, seeds=[0], fit=fit)
    assert fit.calls == []
