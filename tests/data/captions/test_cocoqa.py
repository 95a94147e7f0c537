"""COCO-QA: lists of [picture, true, false], strings as they are, counted by preposition."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatialbench.data.captions.cocoqa import CocoQa
from spatialbench.evaluation.caption_benchmark import by_relation, caption_evidence
from tests.support.caption_files import (
    answers,
    check_account,
    check_chance,
    complaint,
    photo,
    values,
    write_json,
)


def coco(folder: Path) -> Path:
    one = [[397133, "A photo of a bed on the left", "A photo of a bed on the right"]]
    one += [[397133, "A photo of a cat on the top", "A photo of a cat on the bottom"]]
    two = [
        ["776", "A photo of a cat to the right of a dog", "A photo of a cat to the left of a dog"]
    ]
    two += [["776", "A photo of a kite above a boat", "A photo of a kite below a boat"]]
    two += [[776, "A photo of a boat below a kite", "A photo of a boat above a kite"]]
    write_json(folder / "coco_qa_one_obj.json", one)
    write_json(folder / "coco_qa_two_obj.json", two)
    for number in (397133, 776):
        photo(folder / "val2017" / f"{number:012d}.jpg")
    return folder


def test_coco_qa(tmp_path: Path) -> None:
    found = CocoQa(str(coco(tmp_path)))
    check_account(found, 5, 0)
    assert [(r.part, r.relation) for r in found.records] == [
        *(("one", "left"), ("one", "top"), ("two", "right of"), ("two", "above"), ("two", "below"))
    ]
    assert found.records[0].captions == (
        "A photo of a bed on the left",
        "A photo of a bed on the right",
    )
    assert len(found.pictures) == 2
    assert found.records[2].cluster == found.records[4].cluster
    scores = answers(
        found, lambda record: {"top": 1, "above": 1, "below": 0}.get(record.relation, -1)
    )
    assert values(found, scores) == pytest.approx(
        {"one_pair": 50, "one_macro": 50, "two_pair": 50, "two_macro": 50}  # 0, 1 and 1/2 of three
    )
    counts = by_relation(found, caption_evidence(found, scores, "d"))["two"]["below"]
    assert (counts.n, counts.accuracy, counts.ties) == (1, 50, 1)
    check_chance(found)


@pytest.mark.parametrize(
    "item", [{"a": 1}, [1, "a"], [1, "a", 2], [True, "a", "b"], [1.5, "a", "b"], [1, " ", "b"]]
)
def test_a_wrong_item_is_one_line(tmp_path: Path, item: object) -> None:
    coco(tmp_path)
    write_json(tmp_path / "coco_qa_two_obj.json", [item])
    complaint(
        lambda: CocoQa(str(tmp_path)),
        r"two_obj\.json record 0: .* is not \[picture, true caption, false",
    )


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    coco(tmp_path)
    (tmp_path / "val2017" / "000000000776.jpg").unlink()
    complaint(
        lambda: CocoQa(str(tmp_path)),
        r"no picture .*000000000776\.jpg \(1 missing\); give What'sUp's coco_qa",
    )
    (tmp_path / "coco_qa_two_obj.json").write_text("[[")
    complaint(lambda: CocoQa(str(tmp_path)), r"two_obj\.json: not valid JSON .*line 1")
    (tmp_path / "coco_qa_one_obj.json").unlink()
    complaint(lambda: CocoQa(str(tmp_path)), r"no file coco_qa_one_obj\.json")
