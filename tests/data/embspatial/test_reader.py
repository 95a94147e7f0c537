"""The reader of EmbSpatial's files: every form of record and image of adding_a_dataset.md."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from spatialbench.data.embspatial.check_report import CheckReport
from spatialbench.data.embspatial.reader import load, read
from spatialbench.data.image_cache import ImageTable
from spatialbench.data.images import encoded
from spatialbench.data.records import Box, Record
from tests.support.checks import refused
from tests.support.records import BOXES, Raw, depth, direction, jpeg, said, sft, text, write

pytestmark = pytest.mark.usefixtures("cache")


def read_all(
    tmp_path: Path, raws: list[Any], strict: bool = False
) -> tuple[list[Record], CheckReport]:
    return read(write(tmp_path / "file.json", raws), ImageTable(), strict)


def counted(report: CheckReport) -> dict[str, int]:
    return dict(report.dropped + report.flagged)


@pytest.mark.parametrize("relation", ["left", "right", "above", "under"])
def test_a_direction_is_one_pair_from_its_names(tmp_path: Path, relation: str) -> None:
    (record,), report = read_all(tmp_path, [direction(relation=relation)])
    assert said([record]) == [("night stand", relation, "lamp")]
    assert record.statement.caption.startswith("The night stand is ")
    assert record.statement.negated.caption.startswith("The lamp is ")
    assert record.statement.negated.caption.endswith(" the night stand.")
    assert (record.record_id, record.source, record.scene_id) == ("mp3d_1", "mp3d", "YVUC4YcDtcY")
    assert (record.image_size, record.weight, record.elevation) == ((64, 48), 1.0, None)
    boxes = [Box(*sides) for sides in BOXES[relation]]  # xywh in pixels of the decoded image
    assert record.boxes == dict(zip(("night stand", "lamp"), boxes, strict=True))
    assert counted(report) == {}


def test_the_answer_names_the_subject_whatever_the_order_of_the_boxes(tmp_path: Path) -> None:
    raw = direction()
    records, report = read_all(tmp_path, [raw | {"objects": raw["objects"][::-1]}])
    assert said(records) == [("night stand", "left", "lamp")]
    assert counted(report) == {"object_order": 1}


@pytest.mark.parametrize("relation", ["close", "far"])
def test_n_options_give_the_answer_against_each_other(tmp_path: Path, relation: str) -> None:
    records, report = read_all(tmp_path, [depth(relation=relation, answer=1)])
    others = ("sofa", "bed", "window")
    assert said(records) == [("dining table", relation, other) for other in others]
    assert [record.record_id for record in records] == ["ai2thor_1#0", "ai2thor_1#2", "ai2thor_1#3"]
    assert [record.weight for record in records] == [1 / 3] * 3
    assert (report.relations[relation], report.pairs[relation], report.kept) == (1, 3, 1)


def test_three_options_give_two_pairs_and_two_options_one_under_its_own_id(tmp_path: Path) -> None:
    raws = [
        depth("a", names=("sofa", "bed", "window"), answer=0),
        depth("b", names=("sofa", "bed"), relation="close", answer=1),
    ]
    records, _ = read_all(tmp_path, raws)
    a, b, c = said(records)
    assert (a, b, c) == (
        *(("sofa", "far", other) for other in ("bed", "window")),
        ("bed", "close", "sofa"),
    )
    weights = {record.record_id: record.weight for record in records}
    assert weights == {"a#1": 0.5, "a#2": 0.5, "b": 1.0}


def test_elevation_is_tagged_and_counted(tmp_path: Path) -> None:
    # object i is 10 px of 48 higher than object i - 1: the last is the farthest by the rule
    records, report = read_all(tmp_path, [depth("a", answer=3), depth("b", answer=1)])
    assert [record.elevation for record in records] == ["consistent"] * 4 + ["counter"] * 2
    assert dict(report.elevation) == {"consistent": 4, "counter": 2}


@pytest.mark.parametrize("answer", ["D", "(D)", "D.", "window", "3", 3, 3.0])
def test_letters_digits_and_texts_name_an_option(tmp_path: Path, answer: Any) -> None:
    records, _ = read_all(tmp_path, [depth(answer=answer)])
    assert {record.subject for record in records} == {"window"}


def test_sft_answers_are_sentences_and_names(tmp_path: Path) -> None:
    raws = [
        sft(direction("s1", "right"), "The night stand is right of the lamp."),
        sft(depth("s2", "close"), "bed"),
    ]
    records, report = read_all(tmp_path, raws)
    assert said(records) == [
        ("night stand", "right", "lamp"),
        *(("bed", "close", other) for other in ("sofa", "dining table", "window")),
    ]
    assert counted(report) == {}
    assert len({record.scene_id for record in records}) == 1  # without a scene the image is one


def test_names_that_name_nothing_or_the_same_are_counted(tmp_path: Path) -> None:
    raws = [
        direction("same", a="lamp", b="Lamp"),
        direction("placeholder", a="unknown", b="lamp"),
        direction("not nested", a="bed", b="bedside lamp"),
        depth("answer placeholder", names=("sofa", "n/a", "bed"), answer=1),
        depth("option placeholder", names=("sofa", "object", "bed"), answer=2),
        depth("duplicate", names=("chair", "chair", "bed", "sofa"), answer=3),
        depth("answer duplicate", names=("chair", "chair", "bed"), answer=0),
        depth("answer twice spelt", names=("night_stand", "night stand", "bed"), answer=0),
    ]
    for i, raw in enumerate(raws):
        raw["image"] = text(jpeg(i))
    records, report = read_all(tmp_path, raws)
    assert counted(report) == {"same_name": 2, "placeholder_name": 3, "duplicate_options": 3}
    bed, *depths = said(records)
    assert bed == ("bed", "left", "bedside lamp")
    assert depths == [("bed", "far", "sofa"), ("sofa", "far", "bed")]
    assert [record.weight for record in records] == [1, 1, 1]
    assert (report.read, report.kept, report.first_damage) == (8, 3, "")


def test_nested_names_are_kept_but_for_strict(tmp_path: Path) -> None:
    raws = [
        direction("a", a="table", b="coffee_table"),
        depth("b", names=("dresser", "dresser mirror", "bed", "sofa"), answer=0),
        direction("c", a="bed", b="bedside lamp"),  # not a part by whole words
    ]
    records, report = read_all(tmp_path, raws)
    assert len(records) == 5
    assert (report.dropped, report.flagged) == ({}, {"nested_names": 2})
    records, report = read_all(tmp_path, raws, strict=True)
    assert [(r.record_id, r.weight) for r in records] == [("b#2", 0.5), ("b#3", 0.5), ("c", 1)]
    assert (report.dropped, report.flagged) == ({"nested_names": 2}, {})


def test_a_pair_said_twice_of_one_image_is_kept_once(tmp_path: Path) -> None:
    raws = [
        depth("a", names=("sofa", "bed", "window"), answer=0),
        depth("b", names=("sofa", "bed"), answer=0),
        depth("c", names=("sofa", "bed"), answer=0, image=text(jpeg(1))),
        depth("d", names=("sofa", "window", "rug"), answer=0),
    ]
    records, report = read_all(tmp_path, raws)
    assert [record.record_id for record in records] == ["a#1", "a#2", "c", "d#2"]
    assert counted(report) == {"duplicate_pair": 2}
    assert records[-1].weight == 1.0


def test_boxes_that_disagree_are_kept_but_for_strict(tmp_path: Path) -> None:
    raw, slack = direction(), direction("slack", image=text(jpeg(1)))
    raw["objects"][0]["bbox"] = [30, 10, 20, 20]  # ends at 50, the lamp begins at 40
    slack["objects"][0]["bbox"] = [22, 10, 20, 20]  # ends at 42: inside the slack of 2 pixels
    records, report = read_all(tmp_path, [raw, slack])
    assert len(records) == 2
    assert report.flagged == {"box_disagrees": 1}
    records, report = read_all(tmp_path, [raw, slack], strict=True)
    assert [record.record_id for record in records] == ["slack"]
    assert report.dropped == {"box_disagrees": 1}


def test_objects_that_a_centre_crop_cuts_are_counted(tmp_path: Path) -> None:
    raws = [direction(f"at {x}", image=text(jpeg(x))) for x in (0, 3, 8)]
    for raw, x in zip(raws, (0, 3, 8), strict=True):  # of 64 pixels the crop keeps [8, 56]
        raw["objects"][0]["bbox"] = [x, 10, 8, 8]
    _, report = read_all(tmp_path, raws)
    assert report.flagged == {"hidden_by_crop": 1, "cut_by_crop": 1}
    assert report.first["cut_by_crop"].endswith("leaves 38 % of an object")  # 3 of 8 columns


def test_a_box_of_nan_in_parquet_drops_the_question(tmp_path: Path) -> None:
    raw = direction()
    raw["objects"][0]["bbox"] = [2.0, float("nan"), 20.0, 20.0]
    raw["objects"][1]["bbox"] = [40.0, 10.0, 20.0, 20.0]
    pq.write_table(pa.Table.from_pylist([raw]), tmp_path / "file.parquet")
    records, report = read(tmp_path / "file.parquet", ImageTable())
    assert (records, counted(report)) == ([], {"bad_box": 1})


def test_damaged_records_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    raws: list[Any] = [
        direction("good"),
        "no record",
        direction(question_id=None),  # type: ignore[arg-type]
        direction("good"),
        direction("objects", objects=[{"name": "lamp", "bbox": [0, 0, 4, 4]}]),
        direction("names", objects=[{"name": 5, "bbox": [0, 0, 4, 4]}] * 2),
        direction("options", answer_options="A or B"),
        {key: value for key, value in direction("no image").items() if key != "image"},
    ]
    records, report = read_all(tmp_path, raws)
    assert [record.record_id for record in records] == ["good"]
    assert counted(report) == {"bad_record": 5, "duplicate_id": 1, "bad_image": 1}
    assert report.first_damage == "record number 2: a str, not an object"
    assert report.summary() == (
        f"{tmp_path / 'file.json'}: 1 of 8 questions kept, 1 pairs on 1 images; dropped: "
        f"bad_record 5, duplicate_id 1, bad_image 1; first bad record: {report.first_damage}"
    )


def sixteen_bits() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((48, 64), 40_000, np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def predicate(relation: str, option: str) -> Raw:
    options = [f"The night stand is {option} the lamp."]
    return direction("bad", relation, answer_options=options, answer=0)


def boxed(box: Any) -> Raw:
    raw = direction("bad")
    raw["objects"][1]["bbox"] = box
    return raw


FAULTS: dict[tuple[str, str], list[Raw]] = {
    ("bad_answer", "does not say that the night stand is"): [
        *(predicate("left", "right of"), predicate("left", "inside")),
        *(predicate("above", "under"), predicate("under", "out of")),
    ],
    ("bad_answer", "none of the 4 options"): [
        depth("bad", answer=answer) for answer in (4, -1, "E", "mirror", None, True, 1.5, [3])
    ],
    ("names_not_boxes", "'mirror', 'window'"): [
        depth("bad", answer_options=["sofa", "dining table", "bed", "mirror"])
    ],
    ("bad_box", "of 'lamp' is"): [
        *(boxed(box) for box in ([2, 10, 20], [2, 10, 20, None], [2, 10, 0, 20], [2, 10, -5, 20])),
        *(boxed(box) for box in ([50, 10, 40, 20], [70, 10, 5, 5], "2,10,20,20")),
    ],
    ("unknown_relation", "one of close, far"): [
        direction("bad") | {"relation": name}
        for name in ("on top of", "behind", "below", "Left", None, 3)
    ],
    ("bad_image", "image"): [
        *(direction("bad", image=text(data)) for data in (jpeg()[:-200], b"hello", sixteen_bits())),
        direction("bad", image={"bytes": None, "path": None}),
    ],
    ("bad_image", "bad base64"): [direction("bad", image="/9j/4AAQ!!")],
    ("bad_image", "cannot read .*missing.jpg"): [direction("bad", image="missing.jpg")],
}


@pytest.mark.parametrize(
    ("bad", "reason", "message"),
    [(raw, *fault) for fault, raws in FAULTS.items() for raw in raws],
)
def test_damage_is_counted_and_with_strict_one_line_with_the_id(
    tmp_path: Path, bad: Raw, reason: str, message: str
) -> None:
    records, report = read_all(tmp_path, [direction("good"), bad])
    assert [record.record_id for record in records] == ["good"]
    assert counted(report) == {reason: 1}
    with refused(rf"file\.json: record 'bad': .*{message}"):
        read_all(tmp_path, [direction("good"), bad], strict=True)


def test_every_form_of_image_is_read(tmp_path: Path) -> None:
    data = jpeg(3)
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    for form in [
        text(data),
        f"data:image/jpeg;base64,{text(data)}",
        base64.encodebytes(data).decode(),  # with line ends
        data,
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(path)},
        str(path),
        "photo.jpg",  # relative to the file
    ]:
        assert encoded(form, tmp_path) == data
    records, report = read_all(tmp_path, [direction(image="photo.jpg")])
    assert (len(records), counted(report)) == (1, {})


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    stream = io.BytesIO()
    Image.new(mode, (64, 48)).save(stream, "JPEG")
    records, _ = read_all(tmp_path, [direction(image=text(stream.getvalue()))])
    assert len(records) == 1


@pytest.mark.parametrize("image", ["struct", "base64"])
@pytest.mark.parametrize("objects", ["list of structs", "struct of lists"])
def test_the_hubs_parquet_gives_the_same_records(tmp_path: Path, image: str, objects: str) -> None:
    raws = [direction("a"), depth("b", image=text(jpeg(1)))]
    expected, _ = read_all(tmp_path, raws)
    for raw in raws:
        if image == "struct":
            raw["image"] = {"bytes": base64.b64decode(raw["image"]), "path": "x.png"}
        if objects == "struct of lists":
            columns = ("name", "bbox")
            raw["objects"] = {key: [item[key] for item in raw["objects"]] for key in columns}
        raw["answer"] = "ABCD"[raw["answer"]]
    pq.write_table(pa.Table.from_pylist(raws), tmp_path / "file.parquet")
    records, report = read(tmp_path / "file.parquet", ImageTable())
    assert (records, counted(report)) == (expected, {})


BAD_FILES = {
    "truncated": (
        json.dumps([direction("a"), direction("b")]).encode()[:-900],
        "after 1 records, or a broken download",
    ),
    "object": (b'{"records": []}', "neither a JSON list of records nor parquet"),
    "empty": (b"", "neither a JSON list"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "starts with b'version https"),
    "syntax": (b'[{"a": 1,}]', "no valid JSON"),
    "NaN": (b'[{"a": NaN}]', "no valid JSON"),
    "trailing": (b"[] []", "no valid JSON"),
    "encoding": (b'[{"a": "\xff"}]', "no valid JSON"),
    "parquet": (b"PAR1" + bytes(100), "damaged parquet"),
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_damaged_file_is_one_line(
    tmp_path: Path, content: bytes, message: str, strict: bool
) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with refused(message) as caught:
        read(path, ImageTable(), strict)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < len(str(path)) + 200


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(b"\xef\xbb\xbf\n" + json.dumps([direction()]).encode())
    assert len(read(tmp_path / "file.json", ImageTable())[0]) == 1


def test_a_missing_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        for reader in (lambda p: read(p, ImageTable()), lambda p: load(p, 16)):
            with refused(f"cannot read {path}"):
                reader(path)


def test_a_file_without_a_usable_record_is_an_error_that_names_one(tmp_path: Path) -> None:
    path = write(tmp_path / "file.json", [direction() | {"relation": "on"}])
    with refused("no usable record among 1 .*'mp3d_1': unknown relation 'on'"):
        load(path, 16)
    with refused("it is empty"):
        load(write(path, []), 16)
