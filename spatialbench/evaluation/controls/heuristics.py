"""Scorers without a model: random, from boxes, from the renderer's depth.

Margins are float64 [N], positive where the caption is believed. A relation about which a scorer
says nothing is a tie, 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from spatialbench.data.records import Box, Record, RecordSet
from spatialbench.data.relations import DEPTH_RELATIONS

DIGITS = 6
"""Digits of a margin: sums of the same boxes that differ in the last bit are a tie."""
DIRECTIONS = ("left", "right", "above", "under")


def random(records: Sequence[Record], seed: int) -> np.ndarray:
    """Random scores, uniform in [0, 1)."""
    scores = np.random.default_rng(seed).random((2, len(records)))
    return scores[0] - scores[1]


def boxes_known(records: Sequence[Record]) -> bool:
    """Whether every record has the boxes of its two objects and the size of their image."""
    return all(
        r.subject in r.boxes and r.object in r.boxes and min(r.image_size) > 0 for r in records
    )


def directions(records: Sequence[Record]) -> np.ndarray:
    """left, right, above, under by the centres of the boxes, as shares of the image."""
    margins = np.zeros(len(records))
    for row, record in enumerate(records):
        (x, y), (x_2, y_2) = record.boxes[record.subject].centre, record.boxes[record.object].centre
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
    margins = np.zeros(len(records))
    for row, record in enumerate(records):
        if record.relation in DEPTH_RELATIONS:
            boxes = record.boxes[record.subject], record.boxes[record.object]
            first, second = (NEARNESS[scorer](box, *record.image_size) for box in boxes)
            margins[row] = first - second if record.relation == "close" else second - first
    return np.round(margins, DIGITS)


def is_rooms(record_set: RecordSet) -> bool:
    """Whether these are the rendered rooms, whose relations follow from boxes and depth by rule."""
    return record_set.name.startswith("rooms/")


def depth(record_set: RecordSet) -> np.ndarray:
    """close, far of the rooms: mean of the stored depth (float16) inside the two objects' masks."""
    from spatialbench.data.rooms import load  # other data do not need the renderer

    split = record_set.name.partition("/")[2]
    rooms = load(split, len(record_set.images), record_set.images.shape[1])
    margins = np.zeros(len(record_set.records))
    for row, record in enumerate(record_set.records):
        if record.relation in DEPTH_RELATIONS:
            named, mask = rooms.scenes[record.image].named, rooms.masks[record.image]
            near, far = (
                float(rooms.depth[record.image][mask == named[name].code].mean(dtype=np.float64))
                for name in (record.subject, record.object)
            )
            margins[row] = far - near if record.relation == "close" else near - far
    return np.round(margins, DIGITS)
