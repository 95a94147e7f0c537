"""CV-Bench: parquet with pictures inside, questions made into statements."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from spatialbench.data.captions.cvbench import CvBench
from tests.support.caption_files import answers, check_account, check_chance, complaint, values

RELATION = (
    "Considering the relative positions of the {0} and the {1} in the image provided, where is the {0} located with "
    "respect to the {1}?"
)
DEPTH = "Which object is closer to the camera taking this photo, the {} (highlighted by a red box) or the {} {}?"
DISTANCE = (
    "Estimate the real-world distances between objects in this image. Which object is closer to the {} (highlighted by "
    "a red box), the {} (highlighted by a blue box) or the {} (highlighted by a green box)?"
)
BLUE = "(highlighted by a blue box)"


def row(
    task: str, question: str, choices: list[str], answer: str, colour: int = 0, **fields: Any
) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.new("RGB", (12, 8), (colour, 0, 0)).save(stream, "PNG")
    image = {"bytes": stream.getvalue(), "path": "img/0.png"}
    kind, source = ("2D", "COCO") if task in ("Relation", "Count") else ("3D", "Omni3D")
    found = {
        "type": kind,
        "task": task,
        "image": image,
        "question": question,
        "choices": choices,
        "answer": answer,
    }
    return found | {"prompt": question, "filename": "img/0.png", "source": source, **fields}


FLAT = [
    row("Count", "How many cups are in the image?", ["1", "2", "3", "0"], "(B)"),
    row(
        "Relation",
        RELATION.format("rug (annotated by the red box)", "night stand"),
        ["left", "right"],
        "(B)",
    ),
    row("Relation", RELATION.format("sheep", "horse"), ["above", "below"], "(A)", source="ADE20K"),
    row("Relation", RELATION.format("sheep", "horse"), ["near", "far"], "(A)"),
    row("Relation", RELATION.format("sheep", "sheep"), ["left", "right"], "(A)"),
]
DEEP = [
    row("Depth", DEPTH.format("table", "bookcase", BLUE), ["table", "bookcase"], "(A)", 1),
    row("Depth", DEPTH.format("chair", "chair", BLUE), ["chair", "chair"], "(B)", 1),
    row("Depth", DEPTH.format("table", "bookcase", BLUE), ["bookcase", "table"], "(A)", 2),
    row(
        "Distance",
        DISTANCE.format("truck", "bus", "traffic cone"),
        ["bus", "traffic cone"],
        "(B)",
        3,
    ),
    row("Distance", DISTANCE.format("truck", "bus", "car"), ["bus", "bicycle"], "(B)", 3),
]


def write(folder: Path, flat: list[dict[str, Any]], deep: list[dict[str, Any]]) -> Path:
    for name, rows in (("2d", flat), ("3d", deep)):
        pd.DataFrame([{"idx": k, **item} for k, item in enumerate(rows)]).to_parquet(
            folder / f"test_{name}.parquet"
        )
    return folder


def test_questions_become_statements(tmp_path: Path) -> None:
    found = CvBench(str(write(tmp_path, FLAT, DEEP)))
    assert [(record.relation, *record.captions) for record in found.records] == [
        (
            "right",
            "The rug in the red box is right of the night stand.",
            "The night stand is right of the rug in the red box.",
        ),
        ("above", "The sheep is above the horse.", "The horse is above the sheep."),
        *(
            (
                "depth",
                f"The {a} is closer to the camera than the {b}.",
                f"The {b} is closer to the camera than the {a}.",
            )
            for a, b in (
                ("table in the red box", "bookcase in the blue box"),
                ("chair in the blue box", "chair in the red box"),
                ("bookcase in the blue box", "table in the red box"),
            )
        ),
        (
            "distance",
            "The traffic cone in the green box is closer to the truck in the red box than the bus in the blue box.",
            "The bus in the blue box is closer to the truck in the red box than the traffic cone in the green box.",
        ),
    ]
    check_account(found, 10, 4)
    assert {reason: noted.count for reason, noted in found.account.dropped.items()} == {
        "counting, which has no pair": 1,
        "Relation, a question or choice of an unknown form": 1,
        "both objects have one name": 1,
        "Distance, a question or choice of an unknown form": 1,
    }
    assert (
        found.account.dropped["counting, which has no pair"].first
        == "idx 0: How many cups are in the image?"
    )
    check_chance(found)


def test_a_picture_is_held_once_and_decoded(tmp_path: Path) -> None:
    found = CvBench(str(write(tmp_path, FLAT, DEEP)))
    assert len(found.pictures) == 4
    assert [record.picture for record in found.records] == [0, 0, 1, 1, 2, 3]
    last = found.pictures[3]
    assert last.pixels(last.content(), 8, "crop", "")[0, 0].tolist() == [3, 0, 0]


def test_numbers_by_hand(tmp_path: Path) -> None:
    found = CvBench(str(write(tmp_path, [*FLAT, FLAT[1]], DEEP)))
    made = values(
        found, answers(found, lambda record: 1 if record.relation in ("above", "depth") else -1)
    )
    assert made == {
        "relation": pytest.approx(100 / 3),
        "depth": 100,
        "distance": 0,
        "relation_sources": pytest.approx((0 + 100) / 2),  # COCO, ADE20K
    }


def test_one_file_of_an_older_revision(tmp_path: Path) -> None:
    frame = pd.DataFrame([{"idx": k, **item} for k, item in enumerate(FLAT + DEEP)])
    frame.to_parquet(tmp_path / "test.parquet")
    assert len(CvBench(str(tmp_path)).records) == 6
    frame.drop(columns="answer").to_parquet(tmp_path / "test.parquet")
    complaint(
        lambda: CvBench(str(tmp_path)), r"test\.parquet: no column 'answer'; there are idx, type"
    )


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, [FLAT[1] | {"answer": "(C)"}], DEEP)
    complaint(
        lambda: CvBench(str(tmp_path)),
        r"2d\.parquet row 0: answer '\(C\)' names none of the 2 choices",
    )
    write(tmp_path, [FLAT[1] | {"image": {"bytes": b"", "path": ""}}], DEEP)
    complaint(lambda: CvBench(str(tmp_path)), "row 0: the image is empty")
    write(tmp_path, [FLAT[0]], [FLAT[0]])
    complaint(
        lambda: CvBench(str(tmp_path)),
        "cvbench has no usable record .2 dropped: counting, which has no pair",
    )
    (tmp_path / "test_3d.parquet").write_bytes(b"PAR1 and no more")
    complaint(lambda: CvBench(str(tmp_path)), r"3d\.parquet: no readable parquet")
    (tmp_path / "test_3d.parquet").unlink()
    complaint(
        lambda: CvBench(str(tmp_path)),
        r"no file test_3d\.parquet in .*; give the parquet files of the Hub's",
    )
