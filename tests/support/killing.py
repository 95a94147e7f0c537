"""Runs that are killed, and go on: ``python -m tests.support.killing <folder>``, one process that forks for every start.

Every point of ``POINTS`` has a run and a cache of its own: a start that SIGKILL ends there, and a start that goes on to
the end. ``none`` is the run that nobody kills. ``<folder>/<point>.json`` says how both starts ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spatialbench.evaluation.outcomes import RunOutcomes

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.data import image_cache
from spatialbench.methods.spatial_attn import SpatialAttention
from spatialbench.training.fit import fit
from spatialbench.utils import checkpoints, errors, token_cache
from tests.support import models, tiny


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(owner: Any, name: str, call: int, work: Callable[..., None] = lambda *_: None) -> None:
    """Dies in the so many-th call of ``owner.name``, after ``work`` with its arguments."""
    original, calls = getattr(owner, name), [0]

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            work(*args)
            die()
        return original(*args, **kwargs)

    setattr(owner, name, counting)


save, save_array = torch.save, np.save


def half_a_checkpoint(checkpoint: Any, path: Path) -> None:
    save(checkpoint, path)
    os.truncate(path, path.stat().st_size // 2)


def half_an_array(path: Path, array: np.ndarray) -> None:
    save_array(path, array)
    os.truncate(path, path.stat().st_size // 2)


POINTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "first step": lambda: kill_at(SpatialAttention, "training_step", 1),
    "fifth step": lambda: kill_at(SpatialAttention, "training_step", 5),
    "backward": lambda: kill_at(SpatialAttention, "on_before_backward", 4),
    "validation": lambda: kill_at(SpatialAttention, "validation_step", 1),
    "first checkpoint": lambda: kill_at(checkpoints.torch, "save", 1, half_a_checkpoint),
    "fourth checkpoint": lambda: kill_at(checkpoints.torch, "save", 4, half_a_checkpoint),
    "before the rename": lambda: kill_at(checkpoints.torch, "save", 3, save),
    "last checkpoint": lambda: kill_at(checkpoints.torch, "save", 7, half_a_checkpoint),
    "test": lambda: kill_at(SpatialAttention, "test_step", 1),
    "outcomes": lambda: kill_at(RunOutcomes, "save", 1),
    "images": lambda: kill_at(image_cache._Writer, "write", 5),
    "tokens": lambda: kill_at(token_cache.np, "save", 1, half_an_array),
    "keys of tokens": lambda: kill_at(token_cache, "write_atomic", 1),
    "any rename": lambda: kill_at(errors.Path, "replace", 6),
}


def run(folder: Path, point: str) -> Resolved:
    return resolve(
        folder / "benchmarks" / "attn.yaml", "tiny", "quick", 0, runs=folder / "runs" / point
    )


def forked(work: Callable[[], object]) -> int:
    """The status with which a forked process ends that does ``work``."""
    if (child := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start(folder: Path, point: str, arm: Callable[[], None]) -> None:
    os.environ["SPATIALBENCH_CACHE"] = str(folder / "cache" / point)
    arm()
    fit(run(folder, point), show=False)


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    tiny.benchmark(folder / "benchmarks")
    rest = f"  init_args: {{vfm: {models.TWO_HEADS}}}\n"
    tiny.page(
        folder / "benchmarks", "attn", "spatialbench.methods.spatial_attn.SpatialAttention", rest
    )
    for point, arm in POINTS.items():
        first = forked(lambda point=point, arm=arm: start(folder, point, arm))
        last = run(folder, point).run_dir / "last.ckpt"
        left = last.is_file() and int(torch.load(last, weights_only=True)["global_step"])
        second = forked(lambda point=point: start(folder, point, lambda: None))
        (folder / f"{point}.json").write_text(
            json.dumps({"first": first, "left": left, "second": second})
        )


if __name__ == "__main__":
    main()
