"""VG-QA: lists of [picture, true, false], strings as they are, counted by preposition."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatialbench.data.captions.vgqa import VgQa
from tests.support.caption_files import (
    answers,
    check_account,
    check_chance,
    complaint,
    photo,
    values,
    write_json,
)


def vg(folder: Path) -> Path:
    write_json(
        folder / "vg_qa_one_obj.json", [["n161313", "A bus in the left", "A bus in the right"]]
    )
    two = [[2384553, "A chair to the front of a desk", "A chair to the behind of a desk"]]
    two += [
        [2384553, "A lamp on top of a desk", "A lamp under a desk"],
        [2384553, "A cup near a pen", "A pen near a cup"],
    ]
    write_json(folder / "vg_qa_two_obj.json", two)
    photo(folder / "vg_images" / "n161313.jpg")
    photo(folder / "vg_images" / "2384553.jpg")
    return folder


def test_vg_qa_keeps_its_grammar(tmp_path: Path) -> None:
    found = VgQa(str(vg(tmp_path)))
    check_account(found, 4, 0)
    assert found.records[1].captions[1] == "A chair to the behind of a desk"
    assert [record.relation for record in found.records] == ["left", "front of", "top of", "other"]
    check_chance(found)
    scores = answers(found, lambda record: 1 if record.relation == "top of" else -1)
    third = pytest.approx(100 / 3)
    assert values(found, scores) == {
        "one_pair": 0,
        "one_macro": 0,
        "two_pair": third,
        "two_macro": third,
    }


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    vg(tmp_path)
    (tmp_path / "vg_images" / "n161313.jpg").unlink()
    complaint(
        lambda: VgQa(str(tmp_path)),
        r"no picture .*n161313\.jpg \(1 missing\); give What'sUp's vg_qa",
    )
    (tmp_path / "vg_qa_two_obj.json").unlink()
    complaint(lambda: VgQa(str(tmp_path)), r"no file vg_qa_two_obj\.json")
