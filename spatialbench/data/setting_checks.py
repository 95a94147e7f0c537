"""Checks of the settings of a datamodule, each with a line that names the key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lightning import LightningDataModule, Trainer

from spatialbench.data.download.manifest import ROOT, data_sets
from spatialbench.utils.errors import SpatialbenchError

Data = TypeVar("Data", bound=LightningDataModule)
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


def check_files(arguments: Mapping[str, Any]) -> None:
    """Raise a SpatialbenchError for a missing file of records, before a run starts."""
    for name in ("path", "train_path", "val_path"):
        file = arguments.get(name)
        if file is not None and not Path(file).is_file():
            raise SpatialbenchError(f"data.{name}: there is no file {file}{advice(file)}")


def advice(path: str | Path) -> str:
    """Return how to download a missing file of a known data set, else nothing."""
    path = Path(path)
    data_set = data_sets().get(path.parent.name) if path.parent.parent == ROOT else None
    if data_set and path.name in [item.placed for item in data_set.items]:
        return f"; spatialbench data download {data_set.name} brings it"
    return ""


def datamodule_of(trainer: Trainer, kind: type[Data], learns_from: str) -> Data:
    """Return the datamodule of a trainer; raise a SpatialbenchError if it is of another kind."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, kind):
        name = f"{kind.__module__}.{kind.__qualname__}"
        raise SpatialbenchError(
            f"the method learns from {learns_from}: the page needs data.class_path {name}"
        )
    return data
