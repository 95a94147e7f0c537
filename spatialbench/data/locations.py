"""Places of the two objects of a record, as numbers to regress."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.batches import Batch
from spatialbench.data.images import Resize, clip, place
from spatialbench.data.records import Record

NOWHERE = (math.nan, math.nan, math.nan)


def locations(records: Sequence[Record], resize: Resize) -> np.ndarray:
    """Return x, y and log depth of subject and object, float32 [R, 2, 3]; NaN where unknown.

    x and y are the centre of the box in the resized image, in units of its side, y downwards; depth
    is in metres.
    """
    both = [[_location(r, name, resize) for name in (r.subject, r.object)] for r in records]
    return np.array(both, dtype=np.float32).reshape(len(records), 2, 3)


def corners(records: Sequence[Record], resize: Resize) -> np.ndarray:
    """Return the boxes of subject and object, x0 y0 x1 y1, float32 [R, 2, 4]; NaN where unknown.

    They are those parts of the boxes that the resized image shows, in units of its side.
    """
    both = [[_corners(r, name, resize) for name in (r.subject, r.object)] for r in records]
    return np.array(both, dtype=np.float32).reshape(len(records), 2, 4)


class NamedBoxes(NamedTuple):
    """R objects of the images of a batch."""

    image: Tensor  # int64 [R], row of the batch's images
    names: list[str]  # R
    boxes: Tensor  # [R, 4], x0 y0 x1 y1 in units of the image side


def named_boxes(batch: Batch, records: Sequence[Record], boxes: Tensor, most: int) -> NamedBoxes:
    """Choose the first ``most`` objects of each image that the batch's records name.

    An object of several records is one. Those without a box are left out, and in a mirrored image
    boxes are mirrored, too. ``batch["record"]`` indexes ``records`` and their ``corners``,
    ``boxes``, which are on the CPU.
    """
    found: dict[tuple[int, str], Tensor] = {}
    count: Counter[int] = Counter()
    for image, row in zip(batch["image"].tolist(), batch["record"].tolist(), strict=True):
        for name, box in zip(records[row].statement.names, boxes[row], strict=True):
            new = (image, name) not in found and count[image] < most
            if new and bool(box.isfinite().all()):
                found[image, name] = box
                count[image] += 1
    device = batch["pixels"].device
    image = torch.tensor([image for image, _ in found], dtype=torch.long, device=device)
    chosen = torch.cat([*found.values(), torch.zeros(0)]).unflatten(0, (-1, 4)).to(device)
    if "mirrored" in batch:
        x0, y0, x1, y1 = chosen.unbind(-1)
        flipped = torch.stack([1 - x1, y0, 1 - x0, y1], dim=-1)
        chosen = torch.where(batch["mirrored"][image, None], flipped, chosen)
    return NamedBoxes(image, [name for _, name in found], chosen)


def _corners(record: Record, name: str, resize: Resize) -> tuple[float, float, float, float]:
    if name in record.boxes:
        box = clip(place(record.boxes[name], record.image_size, 1.0, resize), 1.0, 1.0)
        if box.w > 0 and box.h > 0:
            return box.corners
    return math.nan, math.nan, math.nan, math.nan


def _location(record: Record, name: str, resize: Resize) -> tuple[float, float, float]:
    if name not in record.boxes:
        return NOWHERE
    x, y = place(record.boxes[name], record.image_size, 1.0, resize).centre
    return x, y, math.log(record.depths[name]) if name in record.depths else math.nan
