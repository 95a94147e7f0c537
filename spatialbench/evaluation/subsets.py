"""What is known of a record beside its relation, and the subsets that follow.

A fact that these records do not have is said so, with the reason; nothing is guessed in its place.

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
NO_SCENES = "known of the rooms as rendered only"
AXIS = {
    "close": "depth",
    "far": "depth",
    "left": "side",
    "right": "side",
    "above": "height",
    "under": "height",
}


@dataclass(frozen=True)
class Fact:
    """One fact of every record.

    Attributes:
        name, about: for people.
        subsets: in the order of the tables.
        labels: str [N], the subset of each record; empty for one of which the fact says nothing.
        absent: why these records do not have the fact; empty where they do.
    """

    name: str
    about: str
    subsets: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    absent: str = ""


def thirds(
    name: str, about: str, values: np.ndarray, subsets: tuple[str, str, str], group: np.ndarray
) -> Fact:
    """Three subsets of as many records each, as far as equal values allow, within every group.

    Args:
        values: float [N]; NaN where the fact says nothing.
        subsets: of the smallest, the middle and the largest values.
        group: str [N], for instance the axis of the relation, so that a subset is not one relation more than another.
    """
    known = np.isfinite(values)
    if not known.any():
        return Fact(name, about, absent="no record has it")
    labels, bounds = np.full(len(values), "", dtype="U32"), []
    for each in dict.fromkeys(group[known].tolist()):
        some = known & (group == each)
        low, high = (float(bound) for bound in np.quantile(values[some], [1 / 3, 2 / 3]))
        place = (values[some] >= low).astype(int) + (values[some] >= high)
        labels[some] = np.array(subsets)[place]
        bounds.append(f"{each} at {low:.3g} and {high:.3g}")
    return Fact(name, f"{about}; thirds of {', of '.join(bounds)}", subsets, labels)


def axes(records: Sequence[Record]) -> np.ndarray:
    """Str [N]: depth, side or height, what the relation is about."""
    return np.array([AXIS[record.relation] for record in records])


def elevation(records: Sequence[Record]) -> Fact:
    """Of close and far; the rule is ``records.elevation_tag``'s."""
    about = (
        "close, far: whether the farther object also stands higher in the picture (counter: lower)"
    )
    labels = np.array([record.elevation or "" for record in records])
    if not (labels != "").any():
        return Fact("elevation", about, absent="no record is tagged")
    return Fact("elevation", about, ELEVATION_TAGS, labels)


def gap(records: Sequence[Record]) -> Fact:
    """Of left, right, above and under: the space between the two boxes along the axis."""
    about = (
        "left, right, above, under: space between the boxes along the axis, in the picture's side"
    )

    def of(record: Record) -> float:
        a, b = record.boxes[record.subject], record.boxes[record.object]
        if AXIS[record.relation] == "side":
            return max(b.x - a.x - a.w, a.x - b.x - b.w) / record.image_size[0]
        return max(b.y - a.y - a.h, a.y - b.y - b.h) / record.image_size[1]

    return _of_boxes(
        "gap", about, records, of, ("narrow", "middle", "wide"), lambda r: r not in DEPTH_RELATIONS
    )


def size(records: Sequence[Record]) -> Fact:
    """Of every record: the smaller of its two boxes."""

    def of(record: Record) -> float:
        boxes = record.boxes[record.subject], record.boxes[record.object]
        return min(box.w * box.h for box in boxes) / (record.image_size[0] * record.image_size[1])

    about = "the smaller of the two boxes, as a share of the picture"
    return _of_boxes("size", about, records, of, ("small", "medium", "large"), lambda _: True)


def _of_boxes(
    name: str,
    about: str,
    records: Sequence[Record],
    of: Callable[[Record], float],
    subsets: tuple[str, str, str],
    concerns: Callable[[str], bool],
) -> Fact:
    if not boxes_known(records):
        return Fact(name, about, absent=NO_BOXES)
    values = np.array([of(record) if concerns(record.relation) else np.nan for record in records])
    return thirds(name, about, values, subsets, axes(records))


def pairs(records: Sequence[Record], trained: Sequence[Record] | None, why: str = "") -> Fact:
    """How often training had the two objects on the same axis, in either order.

    Args:
        trained: what the track trains on; None where it is not known.
        why: it is not.
    """
    about = "records of training with the same two objects on the same axis, in either order"
    if trained is None:
        return Fact("training pairs", about, absent=why)
    seen = Counter(map(_pair, trained))
    counts = np.array([float(seen[_pair(record)]) for record in records])
    often = thirds(
        "training pairs",
        about,
        np.where(counts > 0, counts, np.nan),
        ("rare", "common", "frequent"),
        axes(records),
    )
    labels = np.full(len(records), "") if often.labels is None else often.labels
    labels = np.where(counts > 0, labels, "unseen")
    return Fact("training pairs", often.about, ("unseen", "rare", "common", "frequent"), labels)


def _pair(record: Record) -> tuple[frozenset[str], str]:
    return frozenset((record.subject, record.object)), AXIS[record.relation]


def of_scenes(record_set: RecordSet) -> list[Fact]:
    """What the renderer knows: depth, and what others hide."""
    depth = "close, far: mean depth of the farther object over that of the nearer"
    hidden = (
        "the less visible of the two objects: share of it, within the picture, that nothing hides"
    )
    if not is_rooms(record_set):
        return [
            Fact("depth ratio", depth, absent=NO_SCENES),
            Fact("visible", hidden, absent=NO_SCENES),
        ]
    from spatialbench.data.rooms import load  # the renderer is not needed for files
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
    return [
        thirds(
            "depth ratio", depth, ratios, ("near each other", "middle", "far apart"), axes(records)
        ),
        visible(hidden, least),
    ]


def visible(about: str, share: np.ndarray) -> Fact:
    """``hidden`` under one half, ``partly`` under 95 %, else ``whole``."""
    labels = np.where(share < 0.5, "hidden", np.where(share < 0.95, "partly", "whole"))
    return Fact(
        "visible",
        f"{about}; under 0.5, under 0.95, the rest",
        ("hidden", "partly", "whole"),
        labels,
    )
