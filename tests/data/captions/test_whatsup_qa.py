"""COCO-QA and VG-QA: lists of [image, true, false], captions as written, counted by preposition."""

from pathlib import Path

import pytest

from spatialbench.data.captions.whatsup_qa import CocoQa, VgQa
from spatialbench.evaluation.caption_benchmark import by_relation, caption_evidence
from tests.support import caption_files as files


def coco(folder: Path) -> Path:
    one = [[397133, "A photo of a bed on the left", "A photo of a bed on the right"]]
    one += [[397133, "A photo of a cat on the top", "A photo of a cat on the bottom"]]
    two = [["776", "A cat to the right of a dog", "A cat to the left of a dog"]]
    two += [["776", "A photo of a kite above a boat", "A photo of a kite below a boat"]]
    two += [[776, "A photo of a boat below a kite", "A photo of a boat above a kite"]]
    files.write_json(folder / "coco_qa_one_obj.json", one)
    files.write_json(folder / "coco_qa_two_obj.json", two)
    for number in (397133, 776):
        files.photo(folder / "val2017" / f"{number:012d}.jpg")
    return folder


def vg(folder: Path) -> Path:
    one = [["n161313", "A bus in the left", "A bus in the right"]]
    two = [[2384553, "A chair to the front of a desk", "A chair to the behind of a desk"]]
    two += [[2384553, "A lamp on top of a desk", "A lamp under a desk"]]
    two += [[2384553, "A cup near a pen", "A pen near a cup"]]
    files.write_json(folder / "vg_qa_one_obj.json", one)
    files.write_json(folder / "vg_qa_two_obj.json", two)
    for name in ("n161313", "2384553"):
        files.photo(folder / "vg_images" / f"{name}.jpg")
    return folder


def test_coco_qa(tmp_path: Path) -> None:
    found = CocoQa(str(coco(tmp_path)))
    files.check_account(found, 5, 0)
    assert [(r.part, r.relation) for r in found.records] == [
        *(("one", "left"), ("one", "top"), ("two", "right of"), ("two", "above"), ("two", "below"))
    ]
    left, right = found.records[0].captions
    assert (left, right) == ("A photo of a bed on the left", "A photo of a bed on the right")
    assert len(found.images) == 2
    assert found.records[2].cluster == found.records[4].cluster
    margins = {"top": 1, "above": 1, "below": 0}
    scores = files.answers(found, lambda record: margins.get(record.relation, -1))
    assert files.values(found, scores) == pytest.approx(
        {"one_pair": 50, "one_macro": 50, "two_pair": 50, "two_macro": 50}  # 0, 1 and 1/2 of three
    )
    counts = by_relation(found, caption_evidence(found, scores, "d"))["two"]["below"]
    assert (counts.n, counts.accuracy, counts.ties) == (1, 50, 1)
    files.check_chance(found)


def test_vg_qa_keeps_its_grammar(tmp_path: Path) -> None:
    found = VgQa(str(vg(tmp_path)))
    files.check_account(found, 4, 0)
    assert found.records[1].captions[1] == "A chair to the behind of a desk"
    assert [record.relation for record in found.records] == ["left", "front of", "top of", "other"]
    files.check_chance(found)
    scores = files.answers(found, lambda record: 1 if record.relation == "top of" else -1)
    assert files.values(found, scores) == pytest.approx(
        {"one_pair": 0, "one_macro": 0, "two_pair": 100 / 3, "two_macro": 100 / 3}
    )


@pytest.mark.parametrize(
    "item", [{"a": 1}, [1, "a"], [1, "a", 2], [True, "a", "b"], [1.5, "a", "b"], [1, " ", "b"]]
)
def test_a_wrong_item_is_one_line(tmp_path: Path, item: object) -> None:
    files.write_json(coco(tmp_path) / "coco_qa_two_obj.json", [item])
    message = r"two_obj\.json record 0: .* is not \[image, true caption, false"
    files.complaint(lambda: CocoQa(str(tmp_path)), message)
