"""Written in EmbSpatial's schema and read back: the same pairs in the same order, the same pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatialbench.data.embspatial.embspatial_export import export
from spatialbench.data.embspatial.reader import load
from spatialbench.data.images import place
from spatialbench.data.records import Box, RecordSet
from spatialbench.utils.errors import SpatialbenchError
from tests.support.records import depth, direction, jpeg, small_set, text, write


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))


def test_read_back_it_is_the_same(tmp_path: Path) -> None:
    original = small_set(9)
    assert export(original, tmp_path / "out.json") == len(original.records)
    loaded = load(tmp_path / "out.json", 16, strict=True)
    back = loaded.record_set
    assert list(back.pairs()) == list(original.pairs())
    assert np.array_equal(back.images, original.images)
    for was, now in zip(original.records, back.records, strict=True):
        boxes = {name: was.boxes[name] for name in (was.subject, was.object)}
        # the bed's centre is 7 of 16 pixels lower than the lamp's, and the bed is the close one
        assert now == replace(
            was, boxes=boxes, elevation="consistent" if was.relation == "close" else None
        )
    assert loaded.report.dropped == 0


def test_the_file_has_the_bench_schema(tmp_path: Path) -> None:
    original = small_set(60)
    export(original, tmp_path / "out.json")
    raws = json.loads((tmp_path / "out.json").read_text())
    answers = set()
    for raw, record in zip(raws, original.records, strict=True):
        assert list(raw) == [
            "data_source",
            "scene_id",
            "question_id",
            "question",
            "relation",
            "image",
            "answer_options",
            "answer",
            "objects",
        ]
        right = raw["answer_options"][raw["answer"]]
        assert right == (
            record.subject if record.relation in ("close", "far") else record.statement.caption
        )
        assert (
            len(set(raw["answer_options"]))
            == len(raw["answer_options"])
            == (2 if record.relation == "close" else 4)
        )
        answers.add((len(raw["answer_options"]), raw["answer"]))
    assert answers == {
        (2, 0),
        (2, 1),
        (4, 0),
        (4, 1),
        (4, 2),
        (4, 3),
    }  # the place of the right one says nothing


@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
def test_boxes_are_those_of_the_stored_image(tmp_path: Path, resize: str) -> None:
    raws = [
        direction("a"),
        depth("b", image=text(jpeg(1))),
        depth("c", "close", ("sofa", "bed"), answer="A"),
    ]
    for raw in raws:
        raw["objects"] = [
            {"name": item["name"], "bbox": [20 + i, 10, 8, 8]}
            for i, item in enumerate(raw["objects"])
        ]
    first = load(write(tmp_path / "in.json", raws), 24, resize).record_set  # type: ignore[arg-type]
    export(first, tmp_path / "out.json", resize)  # type: ignore[arg-type]
    back = load(tmp_path / "out.json", 24).record_set
    assert list(back.pairs()) == list(first.pairs())
    assert np.array_equal(back.images, first.images)
    for was, now in zip(first.records, back.records, strict=True):
        for name in (was.subject, was.object):
            expected = place(was.boxes[name], (64, 48), 24, resize)  # type: ignore[arg-type]
            found = now.boxes[name]
            assert (found.x, found.y, found.w, found.h) == pytest.approx(
                (expected.x, expected.y, expected.w, expected.h)
            )


def test_a_record_without_boxes_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    original = small_set(3)
    records = [*original.records[:2], replace(original.records[2], boxes={"sofa": Box(0, 0, 1, 1)})]
    with pytest.raises(SpatialbenchError, match=r"record '1\.1'.* no box for"):
        export(RecordSet("x", original.images, records, "x"), tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpatialbenchError, match="cannot write"):
        export(small_set(3), tmp_path / "file" / "out.json")


def test_an_empty_set_is_an_empty_list(tmp_path: Path) -> None:
    original = small_set(3)
    export(RecordSet("x", original.images, [], "x"), tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == []


def test_rooms_go_out_and_come_back(tmp_path: Path) -> None:
    rooms = pytest.importorskip("spatialbench.data.rooms")
    original = rooms.load("val", 24, 32).record_set()
    export(original, tmp_path / "rooms.json")
    loaded = load(tmp_path / "rooms.json", 32)
    assert loaded.report.dropped == 0, loaded.report.summary()
    assert list(loaded.record_set.pairs()) == [
        replace(pair, image=row)
        for pair, row in zip(
            original.pairs(), _first_use([r.image for r in original.records]), strict=True
        )
    ]
    for was, now in zip(original.records, loaded.record_set.records, strict=True):
        assert np.array_equal(original.images[was.image], loaded.record_set.images[now.image])
        assert now.elevation == was.elevation


def _first_use(images: list[int]) -> list[int]:
    """Image rows numbered in the order of their first record."""
    rows: dict[int, int] = {}
    return [rows.setdefault(image, len(rows)) for image in images]
