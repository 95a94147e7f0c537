"""What a source of image selection yields: pairs of pictures, each with the caption that is true of it.

Letters: M pairs, P patterns, S pixels a side.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spatialbench.data.images import Resize


@dataclass(frozen=True)
class PicturePairs:
    """Pairs of one size.

    Attributes:
        images: uint8 [M, 2, S, S, 3], RGB.
        captions: of each pair those of its first and its second picture; each is false of the other.
        pattern: int64 [M], what the two differ in, a row of ``patterns``.
        patterns: P names, in the order of the tables.
        scenes: the scene of each pair; pairs of one scene are not independent.
        data: hash of everything that defines the pairs: answers about pairs that share it can be compared.
    """

    images: np.ndarray
    captions: Sequence[tuple[str, str]]
    pattern: np.ndarray
    patterns: tuple[str, ...]
    scenes: Sequence[str]
    data: str

    def __len__(self) -> int:
        return len(self.captions)


class SelectionSet(ABC):
    """A source of pairs.

    Attributes:
        name: for people, for instance ``mmvp``.
    """

    name: str

    @abstractmethod
    def pairs(self, size: int, resize: Resize = "crop") -> PicturePairs:
        """The pairs at the size that a model reads.

        Args:
            size: S.
            resize: how a picture that is not square becomes so.

        Raises:
            SpatialbenchError: a picture cannot be read.
        """


def fingerprint(*parts: object) -> str:
    """16 hex digits that change with any of ``parts``."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
