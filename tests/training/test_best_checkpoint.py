"""``finetuning.scored: best``: the checkpoint that was best on the validation set is the one that is tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from spatialbench.evaluation.outcomes import RunOutcomes

from spatialbench.config.experiment import resolve
from spatialbench.results.run_folder import clear
from spatialbench.training.build import build
from spatialbench.training.fit import fit
from spatialbench.training.score import test as score
from tests.support.tiny import benchmark


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    benchmark(tmp_path)
    track = (tmp_path / "tracks" / "tiny.yaml").read_text()
    legacy = track.replace("warmup_steps: 1}", "warmup_steps: 1, scored: best}").replace(
        "name: tiny", "name: legacy"
    )
    legacy = legacy.replace("val_check_interval: 3", "val_check_interval: 1")
    (tmp_path / "tracks" / "legacy.yaml").write_text(legacy)
    return tmp_path


def test_the_best_on_validation_is_tested_and_the_last_is_kept(folder: Path) -> None:
    resolved = resolve(folder / "clip.yaml", "legacy", "quick", 0, runs=folder / "runs")
    record = fit(resolved, show=False)
    lines = [
        json.loads(line) for line in (resolved.run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    scores = {line["step"]: line["val/all"] for line in lines if "val/all" in line}
    assert len(scores) == 6
    best, last = (
        torch.load(resolved.run_dir / f"{name}.ckpt", weights_only=True, map_location="cpu")
        for name in ("best", "last")
    )
    assert last["global_step"] == record.info["train_steps"] == 6
    values = list(scores.values())
    assert best["global_step"] - 1 == list(scores)[values.index(max(values))]
    stored = RunOutcomes.load(resolved.run_dir / "outcomes.npz").positive
    assert np.array_equal(
        stored, score(build(resolved), resolved.run_dir / "best.ckpt")[0].positive
    )
    assert best["global_step"] < 6
    assert not np.array_equal(
        stored, score(build(resolved), resolved.run_dir / "last.ckpt")[0].positive
    )
    clear(resolved.run_dir)
    assert not (resolved.run_dir / "best.ckpt").exists()


def test_nothing_of_the_kind_is_written_otherwise(folder: Path) -> None:
    resolved = resolve(folder / "clip.yaml", "tiny", "smoke", 0, runs=folder / "runs")
    fit(resolved, show=False)
    assert not (resolved.run_dir / "best.ckpt").exists()
