"""What may change between two pictures of one room, with a caption that is true of either and false of the other.

A relation: two objects in each other's place (``Scene.exchanged``), the caption and its negation. Colour: one object in
another colour of its kind. Presence: one object replaced by another kind in its place and colour. All else, light and
sensor noise included, stays; nothing hovers, and nothing stands in anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from spatialbench.data.relations import CONVERSE, RELATIONS, Statement, with_articles
from spatialbench.data.rooms.facts import AXES, SceneView, facts
from spatialbench.data.rooms.kinds import KIND, KINDS
from spatialbench.data.rooms.render import Picture
from spatialbench.data.rooms.scene import Instance, Scene, build
from spatialbench.data.rooms.shapes import rotation

PATTERNS = (*RELATIONS, "colour", "presence")
"""What the two pictures of a pair may differ in, in the order of the tables."""
SEED = 20260
TOUCH, INTO, WALLS = 0.02, 0.01, 0.05
"""Metres: nearer than ``TOUCH`` stands on; deeper than ``INTO`` stands in; a wall is that thick."""
VISIBLE, LEVELS = 0.3, 24
"""A changed colour is seen when this share of the object's pixels changes by so many of 255 levels."""

Fact = tuple[str, str, str]
"""(axis, first, second), as ``facts.facts`` has them."""


class Seen(NamedTuple):
    """A picture and what holds in it."""

    picture: Picture
    view: SceneView
    facts: frozenset[Fact]


@dataclass(frozen=True)
class Relates:
    """The claim of a statement."""

    statement: Statement

    @property
    def text(self) -> str:
        return self.statement.caption

    def true_of(self, seen: Seen) -> bool:
        return _fact(self.statement) in seen.facts

    def false_of(self, seen: Seen) -> bool:
        return _fact(self.statement.negated) in seen.facts


@dataclass(frozen=True)
class Shows:
    """The claim that a kind is there, in a colour or in any (None)."""

    name: str
    colour: str | None = None

    @property
    def text(self) -> str:
        return with_articles(f"a {self.colour} {self.name}" if self.colour else f"a {self.name}")

    def true_of(self, seen: Seen) -> bool:
        """Large enough to be spoken of, and the only one of its kind."""
        found = seen.view.named.get(self.name)
        return found is not None and self.colour in (None, found.colour)

    def false_of(self, seen: Seen) -> bool:
        """Not a pixel of it is seen."""
        return not any(
            view.name == self.name and self.colour in (None, view.colour)
            for view in seen.view.views
        )


@dataclass(frozen=True)
class Change:
    """The second scene of a pair.

    Attributes:
        pattern: one of ``PATTERNS``. claims: of the first picture, of the second.
        names: the objects that change, by the names they have in either picture.
        scene: the second one.
    """

    pattern: str
    claims: tuple[Relates, Relates] | tuple[Shows, Shows]
    names: frozenset[str]
    scene: Scene

    def holds(self, first: Seen, second: Seen) -> bool:
        """Whether each claim is true of its picture and false of the other, and nothing else changed: the same other
        objects can be spoken of in both."""
        one, two = self.claims
        others = [{view.name for view in seen.view.large} - self.names for seen in (first, second)]
        true = (
            one.true_of(first)
            and two.true_of(second)
            and one.false_of(second)
            and two.false_of(first)
        )
        return (
            true
            and others[0] == others[1]
            and (self.pattern != "colour" or self._recoloured(first, second))
        )

    def _recoloured(self, first: Seen, second: Seen) -> bool:
        """Whether the new colour is seen, and the same shapes are."""
        (name,) = self.names
        inside = first.picture.mask == first.view.named[name].code
        moved = np.abs(first.picture.image.astype(int) - second.picture.image).max(-1) > LEVELS
        return (
            np.array_equal(first.picture.mask, second.picture.mask)
            and moved[inside].mean() >= VISIBLE
        )


def seen_all(pictures: Sequence[Picture], views: Sequence[SceneView]) -> list[Seen]:
    """What is seen in each of these pictures."""
    held: list[set[Fact]] = [set() for _ in views]
    for row, axis, first, second in facts(views)[["row", "axis", "first", "second"]].itertuples(
        index=False
    ):
        held[row].add((axis, first, second))
    return [Seen(*parts) for parts in zip(pictures, views, map(frozenset, held), strict=True)]


def changes(scene: Scene, seen: Seen) -> dict[str, Iterator[Change]]:
    """Pattern -> the changes that the room has space for, in a random order that (split, index) decides.

    A scene serves half of the patterns, one wording of each axis and colour or presence, so that all fill alike.
    """
    odd = scene.index % 2
    relations = [CONVERSE[relation] if odd else relation for relation in AXES.values()]
    found: dict[str, Iterator[Change]] = {
        relation: _exchanges(scene, seen, relation) for relation in relations
    }
    return found | (
        {"presence": _replacements(scene, seen)} if odd else {"colour": _recolourings(scene, seen)}
    )


