"""Records, the images that they describe, and sets of them: the output of every dataset."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from spatialbench.data.relations import RELATIONS, Statement

ELEVATION_TAGS = ("consistent", "counter", "ambiguous")


@dataclass(frozen=True)
class Box:
    """An axis-aligned box in pixels: left edge, top edge, width, height. y points down."""

    x: float
    y: float
    w: float
    h: float

    @property
    def centre(self) -> tuple[float, float]:
        """Its x and y."""
        return self.x + self.w / 2, self.y + self.h / 2

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1."""
        return self.x, self.y, self.x + self.w, self.y + self.h


@dataclass(frozen=True)
class Record:
    """One true statement about one image.

    ``boxes`` has the visible part of the subject, the object, and any other known object, in pixels
    of the *original* image, whose width and height are ``image_size``.
    """

    record_id: str  # unique in its set
    image: int  # row of ``RecordSet.images``
    subject: str
    relation: str  # one of ``RELATIONS``
    object: str
    boxes: dict[str, Box] = field(default_factory=dict)
    image_size: tuple[int, int] = (0, 0)
    source: str = ""  # of the image: ``rooms``, ``mp3d``, ``ai2thor``, ``scannet``, ...
    scene_id: str = ""  # images of one scene are not independent: the bootstrap's clusters
    elevation: str | None = None  # ``elevation_tag`` for close and far, else None
    weight: float = 1.0  # 1 / number of records from the same source question; no score uses it
    depths: dict[str, float] = field(default_factory=dict)  # mean, in metres, where known

    @property
    def statement(self) -> Statement:
        """The statement, which builds the captions."""
        return Statement(self.subject, self.relation, self.object)


def elevation_tag(near: Box, far: Box, image_height: float) -> str:
    """Return whether the shortcut "higher in the image = farther" gives the right answer.

    dy = y_centre(near) - y_centre(far) with y down: over 5 % of the image height is ``consistent``,
    under -5 % ``counter``, else ``ambiguous``. Source: arXiv 2605.30161.
    """
    dy = near.centre[1] - far.centre[1]
    if abs(dy) <= 0.05 * image_height:
        return "ambiguous"
    return "consistent" if dy > 0 else "counter"


@dataclass(frozen=True)
class RecordSet:
    """Records and their images."""

    name: str  # for people, for instance ``rooms/test``
    images: np.ndarray  # uint8 [M, S, S, 3], RGB; usually memory-mapped
    records: Sequence[Record]  # ``record.image`` indexes ``images``
    fingerprint: str  # hash of their content; part of result files and cache keys

    @cached_property
    def counts(self) -> dict[str, int]:
        """Records per relation, in the order of the tables."""
        counts = Counter(record.relation for record in self.records)
        return {relation: counts[relation] for relation in RELATIONS}


def fingerprint(records: Sequence[Record], image_digest: str) -> str:
    """Hash records and ``image_digest``, a hash of the pixels or of their source."""
    digest = hashlib.sha256(image_digest.encode())
    for r in records:
        boxes = [(name, box.x, box.y, box.w, box.h) for name, box in sorted(r.boxes.items())]
        identity = (r.record_id, r.image, r.subject, r.relation, r.object, boxes, r.image_size)
        digest.update(repr(identity).encode())
    return digest.hexdigest()[:16]
