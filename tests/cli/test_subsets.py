"""Subsets by hand: which record is in which, and what a row is worth there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.evaluation.subsets import Fact
from spatialbench.report.stored_rows import Row

from spatialbench.cli import subsets as command
from spatialbench.cli.main import main
from spatialbench.data.records import Box, Record, RecordSet
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation import subsets as facts
from spatialbench.report.subsets import subsets_table
from spatialbench.results.files import ResultOutcomes
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes


def record(
    number: int, relation: str, a: Box, b: Box, names: tuple[str, str] = ("sofa", "lamp")
) -> Record:
    first, second = names
    return Record(
        f"r{number}",
        number,
        first,
        relation,
        second,
        {first: a, second: b},
        (100, 100),
        "x",
        f"s{number}",
    )


def test_elevation_is_the_tag_of_the_record() -> None:
    box = Box(0, 0, 10, 10)
    records = [
        replace(record(k, "close", box, box), elevation=tag)
        for k, tag in enumerate(("consistent", "counter"))
    ]
    found = facts.elevation([*records, record(2, "left", box, box)])
    assert found.labels is not None
    assert found.labels.tolist() == ["consistent", "counter", ""]
    assert facts.elevation([record(0, "left", box, box)]).absent == "no record is tagged"


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
    found = facts.gap(records)
    assert found.labels is not None
    assert found.labels.tolist()[:3] == ["narrow", "middle", "wide"]
    assert found.labels[4] == ""  # depth has no gap
    assert "side at 0.0733 and 0.167" in found.about  # thirds of 0.02, 0.10, 0.30
    sizes = facts.size(records[:3])
    assert sizes.labels is not None
    assert sizes.labels.tolist() == ["small", "medium", "large"]  # 100, 110, 120 of 10,000
    bare = [replace(records[0], boxes={})]
    assert facts.size(bare).absent == facts.NO_BOXES
    assert facts.gap(bare).absent == facts.NO_BOXES


def test_thirds_are_made_within_each_group() -> None:
    values, group = np.array([1.0, 2, 3, 10, 20, 30, np.nan]), np.array([*"aaabbb", "b"])
    found = facts.thirds("x", "about", values, ("low", "mid", "top"), group)
    assert found.labels is not None
    assert found.labels.tolist() == ["low", "mid", "top", "low", "mid", "top", ""]


def test_training_pairs_count_either_order_on_the_same_axis() -> None:
    box = Box(0, 0, 1, 1)
    trained = [record(0, "left", box, box), record(1, "right", box, box, ("lamp", "sofa"))]
    asked = [
        record(0, "right", box, box),
        record(1, "above", box, box),
        record(2, "left", box, box, ("sofa", "bed")),
    ]
    found = facts.pairs(asked, trained)
    assert found.labels is not None
    assert found.labels.tolist() == ["frequent", "unseen", "unseen"]
    assert facts.pairs(asked, None, "not here").absent == "not here"


def test_visible_by_hand() -> None:
    found = facts.visible("", np.array([0.49, 0.5, 0.94, 0.95, 1.0]))
    assert found.labels is not None
    assert found.labels.tolist() == ["hidden", "partly", "partly", "whole", "whole"]


def test_of_the_rooms_what_is_hidden_is_traced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of an object alone the silhouette is all that is seen; none fills less than what the picture shows of it."""
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
    names = [fact.name for fact in facts.of_scenes(load("test", 32, 48).record_set())]
    assert names == ["depth ratio", "visible"]
    outside = RecordSet("file", rooms.images, [], "f")
    assert [fact.absent for fact in facts.of_scenes(outside)] == [facts.NO_SCENES] * 2


