"""Counterfactual pairs: their captions hold by what the renderer saw, and nothing else differs."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from spatialbench.data.relations import CONVERSE, RELATIONS, Statement, parse
from spatialbench.data.rooms import counterfactual, store
from spatialbench.data.rooms.changes import (
    PATTERNS,
    Change,
    Seen,
    changes,
    extent,
    relates,
    seen_all,
    shows,
)
from spatialbench.data.rooms.counterfactual import Counterfactual, Pair, render_shard
from spatialbench.data.rooms.facts import SceneView
from spatialbench.data.rooms.kinds import KIND
from spatialbench.data.rooms.render import render
from spatialbench.data.rooms.scene import Instance, Scene, generate
from spatialbench.data.rooms.store import code_hash, view
from tests.support.checks import refused

SIZE, SCENES = 48, 20


class Tried(NamedTuple):
    """A change and both images; ``objects``: (before, after) of each object."""

    scene: Scene
    first: Seen
    change: Change
    second: Seen

    @property
    def holds(self) -> bool:
        return self.change.holds(self.first, self.second)

    @property
    def objects(self) -> list[tuple[Instance, Instance]]:
        return list(zip(self.scene.objects, self.change.scene.objects, strict=True))


def look(scenes: list[Scene]) -> list[Seen]:
    renderings = [render(scene, SIZE) for scene in scenes]
    return seen_all(renderings, [view(*pair) for pair in zip(scenes, renderings, strict=True)])


@pytest.fixture(scope="module")
def every() -> list[Tried]:
    """Try the first change of every pattern that a scene has space for, also if it fails."""
    scenes = [generate("val", index) for index in range(SCENES)]
    tried = [
        (scene, first, change)
        for scene, first in zip(scenes, look(scenes), strict=True)
        for candidates in changes(scene, first).values()
        if (change := next(candidates, None)) is not None
    ]
    seconds = look([change.scene for *_, change in tried])
    return [Tried(*parts, second) for parts, second in zip(tried, seconds, strict=True)]


@pytest.fixture(scope="module")
def held(every: list[Tried]) -> list[Tried]:
    return [tried for tried in every if tried.holds]


def test_every_pattern_is_tried_and_most_changes_hold(
    every: list[Tried], held: list[Tried]
) -> None:
    assert {tried.change.pattern for tried in every} == set(PATTERNS)
    assert 0.3 < len(held) / len(every) < 1


def test_captions_are_true_of_one_image_and_false_of_the_other(held: list[Tried]) -> None:
    """Check by boxes, depths, names and colours that are visible, not by the module's claims."""
    for _, first, change, second in held:
        texts = [claim.text for claim in change.claims]
        if change.pattern in RELATIONS:
            statements = [parse(text) for text in texts]
            assert statements[0].relation == change.pattern
            assert statements[1] == statements[0].negated
            for statement, seen in zip(statements, (first, second), strict=True):
                assert stands(statement, seen.view)
                assert not stands(statement.negated, seen.view)
        else:
            for text, own, other in zip(texts, (first, second), (second, first), strict=True):
                assert shown(text, own.view)
                assert not shown(text, other.view)


def stands(statement: Statement, seen: SceneView) -> bool:
    relation, a, b = statement.relation, seen.named[statement.subject], seen.named[statement.object]
    if relation in ("far", "right", "under"):
        relation, a, b = CONVERSE[relation], b, a
    if relation == "close":
        return a.depth < b.depth
    if relation == "left":
        return a.box.x + a.box.w <= b.box.x
    return a.box.y + a.box.h <= b.box.y


def shown(text: str, seen: SceneView) -> bool:
    words = text.removeprefix("an ").removeprefix("a ")
    return any(words in (v.name, f"{v.colour} {v.name}") for v in seen.views)


def test_nothing_else_differs(every: list[Tried]) -> None:
    for tried in every:
        scene, first, change, second = tried
        rest = [replace(room, objects=()) for room in (scene, change.scene)]
        assert rest[0] == rest[1]  # camera, light, walls, noise
        moved = [pair for pair in tried.objects if pair[0] != pair[1]]
        assert {instance.name for pair in moved for instance in pair} == set(change.names)
        old, new = moved[0]
        if change.pattern == "colour":
            assert len(moved) == 1
            assert replace(new, colour=old.colour) == old
            before, after = first.rendering, second.rendering
            assert np.array_equal(before.mask, after.mask)
            differs = (before.image != after.image).any(-1)
            outside = before.mask != first.view.named[old.name].code
            assert not (differs & outside).any()  # no accent, no other object
        elif change.pattern == "presence":
            assert len(moved) == 1
            assert replace(new, name=old.name) == old
            assert KIND[new.name].mount == KIND[old.name].mount
            assert new.colour in KIND[new.name].colours
        else:
            places = [sorted(pair[k].position for pair in moved) for k in (0, 1)]
            assert places[0] == places[1]