def _exchanges(scene: Scene, seen: Seen, relation: str) -> Iterator[Change]:
    pairs = sorted(
        (first, second) for axis, first, second in seen.facts if relation in _wordings(axis)
    )
    objects = {instance.name: instance for instance in scene.objects}
    for first, second in _shuffled(scene, relation, pairs):
        statement = Statement(first, relation, second)
        if relation not in AXES.values():
            statement = statement.negated
        if (objects[first].mount == "wall") != (objects[second].mount == "wall"):
            continue  # a sofa on a wall
        other = scene.exchanged(first, second)
        if _has_space(scene, other):
            claims = Relates(statement), Relates(statement.negated)
            yield Change(relation, claims, frozenset((first, second)), other)


def _recolourings(scene: Scene, seen: Seen) -> Iterator[Change]:
    own = [instance for instance in scene.objects if instance.name in seen.view.named]
    for instance in _shuffled(scene, "colour", own):
        before = build(instance)
        for colour in _shuffled(scene, f"colour {instance.name}", KIND[instance.name].colours):
            other = replace(instance, colour=colour)
            after = build(other)
            alike = after.accent == before.accent and after.main.second == before.main.second
            if colour != instance.colour and alike:
                claims = Shows(instance.name, instance.colour), Shows(instance.name, colour)
                yield Change(
                    "colour", claims, frozenset((instance.name,)), _with(scene, instance, other)
                )
                break


def _replacements(scene: Scene, seen: Seen) -> Iterator[Change]:
    own = [instance for instance in scene.objects if instance.name in seen.view.named]
    there = {instance.name for instance in scene.objects}
    for instance in _shuffled(scene, "presence", own):
        for kind in _shuffled(scene, f"presence {instance.name}", KINDS):
            alike = kind.mount == KIND[instance.name].mount and instance.colour in kind.colours
            other = _with(scene, instance, replace(instance, name=kind.name))
            if alike and kind.name not in there and _has_space(scene, other):
                claims = Shows(instance.name), Shows(kind.name)
                yield Change("presence", claims, frozenset((instance.name, kind.name)), other)
                break


def _wordings(axis: str) -> tuple[str, str]:
    return AXES[axis], CONVERSE[AXES[axis]]


def _fact(statement: Statement) -> Fact:
    """The fact that a statement words."""
    axis = next(axis for axis in AXES if statement.relation in _wordings(axis))
    if statement.relation == AXES[axis]:
        return axis, statement.subject, statement.object
    return axis, statement.object, statement.subject


def _shuffled(scene: Scene, purpose: str, items: Iterable) -> list:
    items = list(items)
    rng = np.random.default_rng([SEED, scene.index, *purpose.encode()])
    return [items[k] for k in rng.permutation(len(items))]


def _with(scene: Scene, before: Instance, after: Instance) -> Scene:
    return replace(scene, objects=tuple(after if o == before else o for o in scene.objects))


# ------------------------------------------------------------------------------------------------------------- space
@lru_cache(maxsize=512)
def extent(instance: Instance) -> np.ndarray:
    """Lowest and highest corner in metres, float64 [2, 3]."""
    corners = np.concatenate(build(instance).corners).reshape(-1, 3) * instance.scale
    placed = corners @ rotation("z", instance.yaw).T + np.array(instance.position)
    return np.stack([placed.min(0), placed.max(0)])


def _has_space(before: Scene, after: Scene) -> bool:
    """Whether what changed stands where there is room for it: nothing rested on it, only small things rest on others,
    and it lies within the walls and in nothing but the extent of what carried the one that was there."""
    pairs = list(zip(before.objects, after.objects, strict=True))
    moved = [pair for pair in pairs if pair[0] != pair[1]]
    still = [(old, extent(old)) for old, new in pairs if old == new]
    boxes = [extent(new) for _, new in moved]
    if len(boxes) == 2 and _near(boxes[0], boxes[1], -INTO):
        return False
    for (_, new), box in zip(moved, boxes, strict=True):
        former = next(extent(old) for old, _ in moved if old.position == new.position)
        if new.mount == "top" and KIND[new.name].mount != "small":
            return False
        if (box[0] < -WALLS).any() or (box[1] > np.array(after.size) + WALLS).any():
            return False
        for other, its in still:
            touched = _near(former, its, TOUCH)
            rests, carries = touched and other.mount == "top", touched and new.mount == "top"
            if rests or (_near(box, its, -INTO) and not carries):
                return False
    return True


def _near(a: np.ndarray, b: np.ndarray, gap: float) -> bool:
    """Whether two extents are nearer than ``gap`` in every direction; of a negative one: deeper in one another."""
    return bool((a[0] < b[1] + gap).all() and (b[0] < a[1] + gap).all())
