"""Checks of the settings of a datamodule, each with a line that names the key."""

from __future__ import annotations

from spatialbench.utils.errors import SpatialbenchError

Span = tuple[float, float]
_MORE = {
    "batch_images": "train_images",
    "region_batch": "region_images",
    "picture_batch": "picture_images",
}


def check_least(least: int, **values: int | None) -> None:
    """Raise a SpatialbenchError for a setting below ``least``."""
    for name, value in values.items():
        if value is not None and value < least:
            raise SpatialbenchError(f"data.{name} is {value}; it must be {least} or more")


def check_fills_batch(name: str, count: int, what: str, **batch: int) -> None:
    """Raise a SpatialbenchError for a training set that is smaller than one batch."""
    ((key, size),) = batch.items()
    if count < size:
        raise SpatialbenchError(
            f"the training set {name} has {count} {what}, fewer than one batch of {size}; lower "
            f"data.{key}, or give more images (data.{_MORE[key]})"
        )


def check_spans(area_key: str, area: Span, aspect_key: str, aspect: Span) -> tuple[Span, Span]:
    """Return area and aspect of random boxes as tuples.

    Raises:
        SpatialbenchError: one does not rise, or is out of range.
    """
    area, aspect = (area[0], area[1]), (aspect[0], aspect[1])
    if not 0 < area[0] <= area[1] <= 1 or not 0 < aspect[0] <= aspect[1]:
        raise SpatialbenchError(
            f"data.{area_key} {area} must rise in (0, 1], data.{aspect_key} {aspect} above 0"
        )
    return area, aspect
