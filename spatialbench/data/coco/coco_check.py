"""Check a file in COCO's format: what it contains and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spatialbench.data.account import Account
from spatialbench.data.coco.coco_regions import CocoRegions
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

UNREADABLE = "image cannot be decoded"


@dataclass(frozen=True)
class CocoCheck:
    """The content of one file.

    Attributes:
        images: usable ones.
        regions: class -> regions.
        account: what was left out.
    """

    images: int
    regions: Counter[str]
    account: Account


def is_coco(path: str | Path) -> bool:
    """Return whether a file holds a JSON object; EmbSpatial's are lists or parquet."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    except OSError:
        return False


def check_coco(
    path: str | Path,
    images: str | Path,
    size: int,
    masks: str | Path | None = None,
    strict: bool = False,
) -> CocoCheck:
    """Read a file as ``CocoRegions`` does, and decode every image and mask once.

    Raises:
        SpatialbenchError: the file cannot be read or has no usable image; with ``strict``, the
            first damaged item.
    """
    regions = CocoRegions(path, images, size, masks=masks, strict=strict)
    counts = np.zeros(len(regions.classes), dtype=np.int64)
    usable = 0
    with progress(f"checking {Path(path).name}", len(regions), "images") as advance:
        for row in range(len(regions)):
            try:
                counts += np.bincount(regions[row].label.numpy(), minlength=len(counts))
                usable += 1
            except SpatialbenchError as error:
                if strict:
                    raise
                regions.account.drop(UNREADABLE, regions.images[row].where, str(error))
            advance(1)
    by_class = dict.fromkeys(regions.classes, 0)
    for name, count in zip(regions.classes, counts.tolist(), strict=True):
        by_class[name] += count  # classes may share a name
    return CocoCheck(usable, Counter(by_class), regions.account)


def print_coco(check: CocoCheck, console: Console | None = None, most: int = 10) -> None:
    """Print images, regions of the most frequent classes, and each reason with its first item."""
    console = console or Console()
    table = Table("class", title=Text(str(check.account.source)), title_justify="left")
    table.add_column("regions", justify="right")
    present = [(name, count) for name, count in check.regions.most_common() if count]
    for name, count in present[:most]:
        table.add_row(Text(name), str(count))
    table.add_section()
    table.add_row(f"{len(present)} of {len(check.regions)} classes", str(check.regions.total()))
    console.print(table)
    left_out = check.account.dropped.total()
    lines = [f"{check.images} images, {left_out} left out (images and regions)"]
    for line in [*lines, *check.account.lines(width=1000)]:
        console.print(Text(line), soft_wrap=True)
