"""What a track has measured beside the pairs: regions, dense quality, retrieval on a region set, and image selection.

A track names the class of either, ``{class_path, init_args, budgets: {budget: init_args}}``. None of it is part of the
hash of a row, as no pair depends on it; the measures have a hash of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialbench.config.experiment import deep_merge
from spatialbench.config.pages import Config, Track, content_hash
from spatialbench.evaluation.measures import SELECTION_VERSION, VERSION
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

if TYPE_CHECKING:
    from spatialbench.data.region_sets import RegionSet
    from spatialbench.data.selection_sets import SelectionSet


def region_settings(track: Track, budget: str) -> str:
    """Hash of the region set's settings at a budget, and of how it is measured; "" for nothing."""
    return _settings(track.regions, budget, VERSION)


def selection_settings(track: Track, budget: str) -> str:
    """Likewise of image selection."""
    return _settings(track.selection, budget, SELECTION_VERSION)


def region_set(track: Track, budget: str) -> RegionSet | None:
    """The region set that rows of a track are measured on at a budget; None where the track names none.

    Raises:
        SpatialbenchError: unknown class or argument, or the set cannot be read.
    """
    return _opened(track.regions, budget, f"track {track.path}: regions")


def selection_set(track: Track, budget: str) -> SelectionSet | None:
    """The pairs of pictures of image selection, likewise."""
    return _opened(track.selection, budget, f"track {track.path}: selection")


def _arguments(block: Config, budget: str) -> Config:
    return deep_merge(block.get("init_args") or {}, (block.get("budgets") or {}).get(budget) or {})


def _settings(block: Config | None, budget: str, version: int) -> str:
    return (
        ""
        if block is None
        else content_hash([version, block["class_path"], _arguments(block, budget)])
    )


def _opened(block: Config | None, budget: str, where: str) -> Any:
    from spatialbench.config.signatures import import_class, unknown_key

    if block is None:
        return None
    cls = import_class(block["class_path"], where)
    arguments = _arguments(block, budget)
    bad = unknown_key(arguments, cls)
    if bad is not None:
        key, known = bad
        raise SpatialbenchError(
            f"unknown key {key!r} for {cls.__qualname__} ({where}){did_you_mean(key, known)}"
        )
    try:
        return cls(**arguments)
    except TypeError as error:
        raise SpatialbenchError(f"{where}: {error}") from error
