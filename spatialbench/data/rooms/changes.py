"""Changes between two images of one room, each with captions true of one and false of the other.

A relation: two objects swap places (``Scene.swapped``), the caption and its negation. Colour: one
object takes another colour of its kind. Presence: another kind replaces one object in its place and
colour. All else stays, light and sensor noise included. No object hovers or stands in another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from spatialbench.data.relations import CONVERSE, RELATIONS, Statement, with_articles
from spatialbench.data.rooms.facts import AXES, SceneView, View, facts
from spatialbench.data.rooms.kinds import KIND, KINDS
from spatialbench.data.rooms.render import Rendering
from spatialbench.data.rooms.scene import Instance, Scene, build
from spatialbench.data.rooms.shapes import rotation

PATTERNS = (*RELATIONS, "colour", "presence")
"""The differences between the two images of a pair, in the order of the tables."""
SEED = 20260
TOUCH, INTO, WALLS = 0.02, 0.01, 0.05
"""Metres: below ``TOUCH`` objects touch, beyond ``INTO`` they intersect; a wall's thickness."""
VISIBLE, LEVELS = 0.3, 24
"""A new colour is visible if this share of the object's pixels changes by more than 24 of 255."""

Fact = tuple[str, str, str]
"""(axis, first, second), as in ``facts.facts``."""


class Seen(NamedTuple):
    """An image and the facts that hold in it."""

    rendering: Rendering
    view: SceneView
    facts: frozenset[Fact]


class Claim(NamedTuple):
    """A caption, and tests of whether it is true and whether it is false of an image."""

    text: str
    true_of: Callable[[Seen], bool]
    false_of: Callable[[Seen], bool]


def relates(statement: Statement) -> Claim:
    """Claim a statement, which is false if its negation holds."""
    fact, negated = _fact(statement), _fact(statement.negated)
    return Claim(
        statement.caption, lambda seen: fact in seen.facts, lambda seen: negated in seen.facts
    )


def shows(name: str, colour: str | None = None) -> Claim:
    """Claim that a kind is visible, in one colour or in any (None).

    It is true if the only object of its kind is large enough, false if no pixel shows it.
    """

    def among(views: Iterable[View]) -> bool:
        return any(view.name == name and colour in (None, view.colour) for view in views)

    return Claim(
        with_articles(f"a {colour} {name}" if colour else f"a {name}"),
        lambda seen: among(seen.view.named.values()),
        lambda seen: not among(seen.view.views),
    )


@dataclass(frozen=True)
class Change:
    """The second scene of a pair."""

    pattern: str  # one of ``PATTERNS``
    claims: tuple[Claim, Claim]  # of the first image and of the second
    names: frozenset[str]  # of the objects that change, in either image
    scene: Scene

    def holds(self, first: Seen, second: Seen) -> bool:
        """Return whether each claim is true of its own image alone, and the other objects stay."""
        claim, other = self.claims
        rest, also = ({v.name for v in seen.view.large} - self.names for seen in (first, second))
        true = claim.true_of(first) and other.true_of(second)
        false = claim.false_of(second) and other.false_of(first)
        recoloured = self.pattern != "colour" or (true and self._recoloured(first, second))
        return true and false and rest == also and recoloured

    def _recoloured(self, first: Seen, second: Seen) -> bool:
        """Return whether the new colour is visible on the same shapes."""
        (name,) = self.names
        before, after = first.rendering, second.rendering
        inside = before.mask == first.view.named[name].code
        moved = np.abs(before.image.astype(int) - after.image).max(-1) > LEVELS
        return np.array_equal(before.mask, after.mask) and moved[inside].mean() >= VISIBLE


def seen_all(renderings: Sequence[Rendering], views: Sequence[SceneView]) -> list[Seen]:
    """Return each image with its view and its facts."""
    held: list[set[Fact]] = [set() for _ in views]
    for row, *fact in facts(views)[["row", "axis", "first", "second"]].itertuples(index=False):
        held[row].add(tuple(fact))
    return [Seen(*parts) for parts in zip(renderings, views, map(frozenset, held), strict=True)]


def changes(scene: Scene, seen: Seen) -> dict[str, Iterator[Change]]:
    """Return the changes of each pattern that the room has space for.

    Their order is random but depends only on (split, index). A scene serves half of the patterns,
    one wording of each axis and either colour or presence, so that all patterns fill alike.
    """
    odd = scene.index % 2
    relations = [CONVERSE[relation] if odd else relation for relation in AXES.values()]
    rest = (
        {"presence": _replacements(scene, seen)} if odd else {"colour": _recolourings(scene, seen)}
    )
    return {relation: _swaps(scene, seen, relation) for relation in relations} | rest


def _swaps(scene: Scene, seen: Seen, relation: str) -> Iterator[Change]:
    pairs = sorted(
        (first, second) for axis, first, second in seen.facts if relation in _wordings(axis)
    )
    on_wall = {instance.name: instance.mount == "wall" for instance in scene.objects}
    for first, second in _shuffled(scene, relation, pairs):
        statement = Statement(first, relation, second)
        if relation not in AXES.values():
            statement = statement.negated
        if on_wall[first] != on_wall[second]:
            continue  # a sofa on a wall
        other = scene.swapped(first, second)
        if _has_space(scene, other):
            claims = relates(statement), relates(statement.negated)
            yield Change(relation, claims, frozenset((first, second)), other)


def _recolourings(scene: Scene, seen: Seen) -> Iterator[Change]:
    for instance in _named(scene, seen, "colour"):
        before = build(instance)
        for colour in _shuffled(scene, f"colour {instance.name}", KIND[instance.name].colours):
            other = replace(instance, colour=colour)
            after = build(other)
            alike = after.accent == before.accent and after.main.second == before.main.second
            if colour != instance.colour and alike:
                claims = shows(instance.name, instance.colour), shows(instance.name, colour)
                names = frozenset((instance.name,))
                yield Change("colour", claims, names, _with(scene, instance, other))
                break


def _replacements(scene: Scene, seen: Seen) -> Iterator[Change]:
    present = {instance.name for instance in scene.objects}
    for instance in _named(scene, seen, "presence"):
        for kind in _shuffled(scene, f"presence {instance.name}", KINDS):
            alike = kind.mount == KIND[instance.name].mount and instance.colour in kind.colours
            other = _with(scene, instance, replace(instance, name=kind.name))
            if alike and kind.name not in present and _has_space(scene, other):
                claims = shows(instance.name), shows(kind.name)
                yield Change("presence", claims, frozenset((instance.name, kind.name)), other)
                break


def _named(scene: Scene, seen: Seen, purpose: str) -> list[Instance]:
    named = [instance for instance in scene.objects if instance.name in seen.view.named]
    return _shuffled(scene, purpose, named)


def _wordings(axis: str) -> tuple[str, str]:
    return AXES[axis], CONVERSE[AXES[axis]]


def _fact(statement: Statement) -> Fact:
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


@lru_cache(maxsize=512)
def extent(instance: Instance) -> np.ndarray:
    """Return the lowest and the highest corner in metres, float64 [2, 3]."""
    corners = np.concatenate(build(instance).corners).reshape(-1, 3) * instance.scale
    placed = corners @ rotation("z", instance.yaw).T + np.array(instance.position)
    return np.stack([placed.min(0), placed.max(0)])


def _has_space(before: Scene, after: Scene) -> bool:
    """Return whether the changed objects carry nothing, fit and meet only what carries them."""
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
    """Return whether two extents are nearer than ``gap``, or if negative, intersect that deep."""
    return bool((a[0] < b[1] + gap).all() and (b[0] < a[1] + gap).all())
