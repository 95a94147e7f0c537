"""Counterfactual pairs: what their captions claim is so by what the renderer saw, and nothing else differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatialbench.data.relations import CONVERSE, RELATIONS, Statement, parse
from spatialbench.data.rooms import counterfactual
from spatialbench.data.rooms.changes import (
    PATTERNS,
    Change,
    Relates,
    Shows,
    changes,
    extent,
    seen_all,
)
from spatialbench.data.rooms.counterfactual import Counterfactual, Pair, render_shard
from spatialbench.data.rooms.facts import SceneView
from spatialbench.data.rooms.kinds import KIND
from spatialbench.data.rooms.render import render
from spatialbench.data.rooms.scene import Scene, generate
from spatialbench.data.rooms.store import view
from spatialbench.utils.errors import SpatialbenchError

SIZE, SCENES = 48, 20


def look(scenes: list[Scene]) -> list:
    pictures = [render(scene, SIZE) for scene in scenes]
    return seen_all(pictures, [view(*pair) for pair in zip(scenes, pictures, strict=True)])


@pytest.fixture(scope="module")
def found() -> list[tuple[Scene, object, Change, object]]:
    """The first change of every pattern that each scene has space for, whether it holds or not."""
    scenes = [generate("val", index) for index in range(SCENES)]
    firsts = look(scenes)
    tried = [
        (scene, first, change)
        for scene, first in zip(scenes, firsts, strict=True)
        for candidates in changes(scene, first).values()
        if (change := next(candidates, None)) is not None
    ]
    seconds = look([change.scene for *_, change in tried])
    return [(*parts, second) for parts, second in zip(tried, seconds, strict=True)]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return render_shard("val", 0, SCENES, SIZE, frozenset(PATTERNS))


def test_every_pattern_is_tried_and_most_changes_hold(found: list) -> None:
    assert {change.pattern for _, _, change, _ in found} == set(PATTERNS)
    held = [change.holds(first, second) for _, first, change, second in found]
    assert 0.3 < np.mean(held) < 1


def test_captions_are_true_of_one_picture_and_false_of_the_other(found: list) -> None:
    """Told from boxes, depths, names and colours of what is visible, not from the module's own claims."""
    for _, first, change, second in found:
        if not change.holds(first, second):
            continue
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
    return any(
        text in (f"a {v.name}", f"an {v.name}", f"a {v.colour} {v.name}", f"an {v.colour} {v.name}")
        for v in seen.views
    )


def test_nothing_else_differs(found: list) -> None:
    for scene, first, change, second in found:
        other = change.scene
        assert replace(other, objects=()) == replace(
            scene, objects=()
        )  # camera, light, walls, noise
        moved = [
            pair for pair in zip(scene.objects, other.objects, strict=True) if pair[0] != pair[1]
        ]
        assert {instance.name for pair in moved for instance in pair} == set(change.names)
        if change.pattern == "colour":
            ((old, new),) = moved
            assert replace(new, colour=old.colour) == old
            assert np.array_equal(first.picture.mask, second.picture.mask)
            far = first.picture.mask != first.view.named[old.name].code
            differs = (first.picture.image != second.picture.image).any(-1)
            assert not (differs & far).any()  # no accent, no other object
        elif change.pattern == "presence":
            ((old, new),) = moved
            assert replace(new, name=old.name) == old
            assert KIND[new.name].mount == KIND[old.name].mount
            assert new.colour in KIND[new.name].colours
        else:
            assert sorted(old.position for old, _ in moved) == sorted(
                new.position for _, new in moved
            )
        if change.holds(first, second):
            rest = [
                {view.name for view in seen.view.large} - change.names for seen in (first, second)
            ]
            assert rest[0] == rest[1]


def test_nothing_hovers_and_nothing_stands_in_anything(found: list) -> None:
    for scene, _, change, _ in found:
        if change.pattern == "colour":
            continue
        moved = [
            new for old, new in zip(scene.objects, change.scene.objects, strict=True) if old != new
        ]
        still = [
            old for old, new in zip(scene.objects, change.scene.objects, strict=True) if old == new
        ]
        for new in moved:
            low, high = extent(new)
            assert (low > -0.06).all()
            assert (high < np.array(scene.size) + 0.06).all()
            if new.mount == "floor":
                assert low[2] == pytest.approx(0, abs=0.01)
                for other in still:
                    inside = (low < extent(other)[1] - 0.011).all() and (
                        extent(other)[0] < high - 0.011
                    ).all()
                    assert not inside, (scene.scene_id, new.name, other.name)
            if new.mount == "top":
                assert KIND[new.name].mount == "small"
            assert new.mount != "wall" or KIND[new.name].mount == "wall"


@pytest.mark.parametrize("wrong", ["same", "swapped", "hidden"])
def test_what_is_not_seen_to_hold_is_refused(found: list, wrong: str) -> None:
    _, first, change, second = next(parts for parts in found if parts[2].holds(parts[1], parts[3]))
    if wrong == "same":
        second = first
    elif wrong == "swapped":
        first, second = second, first
    else:
        views = tuple(view for view in second.view.views if view.name in change.names)
        second = second._replace(view=replace(second.view, views=views))
    assert not change.holds(first, second)


