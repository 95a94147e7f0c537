"""A run that SIGKILL ends anywhere, and that is resumed, ends as an undisturbed run does."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from spatialbench.results.run_folder import RunRecord, read_checkpoint
from spatialbench.utils.cache import ABANDONED_SECONDS
from spatialbench.utils.token_cache import TokenCache
from tests.support import ROOT
from tests.support.killing import POINTS, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    command = [sys.executable, "-m", "tests.support.killing", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "none.json").read_text())["first"] == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("point", [point for point in POINTS if point != "none"])
def test_a_killed_run_goes_on_to_the_same_end(folder: Path, point: str) -> None:
    ends = json.loads((folder / f"{point}.json").read_text())
    assert (ends["first"], ends["second"]) == (-9, 0)
    step, _ = POINTS[point]
    assert step is None or ends["step"] == step, "a whole checkpoint or none"
    whole, again = run(folder, "none"), run(folder, point)
    records = [RunRecord.read(each.run_dir) for each in (whole, again)]
    assert all(record.finished for record in records)
    for field in ("scores", "train_pairs"):
        assert records[0].info[field] == records[1].info[field]
    pairs = [record.evidence("pairs").read_bytes() for record in records]
    assert pairs[0] == pairs[1]
    checkpoints = [read_checkpoint(record.checkpoint) for record in records]
    for name, value in checkpoints[0]["state_dict"].items():
        assert torch.equal(value, checkpoints[1]["state_dict"][name]), name
    moments = [checkpoint["optimizer_states"][0]["state"] for checkpoint in checkpoints]
    for number, state in moments[0].items():
        assert torch.equal(state["exp_avg_sq"], moments[1][number]["exp_avg_sq"])
    lines = [(each.run_dir / "metrics.jsonl").read_text().splitlines() for each in (whole, again)]
    kept = [[line for line in each if "val/" in line] for each in lines]
    assert kept[0] == kept[1], "every validation once"
    assert not list(again.run_dir.glob(".*")), "nothing half written stays"


def test_what_a_killed_preparation_left_is_removed_and_work_under_way_is_not(
    tmp_path: Path,
) -> None:
    old, new = tmp_path / ".a.npy.1.npy", tmp_path / ".b.npy.2.npy"
    for path in (old, new):
        path.touch()
    then = time.time() - 2 * ABANDONED_SECONDS
    os.utime(old, (then, then))
    TokenCache(tmp_path, (2,)).put([b"k" * 16], torch.zeros(1, 2, dtype=torch.bfloat16))
    assert (old.exists(), new.exists()) == (False, True)
