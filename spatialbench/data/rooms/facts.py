"""The statements that hold in a rendered scene, and a choice of records without a caption bias.

The rules are EmbSpatial's (Du et al., arXiv 2406.05756): the whole box on one side for left, right,
above and under; mean depth for close and far, here inside of the object and with a margin; boxes
that do not overlap; names that occur once in the view.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from spatialbench.data.records import Box, Record, elevation_tag
from spatialbench.data.relations import CONVERSE, DEPTH_RELATIONS, RELATIONS

AXES: dict[str, str] = {"depth": "close", "horizontal": "left", "vertical": "above"}
"""Axis -> the relation that a fact of this axis states of its first object."""

MIN_AREA = 0.01
"""The smallest visible share of the image for an object to be named."""

DEPTH_RATIO, DEPTH_GAP = 1.12, 0.30
"""A depth fact needs the farther mean depth to be this many times, and this many metres, larger."""


@dataclass(frozen=True)
class View:
    """One object as the camera sees it: area in pixels, mean depth of these pixels in metres."""

    name: str
    colour: str
    pattern: str
    mount: str
    code: int
    box: Box
    area: int
    depth: float


@dataclass(frozen=True)
class SceneView:
    """All visible objects of a scene; ``size``: side of the square image in pixels."""

    scene_id: str
    index: int
    size: int
    views: tuple[View, ...]

    @cached_property
    def large(self) -> list[View]:
        """The objects large enough to be named."""
        return [v for v in self.views if v.area >= MIN_AREA * self.size**2]

    @cached_property
    def named(self) -> dict[str, View]:
        """The large objects whose name is unique in the view, by name."""
        names = [v.name for v in self.views]
        return {v.name: v for v in self.large if names.count(v.name) == 1}

    @cached_property
    def boxes(self) -> dict[str, Box]:
        """The boxes of the named objects."""
        return {name: v.box for name, v in self.named.items()}

    @cached_property
    def depths(self) -> dict[str, float]:
        """The mean depths of the named objects, in metres."""
        return {name: v.depth for name, v in self.named.items()}


def facts(scenes: Sequence[SceneView]) -> pd.DataFrame:
    """Return every fact of the scenes: ``first`` is nearer than, left of or above ``second``.

    Returns:
        Columns row (position of the scene in ``scenes``), axis, first, second (names), order (a
        number that shuffles the facts, the same on every machine).
    """
    columns = [
        (row, v.name, v.box.x, v.box.x + v.box.w, v.box.y, v.box.y + v.box.h, v.depth)
        for row, scene in enumerate(scenes)
        for v in scene.named.values()
    ]
    seen = pd.DataFrame(columns, columns=["row", "name", "x0", "x1", "y0", "y1", "depth"])
    both = seen.merge(seen, on="row", suffixes=("", "_2"))
    both = both[both["name"] != both["name_2"]]
    left, above = both["x1"] <= both["x0_2"], both["y1"] <= both["y0_2"]
    apart = left | above | (both["x1_2"] <= both["x0"]) | (both["y1_2"] <= both["y0"])
    near, far = both["depth"], both["depth_2"]
    nearer = (far >= near * DEPTH_RATIO) & (far >= near + DEPTH_GAP)
    holds = {"depth": nearer & apart, "horizontal": left, "vertical": above}
    names = {"name": "first", "name_2": "second"}
    parts = [both.loc[holds[axis], ["row", *names]].assign(axis=axis) for axis in AXES]
    table = pd.concat(parts, ignore_index=True).rename(columns=names)
    index = table["row"].map(dict(enumerate(scene.index for scene in scenes)))
    key = index.astype(str) + "/" + table["axis"] + "/" + table["first"] + "/" + table["second"]
    return table.assign(order=[zlib.crc32(text.encode()) for text in key])


def duos(scenes: Sequence[SceneView]) -> pd.DataFrame:
    """Return facts in twos: the same two names once in either order.

    If records come in whole duos with one wording per duo, a scorer that reads only the caption is
    at 50 %. Facts without a partner are left out.

    Returns:
        Columns axis, low, high (names in alphabetical order), row (the scene where low is first),
        row_2 (the scene where high is first); shuffled, the same on every machine.
    """
    table = facts(scenes).sort_values("order", kind="stable")
    forward = table["first"] < table["second"]
    table["low"] = table["first"].where(forward, table["second"])
    table["high"] = table["second"].where(forward, table["first"])
    key = ["axis", "low", "high"]
    table["rank"] = table.assign(forward=forward).groupby([*key, "forward"]).cumcount()
    pairs = table[forward].merge(table[~forward], on=[*key, "rank"], suffixes=("", "_2"))
    return pairs.sort_values(["order", "order_2"], kind="stable")[[*key, "row", "row_2"]]


def records(
    scenes: Sequence[SceneView], per_relation: int | None = None, max_per_image: int | None = None
) -> list[Record]:
    """Return the balanced records of a split.

    Args:
        scenes: in the order of the images.
        per_relation: even number of records of each relation; None takes every duo.
        max_per_image: records of one image at most.

    Raises:
        ValueError: some relation has fewer than ``per_relation`` records.
    """
    used: Counter[int] = Counter()
    wording = dict.fromkeys(RELATIONS, 0)
    chosen: list[tuple[int, str, str, str]] = []
    for axis, low, high, row, row_2 in duos(scenes).itertuples(index=False):
        relation = min(AXES[axis], CONVERSE[AXES[axis]], key=lambda r: wording[r])
        if per_relation is not None and wording[relation] >= per_relation:
            continue
        if max_per_image is not None and max(used[row], used[row_2]) >= max_per_image:
            continue
        wording[relation] += 2
        used.update((row, row_2))
        chosen += [(row, relation, low, high), (row_2, relation, high, low)]
    if per_relation is not None and min(wording.values()) < per_relation:
        raise ValueError(
            f"{len(scenes)} scenes have only {wording} records, not {per_relation} of each relation"
        )
    return [_record(scenes[row], row, *statement) for row, *statement in sorted(chosen)]


def left_over(scenes: Sequence[SceneView], stated: Sequence[Record]) -> list[Record]:
    """Return the balanced records of the facts of these scenes that ``stated`` leaves out.

    A fact is stated by either wording: "A is left of B" leaves out "B is right of A", too.
    """
    known = {_fact(record) for record in stated}
    return [record for record in records(scenes) if _fact(record) not in known]


def _fact(record: Record) -> tuple[int, frozenset[str], frozenset[str]]:
    names = frozenset((record.subject, record.object))
    return record.image, names, frozenset((record.relation, CONVERSE[record.relation]))


def _record(scene: SceneView, row: int, relation: str, first: str, second: str) -> Record:
    """Return the record of the fact about ``first`` and ``second``, worded with ``relation``."""
    subject, other = (first, second) if relation in AXES.values() else (second, first)
    boxes = scene.boxes
    elevation = None
    if relation in DEPTH_RELATIONS:
        elevation = elevation_tag(boxes[first], boxes[second], scene.size)
    return Record(
        record_id=f"{scene.scene_id}/{subject}/{relation}/{other}".replace(" ", "_"),
        image=row,
        subject=subject,
        relation=relation,
        object=other,
        boxes=boxes,
        image_size=(scene.size, scene.size),
        source="rooms",
        scene_id=scene.scene_id,
        elevation=elevation,
        depths=scene.depths,
    )
