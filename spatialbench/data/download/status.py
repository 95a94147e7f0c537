"""Which data sets are here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spatialbench.data.download.https import length
from spatialbench.data.download.manifest import DataSet, Item, data_sets

ROOT = Path("data")
"""The folder of the data sets, in the working folder, where the tracks look."""


@dataclass(frozen=True)
class State:
    """What of a data set stands in a folder.

    Attributes:
        folder: the data set's.
        here, missing: names of its files.
        loaded: bytes of downloads that were broken off.
        pictures: whether pictures that the user has to bring are there; None where there are none.
    """

    folder: Path
    here: list[str]
    missing: list[str]
    loaded: int
    pictures: bool | None

    @property
    def complete(self) -> bool:
        return not self.missing and self.pictures is not False

    def __str__(self) -> str:
        if not self.here and not self.loaded:
            return "-"
        text = (
            f"here, {self.folder}"
            if not self.missing
            else f"{len(self.here)} of {self._total} files"
        )
        text += f", {self.loaded / 1e6:.1f} MB of the next" if self.loaded else ""
        return text + (", without pictures" if self.pictures is False else "")

    @property
    def _total(self) -> int:
        return len(self.here) + len(self.missing)


def state(data_set: DataSet, folder: Path | None = None) -> State:
    """Looks at a data set's folder, by default ``data/<name>``; nothing is read or hashed."""
    folder = ROOT / data_set.name if folder is None else folder
    here = [item.placed for item in data_set.items if (folder / item.placed).exists()]
    missing = [item.placed for item in data_set.items if item.placed not in here]
    loaded = sum(length(folder / f"{item.name}.part") for item in data_set.items)
    pictures = None if data_set.pictures is None else (folder / data_set.pictures.folder).exists()
    return State(folder, here, missing, loaded, pictures)


def print_list(console: Console | None = None) -> None:
    """Every data set with its size, its licence and whether it is here."""
    console = console or Console(width=max(120, Console().width))
    table = Table()
    for column in ("data set", "what", "size", "licence", "here"):
        table.add_column(
            column,
            justify="right" if column == "size" else "left",
            no_wrap=column in ("data set", "size"),
        )
    for data_set in data_sets().values():
        table.add_row(
            data_set.name,
            data_set.title,
            size_text(data_set.items),
            data_set.licence,
            str(state(data_set)),
        )
    console.print(table)
    console.print(
        "spatialbench data download NAME brings one; sizes in MB, + where a file's is not known",
        highlight=False,
    )


def size_text(items: Sequence[Item]) -> str:
    """Sum of the sizes that are known, in MB; ``+`` where some are not, ``?`` where none is."""
    known = [item.megabytes for item in items if item.megabytes is not None]
    more = "+" if len(known) < len(items) else ""
    return f"{sum(known):.{0 if sum(known) >= 10 else 1}f}{more}" if known else "?"
