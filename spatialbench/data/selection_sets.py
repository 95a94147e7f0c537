"""Sources of image selection: pairs of images, each with a caption that is true of it alone.

Letters: M pairs, P patterns, S pixels a side.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spatialbench.data.images import Resize


@dataclass(frozen=True)
class ImagePairs:
    """Pairs of one size; each caption is false of the other image."""

    images: np.ndarray  # uint8 [M, 2, S, S, 3], RGB
    captions: Sequence[tuple[str, str]]  # M, of the first and the second image
    pattern: np.ndarray  # int64 [M], the difference between the two, a row of ``patterns``
    patterns: tuple[str, ...]  # P names, in the order of the tables
    scenes: Sequence[str]  # M; pairs of one scene are not independent
    data: str  # hash of everything that defines the pairs: equal ones are comparable

    def __len__(self) -> int:
        return len(self.captions)


class SelectionSet(ABC):
    """A source of pairs; ``name`` is for people, for instance ``mmvp``."""

    name: str

    @abstractmethod
    def pairs(self, size: int, resize: Resize = "crop") -> ImagePairs:
        """Return the pairs, S = ``size``; ``resize`` says how an image becomes square.

        Raises:
            SpatialbenchError: an image cannot be read.
        """


def fingerprint(*parts: object) -> str:
    """Hash ``parts`` to 16 hex digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
