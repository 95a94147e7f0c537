"""``fit`` under torchrun: two processes train and score as one does, where batches do not divide the ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from spatialbench.evaluation.outcomes import RunOutcomes

from spatialbench.config.experiment import resolve
from spatialbench.results.run_folder import RunRecord, read_checkpoint
from spatialbench.training.fit import fit
from tests.support import ROOT, tiny

MAIN = "import sys; from spatialbench.cli.main import main; sys.exit(main())"
ALL_RECORDS = {"data": {"records_per_image": 6, "batch_images": 6, "eval_batch_images": 3}}


def test_two_processes_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 pictures a rank and step, encoded 2 at a time. Validation has one batch, so one rank has none; the test has
    two, of 3 and 1 pictures.
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
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "main.py",
        "fit",
    ]
    command += ["--config", str(page), "--track", "tiny", "--runs", "two"]
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
    outcomes = [RunOutcomes.load(record.outcomes) for record in (one, two)]
    assert np.array_equal(outcomes[0].record_ids, outcomes[1].record_ids), "every record once"
    np.testing.assert_allclose(outcomes[0].positive, outcomes[1].positive, atol=1e-4)
    states = [read_checkpoint(record.checkpoint)["state_dict"] for record in (one, two)]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-3, msg=name)
    metrics = [(record.run_dir / "metrics.jsonl").read_text().splitlines() for record in (one, two)]
    val = [[line for line in lines if "val/all" in line] for lines in metrics]
    assert val[0] == val[1]
    assert len(val[0]) == 2