# ------------------------------------------------------------------------------------------------------------ the table
def made_rows(folder: Path) -> tuple[list[Row], RecordSet]:
    """Two rows on six records of each relation: ``a`` right on the first half of the records, ``b`` on all."""
    folder = fakes.benchmarks(folder, "a", "b")
    base = fakes.run_outcomes(0, per_relation=10)
    n = len(base.record_ids)
    first = np.arange(n) < n // 2
    rows = []
    for name, right in (("a", first), ("b", np.ones(n, bool))):
        run = RunOutcomes(
            base.record_ids,
            base.relation,
            base.cluster,
            right.astype(np.float32),
            np.full(n, 0.5, np.float32),
        )
        rows.append(Row(fakes.result_of(name, folder, [run]), ResultOutcomes.join([run]), []))
    box = Box(0, 0, 1, 1)
    records = [
        replace(record(k, RELATIONS[k % 6], box, box), record_id=str(key))
        for k, key in enumerate(base.record_ids)
    ]
    return rows, RecordSet(
        "made up", np.zeros((1, 4, 4, 3), np.uint8), records[::-1], "f"
    )  # in another order


def test_rows_in_subsets_by_hand(tmp_path: Path) -> None:
    rows, record_set = made_rows(tmp_path)
    n = len(record_set.records)
    labels = np.where(np.arange(n) < n // 2, "last", "first")  # of the reversed records
    some = Fact("half", "which half", ("first", "last", "none"), labels)
    missing = Fact("depth ratio", "about", absent="known of the rooms as rendered only")
    found = json.loads(subsets_table(rows, record_set, [some, missing], than="a", format="json"))
    assert [(each["subset"], each["n"]) for each in found] == [
        ("first", n // 2),
        ("last", n // 2),
        ("none", 0),
    ]
    by_row = [[row["accuracy"] for row in each["rows"]] for each in found]
    assert by_row == [[100, 100], [0, 100], []]
    assert found[1]["rows"][1]["difference"] == 100
    assert found[1]["rows"][0]["difference"] is None
    text = subsets_table(rows, record_set, [some, missing], ["b"], "a", "md")
    assert "| b | 100.0 (100.0 to 100.0) | **100.0 (100.0 to 100.0), +100.0** | – |" in text
    assert "depth ratio (about): not of these records, known of the rooms as rendered only." in text
    lines = subsets_table(rows, record_set, [some], than="a", format="csv").splitlines()
    assert lines[0].startswith("fact,subset,n,name,accuracy,low,high,than")
    assert len(lines) == 5


def test_few_records_are_not_emphasised(tmp_path: Path) -> None:
    rows, record_set = made_rows(tmp_path)
    labels = np.full(len(record_set.records), "")
    labels = np.where(np.arange(len(labels)) < 29, "few", labels)
    assert "**" not in subsets_table(
        rows, record_set, [Fact("x", "y", ("few",), labels)], than="a", format="md"
    )


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    rows, record_set = made_rows(tmp_path)
    with pytest.raises(SpatialbenchError, match="no stored row 'c'"):
        subsets_table(rows, record_set, [], ["c"])
    other = replace(record_set, records=record_set.records[1:])
    with pytest.raises(SpatialbenchError, match="scored on other records than made up has today"):
        subsets_table(rows, other, [])


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line, on records of a folder of rows."""
    rows, record_set = made_rows(tmp_path / "benchmarks")
    for name in ("a", "b"):
        fakes.store(tmp_path / "results", name, tmp_path / "benchmarks")
    ids = rows[0].outcomes.record_ids
    n = 6 * 20
    records = [
        replace(record_set.records[0], record_id=f"rooms-test-{k:05d}", relation=RELATIONS[k % 6])
        for k in range(n)
    ]
    assert set(ids) <= {each.record_id for each in records}
    monkeypatch.setattr(
        command, "test_set", lambda resolved: (replace(record_set, records=records), 8)
    )
    monkeypatch.setattr(command, "trained_on", lambda resolved: (None, "not rendered here"))
    folders = ["--results", str(tmp_path / "results"), "--benchmarks", str(tmp_path / "benchmarks")]
    assert main(["subsets", "a", *folders]) == 0
    text = capsys.readouterr().out
    assert "size: accuracy in %" in text
    assert "training pairs (records of training" in text
    assert "not of these records, not rendered here." in text
    monkeypatch.setattr(
        command, "test_set", lambda resolved: pytest.fail("minutes of facts before a misspelt name")
    )
    assert main(["subsets", "q", *folders]) == 2
