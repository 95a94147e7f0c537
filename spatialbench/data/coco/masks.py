"""Images and masks of COCO's files: checked without decoding, decoded, and scaled into the square.

An image of W x H pixels is scaled so that its longest side is S; it lies in the upper left corner
of the square, and the rest is black.

Letters: S pixels a side of the square, w h of the scaled image, W H of the stored one.

Source: wusize/CLIPSelf @ 1c7fe9c, src/open_clip/transform.py (ResizeLongest); cocodataset/cocoapi,
common/maskApi.c (run lengths).
"""

import os
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from spatialbench.data.account import Rejected
from spatialbench.data.images import BadImage, decode

DAMAGED = "segmentation is damaged"
OTHER_SIZE = "segmentation has another size than its image"
EMPTY = "mask is empty"
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB\x60\x82"}  # last bytes of a complete file


def probe(path: Path, size: tuple[int, int], what: str) -> int:
    """Check both ends of an image file, decode it only if they look wrong, and return its length.

    ``size`` is the width and height that it must have; ``what`` names it in messages.

    Raises:
        Rejected: missing, truncated, no image, or of another size.
    """
    try:
        with path.open("rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            stored = _size_of_complete(stream, length)
            if stored is None:
                stream.seek(0)
                stored = decode(stream.read()).size
    except FileNotFoundError as error:
        raise Rejected(f"{what} is missing", f"no such file: {path}") from error
    except (BadImage, OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise Rejected(f"{what} cannot be read", f"{path}: {reason}") from error
    if stored != size:
        why = f"{path} has {stored[0]} x {stored[1]} pixels, the file says {size[0]} x {size[1]}"
        raise Rejected(f"{what} has another size than the file says", why)
    return length


def _size_of_complete(stream: BinaryIO, length: int) -> tuple[int, int] | None:
    """Return width and height of a complete 8-bit JPEG or PNG, by header and end; else None."""
    stream.seek(max(length - 64, 0))
    tail = stream.read().rstrip(b"\0\r\n ")
    stream.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(stream)
    except Exception:  # decoding gives a better message
        return None
    whole = tail.endswith(_ENDS.get(opened.format or "", b"no such end"))
    return opened.size if whole and not opened.mode.startswith(("I", "F")) else None


def scaled(width: int, height: int, size: int) -> tuple[int, int]:
    """Return w, h: the longest side becomes ``size``, the other is rounded to at least 1 pixel."""
    longest = max(width, height)
    return max(round(width * size / longest), 1), max(round(height * size / longest), 1)


def padded(image: Image.Image, size: int) -> np.ndarray:
    """Scale (bicubic) and pad an image: uint8 [S, S, 3]; unchanged if it has that size."""
    w, h = scaled(*image.size, size)
    canvas = np.zeros((size, size, 3), dtype=np.uint8)
    fitted = image if image.size == (w, h) else image.resize((w, h), Image.Resampling.BICUBIC)
    canvas[:h, :w] = np.asarray(fitted)
    return canvas


def kept_box(
    corners: list[float], size: tuple[int, int], square: int, smallest: float
) -> list[float]:
    """Map x0 y0 x1 y1 in pixels of the stored image to [0, 1] of the square, cut at the image.

    ``smallest`` is the least side in pixels of the square.

    Raises:
        Rejected: no box, or too small a one.
    """
    w, h = scaled(*size, square)
    extent = np.array([w / square, h / square] * 2)
    box = np.array(corners) * extent / (size * 2)
    cut = np.clip(box, 0, extent)
    if not np.isfinite(box).all():
        reason = "box is not four finite numbers"
    elif (box[2:] <= box[:2]).any():
        reason = "box has no area"
    elif (cut[2:] <= cut[:2]).any():
        reason = "box lies outside of the image"
    elif ((cut[2:] - cut[:2]) * square < smallest).any():
        reason = f"box is smaller than {smallest:g} pixels"
    else:
        return cut.tolist()
    shown = ", ".join(f"{corner:g}" for corner in corners)
    why = f"{reason}: x0 y0 x1 y1 is {shown} in an image of {size[0]} x {size[1]}"
    raise Rejected(reason, why)


def padded_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Scale (nearest) and pad a mask bool [H, W] to bool [S, S]."""
    height, width = mask.shape
    w, h = scaled(width, height, size)
    rows = (np.arange(h) * 2 + 1) * height // (2 * h)
    columns = (np.arange(w) * 2 + 1) * width // (2 * w)
    canvas = np.zeros((size, size), dtype=bool)
    canvas[:h, :w] = mask[rows][:, columns]
    return canvas


def segment_ids(png: Image.Image) -> np.ndarray:
    """Return the segment of every pixel of a panoptic PNG, R + 256 G + 65536 B: int32 [H, W]."""
    red, green, blue = np.moveaxis(np.asarray(png).astype(np.int32), -1, 0)
    return red + 256 * green + 65536 * blue


def decoded(counts: bytes, width: int, height: int) -> np.ndarray:
    """Decode the run lengths of :func:`compressed` to bool [H, W]."""
    return coco_mask.decode({"size": [height, width], "counts": counts}).astype(bool)


def compressed(segmentation: Any, width: int, height: int) -> bytes:
    """Return a segmentation in any of COCO's forms as compressed run lengths.

    It is the union of polygons [x, y, x, y, ...] in pixels, or ``{size, counts}`` with the run
    lengths as a list or as compressed text.

    Raises:
        Rejected: another form, damaged, of another size than the image, or without a pixel.
    """
    if isinstance(segmentation, dict):
        counts = _of_runs(segmentation, width, height)
    elif isinstance(segmentation, list):
        counts = _of_polygons(segmentation, width, height)
    else:
        kind = type(segmentation).__name__
        raise Rejected(DAMAGED, f"the segmentation is {kind}, not polygons or run lengths")
    if not coco_mask.area({"size": [height, width], "counts": counts}):
        raise Rejected(EMPTY, "the segmentation covers no pixel of the image")
    return counts


def _of_runs(segmentation: dict[str, Any], width: int, height: int) -> bytes:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        why = f"the segmentation has size {str(size)[:40]}, the image [{height}, {width}]"
        raise Rejected(OTHER_SIZE, why)
    area, runs, packed = width * height, None, b""
    if isinstance(counts, str):
        packed = counts.encode("utf-8", "replace")
        runs = run_lengths(packed)
    elif isinstance(counts, list) and all(type(n) is int and 0 <= n <= area for n in counts):
        packed = coco_mask.frPyObjects(segmentation, height, width)["counts"]
        runs = np.array(counts, dtype=np.int64)
    if runs is None or (runs < 0).any():
        raise Rejected(DAMAGED, "the segmentation's counts are no run lengths")
    if runs.sum() != area:  # pycocotools would leave the rest of the mask uninitialised
        why = f"the run lengths add up to {runs.sum()} pixels, the image has {area}"
        raise Rejected(OTHER_SIZE, why)
    return packed


def run_lengths(counts: bytes) -> np.ndarray | None:
    """Decode COCO's compressed text to run lengths, int64; None where it is not such a text.

    A number is written in groups of five bits from the lowest, as characters from "0" on; bit 32 is
    set if more follow, and bit 16 of the last one if it is negative. From the fourth number on, it
    is the difference to the one before the last (maskApi.c, rleFrString).
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
            why = "a polygon of the segmentation is not a list of three or more x, y in pixels"
            raise Rejected(DAMAGED, why)
        shares = points.reshape(-1, 2) / (width, height)
        if not (np.isfinite(points).all() and shares.min() >= -1 and shares.max() <= 2):
            raise Rejected(DAMAGED, "a polygon of the segmentation lies far outside of the image")
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))["counts"]


def numbers(value: Any) -> np.ndarray | None:
    """Return a list of numbers as float64 [n]; None for anything else."""
    if not isinstance(value, list) or not all(isinstance(v, int | float) for v in value):
        return None
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError:  # an integer of hundreds of digits
        return None
