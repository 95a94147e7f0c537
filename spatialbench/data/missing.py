"""What is said of a file of a published data set that is not there."""

from __future__ import annotations

from pathlib import Path

from spatialbench.data.download.manifest import data_sets
from spatialbench.data.download.states import ROOT


def advice(path: str | Path) -> str:
    """``; spatialbench data download NAME brings it`` for a file where a track looks for a data set; else nothing."""
    path = Path(path)
    known = data_sets()
    if path.parent.parent == ROOT and path.parent.name in known:
        data_set = known[path.parent.name]
        if path.name in [item.placed for item in data_set.items]:
            return f"; spatialbench data download {data_set.name} brings it"
    return ""
