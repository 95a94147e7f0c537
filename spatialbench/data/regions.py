"""Regions of images: boxes drawn by rule, and what they cut out. Boxes are x0 y0 x1 y1 in [0, 1] of the image.

Source: wusize/CLIPSelf @ 1c7fe9c, src/training/data.py (grids, enlarged proposals, padded crops); of the
wide boxes docs/r_sc_rla.md.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.utils.errors import SpatialbenchError

ENLARGED = 1.5
"""An object is cut out with so much of its surroundings (CLIPSelf's proposals)."""
GRID = 6
"""A grid has at most so many rows and columns."""
_SLACK = 1e-3  # pixels: a corner in float32 is rounded by more than 1e-6 of them


def check_boxes(boxes: Tensor, where: str = "") -> None:
    """Whether boxes can be used.

    Args:
        boxes: [N, 4].
        where: of which picture, for the message.

    Raises:
        SpatialbenchError: there is no box, or one that is not finite, empty, or outside of the image [0, 1].
    """
    if not len(boxes):
        raise SpatialbenchError(
            f"{where}there is no region: give more regions an image, or smaller ones"
        )
    corners = boxes.detach().double()
    wrong = {
        "is not finite": ~corners.isfinite().all(1),
        "is empty": (corners[:, 2:] <= corners[:, :2]).any(1),
        "reaches out of the image": ((corners < -1e-6) | (corners > 1 + 1e-6)).any(1),
    }
    for what, found in wrong.items():
        if found.any():
            number = int(found.nonzero()[0])
            raise SpatialbenchError(
                f"{where}region {number}, {[round(v, 4) for v in corners[number].tolist()]}, {what}"
            )


def grids(most: int = GRID) -> list[tuple[int, int]]:
    """(rows, columns) of every grid whose cells are no longer than twice their width: 24 of them up to 6."""
    return [
        (rows, columns)
        for rows in range(1, most + 1)
        for columns in range(math.ceil(rows / 2), min(2 * rows, most) + 1)
    ]


def grid_boxes(rng: np.random.Generator, most: int = GRID, count: int = 20) -> Tensor:
    """The cells of a grid drawn from ``grids``, in random order and at most ``count``: float32 [n, 4]."""
    choices = grids(most)
    rows, columns = choices[int(rng.integers(len(choices)))]
    cells = [
        (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.tensor([cells[k] for k in rng.permutation(len(cells))[:count]])


def random_boxes(
    rng: np.random.Generator,
    count: int,
    area: tuple[float, float] = (0.25, 0.5),
    aspect: tuple[float, float] = (2 / 3, 3 / 2),
) -> Tensor:
    """``count`` boxes anywhere in the image, float32 [count, 4].

    Args:
        area: share of the image, drawn evenly.
        aspect: width over height of the box, drawn evenly on a logarithmic scale; a side longer than the image is cut.
    """
    share = rng.uniform(*area, count)
    ratio = np.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1]), count))
    width, height = np.minimum(np.sqrt(share * ratio), 1), np.minimum(np.sqrt(share / ratio), 1)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    corners = np.stack(
        [left, top, np.minimum(left + width, 1), np.minimum(top + height, 1)], axis=1
    )
    return torch.from_numpy(corners.astype(np.float32))


def enlarged(boxes: Tensor, factor: float) -> Tensor:
    """Boxes [N, 4] scaled about their centres and cut at the image."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    return torch.cat([centre - half, centre + half], dim=1).clamp(0, 1)


def with_surroundings(boxes: Tensor, extent: tuple[float, float]) -> Tensor:
    """What is cut out of a picture to show objects: boxes [N, 4] ``ENLARGED``, cut at the picture's ``extent``."""
    return enlarged(boxes, ENLARGED).minimum(torch.tensor(extent * 2, device=boxes.device))


def crops(pixels: Tensor, boxes: Tensor, image: Tensor, size: int) -> Tensor:
    """What the boxes show, the longer side scaled to ``size``, centred on black.

    Args:
        pixels: uint8 [B, 3, H, W].
        boxes: [N, 4]; cut out to whole pixels, at least one.
        image: int64 [N], the row of ``pixels`` of every box.
        size: pixels a side.

    Returns:
        uint8 [N, 3, size, size].
    """
    height, width = pixels.shape[-2:]
    whole = torch.tensor([width, height, width, height], dtype=torch.float64)
    found = pixels.new_zeros(len(boxes), 3, size, size)
    for number, (row, corners) in enumerate(
        zip(image.tolist(), (boxes.cpu().double() * whole).tolist(), strict=True)
    ):
        x0, y0 = (
            min(math.floor(corners[0] + _SLACK), width - 1),
            min(math.floor(corners[1] + _SLACK), height - 1),
        )
        x1, y1 = (
            max(math.ceil(corners[2] - _SLACK), x0 + 1),
            max(math.ceil(corners[3] - _SLACK), y0 + 1),
        )
        part = pixels[row : row + 1, :, y0:y1, x0:x1].float()
        scale = size / max(part.shape[-2:])
        shape = [max(1, round(side * scale)) for side in part.shape[-2:]]
        part = F.interpolate(part, size=shape, mode="bicubic", antialias=True).round().clamp(0, 255)
        top, left = (size - shape[0]) // 2, (size - shape[1]) // 2
        found[number, :, top : top + shape[0], left : left + shape[1]] = part[0].to(pixels.dtype)
    return found
