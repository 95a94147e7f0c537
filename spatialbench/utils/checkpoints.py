"""Atomic checkpoints, and the error messages for one that does not fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor

from spatialbench.utils.errors import SpatialbenchError, atomic_path


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a kill leaves the previous one.

    Lightning's own class takes twice the memory and moves the file from the system's temporary
    folder; on another disk that is a copy, which a kill can cut short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save atomically; see ``atomic_path``."""
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)


def without(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the entries of ``state`` whose names start with none of ``prefixes``."""
    return {name: value for name, value in state.items() if not name.startswith(prefixes)}


def check_fits(checkpoint: Mapping[str, Any], own: Mapping[str, Tensor], method: str) -> None:
    """Check that a checkpoint, with the frozen parameters filled in, fits a method.

    ``own`` is the state of the method that is to load it, ``method`` its class path.

    Raises:
        SpatialbenchError: the checkpoint is of another method or another architecture.
    """
    trained = checkpoint.get("method", "something other than a spatialbench method")
    if trained != method:
        raise SpatialbenchError(
            f"the checkpoint is of {trained}, not of {method}; give a checkpoint of this page"
        )
    if wrong := _mismatches(checkpoint["state_dict"], own):
        name, there, here = wrong[0]
        raise SpatialbenchError(
            f"the checkpoint is of another architecture than this page: {name} is {there} there "
            f"and {here} here ({len(wrong)} such); its hyper-parameters are "
            f"{dict(checkpoint.get('hyper_parameters', {}))}"
        )


def part_of(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str, label: str
) -> dict[str, Tensor]:
    """Select the parameters whose names start with ``prefix``, for a later stage of training.

    Raises:
        SpatialbenchError: there are none, or they are of another architecture than ``own``.
    """
    selected = {name: value for name, value in weights.items() if name.startswith(prefix)}
    expected = {name: value for name, value in own.items() if name.startswith(prefix)}
    if wrong := _mismatches(selected, expected):
        part = prefix.rstrip(".")
        raise SpatialbenchError(
            f"init_from: the {part} of {label} does not fit ({wrong[0][0]}); its {part} is another"
        )
    return selected


def _mismatches(
    there: Mapping[str, Tensor], here: Mapping[str, Tensor]
) -> list[tuple[str, object, object]]:
    """Return the names that differ in shape, with both shapes or ``missing``."""
    a, b = ({name: tuple(x.shape) for name, x in part.items()} for part in (there, here))
    pairs = [(name, a.get(name, "missing"), b.get(name, "missing")) for name in {**here, **there}]
    return [pair for pair in pairs if pair[1] != pair[2]]


def class_path(thing: object) -> str:
    """Return the dotted path of an object's class."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
