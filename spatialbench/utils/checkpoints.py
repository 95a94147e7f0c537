"""Checkpoints: written whole or not at all, and what is said of one that does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from spatialbench.utils.errors import SpatialbenchError, atomic_path


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a kill in the middle leaves the one before.

    Lightning's own writes into memory, then to the temporary folder of the system, and moves the file from there:
    twice the memory, and a copy that a kill cuts in two where that folder is on another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Raises:
        SpatialbenchError: the folder cannot be made or written.
        """
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)


def without(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """A state without what is frozen."""
    return {
        name: value for name, value in state.items() if not (prefixes and name.startswith(prefixes))
    }


def check_fits(checkpoint: Mapping[str, Any], own: Mapping[str, Tensor], method: str) -> None:
    """Refuses what does not fit, in one line.

    Args:
        checkpoint: of Lightning, the frozen part filled in.
        own: the state of the method that is to take it.
        method: the class path of that method.

    Raises:
        SpatialbenchError: a checkpoint of another method or another architecture.
    """
    trained = checkpoint.get("method", "something other than a spatialbench method")
    if trained != method:
        raise SpatialbenchError(
            f"the checkpoint is of {trained}, this page is of {method}; give a checkpoint of this page"
        )
    here = {name: tuple(value.shape) for name, value in own.items()}
    there = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    wrong = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    if wrong:
        name = wrong[0]
        raise SpatialbenchError(
            f"the checkpoint is of another architecture than this page: {name} is {there.get(name, 'missing')} "
            f"there and {here.get(name, 'missing')} here ({len(wrong)} such); its hyper-parameters are "
            f"{dict(checkpoint.get('hyper_parameters', {}))}"
        )


def part_of(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str, label: str
) -> dict[str, Tensor]:
    """What an earlier stage leaves to a later one: its parameters that begin with ``prefix``.

    Raises:
        SpatialbenchError: there are none, or they are of another architecture than ``own``.
    """
    left = {name: value for name, value in weights.items() if name.startswith(prefix)}
    known = {name: value.shape for name, value in own.items() if name.startswith(prefix)}
    strange = [
        name
        for name in {**known, **left}
        if known.get(name) != getattr(left.get(name), "shape", None)
    ]
    if strange:
        raise SpatialbenchError(
            f"init_from: the {prefix.rstrip('.')} of {label} does not fit ({strange[0]}); its {prefix.rstrip('.')} "
            "is another"
        )
    return left


def class_path(thing: object) -> str:
    """The dotted path of an object's class."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
