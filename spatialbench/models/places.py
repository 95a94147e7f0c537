"""Where a dense map sees named objects: (4) to (6) of methods/readout.py.

Letters: M images, h rows and w columns of patches, D width, K texts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 30.0
"""t of (4)."""
AXIS = {"left": 0, "right": 0, "above": 1, "under": 1, "close": 2, "far": 2}
"""Relation -> column of a place (x, y, log depth)."""
SIGN = {"left": 1, "right": -1, "above": 1, "under": -1, "close": 1, "far": -1}
"""Relation -> sign, in (6), of the object's place minus the subject's."""


def centres(dense: Tensor, depth: Tensor, texts: Tensor) -> Tensor:
    """Return (5) of K texts in M images, [M, K, 3]; x to the right, y downwards, 0 in the middle.

    Args:
        dense: f_p, [M, h, w, D].
        depth: log d_p, [M, h, w].
        texts: T_A, [K, D].
    """
    height, width = depth.shape[1:]
    y, x = (((torch.arange(n) + 0.5) / n - 0.5).to(depth) for n in (height, width))
    rows, columns = y[:, None].expand_as(depth), x.expand_as(depth)
    places = torch.stack([columns, rows, depth], dim=-1).flatten(1, 2)  # [M, h w, 3]
    mass = (TEMPERATURE * dense.flatten(1, 2) @ texts.T).softmax(1)  # (4), [M, h w, K]
    return mass.mT @ places  # (5)


def resampled(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample a map [B, h', w', C] bilinearly to another grid, [B, h, w, C]."""
    x = x.permute(0, 3, 1, 2)
    return F.interpolate(x, size=grid, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


def patch_depth(head: nn.Linear, patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return log d_p on a grid, [M, h, w, 1], from a VFM's patches [M, h', w', D']."""
    return resampled(head(patches).mean(-1, keepdim=True), grid)
