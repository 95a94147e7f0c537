"""Facts of records besides the relation, and the subsets that follow from them.

If these records lack a fact, the reason is given; nothing is guessed.

Letters: N records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spatialbench.data.records import ELEVATION_TAGS, Record, RecordSet
from spatialbench.data.relations import DEPTH_RELATIONS
from spatialbench.evaluation.controls.heuristics import boxes_known, is_rooms

NO_BOXES = "records without the boxes of their objects"
NO_SCENES = "known only of the rooms as rendered"
AXIS = {
    **{"close": "depth", "far": "depth"},
    **{"left": "side", "right": "side", "above": "height", "under": "height"},
}
"""Relation -> the axis that it is about."""


@dataclass(frozen=True)
class Fact:
    """One fact of every record.

    Attributes:
        name, about: for readers.
        subsets: in the order of the tables.
        labels: subset of each record, str [N]; empty for a record that the fact does not concern.
        absent: why these records lack the fact; empty if they have it.
    """

    name: str
    about: str
    subsets: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    absent: str = ""


def all_facts(
    record_set: RecordSet, trained: Sequence[Record] | None, unknown: str = ""
) -> list[Fact]:
    """Return every fact, including those that these records lack.

    Args:
        trained: the records that the track trains on; None if they are not known.
        unknown: the reason.
    """
    records = record_set.records
    by_boxes = [elevation(records), gap(records), size(records)]
    return [*by_boxes, *scene_facts(record_set), training_pairs(records, trained, unknown)]


def thirds(
    name: str, about: str, values: np.ndarray, subsets: tuple[str, str, str], group: np.ndarray
) -> Fact:
    """Split every group into three subsets of equal size, as far as equal values allow.

    Args:
        values: float [N]; NaN for a record that the fact does not concern.
        subsets: names for the smallest, the middle and the largest values.
        group: str [N], such as the axis of the relation, so that all subsets mix relations alike.
    """
    known = np.isfinite(values)
    if not known.any():
        return Fact(name, about, absent="no record has it")
    labels, bounds = np.full(len(values), "", dtype="U32"), []
    for each in dict.fromkeys(group[known].tolist()):
        chosen = known & (group == each)
        low, high = (float(bound) for bound in np.quantile(values[chosen], [1 / 3, 2 / 3]))
        place = (values[chosen] >= low).astype(int) + (values[chosen] >= high)
        labels[chosen] = np.array(subsets)[place]
        bounds.append(f"{each} at {low:.3g} and {high:.3g}")
    return Fact(name, f"{about}; thirds of {', of '.join(bounds)}", subsets, labels)


def axes(records: Sequence[Record]) -> np.ndarray:
    """Axis of each record's relation (depth, side or height), str [N]."""
    return np.array([AXIS[record.relation] for record in records])


def elevation(records: Sequence[Record]) -> Fact:
    """close, far: the tag of the record (``records.elevation_tag``)."""
    about = (
        "close, far: whether the farther object also stands higher in the image (counter: lower)"
    )
    labels = np.array([record.elevation or "" for record in records])
    if not (labels != "").any():
        return Fact("elevation", about, absent="no record is tagged")
    return Fact("elevation", about, ELEVATION_TAGS, labels)


def gap(records: Sequence[Record]) -> Fact:
    """left, right, above, under: the space between the two boxes along the axis."""
    about = "left, right, above, under: space between the boxes along the axis, in the image's side"

    def space(record: Record) -> float:
        if record.relation in DEPTH_RELATIONS:
            return np.nan
        a, b = record.boxes[record.subject], record.boxes[record.object]
        if AXIS[record.relation] == "side":
            return max(b.x - a.x - a.w, a.x - b.x - b.w) / record.image_size[0]
        return max(b.y - a.y - a.h, a.y - b.y - b.h) / record.image_size[1]

    return _box_thirds("gap", about, records, space, ("narrow", "middle", "wide"))


def size(records: Sequence[Record]) -> Fact:
    """All relations: the smaller of the two boxes."""

    def smaller(record: Record) -> float:
        boxes = record.boxes[record.subject], record.boxes[record.object]
        return min(box.w * box.h for box in boxes) / (record.image_size[0] * record.image_size[1])

    about = "the smaller of the two boxes, as a share of the image"
    return _box_thirds("size", about, records, smaller, ("small", "medium", "large"))


def _box_thirds(
    name: str,
    about: str,
    records: Sequence[Record],
    value: Callable[[Record], float],
    subsets: tuple[str, str, str],
) -> Fact:
    if not boxes_known(records):
        return Fact(name, about, absent=NO_BOXES)
    return thirds(name, about, np.array([value(r) for r in records]), subsets, axes(records))


def training_pairs(
    records: Sequence[Record], trained: Sequence[Record] | None, unknown: str = ""
) -> Fact:
    """How often training had the two objects on the same axis, in either order."""
    about = "records of training with the same two objects on the same axis, in either order"
    if trained is None:
        return Fact("training pairs", about, absent=unknown)
    seen = Counter(map(_pair, trained))
    counts = np.array([float(seen[_pair(record)]) for record in records])
    values = np.where(counts > 0, counts, np.nan)
    often = thirds("training pairs", about, values, ("rare", "common", "frequent"), axes(records))
    labels = np.full(len(records), "") if often.labels is None else often.labels
    labels = np.where(counts > 0, labels, "unseen")
    return Fact("training pairs", often.about, ("unseen", "rare", "common", "frequent"), labels)


def _pair(record: Record) -> tuple[frozenset[str], str]:
    return frozenset((record.subject, record.object)), AXIS[record.relation]


def scene_facts(record_set: RecordSet) -> list[Fact]:
    """Facts that the renderer knows: depth and occlusion."""
    depth = "close, far: mean depth of the farther object over that of the nearer"
    hidden = "share of the less visible object, within the image, that nothing hides"
    if not is_rooms(record_set):
        return [
            Fact("depth ratio", depth, absent=NO_SCENES),
            Fact("visible", hidden, absent=NO_SCENES),
        ]
    from spatialbench.data.rooms import load  # other data do not need the renderer
    from spatialbench.data.rooms.visibility import visible_shares

    images, records = record_set.images, record_set.records
    rooms = load(record_set.name.partition("/")[2], len(images), images.shape[1])
    ratios = np.full(len(records), np.nan)
    for row, record in enumerate(records):
        if record.relation in DEPTH_RELATIONS:
            named = rooms.scenes[record.image].named
            both = named[record.subject].depth, named[record.object].depth
            ratios[row] = max(both) / min(both)
    shares = visible_shares(
        rooms, ((r.image, name) for r in records for name in (r.subject, r.object))
    )
    least = np.array([min(shares[r.image, r.subject], shares[r.image, r.object]) for r in records])
    near_far = ("near each other", "middle", "far apart")
    return [
        thirds("depth ratio", depth, ratios, near_far, axes(records)),
        visible(hidden, least),
    ]


def visible(about: str, share: np.ndarray) -> Fact:
    """``hidden`` under one half, ``partly`` under 95 %, else ``whole``."""
    labels = np.where(share < 0.5, "hidden", np.where(share < 0.95, "partly", "whole"))
    about = f"{about}; under 0.5, under 0.95, the rest"
    return Fact("visible", about, ("hidden", "partly", "whole"), labels)
