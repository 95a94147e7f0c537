"""ARO: the box cropped, macro averages over what the authors count, micro over all records."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spatialbench.data.captions.aro import FEWEST, UNCOUNTED, Aro
from tests.support import caption_files as files

BOX = {"bbox_x": 2, "bbox_y": 0, "bbox_w": 6, "bbox_h": 4}
RELATION, ATTRIBUTION = "visual_genome_relation.json", "visual_genome_attribution.json"


def case(true: str, false: str, image: str = "2339.jpg", **fields: Any) -> dict[str, Any]:
    return {"image_path": image, **BOX, "true_caption": true, "false_caption": false, **fields}


def write(folder: Path) -> Path:
    """Write relations on, on, behind, near; FEWEST of one pair of attributes, one of another."""
    relations = [
        case("the cat is on the bed", "the bed is on the cat", relation_name="on"),
        case("the mug is on the desk", "the desk is on the mug", "3.jpg", relation_name="on"),
        case("the man is behind the car", "the car is behind the man", relation_name="behind"),
        case("the dog is near the dog", "the dog is near the dog", relation_name="near"),
    ]
    files.write_json(folder / RELATION, relations)
    pair = ["white", "long"]
    attributes = [case(f"true {k}", f"false {k}", attributes=pair) for k in range(FEWEST)]
    attributes.append(case("true", "false", attributes=pair[::-1]))
    files.write_json(folder / ATTRIBUTION, attributes)
    pixels = np.zeros((4, 12, 3), dtype=np.uint8)
    pixels[:, 2:8] = 200  # the box, and nothing else
    files.photo(folder / "images" / "3.jpg")
    Image.fromarray(pixels).save(folder / "images" / "2339.jpg", "PNG")
    return folder


def test_the_image_is_the_box(tmp_path: Path) -> None:
    found = Aro(str(write(tmp_path)))
    first, _ = found.images  # two files, one box each
    assert first.crop == (2, 0, 8, 4)
    assert (first.pixels(first.content(), 8, "squash", "") == 200).all()
    files.check_account(found, FEWEST + 5, 0)


def test_macro_and_micro_by_hand(tmp_path: Path) -> None:
    """Wrong: one of two "on", and the rare attributes. Equal captions tie for every model."""
    found = Aro(str(write(tmp_path)))
    scores = files.answers(found, lambda r: {"relation-1": -1.0, "relation-3": 0}.get(r.record, 1))
    scores[-1, 0] = -1
    assert files.values(found, scores) == {
        "relation_macro": pytest.approx((50 + 100) / 2),
        "relation_micro": pytest.approx(100 * 2.5 / 4),
        "attribution_macro": 100,
        "attribution_micro": pytest.approx(100 * FEWEST / (FEWEST + 1)),
    }
    macro, _, attributes, _ = found.measures()
    assert files.ties(found, scores)["relation_micro"] == 1
    assert [set(measure.groups) for measure in (macro, attributes)] == [
        {"on", "behind"},
        {"white_long"},
    ]
    files.check_chance(found)


def test_the_relations_that_are_left_out() -> None:
    assert len(UNCOUNTED) == 157
    assert {"near", "next to", "with", "going through", "standing in front of"} < UNCOUNTED
    assert UNCOUNTED.isdisjoint({"on", "in", "above", "behind", "below", "under"})
    assert UNCOUNTED.isdisjoint({"to the left of", "to the right of"})


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (RELATION, {"relation_name": "on", "bbox_w": 0}, "record 0: an empty box, x 2, y 0, w 0"),
        (RELATION, {"relation_name": "on", "bbox_h": "4"}, "'bbox_h' is '4', not a number"),
        (RELATION, {}, "record 0: no field 'relation_name'"),
        (ATTRIBUTION, {"attributes": ["a"]}, "field 'attributes' is .* not 2 texts"),
    ],
)
def test_a_wrong_record_is_one_line(
    tmp_path: Path, name: str, fields: dict[str, Any], message: str
) -> None:
    files.write_json(write(tmp_path) / name, [case("a", "b", **fields)])
    files.complaint(lambda: Aro(str(tmp_path)), message)
