"""Runs that are killed and resumed: ``python -m tests.support.killing <folder>``.

One process forks for every start. Every point of ``POINTS`` has a run and a cache of its own: a
start that SIGKILL ends there, and a start that runs to the end. Nobody kills the run ``none``.
``<folder>/<point>.json`` says how both starts ended.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.data import image_cache
from spatialbench.evaluation.evidence import Evidence
from spatialbench.methods.spatial_attn import SpatialAttention
from spatialbench.training.fit import fit
from spatialbench.utils import checkpoints, errors, token_cache
from tests.support import models, tiny

Arm = Callable[[], None]


def at(owner: Any, name: str, call: int, work: Callable[..., None] = lambda *_: None) -> Arm:
    """Make the process die in a call of ``owner.name``, after ``work`` with its arguments."""

    def arm() -> None:
        original, calls = getattr(owner, name), [0]

        def counting(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == call:
                work(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, counting)

    return arm


save, save_array = torch.save, np.save


def half_a_checkpoint(checkpoint: Any, path: Path) -> None:
    save(checkpoint, path)
    os.truncate(path, path.stat().st_size // 2)


def half_an_array(path: Path, array: np.ndarray) -> None:
    save_array(path, array)
    os.truncate(path, path.stat().st_size // 2)


POINTS: dict[str, tuple[int | None, Arm]] = {
    "none": (None, lambda: None),
    "first step": (False, at(SpatialAttention, "training_step", 1)),
    "fifth step": (4, at(SpatialAttention, "training_step", 5)),
    "backward": (3, at(SpatialAttention, "on_before_backward", 4)),
    "validation": (2, at(SpatialAttention, "validation_step", 1)),
    "first checkpoint": (False, at(checkpoints.torch, "save", 1, half_a_checkpoint)),
    "fourth checkpoint": (3, at(checkpoints.torch, "save", 4, half_a_checkpoint)),
    "before the rename": (2, at(checkpoints.torch, "save", 3, save)),
    "last checkpoint": (6, at(checkpoints.torch, "save", 7, half_a_checkpoint)),
    "test": (6, at(SpatialAttention, "test_step", 1)),
    "evidence": (6, at(Evidence, "save", 1)),
    "images": (False, at(image_cache, "fit", 5)),
    "tokens": (False, at(token_cache.np, "save", 1, half_an_array)),
    "keys of tokens": (False, at(token_cache, "write_atomic", 1)),
    "any rename": (None, at(errors.Path, "replace", 6)),
}
"""Step of the checkpoint that is there after the kill (False: none), and the kill."""


def run(folder: Path, point: str) -> Resolved:
    page = folder / "benchmarks" / "attn.yaml"
    return resolve(page, "tiny", "quick", 0, runs=folder / "runs" / point)


def forked(folder: Path, point: str, arm: Arm) -> int:
    """Return the status with which a forked start ends."""
    if (child := os.fork()) == 0:
        try:
            os.environ["SPATIALBENCH_CACHE"] = str(folder / "cache" / point)
            arm()
            fit(run(folder, point), show=False)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    tiny.benchmark(folder / "benchmarks")
    rest = f"  init_args: {{vfm: {models.TWO_HEADS}}}\n"
    method = "spatialbench.methods.spatial_attn.SpatialAttention"
    tiny.page(folder / "benchmarks", "attn", method, rest)
    for point, (_, arm) in POINTS.items():
        first = forked(folder, point, arm)
        last = run(folder, point).run_dir / "last.ckpt"
        step = last.is_file() and int(torch.load(last, weights_only=True)["global_step"])
        second = forked(folder, point, lambda: None)
        ends = {"first": first, "step": step, "second": second}
        (folder / f"{point}.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main()
