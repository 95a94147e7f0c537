"""Pictures and masks of COCO's files: looked at without decoding, decoded, and scaled into the square.

A picture of W x H pixels is scaled so that its longest side is S and lies in the upper left corner of the square; what
is right of it and below is black.

Letters: S pixels a side of the square, w h of the scaled picture, W H of the stored one.

Source: wusize/CLIPSelf @ 1c7fe9c, src/open_clip/transform.py (ResizeLongest); cocodataset/cocoapi, common/maskApi.c
(run lengths).
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from spatialbench.data.coco.account import Rejected
from spatialbench.data.images import BadImage, decode
from spatialbench.data.region_sets import BoxFilter

DAMAGED = "segmentation is damaged"
OTHER_SIZE = "segmentation has another size than its picture"
EMPTY = "mask is empty"
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB\x60\x82"}  # how a complete file ends


# --------------------------------------------------------------------------------------------------------- pictures
def probe(path: Path, size: tuple[int, int], what: str) -> int:
    """Looks at the two ends of a file and returns its length in bytes; decodes it only where these look wrong.

    Args:
        size: width and height that the picture must have.
        what: "picture" or "panoptic PNG".

    Raises:
        Rejected: missing, truncated, no image, or of another size.
    """
    try:
        with path.open("rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            found = _size_of_complete(stream, length)
            if found is None:
                stream.seek(0)
                found = decode(stream.read()).size
    except FileNotFoundError as error:
        raise Rejected(f"{what} is missing", f"no such file: {path}") from error
    except BadImage as error:
        raise Rejected(f"{what} cannot be read", f"{path}: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise Rejected(
            f"{what} cannot be read", f"{path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if found != size:
        raise Rejected(
            f"{what} has another size than the file says",
            f"{path} has {found[0]} x {found[1]} pixels, the file says {size[0]} x {size[1]}",
        )
    return length


def _size_of_complete(stream: BinaryIO, length: int) -> tuple[int, int] | None:
    """Width and height by the header; None where header or end are not those of a whole 8-bit JPEG or PNG."""
    stream.seek(max(length - 64, 0))
    tail = stream.read().rstrip(b"\0\r\n ")
    stream.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(stream)
    except Exception:  # whatever it is, decoding says it better
        return None
    whole = tail.endswith(_ENDS.get(opened.format or "", b"no such end"))
    return opened.size if whole and not opened.mode.startswith(("I", "F")) else None


def scaled(width: int, height: int, size: int) -> tuple[int, int]:
    """w, h: the longest side becomes ``size``, the other one is rounded, at least one pixel."""
    longest = max(width, height)
    return max(round(width * size / longest), 1), max(round(height * size / longest), 1)


def padded(picture: Image.Image, size: int) -> np.ndarray:
    """Scaled (bicubic) and padded right and below with black: uint8 [S, S, 3]. Of that size already: unchanged."""
    w, h = scaled(*picture.size, size)
    canvas = np.zeros((size, size, 3), dtype=np.uint8)
    canvas[:h, :w] = np.asarray(
        picture if picture.size == (w, h) else picture.resize((w, h), Image.Resampling.BICUBIC)
    )
    return canvas


def kept_box(
    corners: list[float], size: tuple[int, int], square: int, smallest: float
) -> list[float]:
    """A box of the stored picture in [0, 1] of the square, cut at the picture.

    Args:
        corners: x0 y0 x1 y1 in pixels of the stored picture.
        size: its width and height.
        square: S.
        smallest: least side in pixels of the square.

    Raises:
        Rejected: no box, or too small a one (``BoxFilter``).
    """
    extent = tuple(side / square for side in scaled(*size, square))
    choice = BoxFilter(smallest)
    shares = [corner * extent[k % 2] / size[k % 2] for k, corner in enumerate(corners)]
    box = choice.keep(shares, (extent[0], extent[1]), square)
    if box is None:
        (reason,) = choice.skipped
        seen = ", ".join(f"{corner:g}" for corner in corners)
        raise Rejected(
            reason, f"{reason}: x0 y0 x1 y1 is {seen} in a picture of {size[0]} x {size[1]}"
        )
    return box


# ------------------------------------------------------------------------------------------------------------ masks
def padded_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """A mask, bool [H, W], scaled (the pixel under each new centre) and padded: bool [S, S]."""
    height, width = mask.shape
    w, h = scaled(width, height, size)
    rows, columns = (
        (np.arange(h) * 2 + 1) * height // (2 * h),
        (np.arange(w) * 2 + 1) * width // (2 * w),
    )
    canvas = np.zeros((size, size), dtype=bool)
    canvas[:h, :w] = mask[rows][:, columns]
    return canvas


def segment_ids(png: Image.Image) -> np.ndarray:
    """The segment of every pixel of a panoptic PNG, R + 256 G + 65536 B: int32 [H, W]."""
    red, green, blue = np.moveaxis(np.asarray(png).astype(np.int32), -1, 0)
    return red + 256 * green + 65536 * blue


def decoded(counts: bytes, width: int, height: int) -> np.ndarray:
    """Compressed run lengths that :func:`compressed` gave -> bool [H, W]."""
    return coco_mask.decode({"size": [height, width], "counts": counts}).astype(bool)


def compressed(segmentation: Any, width: int, height: int) -> bytes:
    """A segmentation in any of COCO's forms as compressed run lengths.

    Args:
        segmentation: polygons, a list of [x, y, x, y, ...] in pixels, their union is meant; or ``{size, counts}`` with
            the run lengths as a list or compressed as text.
        width, height: of the picture.

    Raises:
        Rejected: another form, damaged, of another size than the picture, or without a pixel.
    """
    if isinstance(segmentation, dict):
        counts = _of_runs(segmentation, width, height)
    elif isinstance(segmentation, list):
        counts = _of_polygons(segmentation, width, height)
    else:
        raise Rejected(
            DAMAGED,
            f"the segmentation is {type(segmentation).__name__}, not polygons or run lengths",
        )
    if not coco_mask.area({"size": [height, width], "counts": counts}):
        raise Rejected(EMPTY, "the segmentation covers no pixel of the picture")
    return counts


def _of_runs(segmentation: dict[str, Any], width: int, height: int) -> bytes:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise Rejected(
            OTHER_SIZE,
            f"the segmentation has size {str(size)[:40]}, the picture [{height}, {width}]",
        )
    if isinstance(counts, str):
        packed = counts.encode("utf-8", "replace")
        runs = run_lengths(packed)
    elif isinstance(counts, list) and all(
        isinstance(run, int) and 0 <= run <= width * height for run in counts
    ):
        runs = np.array(counts, dtype=np.int64)
        packed = coco_mask.frPyObjects({"size": size, "counts": counts}, height, width)["counts"]
    else:
        runs, packed = None, b""
    if runs is None or (runs < 0).any():
        raise Rejected(DAMAGED, "the segmentation's counts are no run lengths")
    if (
        runs.sum() != width * height
    ):  # pycocotools would fill what is missing with whatever is in memory
        raise Rejected(
            OTHER_SIZE,
            f"the run lengths add up to {runs.sum()} pixels, the picture has {width * height}",
        )
    return packed


def run_lengths(counts: bytes) -> np.ndarray | None:
    """The run lengths in COCO's compressed text, int64; None where it is not such a text.

    A number is written in groups of five bits from the lowest, as characters from "0" on, bit 32 set where more follow
    and bit 16 of the last one where it is negative; from the fourth number on it is the difference to the one before
    the last (maskApi.c, rleFrString).
    """
    groups = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        return None
    ends = np.flatnonzero(groups & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = 5 * (np.arange(len(groups)) - np.repeat(starts, ends - starts + 1))
    if place.max() > 30:  # more than 32 bits
        return None
    values = np.add.reduceat((groups & 31) << place, starts)
    values -= np.where(groups[ends] & 16, 1 << (place[ends] + 5), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _of_polygons(polygons: list[Any], width: int, height: int) -> bytes:
    if not polygons:
        raise Rejected(EMPTY, "the segmentation has no polygon")
    for polygon in polygons:
        points = numbers(polygon)
        if points is None or len(points) < 6 or len(points) % 2:
            raise Rejected(
                DAMAGED,
                "a polygon of the segmentation is not a list of three or more x, y in pixels",
            )
        x, y = points[::2] / width, points[1::2] / height
        if not (
            np.isfinite(points).all() and min(x.min(), y.min()) >= -1 and max(x.max(), y.max()) <= 2
        ):
            raise Rejected(DAMAGED, "a polygon of the segmentation lies far outside of the picture")
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))["counts"]


def numbers(value: Any) -> np.ndarray | None:
    """A list of numbers as float64 [n]; None for anything else."""
    if not isinstance(value, list) or not all(isinstance(v, int | float) for v in value):
        return None
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError:  # an integer of hundreds of digits
        return None
