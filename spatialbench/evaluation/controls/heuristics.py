"""Scorers without a model: random, from boxes, from the renderer's depth.

Margins are float64 [N], positive where the caption is believed. A relation about which a scorer
says nothing is a tie, 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spatialbench.data.records import Box, Record, RecordSet
from spatialbench.data.relations import DEPTH_RELATIONS

if TYPE_CHECKING:
    from spatialbench.data.rooms import RoomsSet

DIGITS = 6
"""Digits of a margin: sums of the same boxes that differ in the last bit are a tie."""
NO_BOXES = "records without the boxes of their objects"
DIRECTIONS = ("left", "right", "above", "under")


def random(records: Sequence[Record], seed: int) -> np.ndarray:
    """Random scores, uniform in [0, 1)."""
    scores = np.random.default_rng(seed).random((2, len(records)))
    return scores[0] - scores[1]


def boxes_known(records: Sequence[Record]) -> bool:
    """Return whether every record has the boxes of its two objects and the size of their image."""
    return all({r.subject, r.object} <= r.boxes.keys() and min(r.image_size) > 0 for r in records)


def boxes_of(record: Record) -> tuple[Box, Box]:
    """Boxes of subject and object."""
    return record.boxes[record.subject], record.boxes[record.object]


def directions(records: Sequence[Record]) -> np.ndarray:
    """left, right, above, under by the centres of the boxes, as shares of the image."""
    margins = np.zeros(len(records))
    for row, record in enumerate(records):
        (x, y), (x_2, y_2) = (box.centre for box in boxes_of(record))
        width, height = record.image_size
        known = {"left": (x_2 - x) / width, "right": (x - x_2) / width}
        known |= {"above": (y_2 - y) / height, "under": (y - y_2) / height}
        margins[row] = known.get(record.relation, 0.0)
    return np.round(margins, DIGITS)


NEARNESS: dict[str, Callable[[Box, float, float], float]] = {
    "elevation": lambda box, _, height: box.centre[1] / height,  # docs/controls.md
    "bottom edge": lambda box, _, height: (box.y + box.h) / height,
    "box size": lambda box, width, height: box.w * box.h / (width * height),
}
"""Scorer -> nearness of a box in an image of that width and height."""


def nearness(records: Sequence[Record], scorer: str) -> np.ndarray:
    """close, far: the box of greater nearness is closer."""
    return _closer(
        records, lambda r: tuple(NEARNESS[scorer](box, *r.image_size) for box in boxes_of(r))
    )


def is_rooms(record_set: RecordSet) -> bool:
    """Return whether these are the rooms, whose relations follow from boxes and depth by rule."""
    return record_set.name.startswith("rooms/")


def rooms_of(record_set: RecordSet) -> RoomsSet:
    """Scenes, masks and depth behind the records of the rooms."""
    from spatialbench.data.rooms import load  # other data do not need the renderer

    images = record_set.images
    return load(record_set.name.partition("/")[2], len(images), images.shape[1])


def depth(record_set: RecordSet) -> np.ndarray:
    """close, far of the rooms: mean of the stored depth (float16) inside the two objects' masks."""
    rooms = rooms_of(record_set)

    def minus_depths(record: Record) -> tuple[float, ...]:
        named, mask = rooms.scenes[record.image].named, rooms.masks[record.image]
        codes = [named[name].code for name in (record.subject, record.object)]
        depths = [rooms.depth[record.image][mask == code] for code in codes]
        return tuple(-float(part.mean(dtype=np.float64)) for part in depths)

    return _closer(record_set.records, minus_depths)


def _closer(
    records: Sequence[Record], nearness: Callable[[Record], tuple[float, ...]]
) -> np.ndarray:
    """close, far by the nearness of subject and object."""
    margins = np.zeros(len(records))
    for row, record in enumerate(records):
        if record.relation in DEPTH_RELATIONS:
            first, second = nearness(record)
            margins[row] = first - second if record.relation == "close" else second - first
    return np.round(margins, DIGITS)
