"""SugarCrepe: seven objects of number -> record, whose numbers have gaps."""

from pathlib import Path

import pytest

from spatialbench.data.captions.sugarcrepe import FILES, SugarCrepe
from tests.support import caption_files as files


def write(folder: Path, inner: str = "") -> Path:
    """One record per file; swap_obj has three, without number 1."""
    for part in FILES:
        numbers = ("0", "2", "10") if part == "swap_obj" else ("0",)
        captions = {"filename": "000000222235.jpg", "negative_caption": f"no {part}"}
        records = {number: captions | {"caption": f"{part} {number}"} for number in numbers}
        files.write_json(folder / inner / f"{part}.json", records)
    files.photo(folder / "val2017" / "000000222235.jpg")
    return folder


@pytest.mark.parametrize("inner", ["", "data"])
def test_keys_are_read_not_counted_through(tmp_path: Path, inner: str) -> None:
    found = SugarCrepe(str(write(tmp_path, inner)))
    files.check_account(found, 9, 0)
    names = [record.record for record in found.records[-3:]]
    assert names == ["swap_obj-0", "swap_obj-2", "swap_obj-10"]
    assert found.records[-1].captions == ("swap_obj 10", "no swap_obj")
    assert len(found.images) == 1
    files.check_chance(found)


def test_the_mean_of_the_files_and_of_the_records(tmp_path: Path) -> None:
    found = SugarCrepe(str(write(tmp_path)))
    wrong = ("swap_obj-0", "swap_obj-2", "add_att-0")
    scores = files.answers(found, lambda record: -1 if record.record in wrong else 1)
    made = files.values(found, scores)
    assert made["swap_obj"] == pytest.approx(100 / 3)
    assert (made["add_att"], made["add_obj"]) == (0, 100)
    assert made["macro"] == pytest.approx((100 / 3 + 0 + 5 * 100) / 7)
    assert made["micro"] == pytest.approx(100 * 6 / 9)
    assert list(made) == [*FILES, "macro", "micro"]


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path) / "add_obj.json"
    files.write_json(path, {"7": {"filename": "a.jpg", "caption": "a"}})
    message = r"add_obj\.json record 7: no field 'negative_caption'"
    files.complaint(lambda: SugarCrepe(str(tmp_path)), message)
    files.write_json(path, [1])
    message = "a list, not an object of number -> record"
    files.complaint(lambda: SugarCrepe(str(tmp_path)), message)
