"""Files in COCO's format: every form of mask, the square and its padding, order, captions."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from spatialbench.data.images import fit
from spatialbench.data.region_sets import check_regions
from tests.support.checks import refused
from tests.support.coco_files import annotation, instances, one, opened, panoptic, write_image


def test_a_landscape_is_scaled_to_its_longest_side_and_padded_below(tmp_path: Path) -> None:
    # 8 x 4 at 4 pixels: 4 x 2; columns 1 3 5 7 and rows 1 3 are under the new centres
    regions = one(tmp_path, 8, 4, 4, bbox=[2, 1, 4, 2], segmentation=[[2, 1, 6, 1, 6, 3, 2, 3]])
    found = regions[0]
    assert found.extent == (1.0, 0.5)
    assert found.boxes.tolist() == [[0.25, 0.125, 0.75, 0.375]]
    assert found.masks.int().tolist() == [[[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]
    expected = Image.open(tmp_path / "images" / "1.png").resize((4, 2), Image.Resampling.BICUBIC)
    assert np.array_equal(found.pixels[:, :2].permute(1, 2, 0).numpy(), np.asarray(expected))
    assert not found.pixels[:, 2:].any()
    check_regions(found, 4, 3, "regions")


def test_a_portrait_is_enlarged_and_padded_on_the_right(tmp_path: Path) -> None:
    regions = one(tmp_path, 4, 8, 16, bbox=[1, 2, 2, 3], segmentation=[[1, 2, 3, 2, 3, 5, 1, 5]])
    found = regions[0]
    assert found.extent == (0.5, 1.0)
    assert found.boxes.tolist() == [[2 / 16, 4 / 16, 6 / 16, 10 / 16]]
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:10, 2:6] = True
    assert torch.equal(found.masks, expected[None])
    assert not found.pixels[:, :, 8:].any()


def test_boxes_follow_the_rounded_image_and_end_with_it(tmp_path: Path) -> None:
    # 20 x 13 at 16: 10.4 rows become 10
    polygon = [[0, 6, 20, 6, 20, 13, 0, 13]]
    found = one(tmp_path, 20, 13, 16, bbox=[0, 6.5, 20, 6.5], segmentation=polygon)[0]
    assert found.extent == (1.0, 10 / 16)
    assert found.boxes.tolist() == [[0.0, 5 / 16, 1.0, 10 / 16]]
    rows = found.masks[0].any(1).nonzero().flatten().tolist()
    assert rows == [5, 6, 7, 8, 9]  # the centre of row 4 is over 5.85, in row 5


def test_every_form_of_segmentation_gives_the_same_mask(tmp_path: Path) -> None:
    # 3 x 2 pixels, rows 0 1 1 and 0 0 1; run lengths go down the columns: 0 0 | 1 0 | 1 1
    mask = np.array([[0, 1, 1], [0, 0, 1]], dtype=np.uint8)
    packed = coco_mask.encode(np.asfortranarray(mask))["counts"].decode()
    forms: list[Any] = [
        {"size": [2, 3], "counts": [2, 1, 1, 2]},
        {"size": [2, 3], "counts": packed},
        [[1, 0, 3, 0, 3, 1, 1, 1], [2, 1, 3, 1, 3, 2, 2, 2]],  # a union
    ]
    for form in forms:
        regions = one(tmp_path, 3, 2, 3, bbox=[1, 0, 2, 2], segmentation=form)
        assert regions[0].masks[0, :2].int().tolist() == mask.tolist()
        assert not regions.skipped


def test_a_panoptic_file_has_things_and_stuff_whose_boxes_are_their_masks(tmp_path: Path) -> None:
    regions = opened(tmp_path, panoptic(tmp_path), 32)
    assert (regions.classes, regions.things) == (("dog", "tree", "cat"), (True, False, True))
    found = regions[0]
    assert found.label.tolist() == [0, 1]
    assert found.boxes[0].tolist() == [0, 0, 0.5, 0.5]
    assert found.boxes[1].tolist() == [3 / 16, 10 / 16, 1, 1]  # not the bbox of the file
    expected = torch.zeros(2, 32, 32, dtype=torch.bool)
    expected[0, :16, :16] = expected[1, 20:, 6:] = True
    assert torch.equal(found.masks, expected)
    assert regions.skipped == {"crowd": 1}


def test_the_folder_of_the_masks_can_be_given(tmp_path: Path) -> None:
    raw = panoptic(tmp_path)
    (tmp_path / "file").rename(tmp_path / "elsewhere")
    with refused(r"file: no such folder; say where the masks"):
        opened(tmp_path, raw)
    assert len(opened(tmp_path, raw, masks=tmp_path / "elsewhere")[0].label) == 2


def test_labels_are_ranks_of_the_category_ids_and_images_are_sorted_by_id(tmp_path: Path) -> None:
    raw = instances(tmp_path)
    raw["images"].reverse()
    regions = opened(tmp_path, raw)
    assert (regions.classes, regions.things) == (("dog", "tree", "cat"), (True, True, True))
    assert [regions.scene(row) for row in range(len(regions))] == ["1", "2"]
    assert [regions[row].label.tolist() for row in (0, 1)] == [[0], [2]]
    assert (regions.name, regions.size) == ("coco/file", 16)
    with pytest.raises(IndexError):
        regions[2]


def test_the_limit_counts_usable_images_and_looks_no_further(tmp_path: Path) -> None:
    raw = instances(tmp_path, [annotation(1, 1), annotation(2, 2, bbox=[0, 0, 0, 0])])
    regions = opened(tmp_path, raw, limit=1)
    assert (len(regions), regions.skipped) == (1, {})
    (tmp_path / "images" / "1.png").unlink()
    regions = opened(tmp_path, raw, limit=1)
    assert [regions.scene(row) for row in range(len(regions))] == ["2"]
    assert regions.skipped == {"image is missing": 1, "box has no area": 1}


def test_an_image_may_have_no_regions(tmp_path: Path) -> None:
    check_regions(opened(tmp_path, instances(tmp_path, []), strict=True)[1], 16, 3, "regions")


def test_the_fingerprint_follows_everything_that_defines_the_set(tmp_path: Path) -> None:
    raw = instances(tmp_path)
    captions = written(tmp_path, [{"image_id": 1, "caption": "a dog"}])
    first = opened(tmp_path, raw).fingerprint
    assert opened(tmp_path, raw).fingerprint == first
    others = [
        opened(tmp_path, raw, 17).fingerprint,
        opened(tmp_path, raw, limit=1).fingerprint,
        opened(tmp_path, raw, smallest=2.0).fingerprint,
        opened(tmp_path, raw | {"info": {}}).fingerprint,
        opened(tmp_path, raw, captions=captions).fingerprint,
    ]
    with (tmp_path / "images" / "1.png").open("ab") as stream:
        stream.write(b"\n")
    others.append(opened(tmp_path, raw).fingerprint)
    assert len({first, *others}) == 7


def test_images_are_not_kept_and_the_set_goes_to_other_processes(tmp_path: Path) -> None:
    raw = instances(tmp_path)
    for id_ in (1, 2):
        write_image(tmp_path / "images", f"{id_}.png", 300, 300)
    raw["images"] = [item | {"width": 300, "height": 300} for item in raw["images"]]
    regions = opened(tmp_path, raw, 300)
    _, expected = regions[0], regions[1].pixels
    data = pickle.dumps(regions)  # as a DataLoader sends it to its workers
    assert len(data) < 20_000  # an image has 270,000 bytes
    assert torch.equal(pickle.loads(data)[1].pixels, expected)


def written(tmp_path: Path, annotations: list[Any]) -> Path:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": [], "annotations": annotations}))
    return path


def test_captions_are_true_of_their_own_image(tmp_path: Path) -> None:
    raw = instances(tmp_path)
    for id_, item in enumerate(raw["images"], 1):
        write_image(tmp_path / "images", f"{id_}.png", 16, 8, id_)
        item["height"] = 8
    said = [(2, "a dog"), (1, "a cat\n"), (2, "a tree"), (77, "of another image")]
    captions = [
        {"id": id_, "image_id": image, "caption": text} for id_, (image, text) in enumerate(said)
    ]
    found = opened(tmp_path, raw, captions=written(tmp_path, captions)).captions(12)
    assert found is not None
    assert list(found.captions) == ["a dog", "a cat", "a tree"]
    assert found.image.tolist() == [1, 0, 1]
    assert found.truth.tolist() == [[False, True, False], [True, False, True]]
    assert (found.images.shape, found.images.dtype) == ((2, 12, 12, 3), np.uint8)
    expected = fit(Image.open(tmp_path / "images" / "2.png"), 12, "letterbox")
    assert np.array_equal(found.images[1], expected)
    assert opened(tmp_path, raw).captions(12) is None


def test_damaged_captions_are_counted_and_a_file_without_any_is_an_error(tmp_path: Path) -> None:
    good = {"id": 1, "image_id": 1, "caption": "a dog"}
    bad = [{"image_id": 1, "caption": "  "}, {"image_id": [1], "caption": "x"}, "x"]
    raw, path = instances(tmp_path), written(tmp_path, [good, good, *bad])
    regions = opened(tmp_path, raw, captions=path)
    assert regions.skipped == {"caption id is used twice": 1, "caption is damaged": 3}
    message = r"captions\.json, caption 1: caption id is used twice; repair"
    with refused(message):
        opened(tmp_path, raw, captions=path, strict=True)
    with refused("no caption of an image of"):
        opened(tmp_path, raw, captions=written(tmp_path, [good | {"image_id": 3}]))
