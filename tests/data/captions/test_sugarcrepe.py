"""SugarCrepe: seven objects of number -> record, whose numbers have gaps."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatialbench.data.captions.sugarcrepe import FILES, SugarCrepe
from tests.support.caption_files import (
    answers,
    check_account,
    check_chance,
    complaint,
    photo,
    values,
    write_json,
)


def write(folder: Path, inner: str = "") -> Path:
    """One record a file, of swap_obj three, without number 1."""
    for part in FILES:
        numbers = ("0", "2", "10") if part == "swap_obj" else ("0",)
        made = {
            number: {
                "filename": "000000222235.jpg",
                "caption": f"{part} {number}",
                "negative_caption": f"no {part}",
            }
            for number in numbers
        }
        write_json(folder / inner / f"{part}.json", made)
    photo(folder / "val2017" / "000000222235.jpg")
    return folder


@pytest.mark.parametrize("inner", ["", "data"])
def test_keys_are_read_not_counted_through(tmp_path: Path, inner: str) -> None:
    found = SugarCrepe(str(write(tmp_path, inner)))
    check_account(found, 9, 0)
    assert [record.record for record in found.records[-3:]] == [
        "swap_obj-0",
        "swap_obj-2",
        "swap_obj-10",
    ]
    assert found.records[-1].captions == ("swap_obj 10", "no swap_obj")
    assert len(found.pictures) == 1
    check_chance(found)


def test_the_mean_of_the_files_and_of_the_records(tmp_path: Path) -> None:
    found = SugarCrepe(str(write(tmp_path)))
    wrong = ("swap_obj-0", "swap_obj-2", "add_att-0")
    made = values(found, answers(found, lambda record: -1 if record.record in wrong else 1))
    assert made["swap_obj"] == pytest.approx(100 / 3)
    assert (made["add_att"], made["add_obj"]) == (0, 100)
    assert made["macro"] == pytest.approx((100 / 3 + 0 + 5 * 100) / 7)
    assert made["micro"] == pytest.approx(100 * 6 / 9)
    assert list(made) == [*FILES, "macro", "micro"]


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    write(tmp_path)
    write_json(tmp_path / "add_obj.json", {"7": {"filename": "a.jpg", "caption": "a"}})
    complaint(
        lambda: SugarCrepe(str(tmp_path)), r"add_obj\.json record 7: no field 'negative_caption'"
    )
    write_json(tmp_path / "add_obj.json", [1])
    complaint(lambda: SugarCrepe(str(tmp_path)), "a list, not an object of number -> record")
    (tmp_path / "add_obj.json").unlink()
    complaint(lambda: SugarCrepe(str(tmp_path)), r"no file add_obj\.json in ")
