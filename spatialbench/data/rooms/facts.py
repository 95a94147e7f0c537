"""Which statements hold in a rendered scene, and the choice of records that leaves nothing to be read off the caption.

The rules are EmbSpatial's (specs/data.md 1.5): the whole box on one side for left, right, above and under; the mean
depth inside the object, with a margin, for close and far; boxes that do not overlap; names that occur once in the view.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations

from spatialbench.data.records import Box, Record, elevation_tag
from spatialbench.relations import CONVERSE

AXES: dict[str, str] = {"depth": "close", "horizontal": "left", "vertical": "above"}
"""Axis -> the relation that a fact of this axis states of its first object."""

MIN_AREA = 0.005
"""Smallest visible share of the picture for an object to be spoken of."""

DEPTH_RATIO, DEPTH_GAP = 1.12, 0.30
"""A depth fact needs the farther mean depth to be at least this many times, and this many metres, the nearer one."""


@dataclass(frozen=True)
class View:
    """One object as the camera sees it: box in pixels, area in pixels, mean depth of its visible pixels in metres."""

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
    """All visible objects of a scene; ``size``: side of the square picture in pixels."""

    scene_id: str
    index: int
    size: int
    views: tuple[View, ...]

    def named(self) -> list[View]:
        """The objects large enough to be spoken of whose name is unique in the view."""
        names = [v.name for v in self.views]
        return [v for v in self.views if v.area >= MIN_AREA * self.size**2 and names.count(v.name) == 1]


@dataclass(frozen=True)
class Fact:
    """``first`` is nearer than / left of / above ``second`` in scene ``index``."""

    index: int
    axis: str
    first: str
    second: str


def facts(scene: SceneView) -> list[Fact]:
    """Every fact of the scene, in a fixed order."""
    found = []
    for a, b in permutations(scene.named(), 2):
        if a.box.overlaps(b.box):
            continue
        if b.depth >= a.depth * DEPTH_RATIO and b.depth >= a.depth + DEPTH_GAP:
            found.append(Fact(scene.index, "depth", a.name, b.name))
        if a.box.x + a.box.w <= b.box.x:
            found.append(Fact(scene.index, "horizontal", a.name, b.name))
        if a.box.y + a.box.h <= b.box.y:
            found.append(Fact(scene.index, "vertical", a.name, b.name))
    return found


def _order(fact: Fact) -> bytes:
    return hashlib.blake2b(repr(fact).encode(), digest_size=8).digest()


Duo = tuple[Fact, Fact]


def duos(scenes: Iterable[SceneView]) -> dict[str, list[Duo]]:
    """Facts in twos, per axis: the same two names once in either order, from two scenes.

    Whatever is built from whole duos with one wording per duo has every ordered pair of names as often as its reverse:
    a scorer that reads only the caption is at 50. Facts without a partner are left out.
    """
    pools: dict[tuple[str, str, str], tuple[list[Fact], list[Fact]]] = defaultdict(lambda: ([], []))
    for scene in scenes:
        for fact in facts(scene):
            low, high = sorted((fact.first, fact.second))
            pools[fact.axis, low, high][fact.first != low].append(fact)
    found: dict[str, list[Duo]] = {axis: [] for axis in AXES}
    for (axis, _, _), (forward, backward) in pools.items():
        found[axis] += zip(sorted(forward, key=_order), sorted(backward, key=_order), strict=False)
    return {axis: sorted(both, key=lambda duo: _order(duo[0])) for axis, both in found.items()}


def records(
    scenes: Sequence[SceneView], per_relation: int | None = None, max_per_image: int | None = None
) -> list[Record]:
    """The balanced records of a split.

    Args:
        scenes: in the order of the images.
        per_relation: even number of records of each relation; None takes every duo.
        max_per_image: records of one picture at most.

    Raises:
        ValueError: the scenes do not hold ``per_relation`` records of some relation.
    """
    position = {scene.index: row for row, scene in enumerate(scenes)}
    by_index = {scene.index: scene for scene in scenes}
    used: dict[int, int] = defaultdict(int)
    chosen: list[tuple[Fact, str]] = []
    for axis, both in duos(scenes).items():
        wording = {AXES[axis]: 0, CONVERSE[AXES[axis]]: 0}
        for one, other in both:
            relation = min(wording, key=lambda r: wording[r])
            if per_relation is not None and wording[relation] >= per_relation:
                break
            if max_per_image is not None and max(used[one.index], used[other.index]) >= max_per_image:
                continue
            wording[relation] += 2
            for fact in (one, other):
                used[fact.index] += 1
                chosen.append((fact, relation))
        if per_relation is not None and min(wording.values()) < per_relation:
            raise ValueError(f"{len(scenes)} scenes hold only {wording} records, not {per_relation} of each relation")
    chosen.sort(key=lambda item: (position[item[0].index], item[0].axis, item[0].first, item[0].second))
    return [_record(by_index[fact.index], position[fact.index], fact, relation) for fact, relation in chosen]


def _record(scene: SceneView, row: int, fact: Fact, relation: str) -> Record:
    first, second = fact.first, fact.second
    subject, other = (first, second) if relation == AXES[fact.axis] else (second, first)
    boxes = {view.name: view.box for view in scene.named()}
    depth = fact.axis == "depth"
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
        elevation=elevation_tag(boxes[first], boxes[second], scene.size) if depth else None,
    )
