"""CV-Bench: parquet with images inside, questions turned into statements."""

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from spatialbench.data.captions.cvbench import CvBench
from tests.support.caption_files import answers, check_account, check_chance, complaint, values

RELATION = (
    "Considering the relative positions of the {0} and the {1} in the image provided, where is the "
    "{0} located with respect to the {1}?"
)
DEPTH = (
    "Which object is closer to the camera taking this photo, the {} (highlighted by a red box) or "
    "the {} (highlighted by a blue box)?"
)
DISTANCE = (
    "Estimate the real-world distances between objects in this image. Which object is closer to "
    "the {} (highlighted by a red box), the {} (highlighted by a blue box) or the {} (highlighted "
    "by a green box)?"
)
Row = dict[str, Any]


def row(task: str, question: str, choices: str, answer: str, colour: int = 0, **more: Any) -> Row:
    stream = io.BytesIO()
    Image.new("RGB", (12, 8), (colour, 0, 0)).save(stream, "PNG")
    return {
        "task": task,
        "image": {"bytes": stream.getvalue(), "path": "img/0.png"},
        "question": question,
        "choices": choices.split(", "),
        "answer": answer,
        "source": "COCO",
        **more,
    }


FLAT = [
    row("Count", "How many cups are in the image?", "1, 2, 3, 0", "(B)"),
    row(
        "Relation",
        RELATION.format("rug (annotated by the red box)", "night stand"),
        "left, right",
        "(B)",
    ),
    row("Relation", RELATION.format("sheep", "horse"), "above, below", "(A)", source="ADE20K"),
    row("Relation", RELATION.format("sheep", "horse"), "near, far", "(A)"),
    row("Relation", RELATION.format("sheep", "sheep"), "left, right", "(A)"),
]
DEEP = [
    row("Depth", DEPTH.format("table", "bookcase"), "table, bookcase", "(A)", 1),
    row("Depth", DEPTH.format("chair", "chair"), "chair, chair", "(B)", 1),
    row("Depth", DEPTH.format("table", "bookcase"), "bookcase, table", "(A)", 2),
    row("Distance", DISTANCE.format("truck", "bus", "cone"), "bus, cone", "(B)", 3),
    row("Distance", DISTANCE.format("truck", "bus", "car"), "bus, bicycle", "(B)", 3),
]


def write(folder: Path, flat: list[Row], deep: list[Row]) -> Path:
    for name, rows in (("2d", flat), ("3d", deep)):
        frame = pd.DataFrame([{"idx": k, **item} for k, item in enumerate(rows)])
        frame.to_parquet(folder / f"test_{name}.parquet")
    return folder


def test_questions_become_statements(tmp_path: Path) -> None:
    found = CvBench(str(write(tmp_path, FLAT, DEEP)))
    camera, truck = "closer to the camera than", "closer to the truck in the red box than"
    statements = [
        ("right", "rug in the red box", "right of", "night stand"),
        ("above", "sheep", "above", "horse"),
        ("depth", "table in the red box", camera, "bookcase in the blue box"),
        ("depth", "chair in the blue box", camera, "chair in the red box"),
        ("depth", "bookcase in the blue box", camera, "table in the red box"),
        ("distance", "cone in the green box", truck, "bus in the blue box"),
    ]
    assert [(record.relation, *record.captions) for record in found.records] == [
        (relation, f"The {a} is {phrase} the {b}.", f"The {b} is {phrase} the {a}.")
        for relation, a, phrase, b in statements
    ]
    check_account(found, 10, 4)
    assert found.account.dropped == {
        "counting, which has no pair": 1,
        "Relation, a question or choice of an unknown form": 1,
        "both objects have one name": 1,
        "Distance, a question or choice of an unknown form": 1,
    }
    first = found.account.first["counting, which has no pair"]
    assert first == "idx 0: How many cups are in the image?"
    check_chance(found)


def test_an_image_is_held_once_and_decoded(tmp_path: Path) -> None:
    found = CvBench(str(write(tmp_path, FLAT, DEEP)))
    assert [record.image for record in found.records] == [0, 0, 1, 1, 2, 3]
    last = found.images[3]
    assert last.pixels(last.content(), 8, "crop", "")[0, 0].tolist() == [3, 0, 0]


def test_numbers_by_hand(tmp_path: Path) -> None:
    found = CvBench(str(write(tmp_path, [*FLAT, FLAT[1]], DEEP)))
    right = answers(found, lambda record: 1 if record.relation in ("above", "depth") else -1)
    assert values(found, right) == {
        "relation": pytest.approx(100 / 3),
        "depth": 100,
        "distance": 0,
        "relation_sources": pytest.approx((0 + 100) / 2),  # COCO, ADE20K
    }


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        (FLAT[1] | {"answer": "(C)"}, r"row 0: answer '\(C\)' names none of the 2 choices"),
        (FLAT[1] | {"image": {"bytes": b"", "path": ""}}, "row 0: the image is empty"),
        (FLAT[0], "no usable record among 2 .2 dropped: counting, which has no pair"),
    ],
)
def test_a_wrong_row_is_one_line(tmp_path: Path, flat: Row, message: str) -> None:
    write(tmp_path, [flat], [FLAT[0]])
    complaint(lambda: CvBench(str(tmp_path)), message)


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    without = [{key: value for key, value in item.items() if key != "answer"} for item in FLAT]
    complaint(lambda: CvBench(str(write(tmp_path, without, DEEP))), "no column 'answer'")
    write(tmp_path, FLAT, DEEP)
    (tmp_path / "test_3d.parquet").write_bytes(b"PAR1 and no more")
    complaint(lambda: CvBench(str(tmp_path)), r"3d\.parquet: no readable parquet")
