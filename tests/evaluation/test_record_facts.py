"""Facts of records by hand, and the subsets that follow."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatialbench.data.records import Box, Record, RecordSet
from spatialbench.evaluation import record_facts as facts
from spatialbench.evaluation.controls import heuristics
from spatialbench.evaluation.record_facts import Fact

BOX = Box(0, 0, 10, 10)


def record(
    number: int, relation: str, a: Box = BOX, b: Box = BOX, names: tuple = ("sofa", "lamp")
) -> Record:
    boxes = dict(zip(names, (a, b), strict=True))
    words = names[0], relation, names[1]
    return Record(f"r{number}", number, *words, boxes, (100, 100), "x", f"s{number}")


def labels(fact: Fact) -> list[str]:
    assert fact.labels is not None
    return fact.labels.tolist()


def test_elevation_is_the_tag_of_the_record() -> None:
    tags = ("consistent", "counter")
    records = [replace(record(k, "close"), elevation=tag) for k, tag in enumerate(tags)]
    assert labels(facts.elevation([*records, record(2, "left")])) == [*tags, ""]
    assert facts.elevation([record(0, "left")]).absent == "no record is tagged"


def test_gap_and_size_by_hand() -> None:
    gaps = (2, 10, 30)  # pixels of 100
    records = [
        record(k, "left", Box(0, 0, 10, 10 + k), Box(10 + g, 50, 20, 20))
        for k, g in enumerate(gaps)
    ]
    records += [
        record(3, "under", Box(0, 60, 5, 5), Box(0, 0, 40, 40)),
        record(4, "close", Box(0, 0, 9, 9), Box(9, 9, 9, 9)),
    ]
    gap = facts.gap(records)
    assert labels(gap)[:3] == ["narrow", "middle", "wide"]
    assert labels(gap)[4] == ""  # depth has no gap
    assert "side at 0.0733 and 0.167" in gap.about  # thirds of 0.02, 0.10, 0.30
    assert labels(facts.size(records[:3])) == ["small", "medium", "large"]  # 100, 110, 120
    bare = [replace(records[0], boxes={})]
    assert facts.size(bare).absent == facts.gap(bare).absent == heuristics.NO_BOXES


def test_thirds_are_made_within_each_group() -> None:
    values, group = np.array([1.0, 2, 3, 10, 20, 30, np.nan]), np.array([*"aaabbb", "b"])
    found = facts.thirds("x", "about", values, ("low", "mid", "top"), group)
    assert labels(found) == ["low", "mid", "top", "low", "mid", "top", ""]


def test_training_pairs_count_either_order_on_the_same_axis() -> None:
    trained = [record(0, "left"), record(1, "right", names=("lamp", "sofa"))]
    asked = [record(0, "right"), record(1, "above"), record(2, "left", names=("sofa", "bed"))]
    assert labels(facts.training_pairs(asked, trained)) == ["frequent", "unseen", "unseen"]
    assert facts.training_pairs(asked, None, "not here").absent == "not here"


def test_visible_by_hand() -> None:
    found = facts.visible("", np.array([0.49, 0.5, 0.94, 0.95, 1.0]))
    assert labels(found) == ["hidden", "partly", "partly", "whole", "whole"]


def test_occlusion_in_the_rooms_is_traced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An object alone shows its silhouette; none fills less than what the image shows of it."""
    from spatialbench.data.rooms import load, visibility
    from spatialbench.data.rooms.scene import generate

    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    rooms = load("test", 4, 48)
    for row, scene in enumerate(rooms.scenes):
        made = generate("test", scene.index)
        for view in scene.views:
            assert visibility.silhouette(made, view.code - 1, 48) >= view.area
        alone = replace(made, objects=(made.objects[0],))
        assert visibility.silhouette(alone, 0, 48) == visibility.silhouette(made, 0, 48)
        if row == 0:
            wanted = [(0, name) for name in scene.named]
            shares = visibility.visible_shares(rooms, wanted)
            assert all(0 < share <= 1 for share in shares.values())
            assert visibility.visible_shares(rooms, wanted) == shares  # from the cache
    found = facts.all_facts(load("test", 32, 48).record_set(), None, "unknown")
    names = ["elevation", "gap", "size", "depth ratio", "visible", "training pairs"]
    assert [fact.name for fact in found] == names
    assert [fact.absent for fact in found] == [*[""] * 5, "unknown"]
    outside = RecordSet("file", rooms.images, [], "f")
    assert [fact.absent for fact in facts.scene_facts(outside)] == [facts.NO_SCENES] * 2
