"""Boxes drawn by rule, and crops. Boxes are x0 y0 x1 y1 in [0, 1] of the image.

Source: wusize/CLIPSelf @ 1c7fe9c, src/training/data.py (grids, enlarged proposals, padded crops);
for the wide boxes docs/r_sc_rla.md.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.utils.errors import SpatialbenchError

ENLARGED = 1.5
"""The crop of an object is this many times its box (CLIPSelf's proposals)."""
GRID = 6
"""A grid has at most so many rows and columns."""
_SLACK = 1e-3  # pixels: a corner in float32 is rounded by more than 1e-6 of them


def check_boxes(boxes: Tensor, where: str = "") -> None:
    """Check that boxes [N, 4] are usable; ``where`` names the image in messages.

    Raises:
        SpatialbenchError: there is no box, or one that is not finite, empty, or outside of [0, 1].
    """
    if not len(boxes):
        raise SpatialbenchError(
            f"{where}there is no region: give more regions an image, or smaller ones"
        )
    corners = boxes.detach().double()
    faults = {
        "is not finite": ~corners.isfinite().all(1),
        "is empty": (corners[:, 2:] <= corners[:, :2]).any(1),
        "reaches out of the image": ((corners < -1e-6) | (corners > 1 + 1e-6)).any(1),
    }
    for fault, wrong in faults.items():
        if wrong.any():
            number = int(wrong.nonzero()[0])
            values = [round(v, 4) for v in corners[number].tolist()]
            raise SpatialbenchError(f"{where}region {number}, {values}, {fault}")


def grids(most: int = GRID) -> list[tuple[int, int]]:
    """Return (rows, columns) of every grid with sides up to 2 : 1, 24 of them up to 6."""
    return [
        (rows, columns)
        for rows in range(1, most + 1)
        for columns in range(math.ceil(rows / 2), min(2 * rows, most) + 1)
    ]


def grid_boxes(rng: np.random.Generator, most: int = GRID, count: int = 20) -> Tensor:
    """Draw a grid, and at most ``count`` of its cells in random order: float32 [n, 4]."""
    choices = grids(most)
    rows, columns = choices[int(rng.integers(len(choices)))]
    cells = [
        (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.tensor([cells[k] for k in rng.permutation(len(cells))[:count]])


def random_boxes(rng: np.random.Generator, count: int) -> Tensor:
    """Draw boxes anywhere in the image, float32 [count, 4].

    Their share of the area is drawn uniformly from 1/4 to 1/2, width over height log-uniformly from
    2/3 to 3/2; a side longer than the image is cut.
    """
    share = rng.uniform(0.25, 0.5, count)
    ratio = np.exp(rng.uniform(math.log(2 / 3), math.log(3 / 2), count))
    width, height = np.minimum(np.sqrt(share * ratio), 1), np.minimum(np.sqrt(share / ratio), 1)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    right, bottom = np.minimum(left + width, 1), np.minimum(top + height, 1)
    return torch.from_numpy(np.stack([left, top, right, bottom], axis=1).astype(np.float32))


def enlarged(boxes: Tensor, factor: float) -> Tensor:
    """Scale boxes [N, 4] about their centres and clip them to the image."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    return torch.cat([centre - half, centre + half], dim=1).clamp(0, 1)


def with_surroundings(boxes: Tensor, extent: tuple[float, float]) -> Tensor:
    """Enlarge boxes of objects [N, 4] by ``ENLARGED`` and clip them to the image's ``extent``."""
    return enlarged(boxes, ENLARGED).minimum(torch.tensor(extent * 2, device=boxes.device))


def crops(pixels: Tensor, boxes: Tensor, image: Tensor, size: int) -> Tensor:
    """Crop boxes, scale the longer side to ``size``, and centre the crops on black.

    Args:
        pixels: uint8 [B, 3, H, W].
        boxes: [N, 4]; rounded outwards to whole pixels.
        image: int64 [N], the row of ``pixels`` of every box.
        size: of the result, uint8 [N, 3, size, size].
    """
    height, width = pixels.shape[-2:]
    scale = torch.tensor([width, height] * 2, dtype=torch.float64)
    corners = (boxes.cpu().double() * scale).tolist()
    made = pixels.new_zeros(len(boxes), 3, size, size)
    for number, (row, (x0, y0, x1, y1)) in enumerate(zip(image.tolist(), corners, strict=True)):
        (left, right), (top, bottom) = _whole(x0, x1, width), _whole(y0, y1, height)
        part = pixels[row : row + 1, :, top:bottom, left:right].float()
        ratio = size / max(part.shape[-2:])
        h, w = (max(1, round(side * ratio)) for side in part.shape[-2:])
        part = (
            F.interpolate(part, size=(h, w), mode="bicubic", antialias=True).round().clamp(0, 255)
        )
        y, x = (size - h) // 2, (size - w) // 2
        made[number, :, y : y + h, x : x + w] = part[0].to(pixels.dtype)
    return made


def _whole(low: float, high: float, size: int) -> tuple[int, int]:
    """Round a span outwards to whole pixels, at least one."""
    start = min(math.floor(low + _SLACK), size - 1)
    return start, max(math.ceil(high - _SLACK), start + 1)
