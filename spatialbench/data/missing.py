"""Error messages for missing data files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spatialbench.data.download.manifest import ROOT, data_sets
from spatialbench.utils.errors import SpatialbenchError


def advice(path: str | Path) -> str:
    """Return how to download a missing file of a known data set, else nothing."""
    path = Path(path)
    known = data_sets()
    if path.parent.parent == ROOT and path.parent.name in known:
        data_set = known[path.parent.name]
        if path.name in [item.placed for item in data_set.items]:
            return f"; spatialbench data download {data_set.name} brings it"
    return ""


def check_files(arguments: Mapping[str, Any]) -> None:
    """Check the files of records that a datamodule's arguments name, before a run starts.

    Raises:
        SpatialbenchError: a file is missing.
    """
    for name in ("path", "train_path", "val_path"):
        file = arguments.get(name)
        if file is not None and not Path(file).is_file():
            raise SpatialbenchError(f"data.{name}: there is no file {file}{advice(file)}")
