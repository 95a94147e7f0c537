"""Looks through a file in COCO's format: what is in it, what is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import ijson
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spatialbench.data.coco.account import Rejected
from spatialbench.data.coco.regions import CocoRegions
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

UNREADABLE = "picture cannot be decoded"
_KEYS = {"images", "annotations", "categories"}


@dataclass(frozen=True)
class CocoCheck:
    """The account of one file.

    Attributes:
        path: the file.
        pictures: usable ones.
        regions: class -> regions, the most frequent first.
        skipped: reason -> how many were left out.
        first: reason -> one line about the first one.
    """

    path: Path
    pictures: int
    regions: Counter[str]
    skipped: Counter[str]
    first: dict[str, str]


def is_coco(path: str | Path) -> bool:
    """Whether a file is a JSON object with images, annotations or categories at the top, as far as it can be read."""
    try:
        with Path(path).open("rb") as stream:
            start = stream.read(256)
            text = start.removeprefix(b"\xef\xbb\xbf")
            if not text.lstrip().startswith(b"{"):
                return False
            stream.seek(len(start) - len(text))
            events = ijson.parse(stream, use_float=True)
            return any(
                prefix == "" and event == "map_key" and value in _KEYS
                for prefix, event, value in events
            )
    except (OSError, ijson.JSONError, UnicodeDecodeError):
        return False


def check_coco(
    path: str | Path,
    images: str | Path,
    size: int,
    masks: str | Path | None = None,
    strict: bool = False,
) -> CocoCheck:
    """Reads a file as ``CocoRegions`` does and decodes every picture and mask once; keeps nothing.

    Raises:
        SpatialbenchError: the file cannot be read or has no usable picture; with ``strict``, whatever is damaged first.
    """
    regions = CocoRegions(path, images, size, masks=masks, strict=strict)
    counts = np.zeros(len(regions.classes), dtype=np.int64)
    pictures = 0
    with progress(f"checking {Path(path).name}", len(regions), "pictures") as advance:
        for row in range(len(regions)):
            try:
                counts += np.bincount(regions[row].label.numpy(), minlength=len(counts))
                pictures += 1
            except SpatialbenchError as error:
                if strict:
                    raise
                regions.account.note(regions.pictures[row].where, Rejected(UNREADABLE, str(error)))
            advance(1)
    found = Counter[str]()
    for name, count in zip(regions.classes, counts.tolist(), strict=True):
        found[name] += count
    return CocoCheck(Path(path), pictures, found, regions.skipped, regions.first)


def print_coco(check: CocoCheck, console: Console | None = None, most: int = 10) -> None:
    """Prints a check: pictures, regions of the ``most`` frequent classes, and what was left out with the first of each.

    Args:
        most: lines of the table of classes.
    """
    console = console or Console()
    table = Table(title=Text(str(check.path)), title_justify="left")
    table.add_column("class")
    table.add_column("regions", justify="right")
    present = [(name, count) for name, count in check.regions.most_common() if count]
    for name, count in present[:most]:
        table.add_row(Text(name), str(count))
    if present[most:]:
        rest = sum(count for _, count in present[most:])
        table.add_row(f"{len(present) - most} more classes", str(rest), style="dim")
    table.add_section()
    table.add_row(f"{len(present)} of {len(check.regions)} classes", str(check.regions.total()))
    console.print(table)
    console.print(
        Text(f"{check.pictures} pictures, {check.skipped.total()} left out (pictures and regions)")
    )
    for reason, count in check.skipped.most_common():
        first = check.first[reason].removeprefix(f"{check.path}: ")
        console.print(Text(f"{count} x {reason}; the first: {first}"), soft_wrap=True)
