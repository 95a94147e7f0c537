"""The relations as geometry: how two objects that a caption names must lie for it to be true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spatialbench.data.relations import parse, with_articles
from spatialbench.utils.errors import SpatialbenchError

AXIS = {"left": 0, "right": 0, "above": 1, "under": 1, "close": 2, "far": 2}
"""Relation -> coordinate of a place: x to the right, y downwards, depth."""
SIGN = {"left": 1, "right": -1, "above": 1, "under": -1, "close": 1, "far": -1}
"""Relation -> sign of the object's coordinate minus the subject's."""


class Asked(NamedTuple):
    """What N captions ask about K names."""

    phrases: list[str]  # K, "a lamp"
    first: Tensor  # int64 [N], row of ``phrases`` of the subject
    second: Tensor  # int64 [N], of the object
    axis: Tensor  # int64 [N]
    sign: Tensor  # int64 [N]

    @classmethod
    def by(cls, captions: Sequence[str], device: torch.device) -> Asked:
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
        """Return how far the relation holds, [N], where subject and object are at places [N, 3].

        Positive: it holds. With subject and object swapped it changes its sign, exactly.
        """
        return (second - first).gather(1, self.axis[:, None])[:, 0] * self.sign.to(first)


def phrase(name: str) -> str:
    """Return the text that stands for an object: "a lamp"."""
    return with_articles(f"a {name}")
