"""What'sUp in the layout of the authors' loader: sets of four, captions of which the first is true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spatialbench.data.captions.whatsup import WhatsUp, preposition
from spatialbench.evaluation.caption_benchmark import caption_evidence, measure_facts
from tests.support.caption_files import (
    answers,
    check_account,
    check_chance,
    complaint,
    photo,
    values,
    write_json,
)

A = {"on": "on", "under": "under", "left_of": "to the left of", "right_of": "to the right of"}
B = {
    "in-front_of": "in front of",
    "behind": "behind",
    "left_of": "to the left of",
    "right_of": "to the right of",
}


def records(
    folder: Path, images: str, objects: tuple[str, str], words: dict[str, str]
) -> list[dict[str, Any]]:
    """A set of four pictures; the true caption first, the others in the order of ``words``."""
    found = []
    for word in words:
        name = f"{objects[0]}_{word}_{objects[1]}.jpeg"
        photo(folder / images / name, (40 * len(found), 0, 0))
        captions = {
            w: f"A {objects[0].replace('-', ' ')} {said} a {objects[1]}"
            for w, said in words.items()
        }
        options = [captions.pop(word), *captions.values()]
        found.append({"image_path": f"data/{images}/{name}", "caption_options": options})
    return found


def write(folder: Path) -> Path:
    """Two sets of A, one of B."""
    first = records(folder, "controlled_images", ("beer-bottle", "armchair"), A)
    second = records(folder, "controlled_images", ("mug", "plate"), A)
    write_json(folder / "controlled_images_dataset.json", first + second)
    write_json(
        folder / "controlled_clevr_dataset.json",
        records(folder, "controlled_clevr", ("bowl", "can"), B),
    )
    return folder


def change(folder: Path, number: int, **fields: Any) -> None:
    path = folder / "controlled_images_dataset.json"
    content = json.loads(path.read_text())
    content[number] |= fields
    write_json(path, content)


def test_records_pairs_and_sets(tmp_path: Path) -> None:
    found = WhatsUp(str(write(tmp_path)))
    check_account(found, 12, 0)
    assert [record.relation for record in found.records[:4]] == ["on", "under", "left", "right"]
    assert [record.relation for record in found.records[8:]] == ["front", "behind", "left", "right"]
    assert found.records[2].captions[:2] == (
        "A beer bottle to the left of a armchair",
        "A beer bottle to the right of a armchair",
    )
    assert {len(set(record.captions)) for record in found.records} == {4}
    assert found.records[0].cluster == found.records[3].cluster != found.records[4].cluster
    assert len(found.pictures) == 12
    assert values(found, answers(found, lambda record: 1)) == {
        m.name: 100 for m in found.measures()
    }
    check_chance(found)


def test_the_four_numbers_by_hand(tmp_path: Path) -> None:
    """Of the first set all right; of the second left is wrong, and under is right against on but not among four."""
    found = WhatsUp(str(write(tmp_path)))
    scores = answers(found, lambda record: 1)
    scores[5, 2] = 2  # mug under plate: "left" beats the truth, "on" does not
    scores[6, 1] = 2  # mug left of plate: "right" beats it
    scores[7, 3] = 1  # mug right of plate: another ties
    made = values(found, scores)
    assert made["a_pair"] == pytest.approx(100 * 7 / 8)
    assert made["a_four"] == pytest.approx(100 * 5.5 / 8)
    assert made["a_both"] == pytest.approx(100 * 2 / 4)
    assert made["a_set"] == pytest.approx(100 * 1 / 2)
    assert (made["b_pair"], made["b_set"]) == (100, 100)
    facts = measure_facts(found, caption_evidence(found, scores, "d"))
    ties = {name: measure.ties for name, measure in facts.items()}
    assert ties == {m: int(m in ("a_four", "a_both", "a_set")) for m in ties}


def test_what_is_not_of_the_form_is_counted(tmp_path: Path) -> None:
    write(tmp_path)
    change(tmp_path, 0, caption_options=["a", "b", "c", "d"])
    found = WhatsUp(str(tmp_path))
    check_account(found, 12, 1)
    assert "A-0: beer-bottle_on_armchair.jpeg" in next(iter(found.account.dropped.values())).first
    assert (
        "A beer-bottle, armchair: only under, left, right"
        in next(iter(found.account.flagged.values())).first
    )
    by_name = {measure.name: measure for measure in found.measures()}
    assert (
        len(by_name["a_four"].units),
        len(by_name["a_both"].units),
        len(by_name["a_set"].units),
    ) == (7, 3, 1)


def test_complaints(tmp_path: Path) -> None:
    write(tmp_path)
    complaint(lambda: WhatsUp(str(tmp_path / "no")), "no folder .*no; give the What'sUp files")
    change(tmp_path, 3, caption_options=["a", "b"])
    complaint(
        lambda: WhatsUp(str(tmp_path)),
        r"dataset\.json record 3: field 'caption_options' is .* not 4 texts",
    )
    change(tmp_path, 2, image_path=None)
    complaint(lambda: WhatsUp(str(tmp_path)), "record 2: no field 'image_path'")
    write(tmp_path)
    (tmp_path / "controlled_clevr" / "bowl_behind_can.jpeg").unlink()
    complaint(lambda: WhatsUp(str(tmp_path)), r"no picture .*bowl_behind_can\.jpeg \(1 missing\)")
    (tmp_path / "controlled_clevr_dataset.json").write_text("{}")
    complaint(lambda: WhatsUp(str(tmp_path)), "a dict, not a list of records")
    (tmp_path / "controlled_clevr_dataset.json").unlink()
    complaint(lambda: WhatsUp(str(tmp_path)), r"no file controlled_clevr_dataset\.json in ")


def test_prepositions_are_words() -> None:
    assert preposition("A lemon under a bottle of lotion") == "under"
    assert preposition("A mug to the left of a spoon.") == "left"
    assert preposition("A mug on the left of a spoon") is None
    assert preposition("A mug near a spoon") is None
