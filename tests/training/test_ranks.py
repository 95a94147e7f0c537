"""``fit`` under torchrun: two processes train and score as one does, with uneven batches."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spatialbench.config.experiment import resolve
from spatialbench.evaluation.evidence import Evidence
from spatialbench.results.run_folder import RunRecord, read_checkpoint
from spatialbench.training.fit import fit
from tests.support import ROOT, tiny

MAIN = "import sys; from spatialbench.cli.main import main; sys.exit(main())"
ALL_RECORDS = {"data": {"records_per_image": 6, "batch_images": 6, "eval_batch_images": 3}}


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 images a rank and step, encoded 2 at a time.

    Validation has one batch, so one rank has none; the test has two, of 3 and 1 images.
    """
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    page = tiny.benchmark(tmp_path / "benchmarks") / "clip.yaml"
    one = fit(resolve(page, "tiny", "quick", 0, ALL_RECORDS, tmp_path / "one"), show=False)
    (tmp_path / "main.py").write_text(MAIN)
    flags = {
        "trainer.devices": 2,
        "trainer.strategy": "ddp",
        "data.batch_images": 3,
        "data.records_per_image": 6,
        "data.eval_batch_images": 3,
        "model.init_args.finetuning.chunk_images": 2,
    }
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *launch, "main.py", "fit", "--config", str(page)]
    command += ["--track", "tiny", "--runs", "two"]
    command += [part for flag, value in flags.items() for part in (f"--{flag}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (run_dir,) = (tmp_path / "two" / "tiny" / "quick" / "clip").glob("*/seed0")
    two = RunRecord.read(run_dir)
    assert two.finished
    assert two.info["train_pairs"] == one.info["train_pairs"] == 6 * 6 * 6
    pairs = [Evidence.load(record.evidence("pairs")) for record in (one, two)]
    assert np.array_equal(pairs[0].margins.units, pairs[1].margins.units), "every record once"
    np.testing.assert_allclose(pairs[0].answers(), pairs[1].answers(), atol=1e-4)
    states = [read_checkpoint(record.checkpoint)["state_dict"] for record in (one, two)]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-3, msg=name)
    metrics = [(record.run_dir / "metrics.jsonl").read_text().splitlines() for record in (one, two)]
    val = [[line for line in lines if "val/all" in line] for lines in metrics]
    assert val[0] == val[1]
    assert len(val[0]) == 2
