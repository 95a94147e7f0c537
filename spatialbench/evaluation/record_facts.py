"""Facts of records besides the relation, and the subsets that follow from them.

If these records lack a fact, the reason is given; nothing is guessed.

Letters: N records.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spatialbench.data.records import ELEVATION_TAGS, Record, RecordSet
from spatialbench.data.relations import DEPTH_RELATIONS
from spatialbench.evaluation.controls.heuristics import (
    NO_BOXES,
    boxes_known,
    boxes_of,
    is_rooms,
    rooms_of,
)

NO_SCENES = "known only of the rooms as rendered"
AXIS = {
    **{"close": "depth", "far": "depth", "left": "side", "right": "side"},
    **{"above": "height", "under": "height"},
}
"""Relation -> the axis that it is about."""
Thirds = tuple[str, str, str]


@dataclass(frozen=True)
class Fact:
    """One fact of every record."""

    name: str
    about: str  # for readers
    subsets: tuple[str, ...] = ()  # in the order of the tables
    labels: np.ndarray | None = None  # str [N]; empty for a record that it does not concern
    absent: str = ""  # why these records lack it


def all_facts(
    record_set: RecordSet, trained: Sequence[Record] | None, unknown: str = ""
) -> list[Fact]:
    """Return every fact, including those that these records lack.

    ``trained``: the records that the track trains on; None: not known, for the reason ``unknown``.
    """
    records = record_set.records
    by_boxes = [elevation(records), gap(records), size(records)]
    return [*by_boxes, *scene_facts(record_set), training_pairs(records, trained, unknown)]


def thirds(
    name: str, about: str, values: np.ndarray, subsets: Thirds, group: Sequence[str]
) -> Fact:
    """Split every group into three subsets of equal size, as far as equal values allow.

    Args:
        values: float [N]; NaN for a record that the fact does not concern.
        subsets: names for the smallest, the middle and the largest values.
        group: N names, such as the axis of the relation, so that all subsets mix relations alike.
    """
    known, groups = np.isfinite(values), np.array(group)
    labels, bounds = np.full(len(values), "", dtype="U32"), []
    for each in dict.fromkeys(groups[known].tolist()):
        chosen = known & (groups == each)
        low, high = (float(bound) for bound in np.quantile(values[chosen], [1 / 3, 2 / 3]))
        place = (values[chosen] >= low).astype(int) + (values[chosen] >= high)
        labels[chosen] = np.array(subsets)[place]
        bounds.append(f"{each} at {low:.3g} and {high:.3g}")
    if not bounds:
        return Fact(name, about, absent="no record has it")
    return Fact(name, f"{about}; thirds of {', of '.join(bounds)}", subsets, labels)


def _axes(records: Sequence[Record]) -> list[str]:
    return [AXIS[record.relation] for record in records]


def elevation(records: Sequence[Record]) -> Fact:
    """close, far: the tag of the record (``records.elevation_tag``)."""
    about = "close, far: whether the farther object is also higher in the image (counter: lower)"
    labels = np.array([record.elevation or "" for record in records])
    if not (labels != "").any():
        return Fact("elevation", about, absent="no record is tagged")
    return Fact("elevation", about, ELEVATION_TAGS, labels)


def gap(records: Sequence[Record]) -> Fact:
    """left, right, above, under: the space between the two boxes along the axis."""
    about = "left, right, above, under: space between the boxes along the axis, in the image's side"

    def space(record: Record) -> float:
        a, b = boxes_of(record)
        sides = {"side": max(b.x - a.x - a.w, a.x - b.x - b.w) / record.image_size[0]}
        sides["height"] = max(b.y - a.y - a.h, a.y - b.y - b.h) / record.image_size[1]
        return sides.get(AXIS[record.relation], np.nan)

    return _box_thirds("gap", about, records, space, ("narrow", "middle", "wide"))


def size(records: Sequence[Record]) -> Fact:
    """All relations: the smaller of the two boxes."""

    def smaller(record: Record) -> float:
        width, height = record.image_size
        return min(box.w * box.h for box in boxes_of(record)) / (width * height)

    about = "the smaller of the two boxes, as a share of the image"
    return _box_thirds("size", about, records, smaller, ("small", "medium", "large"))


def _box_thirds(
    name: str,
    about: str,
    records: Sequence[Record],
    value: Callable[[Record], float],
    subsets: Thirds,
) -> Fact:
    if not boxes_known(records):
        return Fact(name, about, absent=NO_BOXES)
    return thirds(name, about, np.array([value(r) for r in records]), subsets, _axes(records))


def training_pairs(
    records: Sequence[Record], trained: Sequence[Record] | None, unknown: str = ""
) -> Fact:
    """Count the records of training with the same two objects on the same axis."""
    name, subsets = "training pairs", ("rare", "common", "frequent")
    about = "records of training with the same two objects on the same axis, in either order"
    if trained is None:
        return Fact(name, about, absent=unknown)
    seen = Counter(map(_pair, trained))
    counts = np.array([float(seen[_pair(record)]) for record in records])
    fact = thirds(name, about, np.where(counts > 0, counts, np.nan), subsets, _axes(records))
    labels = np.where(counts > 0, "" if fact.labels is None else fact.labels, "unseen")
    return Fact(name, fact.about, ("unseen", *subsets), labels)


def _pair(record: Record) -> tuple[frozenset[str], str]:
    return frozenset((record.subject, record.object)), AXIS[record.relation]


def scene_facts(record_set: RecordSet) -> list[Fact]:
    """Facts that the renderer knows: depth and occlusion."""
    depth = "close, far: mean depth of the farther object over that of the nearer"
    hidden = "share of the less visible object, within the image, that nothing hides"
    if not is_rooms(record_set):
        absent = {"depth ratio": depth, "visible": hidden}
        return [Fact(*fact, absent=NO_SCENES) for fact in absent.items()]
    from spatialbench.data.rooms.visibility import visible_shares  # others need no renderer

    rooms, records = rooms_of(record_set), record_set.records
    ratios = np.full(len(records), np.nan)
    for row, record in enumerate(records):
        if record.relation in DEPTH_RELATIONS:
            named = rooms.scenes[record.image].named
            depths = named[record.subject].depth, named[record.object].depth
            ratios[row] = max(depths) / min(depths)
    pairs = [[(r.image, name) for name in (r.subject, r.object)] for r in records]
    shares = visible_shares(rooms, (key for pair in pairs for key in pair))
    least = np.array([min(shares[key] for key in pair) for pair in pairs])
    near_far = ("near each other", "middle", "far apart")
    by_depth = thirds("depth ratio", depth, ratios, near_far, _axes(records))
    return [by_depth, visible(hidden, least)]


def visible(about: str, share: np.ndarray) -> Fact:
    """``hidden`` under one half, ``partly`` under 95 %, else ``whole``."""
    labels = np.where(share < 0.5, "hidden", np.where(share < 0.95, "partly", "whole"))
    about = f"{about}; under 0.5, under 0.95, the rest"
    return Fact("visible", about, ("hidden", "partly", "whole"), labels)
