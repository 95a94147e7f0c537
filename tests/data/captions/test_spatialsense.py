"""SpatialSense: true relations of the test split whose predicate turns false when the objects are exchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spatialbench.data.captions.spatialsense import SpatialSense
from tests.support.caption_files import (
    answers,
    check_account,
    check_chance,
    complaint,
    photo,
    values,
    write_json,
)

LEFT, RIGHT = [10, 30, 0, 15], [10, 30, 20, 40]  # y0, y1, x0, x1


def part(name: str, bbox: list[int]) -> dict[str, Any]:
    return {"name": name, "x": bbox[2], "y": bbox[0], "bbox": bbox}


def said(
    number: int, a: str, predicate: str, b: str, label: bool = True, boxes: Any = (LEFT, RIGHT)
) -> dict[str, Any]:
    subject, other = part(a, boxes[0]), part(b, boxes[1])
    return {
        "_id": f"id{number}",
        "predicate": predicate,
        "subject": subject,
        "object": other,
        "label": label,
    }


def write(folder: Path, *more: dict[str, Any]) -> Path:
    flickr = [
        said(0, "cat", "to the left of", "coffee mug"),
        said(1, "dog", "to the left of", "tree", boxes=(RIGHT, LEFT)),  # the dog's own left
        said(2, "cat", "on", "bed"),
        said(3, "cat", "under", "bed", label=False),
        said(4, "man", "behind", "Man"),
        *more,
    ]
    nyu = [said(5, "lamp", "behind", "sofa")]
    size = {"height": 40, "width": 50}
    content = [
        {
            "url": "https://farm4.staticflickr.com/3543/57.jpg",
            "nsid": "1@N03",
            **size,
            "split": "test",
        },
        {"url": "nyu/0042.jpg", "nsid": "", **size, "split": "test"},
        {
            "url": "https://farm4.staticflickr.com/1/58.jpg",
            "nsid": "2@N03",
            **size,
            "split": "train",
        },
    ]
    annotations = [flickr, nyu, [said(6, "a", "above", "b")]]
    write_json(
        folder / "annotations.json",
        [c | {"annotations": a} for c, a in zip(content, annotations, strict=True)],
    )
    photo(folder / "images" / "flickr" / "57.jpg")
    photo(folder / "images" / "nyu" / "0042.jpg")
    return folder


def test_pairs_and_what_is_dropped(tmp_path: Path) -> None:
    found = SpatialSense(str(write(tmp_path)))
    check_account(found, 7, 4)
    assert [record.captions for record in found.records] == [
        ("The cat is to the left of the coffee mug.", "The coffee mug is to the left of the cat."),
        ("The dog is to the left of the tree.", "The tree is to the left of the dog."),
        ("The lamp is behind the sofa.", "The sofa is behind the lamp."),
    ]
    assert {reason: noted.first for reason, noted in found.account.dropped.items()} == {
        "its predicate has no opposite": "id2: cat on bed",
        "a false relation, which has no true caption": "id3: cat under bed",
        "both objects have one name": "id4: man behind Man",
        "of another split than test": "id6: a above b",
    }
    check_chance(found)


def test_boxes_are_rows_before_columns(tmp_path: Path) -> None:
    """Only the first pair lies as it says in the picture; read as x0, y0, x1, y1 none would."""
    found = SpatialSense(str(write(tmp_path)))
    made = values(found, answers(found, lambda record: 1 if record.record == "id0" else -1))
    assert made == {
        "macro": pytest.approx((50 + 0) / 2),
        "micro": pytest.approx(100 / 3),
        "shown": 100,
    }
    assert not found.account.flagged
    wide = said(7, "rug", "above", "bed", boxes=([0, 50, 0, 40], LEFT))  # 50 rows of 40
    found = SpatialSense(str(write(tmp_path, wide)))
    assert (
        "not [y0, y1, x0, x1] inside 50 x 40 pixels"
        in found.account.flagged["a box that is not inside its picture"].first
    )


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, said(7, "a", "inside", "b"))
    complaint(
        lambda: SpatialSense(str(tmp_path)), "picture 0, annotation 5: unknown predicate 'inside'"
    )
    write(tmp_path, said(7, "a", "above", "b") | {"label": 1})
    complaint(lambda: SpatialSense(str(tmp_path)), "label 1 is neither true nor false")
    write(tmp_path, said(7, "a", "above", "b") | {"subject": {"name": "a", "bbox": [1, 2]}})
    complaint(
        lambda: SpatialSense(str(tmp_path)),
        r"annotation 5, subject: bbox \[1, 2\] is not \[y0, y1, x0, x1\]",
    )
    write(tmp_path)
    (tmp_path / "images" / "nyu" / "0042.jpg").unlink()
    complaint(lambda: SpatialSense(str(tmp_path)), r"no picture .*nyu.0042\.jpg")
    (tmp_path / "annotations.json").unlink()
    complaint(lambda: SpatialSense(str(tmp_path)), r"no file annotations\.json")
