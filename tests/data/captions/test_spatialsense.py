"""SpatialSense: true relations of the test split whose predicate turns false when swapped."""

from pathlib import Path
from typing import Any

import pytest

from spatialbench.data.captions.spatialsense import SpatialSense
from tests.support import caption_files as files

LEFT, RIGHT = [10, 30, 0, 15], [10, 30, 20, 40]  # y0, y1, x0, x1


def said(
    number: int, a: str, predicate: str, b: str, label: Any = True, boxes: Any = (LEFT, RIGHT)
) -> dict[str, Any]:
    subject, other = {"name": a, "bbox": boxes[0]}, {"name": b, "bbox": boxes[1]}
    made = {"_id": f"id{number}", "predicate": predicate, "label": label}
    return made | {"subject": subject, "object": other}


def write(folder: Path, *more: dict[str, Any]) -> Path:
    flickr = [
        said(0, "cat", "to the left of", "coffee mug"),
        said(1, "dog", "to the left of", "tree", boxes=(RIGHT, LEFT)),  # the dog's own left
        said(2, "cat", "on", "bed"),
        said(3, "cat", "under", "bed", label=False),
        said(4, "man", "behind", "Man"),
        *more,
    ]
    content = [
        {"url": url, "height": 40, "width": 50, "split": split, "annotations": annotations}
        for url, split, annotations in (
            ("https://farm4.staticflickr.com/3543/57.jpg", "test", flickr),
            ("nyu/0042.jpg", "test", [said(5, "lamp", "behind", "sofa")]),
            ("https://farm4.staticflickr.com/1/58.jpg", "train", [said(6, "a", "above", "b")]),
        )
    ]
    files.write_json(folder / "annotations.json", content)
    files.photo(folder / "images" / "flickr" / "57.jpg")
    files.photo(folder / "images" / "nyu" / "0042.jpg")
    return folder


def test_pairs_and_what_is_dropped(tmp_path: Path) -> None:
    found = SpatialSense(str(write(tmp_path)))
    files.check_account(found, 7, 4)
    assert [record.captions for record in found.records] == [
        ("The cat is to the left of the coffee mug.", "The coffee mug is to the left of the cat."),
        ("The dog is to the left of the tree.", "The tree is to the left of the dog."),
        ("The lamp is behind the sofa.", "The sofa is behind the lamp."),
    ]
    assert found.account.first == {
        "its predicate has no opposite": "id2: cat on bed",
        "a false relation, which has no true caption": "id3: cat under bed",
        "both objects have one name": "id4: man behind Man",
        "of another split than test": "id6: a above b",
    }
    files.check_chance(found)


def test_boxes_are_rows_before_columns(tmp_path: Path) -> None:
    """Only the first pair lies as it says in the image; read as x0, y0, x1, y1 none would."""
    found = SpatialSense(str(write(tmp_path)))
    scores = files.answers(found, lambda record: 1 if record.record == "id0" else -1)
    expected = {"macro": (50 + 0) / 2, "micro": 100 / 3, "shown": 100}
    assert files.values(found, scores) == pytest.approx(expected)
    assert not found.account.flagged
    wide = said(7, "rug", "above", "bed", boxes=([0, 50, 0, 40], LEFT))  # 50 rows of 40
    account = SpatialSense(str(write(tmp_path, wide))).account
    (reason,) = account.flagged
    assert "not [y0, y1, x0, x1] inside 50 x 40 pixels" in account.first[reason]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (said(7, "a", "inside", "b"), "image 0, annotation 5: unknown predicate 'inside'"),
        (said(7, "a", "above", "b", label=1), "label 1 is neither true nor false"),
        (
            said(7, "a", "above", "b", boxes=([1, 2], LEFT)),
            r"annotation 5, subject: bbox \[1, 2\] is not \[y0, y1, x0, x1\]",
        ),
    ],
)
def test_a_wrong_annotation_is_one_line(
    tmp_path: Path, annotation: dict[str, Any], message: str
) -> None:
    write(tmp_path, annotation)
    files.complaint(lambda: SpatialSense(str(tmp_path)), message)