def test_no_object_hovers_or_intersects_another(every: list[Tried]) -> None:
    for tried in every:
        if tried.change.pattern == "colour":
            continue
        still = [extent(old) for old, new in tried.objects if old == new]
        for new in [new for old, new in tried.objects if old != new]:
            low, high = extent(new)
            assert (low > -0.06).all()
            assert (high < np.array(tried.scene.size) + 0.06).all()
            if new.mount == "floor":
                assert low[2] == pytest.approx(0, abs=0.01)
                for other in still:
                    inside = (low < other[1] - 0.011) & (other[0] < high - 0.011)
                    assert not inside.all(), (tried.scene.scene_id, new.name)
            assert new.mount != "top" or KIND[new.name].mount == "small"
            assert new.mount != "wall" or KIND[new.name].mount == "wall"


@pytest.mark.parametrize("wrong", ["same", "swapped", "hidden", "colour"])
def test_a_change_that_is_not_seen_is_refused(held: list[Tried], wrong: str) -> None:
    colour = wrong == "colour"
    _, first, change, second = next(t for t in held if not colour or t.change.pattern == wrong)
    if wrong == "same":
        second = first
    elif wrong == "swapped":
        first, second = second, first
    elif wrong == "hidden":
        views = tuple(view for view in second.view.views if view.name in change.names)
        second = second._replace(view=replace(second.view, views=views))
    else:
        image = first.rendering.image
        second = second._replace(rendering=replace(second.rendering, image=image))
    assert not change.holds(first, second)


def test_words() -> None:
    assert shows("sofa").text == "a sofa"
    assert shows("box", "orange").text == "an orange box"
    assert relates(Statement("sofa", "left", "bed")).text == "The sofa is left of the bed."


def test_pairs_are_in_order_unique_and_independent_of_the_shard() -> None:
    pairs = render_shard("val", 0, 8, SIZE, frozenset(PATTERNS))
    keys = [(pair.scene, PATTERNS.index(pair.pattern)) for pair in pairs]
    assert keys == sorted(set(keys))
    part = render_shard("val", 4, 8, SIZE, frozenset(["colour", "left"]))
    wanted = [p for p in pairs if p.pattern in ("colour", "left") and int(p.scene[-6:]) >= 4]
    assert [p.captions for p in part] == [p.captions for p in wanted]
    assert all(np.array_equal(a.images, b.images) for a, b in zip(part, wanted, strict=True))


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, frozenset[str]]]:
    """Pairs without rendering, and the shards asked for. Only odd scenes have more than colour."""
    asked = []

    def shard(split: str, start: int, stop: int, size: int, patterns: frozenset[str]) -> list[Pair]:
        asked.append((start, patterns))
        return [
            Pair(
                name, f"{split}-{k}", (f"{k} {name}", "b"), np.full((2, size, size, 3), k, np.uint8)
            )
            for k in range(start, stop)
            for name in PATTERNS
            if name in patterns and (name == "colour" or k % 2)
        ]

    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(counterfactual, "render_shard", shard)
    monkeypatch.setattr(
        counterfactual, "in_parallel", lambda _, function, jobs: (function(*job) for job in jobs)
    )
    return asked


def test_a_set_has_equally_many_of_each_pattern_from_the_first_scenes(cheap: list) -> None:
    made = Counterfactual("val", 10, scenes=100).pairs(8)
    assert made.patterns == PATTERNS
    assert np.bincount(made.pattern).tolist() == [10] * 8
    assert made.images.shape == (80, 2, 8, 8, 3)
    assert list(made.scenes[:10]) == [f"val-{k}" for k in range(1, 20, 2)]  # close
    assert list(made.scenes[60:70]) == [f"val-{k}" for k in range(10)]  # colour
    assert made.captions[1] == ("3 close", "b")
    assert [start for start, _ in cheap] == [0, 16]
    assert cheap[1][1] == frozenset(PATTERNS) - {"colour"}  # full patterns are not rendered again


def test_rendered_once_by_content_of_the_generator(
    cheap: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = Counterfactual("val", 2).pairs(8)
    again = Counterfactual("val", 2).pairs(8)
    assert len(cheap) == 1
    assert (again.captions, again.data) == (first.captions, first.data)
    assert np.array_equal(again.images, first.images)
    for split, count, size in (("val", 3, 8), ("test", 2, 8), ("val", 2, 10)):
        assert Counterfactual(split, count).pairs(size).data != first.data
    assert len(cheap) == 4
    next((tmp_path / "rooms").glob("*-8/counterfactual-val-2.npz")).write_bytes(b"PK")
    assert Counterfactual("val", 2).pairs(8).data == first.data  # a damaged file is made again
    assert len(cheap) == 5
    monkeypatch.setattr(store, "code_hash", lambda *names: f"another{len(names)}")
    Counterfactual("val", 2).pairs(8)
    assert len(cheap) == 6
    assert len({code_hash(), code_hash("facts"), code_hash(*counterfactual.SOURCE)}) == 3


def test_impossible_requests_are_one_line(cheap: list) -> None:
    with refused("unknown split 'tset'"):
        Counterfactual("tset")
    with refused("ask for 1 or more"):
        Counterfactual("test", 0)
    few = "4 scenes of rooms/val have 2 pairs of the pattern 'close', not 3"
    with refused(few):
        Counterfactual("val", 3, scenes=4).pairs(8)
