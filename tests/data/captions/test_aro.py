"""ARO: the box cut out, macro averages over what the authors count, micro over all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spatialbench.data.captions.aro import FEWEST, Aro
from spatialbench.data.captions.aro_relations import UNCOUNTED
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

BOX = {"bbox_x": 2, "bbox_y": 0, "bbox_w": 6, "bbox_h": 4}


def case(true: str, false: str, image: str = "2339.jpg", **fields: Any) -> dict[str, Any]:
    return {
        "image_id": 1,
        "image_path": image,
        **BOX,
        "true_caption": true,
        "false_caption": false,
        **fields,
    }


def write(folder: Path) -> Path:
    """Relations: two "on", one "behind", one "near"; attributes: FEWEST of one pair, one of another."""
    relations = [
        case("the cat is on the bed", "the bed is on the cat", relation_name="on"),
        case("the mug is on the desk", "the desk is on the mug", "3.jpg", relation_name="on"),
        case("the man is behind the car", "the car is behind the man", relation_name="behind"),
        case("the dog is near the dog", "the dog is near the dog", relation_name="near"),
    ]
    write_json(folder / "visual_genome_relation.json", relations)
    attributes = [
        case(f"true {k}", f"false {k}", attributes=["white", "long"]) for k in range(FEWEST)
    ]
    attributes.append(case("true", "false", attributes=["long", "white"]))
    write_json(folder / "visual_genome_attribution.json", attributes)
    pixels = np.zeros((4, 12, 3), dtype=np.uint8)
    pixels[:, 2:8] = 200  # the box, and nothing else
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "images" / "2339.jpg", "PNG")
    photo(folder / "images" / "3.jpg")
    return folder


def test_the_picture_is_the_box(tmp_path: Path) -> None:
    found = Aro(str(write(tmp_path)))
    assert len(found.pictures) == 2  # two files, one box each
    first = found.pictures[0]
    assert first.crop == (2, 0, 8, 4)
    assert (first.pixels(first.content(), 8, "squash", "") == 200).all()
    check_account(found, FEWEST + 5, 0)


def test_macro_and_micro_by_hand(tmp_path: Path) -> None:
    """Wrong: one of two "on", and the rare attributes. The equal captions tie, whatever the model says."""
    found = Aro(str(write(tmp_path)))
    scores = answers(found, lambda r: {"relation-1": -1.0, "relation-3": 0}.get(r.record, 1))
    scores[-1, 0] = -1
    made = values(found, scores)
    assert made["relation_macro"] == pytest.approx((50 + 100) / 2)
    assert made["relation_micro"] == pytest.approx(100 * 2.5 / 4)
    assert made["attribution_macro"] == 100
    assert made["attribution_micro"] == pytest.approx(100 * FEWEST / (FEWEST + 1))
    by_name = {measure.name: measure for measure in found.measures()}
    facts = measure_facts(found, caption_evidence(found, scores, "d"))
    assert facts["relation_micro"].ties == 1
    assert [set(by_name[f"{part}_macro"].groups) for part in ("relation", "attribution")] == [
        {"on", "behind"},
        {"white_long"},
    ]
    check_chance(found)


def test_the_relations_that_are_left_out() -> None:
    """157 names; those with a direction are counted."""
    assert len(UNCOUNTED) == 157
    assert {"near", "next to", "with", "going through", "standing in front of"} < UNCOUNTED
    assert UNCOUNTED.isdisjoint(
        {"on", "in", "above", "behind", "below", "to the left of", "to the right of", "under"}
    )


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    write(tmp_path)
    write_json(
        tmp_path / "visual_genome_relation.json", [case("a", "b", relation_name="on", bbox_w=0)]
    )
    complaint(
        lambda: Aro(str(tmp_path)), r"relation\.json record 0: an empty box, x 2, y 0, w 0, h 4"
    )
    write_json(
        tmp_path / "visual_genome_relation.json", [case("a", "b", relation_name="on", bbox_h="4")]
    )
    complaint(lambda: Aro(str(tmp_path)), "field 'bbox_h' is '4', not a number")
    write_json(tmp_path / "visual_genome_relation.json", [case("a", "b")])
    complaint(lambda: Aro(str(tmp_path)), "record 0: no field 'relation_name'")
    write(tmp_path)
    write_json(tmp_path / "visual_genome_attribution.json", [case("a", "b", attributes=["a"])])
    complaint(lambda: Aro(str(tmp_path)), "field 'attributes' is .* not 2 texts")
    write(tmp_path)
    (tmp_path / "images" / "3.jpg").unlink()
    complaint(lambda: Aro(str(tmp_path)), r"no picture .*3\.jpg \(1 missing\); give ARO's")
