"""What'sUp in the layout of the authors' loader: sets of four, the first caption is true."""

import json
from pathlib import Path
from typing import Any

import pytest

from spatialbench.data.captions.whatsup import WhatsUp
from tests.support import caption_files as files

SIDES = {"left_of": "to the left of", "right_of": "to the right of"}
A = {"on": "on", "under": "under", **SIDES}
B = {"in-front_of": "in front of", "behind": "behind", **SIDES}


def records(folder: Path, images: str, a: str, b: str, words: dict[str, str]) -> list[Any]:
    """Make a set of four images; the true caption first, the others in the order of ``words``."""
    made = []
    for word in words:
        name = f"{a}_{word}_{b}.jpeg"
        files.photo(folder / images / name, (40 * len(made), 0, 0))
        captions = {w: f"A {a.replace('-', ' ')} {said} a {b}" for w, said in words.items()}
        options = [captions.pop(word), *captions.values()]
        made.append({"image_path": f"data/{images}/{name}", "caption_options": options})
    return made


def write(folder: Path) -> Path:
    """Write two sets of A, one of B."""
    first = records(folder, "controlled_images", "beer-bottle", "armchair", A)
    second = records(folder, "controlled_images", "lemon", "plate", A)
    clevr = records(folder, "controlled_clevr", "bowl", "can", B)
    files.write_json(folder / "controlled_images_dataset.json", first + second)
    files.write_json(folder / "controlled_clevr_dataset.json", clevr)
    return folder


def change(folder: Path, number: int, **fields: Any) -> None:
    path = folder / "controlled_images_dataset.json"
    content = json.loads(path.read_text())
    content[number] |= fields
    files.write_json(path, content)


def test_records_pairs_and_sets(tmp_path: Path) -> None:
    found = WhatsUp(str(write(tmp_path)))
    files.check_account(found, 12, 0)
    relations = [record.relation for record in found.records]
    assert relations[:4] == ["on", "under", "left", "right"]
    assert relations[8:] == ["front", "behind", "left", "right"]
    assert found.records[2].captions == tuple(
        f"A beer bottle {said} a armchair"
        for said in ("to the left of", "to the right of", "on", "under")
    )
    assert found.records[0].cluster == found.records[3].cluster != found.records[4].cluster
    assert len(found.images) == 12
    right = files.values(found, files.answers(found, lambda record: 1))
    assert right == {measure.name: 100 for measure in found.measures()}
    files.check_chance(found)


def test_the_four_numbers_by_hand(tmp_path: Path) -> None:
    """All of the first set right; in the second, left is wrong, under is only right against on."""
    found = WhatsUp(str(write(tmp_path)))
    scores = files.answers(found, lambda record: 1)
    scores[5, 2] = 2  # lemon under plate: "left" beats the truth, "on" does not
    scores[6, 1] = 2  # lemon left of plate: "right" beats it
    scores[7, 3] = 1  # lemon right of plate: another ties
    made = files.values(found, scores)
    assert made["a_pair"] == pytest.approx(100 * 7 / 8)
    assert made["a_four"] == pytest.approx(100 * 5.5 / 8)
    assert made["a_both"] == pytest.approx(100 * 2 / 4)
    assert made["a_set"] == pytest.approx(100 * 1 / 2)
    assert (made["b_pair"], made["b_set"]) == (100, 100)
    ties = files.ties(found, scores)
    assert ties == {m: int(m in ("a_four", "a_both", "a_set")) for m in ties}


def test_what_is_not_of_the_form_is_counted(tmp_path: Path) -> None:
    words = ("on", "under", "on the left of", "to the right of")  # the third names two
    change(write(tmp_path), 0, caption_options=[f"A mug {word} a plate" for word in words])
    found = WhatsUp(str(tmp_path))
    files.check_account(found, 12, 1)
    dropped, flagged = found.account.first.values()
    assert dropped.startswith("A-0: beer-bottle_on_armchair.jpeg")
    assert flagged == "A beer-bottle, armchair: only under, left, right"
    units = {measure.name: len(measure.units) for measure in found.measures()}
    assert (units["a_four"], units["a_both"], units["a_set"]) == (7, 3, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"caption_options": ["a", "b"]}, "record 3: field 'caption_options' is .* not 4 texts"),
        ({"image_path": None}, "record 3: no field 'image_path'"),
    ],
)
def test_a_wrong_record_is_one_line(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    change(write(tmp_path), 3, **fields)
    files.complaint(lambda: WhatsUp(str(tmp_path)), message)


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    write(tmp_path)
    files.complaint(lambda: WhatsUp(str(tmp_path / "no")), "no folder .*no; give the What'sUp fil")
    (tmp_path / "controlled_clevr" / "bowl_behind_can.jpeg").unlink()
    files.complaint(lambda: WhatsUp(str(tmp_path)), r"no image .*bowl_behind_can\.jpeg \(1 missi")
    (tmp_path / "controlled_clevr_dataset.json").write_text("{}")
    files.complaint(lambda: WhatsUp(str(tmp_path)), "a dict, not a list of records")
    (tmp_path / "controlled_clevr_dataset.json").unlink()
    files.complaint(lambda: WhatsUp(str(tmp_path)), r"no file controlled_clevr_dataset\.json in ")
