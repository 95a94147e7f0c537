"""Places of named objects, and what follows for a caption: (4) to (6) of methods/readout.py.

Letters: M images, h rows and w columns of patches, D width, K texts, N captions.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialbench.data.relations import parse, with_articles
from spatialbench.utils.errors import SpatialbenchError

TEMPERATURE = 30.0
"""t of (4)."""
AXIS = {"left": 0, "right": 0, "above": 1, "under": 1, "close": 2, "far": 2}
"""Relation -> column of a place (x, y, log depth)."""
SIGN = {"left": 1, "right": -1, "above": 1, "under": -1, "close": 1, "far": -1}
"""Relation -> sign, in (6), of the object's place minus the subject's."""


class Asked(NamedTuple):
    """Questions of N captions about K names."""

    phrases: list[str]  # K, "a lamp"
    first: Tensor  # int64 [N], row of ``phrases`` of the subject
    second: Tensor  # int64 [N], of the object
    axis: Tensor  # int64 [N]
    sign: Tensor  # int64 [N]

    @classmethod
    def by(cls, captions: Sequence[str], device: torch.device) -> Self:
        """Parse captions. One that is not of the grammar raises a SpatialbenchError."""
        try:
            said = [parse(caption) for caption in captions]
        except ValueError as error:
            raise SpatialbenchError(f"a readout needs two named objects: {error}") from error
        row = {name: k for k, name in enumerate(sorted({n for s in said for n in s.names}))}
        numbers = [(*(row[n] for n in s.names), AXIS[s.relation], SIGN[s.relation]) for s in said]
        columns = torch.tensor(numbers, device=device).unbind(1)
        return cls([phrase(name) for name in row], *columns)

    def score(self, first: Tensor, second: Tensor) -> Tensor:
        """Return (6), [N], where the subjects are at places [N, 3] and the objects at others."""
        return (second - first).gather(1, self.axis[:, None])[:, 0] * self.sign.to(first)


def phrase(name: str) -> str:
    """Return the text that stands for an object: "a lamp"."""
    return with_articles(f"a {name}")


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
