"""VSR: pairs derived from an opposite, and pairs of what people said of the same two objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spatialbench.data.captions.vsr import Vsr
from tests.support.caption_files import (
    answers,
    check_account,
    check_chance,
    complaint,
    photo,
    values,
)

Line = dict[str, Any]


def line(image: str, caption: str, relation: str, label: int, **fields: Any) -> Line:
    votes = {
        "vote_true_validator_id": "[2, 9]",
        "vote_false_validator_id": "[]",
    }  # strings, as in the files
    link = f"http://images.cocodataset.org/train2017/{image}"
    found = {
        "image": image,
        "image_link": link,
        "caption": caption,
        "label": label,
        "relation": relation,
    }
    return found | {"annotator_id": 4, **votes, **fields}


RANDOM = {
    "train": [
        line("1.jpg", "The cat is touching the sofa.", "touching", 1, reference_frame=None),
        line("1.jpg", "The sofa is far from the cat.", "far from", 0, reference_frame=None),
        line("1.jpg", "The cat is under the sofa.", "under", 0, reference_frame=None),
    ],
    "dev": [
        line("2.jpg", "The cake consists of the hot dog.", "consists of", 1, reference_frame=1.0)
    ],
    "test": [
        line("1.jpg", "The sofa is beneath the cat.", "beneath", 1, reference_frame=None),
        line("2.jpg", "The hot dog is at the left side of the cake.", "at the left side of", 1),
        line("2.jpg", "The cake is near the hot dog.", "near", 1),
        line("2.jpg", "cake, hot dog", "near", 1),
    ],
}
ZEROSHOT = [
    line("1.jpg", "The handbag is behind the cat.", "behind", 1, subj="andbag", obj="cat"),
    line("1.jpg", "The handbag contains the cat.", "contains", 1, subj="andbag", obj="cat"),
    line("1.jpg", "The handbag is above the cat.", "above", 0, subj="andbag", obj="cat"),
]


def write(folder: Path, splits: str = "splits") -> Path:
    parts = {f"random/{name}": lines for name, lines in RANDOM.items()} | {
        "zeroshot/test": ZEROSHOT
    }
    for name, lines in parts.items():
        path = folder / splits / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(item) + "\n" for item in lines))
    for number in (1, 2):
        photo(folder / "images" / f"{number}.jpg")
    return folder


@pytest.mark.parametrize("splits", ["", "splits", "data/splits"])
def test_derived_and_annotated_pairs(tmp_path: Path, splits: str) -> None:
    found = Vsr(str(write(tmp_path, splits)))
    said = [(record.part, *record.captions) for record in found.records]
    assert said == [
        ("random", "The sofa is beneath the cat.", "The sofa is above the cat."),
        (
            "random",
            "The hot dog is at the left side of the cake.",
            "The hot dog is at the right side of the cake.",
        ),
        ("distance", "The cake is near the hot dog.", "The cake is far from the hot dog."),
        ("zeroshot", "The handbag is behind the cat.", "The handbag is in front of the cat."),
        ("annotated", "The cat is touching the sofa.", "The sofa is far from the cat."),
        ("annotated", "The sofa is beneath the cat.", "The cat is under the sofa."),
    ]
    assert len(found.pictures) == 2
    assert len({record.record for record in found.records}) == 6
    check_chance(found)


def test_every_line_is_kept_or_dropped_for_one_reason(tmp_path: Path) -> None:
    found = Vsr(str(write(tmp_path)))
    check_account(found, 11, 4)
    assert {reason: noted.count for reason, noted in found.account.dropped.items()} == {
        "not of the form 'The A is <relation> the B.'": 1,
        "a true caption without an opposite": 1,
        "a false caption, which derives nothing": 1,
        "in no pair: no opposite, no partner on its picture": 1,
    }
    assert found.account.dropped["a true caption without an opposite"].first == (
        "zeroshot/test-2: The handbag contains the cat."
    )


def test_numbers_by_hand(tmp_path: Path) -> None:
    found = Vsr(str(write(tmp_path)))
    made = values(
        found, answers(found, lambda record: -1 if record.relation in ("beneath", "near") else 1)
    )
    assert made == {
        **{"random_pair": 50, "random_macro": 50, "zeroshot_pair": 100, "zeroshot_macro": 100},
        **{"distance_pair": 0, "annotated_pair": 50},
    }


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "splits" / "random" / "dev.jsonl"
    path.write_text(json.dumps(line("2.jpg", "The a is on the b.", "on", 2)))
    complaint(lambda: Vsr(str(tmp_path)), r"dev\.jsonl line 1: label 2 is neither 0 nor 1")
    path.write_text("\n{")
    complaint(lambda: Vsr(str(tmp_path)), r"dev\.jsonl line 2: not valid JSON")
    path.write_text(json.dumps({"image": "2.jpg", "label": 1}))
    complaint(lambda: Vsr(str(tmp_path)), "line 1: no field 'relation'")
    path.unlink()
    complaint(lambda: Vsr(str(tmp_path)), r"no file random/dev\.jsonl in .*; give VSR's splits")