def test_a_colour_that_is_not_seen_is_no_change(found: list) -> None:
    parts = next(p for p in found if p[2].pattern == "colour" and p[2].holds(p[1], p[3]))
    _, first, change, second = parts
    same = second._replace(picture=replace(second.picture, image=first.picture.image))
    assert not change.holds(first, same)


def test_words() -> None:
    assert Shows("sofa").text == "a sofa"
    assert Shows("box", "orange").text == "an orange box"
    assert Relates(Statement("sofa", "left", "bed")).text == "The sofa is left of the bed."


def test_pairs_are_in_order_at_most_one_of_a_pattern_a_scene_and_independent_of_the_shard(
    pairs: list[Pair],
) -> None:
    keys = [(pair.scene, PATTERNS.index(pair.pattern)) for pair in pairs]
    assert keys == sorted(set(keys))
    part = render_shard("val", 4, 8, SIZE, frozenset(["colour", "left"]))
    wanted = [
        p
        for p in pairs
        if p.pattern in ("colour", "left") and p.scene[-6:] in {f"{k:06d}" for k in range(4, 8)}
    ]
    assert [p.captions for p in part] == [p.captions for p in wanted]
    assert all(np.array_equal(a.images, b.images) for a, b in zip(part, wanted, strict=True))


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, frozenset[str]]]:
    """Pairs without pictures; says which shards were asked for what. Every scene has colour, odd ones all the rest."""
    asked = []

    def shard(split: str, start: int, stop: int, size: int, patterns: frozenset[str]) -> list[Pair]:
        asked.append((start, patterns))
        return [
            Pair(
                pattern,
                f"{split}-{k}",
                (f"{k} {pattern}", "b"),
                np.full((2, size, size, 3), k, np.uint8),
            )
            for k in range(start, stop)
            for pattern in PATTERNS
            if pattern in patterns and (pattern == "colour" or k % 2)
        ]

    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(counterfactual, "render_shard", shard)
    monkeypatch.setattr(
        counterfactual, "in_parallel", lambda _, function, jobs: (function(*job) for job in jobs)
    )
    return asked


def test_a_set_has_as_many_of_each_pattern_from_the_first_scenes(cheap: list) -> None:
    found = Counterfactual("val", 10, scenes=100).pairs(8)
    assert found.patterns == PATTERNS
    assert np.bincount(found.pattern).tolist() == [10] * 8
    assert found.images.shape == (80, 2, 8, 8, 3)
    assert list(found.scenes[:10]) == [f"val-{k}" for k in range(1, 20, 2)]  # close
    assert list(found.scenes[60:70]) == [f"val-{k}" for k in range(10)]  # colour
    assert found.captions[1] == ("3 close", "b")
    assert [start for start, _ in cheap] == [0, 16]
    assert cheap[1][1] == frozenset(PATTERNS) - {"colour"}  # what is full is not rendered again


def test_rendered_once_by_content_of_the_generator(
    cheap: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = Counterfactual("val", 2).pairs(8)
    again = Counterfactual("val", 2).pairs(8)
    assert len(cheap) == 1
    assert again.captions == first.captions
    assert again.data == first.data
    assert np.array_equal(again.images, first.images)
    assert Counterfactual("val", 3).pairs(8).data != first.data
    assert Counterfactual("test", 2).pairs(8).data != first.data
    assert Counterfactual("val", 2).pairs(10).data != first.data
    assert len(cheap) == 4
    next((tmp_path / "rooms").glob("*-8/counterfactual-val-2.npz")).write_bytes(b"PK")
    assert Counterfactual("val", 2).pairs(8).data == first.data
    assert len(cheap) == 5
    monkeypatch.setattr(counterfactual, "code_hash", lambda *names: f"another{len(names)}")
    Counterfactual("val", 2).pairs(8)
    assert len(cheap) == 6
    assert (
        len(list((tmp_path / "rooms").glob(f"*-another{len(counterfactual.SOURCE)}-8/*.npz"))) == 1
    )


def test_another_source_is_another_key() -> None:
    from spatialbench.data.rooms.store import code_hash

    assert len({code_hash(), code_hash("facts"), code_hash(*counterfactual.SOURCE)}) == 3


def test_what_cannot_be_had_is_one_line(cheap: list) -> None:
    with pytest.raises(SpatialbenchError, match="unknown split 'tset'"):
        Counterfactual("tset")
    with pytest.raises(SpatialbenchError, match="ask for 1 or more"):
        Counterfactual("test", 0)
    with pytest.raises(
        SpatialbenchError, match="4 scenes of rooms/val have 2 pairs of the pattern 'close', not 3"
    ):
        Counterfactual("val", 3, scenes=4).pairs(8)
