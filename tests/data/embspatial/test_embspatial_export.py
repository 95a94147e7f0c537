"""Written in EmbSpatial's schema and read back: the same pairs in the same order, same pixels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatialbench.data import rooms
from spatialbench.data.embspatial.embspatial_export import export
from spatialbench.data.embspatial.reader import load
from spatialbench.data.records import Box, RecordSet
from tests.support.checks import refused
from tests.support.records import said, small_set

pytestmark = pytest.mark.usefixtures("cache")


def test_read_back_it_is_the_same(tmp_path: Path) -> None:
    original = small_set(9)
    assert export(original, tmp_path / "out.json") == len(original.records)
    loaded = load(tmp_path / "out.json", 16, strict=True)
    back = loaded.record_set
    assert np.array_equal(back.images, original.images)
    for was, now in zip(original.records, back.records, strict=True):
        boxes = {name: was.boxes[name] for name in (was.subject, was.object)}
        # the bed's centre is 7 of 16 pixels lower than the lamp's, and the bed is the close one
        elevation = "consistent" if was.relation == "close" else None
        assert now == replace(was, boxes=boxes, elevation=elevation)
    assert not loaded.report.dropped


def test_the_file_has_the_bench_schema(tmp_path: Path) -> None:
    original = small_set(60)
    export(original, tmp_path / "out.json")
    fields = "data_source scene_id question_id question relation image answer_options answer"
    places = set()
    for raw, record in zip(
        json.loads((tmp_path / "out.json").read_text()), original.records, strict=True
    ):
        assert list(raw) == [*fields.split(), "objects"]
        options, depth = raw["answer_options"], record.relation in ("close", "far")
        right = record.subject if depth else record.statement.caption
        assert options[raw["answer"]] == right
        assert len(set(options)) == len(options) == (2 if depth else 4)
        places.add((len(options), raw["answer"]))
    # the place of the right option says nothing
    assert places == {(2, 0), (2, 1), (4, 0), (4, 1), (4, 2), (4, 3)}


@pytest.mark.parametrize("change", [{"boxes": {"sofa": Box(0, 0, 1, 1)}}, {"image_size": (17, 16)}])
def test_a_record_without_boxes_is_one_line_and_leaves_no_file(
    tmp_path: Path, change: dict[str, object]
) -> None:
    original = small_set(3)
    records = [*original.records[:2], replace(original.records[2], **change)]  # type: ignore[arg-type]
    with refused(r"record '1\.1': no box for"):
        export(RecordSet("x", original.images, records, "x"), tmp_path / "out.json")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with refused("cannot write"):
        export(small_set(3), tmp_path / "file" / "out.json")


def test_an_empty_set_is_an_empty_list(tmp_path: Path) -> None:
    export(RecordSet("x", small_set(3).images, [], "x"), tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == []


def test_rooms_go_out_and_come_back(tmp_path: Path) -> None:
    original = rooms.load("val", 24, 32).record_set()
    export(original, tmp_path / "rooms.json")
    loaded = load(tmp_path / "rooms.json", 32)
    assert not loaded.report.dropped, loaded.report.summary()
    rows: dict[int, int] = {}  # in the order of the first use
    assert said(loaded.record_set.records) == said(original.records)
    for was, now in zip(original.records, loaded.record_set.records, strict=True):
        assert now.record_id == was.record_id
        assert now.image == rows.setdefault(was.image, len(rows))
        assert np.array_equal(original.images[was.image], loaded.record_set.images[now.image])
        assert now.elevation == was.elevation
