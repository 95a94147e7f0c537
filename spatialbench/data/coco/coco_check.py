"""Check a file in COCO's format: what it contains and what is wrong with it."""

from collections import Counter
from pathlib import Path

from spatialbench.data.coco.coco_regions import CocoRegions
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

UNREADABLE = "image cannot be decoded"
MOST = 10  # classes that are printed


def is_coco(path: str | Path) -> bool:
    """Return whether a file holds a JSON object; EmbSpatial's are lists or parquet."""
    try:
        with Path(path).open("rb") as stream:
            return stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    except OSError:
        return False


def check_coco(
    path: str, images: str, size: int, masks: str | None = None, strict: bool = False
) -> None:
    """Read a file as ``CocoRegions`` does, decode every image and mask once, and print the counts.

    Raises:
        SpatialbenchError: the file cannot be read or has no usable image; with ``strict``, the
            first damaged item.
    """
    regions = CocoRegions(path, images, size, masks=masks, strict=strict)
    counts = Counter(dict.fromkeys(regions.classes, 0))
    usable, account = 0, regions.account
    with progress(f"checking {Path(path).name}", len(regions), "images") as advance:
        for row in range(len(regions)):
            try:
                counts.update(regions.classes[label] for label in regions[row].label)
                usable += 1
            except SpatialbenchError as error:
                if strict:
                    raise
                account.drop(UNREADABLE, f"image {regions.images[row].id}", str(error))
            advance(1)
    present = +counts
    total = f"{len(present)} of {len(counts)} classes", present.total()
    note = f"{usable} images, {account.dropped.total()} left out (images and regions)"
    account.print(("class", "regions"), [*present.most_common(MOST), total], note)
