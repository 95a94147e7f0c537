"""Relations from boxes and depths, the balance of the records, and the counterfactual picture."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from spatialbench.data.records import Box
from spatialbench.data.relations import CONVERSE, RELATIONS
from spatialbench.data.rooms.facts import DEPTH_GAP, DEPTH_RATIO, SceneView, View, facts, records
from spatialbench.data.rooms.render import render
from spatialbench.data.rooms.scene import generate
from spatialbench.data.rooms.store import view

SIZE = 48


@pytest.fixture(scope="module")
def scenes() -> list[SceneView]:
    return [view(scene, render(scene, SIZE)) for scene in (generate("val", k) for k in range(150))]


def _view(name: str, box: tuple[int, int, int, int], depth: float, area: int = 100) -> View:
    return View(name, "red", "plain", "floor", 1, Box(*box), area, depth)


def _facts(*views: View) -> set[tuple[str, str, str]]:
    found = facts([SceneView("s", 0, SIZE, views)])
    return set(found[["axis", "first", "second"]].itertuples(index=False, name=None))


def test_facts_by_hand() -> None:
    sofa, ball = _view("sofa", (0, 10, 10, 20), 2.0), _view("ball", (10, 0, 5, 10), 3.0)
    expected = {
        ("horizontal", "sofa", "ball"),
        ("vertical", "ball", "sofa"),
        ("depth", "sofa", "ball"),
    }
    assert _facts(sofa, ball) == expected


def test_one_pixel_of_overlap_ends_a_side() -> None:
    sofa, ball = _view("sofa", (0, 10, 11, 20), 2.0), _view("ball", (10, 0, 5, 10), 3.0)
    assert _facts(sofa, ball) == {("vertical", "ball", "sofa"), ("depth", "sofa", "ball")}


def test_overlapping_boxes_say_nothing() -> None:
    assert _facts(_view("sofa", (0, 0, 11, 20), 2.0), _view("ball", (10, 5, 5, 10), 4.0)) == set()


@pytest.mark.parametrize(
    ("far", "held"), [(2.0 * DEPTH_RATIO + 0.07, True), (2.0 * DEPTH_RATIO + 0.05, False)]
)
def test_depth_needs_its_margin(far: float, held: bool) -> None:
    assert pytest.approx(2.0 * DEPTH_RATIO + 0.06) == 2.0 + DEPTH_GAP
    found = _facts(_view("sofa", (0, 0, 10, 10), 2.0), _view("ball", (20, 0, 10, 10), far))
    assert (("depth", "sofa", "ball") in found) == held


def test_repeated_names_and_specks_are_not_spoken_of() -> None:
    one, two = _view("ball", (0, 0, 5, 5), 2.0), _view("ball", (10, 0, 5, 5), 2.0)
    speck = _view("mug", (30, 0, 1, 1), 2.0, area=1)
    assert _facts(one, two, speck, _view("sofa", (20, 0, 5, 5), 2.0)) == set()


def test_facts_are_those_of_the_pictures(scenes: list[SceneView]) -> None:
    """Against a loop over pixels: every mask column and row, every depth."""
    for index in range(12):
        picture = render(generate("val", index), SIZE)
        named = scenes[index].named
        expected = set()
        for a, b in permutations(named, 2):
            rows_a, columns_a = np.nonzero(picture.mask == named[a].code)
            rows_b, columns_b = np.nonzero(picture.mask == named[b].code)
            left, above = columns_a.max() < columns_b.min(), rows_a.max() < rows_b.min()
            right, under = columns_b.max() < columns_a.min(), rows_b.max() < rows_a.min()
            da = picture.depth[picture.mask == named[a].code].mean(dtype=float)
            db = picture.depth[picture.mask == named[b].code].mean(dtype=float)
            if left:
                expected.add(("horizontal", a, b))
            if above:
                expected.add(("vertical", a, b))
            if (
                (left or right or above or under)
                and db >= DEPTH_RATIO * da
                and db >= da + DEPTH_GAP
            ):
                expected.add(("depth", a, b))
        assert _facts(*scenes[index].views) == expected


def test_every_ordered_pair_is_as_often_as_its_reverse(scenes: list[SceneView]) -> None:
    found = records(scenes)
    assert len(found) > 500
    counts = Counter((r.relation, r.subject, r.object) for r in found)
    for (relation, subject, other), count in counts.items():
        assert counts[relation, other, subject] == count
    assert len({r.record_id for r in found}) == len(found)


def test_records_hold_in_their_boxes(scenes: list[SceneView]) -> None:
    for record in records(scenes):
        a, b = record.boxes[record.subject], record.boxes[record.object]
        views = scenes[record.image].named
        assert {
            "left": a.x + a.w <= b.x,
            "right": b.x + b.w <= a.x,
            "above": a.y + a.h <= b.y,
            "under": b.y + b.h <= a.y,
            "close": views[record.subject].depth < views[record.object].depth,
            "far": views[record.subject].depth > views[record.object].depth,
        }[record.relation]
        assert (record.elevation is not None) == (record.relation in ("close", "far"))


def test_a_fixed_number_of_each_relation_and_a_cap_per_picture(scenes: list[SceneView]) -> None:
    found = records(scenes, per_relation=10, max_per_image=3)
    assert Counter(r.relation for r in found) == dict.fromkeys(RELATIONS, 10)
    assert max(Counter(r.image for r in found).values()) <= 3
    with pytest.raises(ValueError, match="hold only"):
        records(scenes, per_relation=10_000)


def test_the_test_split_tells_a_blind_scorer_nothing() -> None:
    """The best that a scorer of captions can do on the balanced test: a prior fitted on the test itself."""
    from spatialbench.data.rooms import load

    test = load("test", None, 96)
    found = test.records
    assert Counter(r.relation for r in found) == dict.fromkeys(RELATIONS, 600)
    counts = Counter(r.statement for r in found)
    right = sum(
        1.0 if counts[r.statement] > counts[r.statement.negated] else 0.5
        for r in found
        if counts[r.statement] >= counts[r.statement.negated]
    )
    assert right / len(found) == pytest.approx(0.5, abs=1e-9)
    tags = Counter(r.elevation for r in found if r.elevation)
    assert tags["counter"] >= 100  # the elevation shortcut does not solve close and far


def test_exchanged_objects_make_the_negated_caption_true() -> None:
    flipped = total = 0
    for index in range(40):
        scene = generate("val", index)
        before = view(scene, render(scene, SIZE))
        for axis, first, second in facts([before])[["axis", "first", "second"]].itertuples(
            index=False, name=None
        ):
            if axis != "horizontal" or total >= 40:
                continue
            counterfactual = scene.exchanged(first, second)
            after = view(counterfactual, render(counterfactual, SIZE))
            if not {first, second} <= after.named.keys():
                continue  # one of them is hidden now
            centre = {name: after.named[name].box.centre[0] for name in (first, second)}
            total += 1
            flipped += centre[second] < centre[first]
            assert [o for o in counterfactual.objects if o.name not in (first, second)] == [
                o for o in scene.objects if o.name not in (first, second)
            ]
    assert total == 40
    assert flipped >= 0.95 * total


def test_converse_wordings_are_both_used(scenes: list[SceneView]) -> None:
    counts = Counter(r.relation for r in records(scenes))
    for relation in RELATIONS:
        assert abs(counts[relation] - counts[CONVERSE[relation]]) <= 2
