"""What every dataset yields: records, and the images they speak of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
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
        return self.x + self.w / 2, self.y + self.h / 2

    def overlaps(self, other: Box) -> bool:
        """Whether the two boxes share an area larger than zero."""
        return (
            self.x < other.x + other.w
            and other.x < self.x + self.w
            and self.y < other.y + other.h
            and other.y < self.y + self.h
        )


@dataclass(frozen=True)
class Record:
    """One true statement about one image.

    Attributes:
        record_id: unique in its set.
        image: row of the image in ``RecordSet.images``.
        subject, relation, object: the statement; relation is one of ``spatialbench.data.relations.RELATIONS``.
        boxes: name -> box of the visible part, in pixels of the *original* image of size ``image_size``; holds the
            subject and the object, and whatever else is known.
        image_size: width and height of the original image in pixels.
        source: where the image comes from (``rooms``, ``mp3d``, ``ai2thor``, ``scannet``, ...).
        scene_id: images of one scene are not independent; the unit of the cluster bootstrap.
        elevation: for close and far, whether the farther object also stands higher in the picture (``consistent``,
            ``counter``, ``ambiguous``; ``elevation_tag``); None for the other relations.
        weight: 1 / number of records that came from one source question; no score uses it.
    """

    record_id: str
    image: int
    subject: str
    relation: str
    object: str
    boxes: dict[str, Box] = field(default_factory=dict)
    image_size: tuple[int, int] = (0, 0)
    source: str = ""
    scene_id: str = ""
    elevation: str | None = None
    weight: float = 1.0

    @property
    def statement(self) -> Statement:
        return Statement(self.subject, self.relation, self.object)


@dataclass(frozen=True)
class Pair:
    """A record as the task sees it: an image row, its caption and the negated caption."""

    image: int
    caption: str
    negated: str
    relation: str
    record_id: str


def elevation_tag(near: Box, far: Box, image_height: float) -> str:
    """Whether the elevation shortcut "higher in the picture = farther" gives the right answer.

    dy = y_centre(near) - y_centre(far) with y down: over 5 % of the image height is ``consistent``, under -5 %
    ``counter``, else ``ambiguous``. Source: arXiv 2605.30161.
    """
    dy = near.centre[1] - far.centre[1]
    if dy > 0.05 * image_height:
        return "consistent"
    if dy < -0.05 * image_height:
        return "counter"
    return "ambiguous"


@dataclass(frozen=True)
class RecordSet:
    """Records and their images.

    Attributes:
        name: for people, for instance ``rooms/test``.
        images: uint8 [M, S, S, 3], RGB; usually memory-mapped.
        records: the statements; ``record.image`` indexes ``images``.
        fingerprint: hash of everything that defines the set (content of records and images); part of result files
            and cache keys.
    """

    name: str
    images: np.ndarray
    records: Sequence[Record]
    fingerprint: str

    def pairs(self) -> Iterator[Pair]:
        for record in self.records:
            statement = record.statement
            yield Pair(
                record.image,
                statement.caption,
                statement.negated.caption,
                record.relation,
                record.record_id,
            )

    @cached_property
    def counts(self) -> dict[str, int]:
        """Records per relation, in the order of the tables."""
        counts = dict.fromkeys(RELATIONS, 0)
        for record in self.records:
            counts[record.relation] += 1
        return counts


def fingerprint(records: Sequence[Record], image_digest: str) -> str:
    """Hash of the records and of ``image_digest`` (a hash of the pixels, or of what they are made from)."""
    digest = hashlib.sha256(image_digest.encode())
    for r in records:
        boxes = [(name, box.x, box.y, box.w, box.h) for name, box in sorted(r.boxes.items())]
        digest.update(
            repr(
                (r.record_id, r.image, r.subject, r.relation, r.object, boxes, r.image_size)
            ).encode()
        )
    return digest.hexdigest()[:16]
