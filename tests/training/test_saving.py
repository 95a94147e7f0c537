"""Where gradients are accumulated over batches, a run is stopped and saved behind whole steps only."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.results.run_folder import read_checkpoint
from spatialbench.training.callbacks import Interrupted
from spatialbench.training.fit import fit
from spatialbench.utils.checkpoints import AtomicCheckpoints
from tests.support import tiny


def two_batches_a_step(folder: Path, runs: str) -> Resolved:
    overrides = {
        "trainer": {"accumulate_grad_batches": 2, "max_steps": 3},
        "data": {"batch_images": 2},
    }
    return resolve(folder / "stopping.yaml", "tiny", "quick", 0, overrides, folder / runs)


@pytest.mark.parametrize("stop_at", [3, 4])
def test_a_signal_among_accumulated_gradients_waits_for_their_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Ctrl-C in the first or the second batch of the second step: both are stopped behind it, and nothing is lost."""
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("seen", "stop_at"):
        monkeypatch.setattr(tiny.Stopping, name, 0)
    folder = tiny.benchmark(tmp_path / "benchmarks")
    tiny.page(folder, "stopping", "tests.support.tiny.Stopping")
    whole, run = two_batches_a_step(folder, "whole"), two_batches_a_step(folder, "stopped")
    fit(whole, show=False)
    tiny.Stopping.seen, tiny.Stopping.stop_at = 0, stop_at
    with pytest.raises(Interrupted) as stopped:
        fit(run, show=False)
    assert (stopped.value.signum, stopped.value.step, tiny.Stopping.seen) == (signal.SIGINT, 2, 4)

    saved: list[tuple[int, int]] = []
    write = AtomicCheckpoints.save_checkpoint

    def watch(
        self: AtomicCheckpoints, checkpoint: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        saved.append((checkpoint["global_step"], tiny.Stopping.seen))
        write(self, checkpoint, *args, **kwargs)

    monkeypatch.setattr(AtomicCheckpoints, "save_checkpoint", watch)
    fit(run, show=False)
    assert tiny.Stopping.seen == 6
    assert set(saved) == {(3, 6)}, "nothing is written after the first of the two batches"
    states = [read_checkpoint(each.run_dir / "last.ckpt")["state_dict"] for each in (whole, run)]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
