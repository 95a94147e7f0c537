"""State of the data sets on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spatialbench.data.download.manifest import DataSet, Item, data_sets

ROOT = Path("data")
"""Folder of the data sets, in the working folder, where the tracks look for them."""


def needed(data_set: DataSet) -> list[str]:
    """List what a complete data set's folder holds."""
    names = [item.placed for item in data_set.items]
    return [*names, data_set.coco.folder] if data_set.coco else names


def missing(data_set: DataSet, folder: Path | None = None) -> list[str]:
    """List what a data set's folder, by default ``data/NAME``, lacks; no file is read."""
    folder = folder or ROOT / data_set.name
    return [name for name in needed(data_set) if not (folder / name).exists()]


def state(data_set: DataSet) -> str:
    """Describe what is on disk: ``here, data/NAME``, ``3 of 4, without images`` or ``-``."""
    names, lacking = needed(data_set), missing(data_set)
    if not lacking:
        return f"here, {ROOT / data_set.name}"
    here = f"{len(names) - len(lacking)} of {len(names)}, without {', '.join(lacking)}"
    return "-" if lacking == names else here


def print_list() -> None:
    """Print the data sets with size and licence, and whether they are on disk."""
    console = Console(width=max(120, Console().width))
    table = Table()
    for column in ("data set", "what", "size", "licence", "here"):
        table.add_column(column, no_wrap=column in ("data set", "size"))
    for name, data_set in data_sets().items():
        size = size_text(data_set.items)
        table.add_row(name, data_set.title, size, data_set.licence, state(data_set))
    console.print(table)
    text = "spatialbench data download NAME fetches one; sizes in MB, + if some are not known"
    console.print(text, highlight=False)


def size_text(items: Sequence[Item]) -> str:
    """Return the sum of the known sizes in MB; ``+`` if some are not known, ``?`` if none is."""
    known = [item.megabytes for item in items if item.megabytes is not None]
    more = "+" if len(known) < len(items) else ""
    return f"{sum(known):.{0 if sum(known) >= 10 else 1}f}{more}" if known else "?"
