"""VSR: pairs derived from an opposite, and pairs of annotations of the same two objects."""

import json
from pathlib import Path
from typing import Any

import pytest

from spatialbench.data.captions.vsr import Vsr
from tests.support import caption_files as files


def line(image: int, caption: str, relation: str, label: int, **fields: Any) -> dict[str, Any]:
    made = {"image": f"{image}.jpg", "caption": caption, "relation": relation, "label": label}
    return made | {"vote_true_validator_id": "[2, 9]", **fields}  # votes are strings in the files


LINES = {
    "random/train": [
        line(1, "The cat is touching the sofa.", "touching", 1, reference_frame=None),
        line(1, "The sofa is far from the cat.", "far from", 0),
        line(1, "The cat is under the sofa.", "under", 0),
    ],
    "random/dev": [line(2, "The cake consists of the hot dog.", "consists of", 1)],
    "random/test": [
        line(1, "The sofa is beneath the cat.", "beneath", 1),
        line(2, "The hot dog is at the left side of the cake.", "at the left side of", 1),
        line(2, "The cake is near the hot dog.", "near", 1),
        line(2, "cake, hot dog", "near", 1),
    ],
    "zeroshot/test": [
        line(1, "The handbag is behind the cat.", "behind", 1, subj="andbag", obj="cat"),
        line(1, "The handbag contains the cat.", "contains", 1, subj="andbag", obj="cat"),
        line(1, "The handbag is above the cat.", "above", 0, subj="andbag", obj="cat"),
    ],
}


def write(folder: Path, splits: str = "splits") -> Path:
    for name, lines in LINES.items():
        path = folder / splits / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    for number in (1, 2):
        files.photo(folder / "images" / f"{number}.jpg")
    return folder


@pytest.mark.parametrize("splits", ["", "splits", "data/splits"])
def test_derived_and_annotated_pairs(tmp_path: Path, splits: str) -> None:
    found = Vsr(str(write(tmp_path, splits)))
    side = "The hot dog is at the {} side of the cake."
    assert [(record.part, *record.captions) for record in found.records] == [
        ("random", "The sofa is beneath the cat.", "The sofa is above the cat."),
        ("random", side.format("left"), side.format("right")),
        ("distance", "The cake is near the hot dog.", "The cake is far from the hot dog."),
        ("zeroshot", "The handbag is behind the cat.", "The handbag is in front of the cat."),
        ("annotated", "The cat is touching the sofa.", "The sofa is far from the cat."),
        ("annotated", "The sofa is beneath the cat.", "The cat is under the sofa."),
    ]
    assert len(found.images) == 2
    assert len({record.record for record in found.records}) == 6
    files.check_chance(found)


def test_every_line_is_kept_or_dropped_for_one_reason(tmp_path: Path) -> None:
    found = Vsr(str(write(tmp_path)))
    files.check_account(found, 11, 4)
    assert found.account.first == {
        "not of the form 'The A is <relation> the B.'": "random/test-4: cake, hot dog",
        "a true caption without an opposite": "zeroshot/test-2: The handbag contains the cat.",
        "a false caption, which derives nothing": "zeroshot/test-3: The handbag is above the cat.",
        "in no pair: no opposite, no partner on its image": "random/dev-1: "
        "The cake consists of the hot dog.",
    }


def test_numbers_by_hand(tmp_path: Path) -> None:
    found = Vsr(str(write(tmp_path)))
    wrong = ("beneath", "near")
    scores = files.answers(found, lambda record: -1 if record.relation in wrong else 1)
    assert files.values(found, scores) == {
        **{"random_pair": 50, "random_macro": 50, "zeroshot_pair": 100, "zeroshot_macro": 100},
        **{"distance_pair": 0, "annotated_pair": 50},
    }


def test_a_byte_order_mark_and_a_line_separator_in_a_caption_are_read(tmp_path: Path) -> None:
    path = write(tmp_path) / "splits" / "zeroshot" / "test.jsonl"
    said = line(1, "The hand\u2028bag is behind the cat.", "behind", 1)
    path.write_text("\ufeff" + json.dumps(said, ensure_ascii=False) + "\n", encoding="utf-8")
    names = [record.record for record in Vsr(str(tmp_path)).records if record.part == "zeroshot"]
    assert names == ["zeroshot/test-1+zeroshot"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(line(2, "The a is on the b.", "on", 2)), "line 1: label 2 is neither 0 nor 1"),
        ("\n{", "line 2: not valid JSON"),
        (json.dumps({"image": "2.jpg", "label": 1}), "line 1: no field 'relation'"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (write(tmp_path) / "splits" / "random" / "dev.jsonl").write_text(content)
    files.complaint(lambda: Vsr(str(tmp_path)), message)
