"""Files in COCO's format: every form of mask, the square and its padding, and everything that can be wrong with one."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from rich.console import Console

from spatialbench.commands import RUN
from spatialbench.data.coco import CocoRegions
from spatialbench.data.coco_check import UNREADABLE, check_coco, is_coco, print_coco
from spatialbench.data.coco_export import CATEGORY, export_coco
from spatialbench.data.coco_pixels import run_lengths
from spatialbench.data.images import fit
from spatialbench.data.records import Box
from spatialbench.data.region_sets import check_regions
from spatialbench.data.rooms import RoomsSet, load
from spatialbench.data.rooms.facts import SceneView, View
from spatialbench.data.rooms.kinds import KINDS
from spatialbench.errors import SpatialbenchError

Raw = dict[str, Any]
CATEGORIES = [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 5, "name": "tree"}]  # ranks: dog tree cat
SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]


def picture(folder: Path, name: str, width: int = 16, height: int = 16, seed: int = 0) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return pixels


def annotation(id_: int = 1, image: int = 1, **changes: Any) -> Raw:
    return {
        "id": id_,
        "image_id": image,
        "category_id": 2,
        "bbox": [2, 2, 10, 10],
        "area": 100,
        "iscrowd": 0,
        "segmentation": SQUARE,
    } | changes


def instances(tmp_path: Path, annotations: list[Any] | None = None, **changes: Any) -> Raw:
    """Pictures 1 and 2 of 16 x 16 pixels, written as PNG, and their file."""
    for id_ in (1, 2):
        picture(tmp_path / "images", f"{id_}.png", seed=id_)
    images = [{"id": id_, "file_name": f"{id_}.png", "width": 16, "height": 16} for id_ in (1, 2)]
    annotations = [annotation(), annotation(2, 2, category_id=9)] if annotations is None else annotations
    return {"images": images, "annotations": annotations, "categories": CATEGORIES} | changes


def opened(tmp_path: Path, raw: Any, size: int = 16, **options: Any) -> CocoRegions:
    (tmp_path / "file.json").write_text(json.dumps(raw))
    return CocoRegions(tmp_path / "file.json", tmp_path / "images", size, **{"smallest": 1.0} | options)


def one(tmp_path: Path, width: int, height: int, size: int, **changes: Any) -> CocoRegions:
    """A single picture with a single region."""
    picture(tmp_path / "images", "1.png", width, height)
    image = {"id": 1, "file_name": "1.png", "width": width, "height": height}
    return opened(tmp_path, {"images": [image], "annotations": [annotation(**changes)], "categories": CATEGORIES}, size)


# ---------------------------------------------------------------------------------------------- the square by hand
def test_a_landscape_is_scaled_to_its_longest_side_and_padded_below_with_black(tmp_path: Path) -> None:
    # 8 x 4 at 4 pixels: 4 x 2; columns 1 3 5 7 and rows 1 3 are those under the new centres
    regions = one(tmp_path, 8, 4, 4, bbox=[2, 1, 4, 2], segmentation=[[2, 1, 6, 1, 6, 3, 2, 3]])
    found = regions[0]
    assert found.extent == (1.0, 0.5)
    assert found.boxes.tolist() == [[0.25, 0.125, 0.75, 0.375]]
    assert found.masks.int().tolist() == [[[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]
    expected = Image.open(tmp_path / "images" / "1.png").resize((4, 2), Image.Resampling.BICUBIC)
    assert np.array_equal(found.pixels[:, :2].permute(1, 2, 0).numpy(), np.asarray(expected))
    assert not found.pixels[:, 2:].any()
    assert found.pixels[:, :2].any()
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


def test_boxes_follow_the_rounded_picture_and_end_with_it(tmp_path: Path) -> None:
    # 20 x 13 at 16: 10.4 rows become 10
    regions = one(tmp_path, 20, 13, 16, bbox=[0, 6.5, 20, 6.5], segmentation=[[0, 6, 20, 6, 20, 13, 0, 13]])
    found = regions[0]
    assert found.extent == (1.0, 10 / 16)
    assert found.boxes.tolist() == [[0.0, 5 / 16, 1.0, 10 / 16]]
    assert found.masks[0].any(1).nonzero().flatten().tolist() == [5, 6, 7, 8, 9]  # row 4 lies over 5.85, in row 5


def test_a_picture_of_that_size_comes_back_pixel_for_pixel(tmp_path: Path) -> None:
    regions = opened(tmp_path, instances(tmp_path))
    for row in (0, 1):
        stored = np.asarray(Image.open(tmp_path / "images" / f"{row + 1}.png"))
        assert np.array_equal(regions[row].pixels.permute(1, 2, 0).numpy(), stored)


# ------------------------------------------------------------------------------------------------------------ masks
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


def test_run_lengths_are_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = np.kron(rng.integers(0, 2, rng.integers(1, 9, 2)), np.ones(rng.integers(1, 40, 2))).astype(np.uint8)
        runs = run_lengths(coco_mask.encode(np.asfortranarray(mask))["counts"])
        assert runs is not None
        assert np.array_equal(np.repeat(np.arange(len(runs)) % 2, runs), mask.ravel("F"))
    for text in (b"", b"0o", b"0\xff", b" ", b"oooooooo0"):
        assert run_lengths(text) is None


def panoptic(tmp_path: Path, **segment: Any) -> Raw:
    """One picture of 16 x 16: dog (300, rows 0 to 7 of the left), tree (70000, from row 10 on), crowd (5)."""
    picture(tmp_path / "images", "1.jpg")
    ids = np.zeros((16, 16), dtype=np.int64)
    ids[:8, :8], ids[10:, 3:], ids[:8, 8:] = 300, 70000, 5
    (tmp_path / "file").mkdir(exist_ok=True)
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(
        tmp_path / "file" / "1.png"
    )
    segments = [
        {"id": 300, "category_id": 2, "bbox": [0, 0, 8, 8], "area": 64, "iscrowd": 0} | segment,
        {"id": 70000, "category_id": 5, "bbox": [0, 0, 1, 1], "area": 78, "iscrowd": 0},
        {"id": 5, "category_id": 9, "bbox": [8, 0, 8, 8], "area": 64, "iscrowd": 1},
    ]
    return {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 16, "height": 16}],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": segments}],
        "categories": [item | {"isthing": int(item["name"] != "tree")} for item in CATEGORIES],
    }


def test_a_panoptic_file_has_things_and_stuff_whose_boxes_are_their_masks(tmp_path: Path) -> None:
    regions = opened(tmp_path, panoptic(tmp_path), 32)
    assert (regions.classes, regions.things) == (("dog", "tree", "cat"), (True, False, True))
    found = regions[0]
    assert found.label.tolist() == [0, 1]
    assert found.boxes.tolist() == [[0, 0, 0.5, 0.5], [3 / 16, 10 / 16, 1, 1]]  # not the bbox that the file says
    expected = torch.zeros(2, 32, 32, dtype=torch.bool)
    expected[0, :16, :16] = expected[1, 20:, 6:] = True
    assert torch.equal(found.masks, expected)
    assert regions.skipped == {"crowd": 1}


def test_the_folder_of_the_masks_can_be_said(tmp_path: Path) -> None:
    raw = panoptic(tmp_path)
    (tmp_path / "file").rename(tmp_path / "elsewhere")
    with pytest.raises(SpatialbenchError, match=r"file: no such folder; say where the masks"):
        opened(tmp_path, raw)
    assert len(opened(tmp_path, raw, masks=tmp_path / "elsewhere")[0].label) == 2


# -------------------------------------------------------------------------------------------------- order and names
def test_labels_are_ranks_of_the_category_ids_and_pictures_stand_by_id(tmp_path: Path) -> None:
    raw = instances(tmp_path)
    raw["images"].reverse()
    regions = opened(tmp_path, raw, templates=("a {}.", "the {}."))
    assert (regions.classes, regions.things, regions.templates) == (
        ("dog", "tree", "cat"),
        (True, True, True),
        ("a {}.", "the {}."),
    )
    assert [regions.scene(row) for row in range(len(regions))] == ["1", "2"]
    assert [regions[row].label.tolist() for row in (0, 1)] == [[0], [2]]
    assert (regions.name, regions.size) == ("coco/file", 16)
    with pytest.raises(IndexError):
        regions[2]


def test_the_limit_counts_usable_pictures_and_looks_no_further(tmp_path: Path) -> None:
    raw = instances(tmp_path, [annotation(1, 1), annotation(2, 2, bbox=[0, 0, 0, 0])])
    regions = opened(tmp_path, raw, limit=1)
    assert (len(regions), regions.skipped) == (1, {})
    (tmp_path / "images" / "1.png").unlink()
    regions = opened(tmp_path, raw, limit=1)
    assert [regions.scene(row) for row in range(len(regions))] == ["2"]
    assert regions.skipped == {"picture is missing": 1, "box has no area": 1}


def test_a_picture_without_regions_is_legal(tmp_path: Path) -> None:
    found = opened(tmp_path, instances(tmp_path, []), strict=True)[1]
    assert (found.boxes.shape, found.masks.shape, found.label.shape) == ((0, 4), (0, 16, 16), (0,))
    assert (found.boxes.dtype, found.masks.dtype, found.label.dtype) == (torch.float32, torch.bool, torch.int64)


def test_the_fingerprint_follows_everything_that_defines_the_set(tmp_path: Path) -> None:
    raw = instances(tmp_path)
    first = opened(tmp_path, raw).fingerprint
    assert opened(tmp_path, raw).fingerprint == first
    others = [
        opened(tmp_path, raw, 17).fingerprint,
        opened(tmp_path, raw, limit=1).fingerprint,
        opened(tmp_path, raw, smallest=2.0).fingerprint,
        opened(tmp_path, raw | {"info": {}}).fingerprint,
        opened(tmp_path, raw, captions=written(tmp_path, [{"image_id": 1, "caption": "a dog"}])).fingerprint,
    ]
    picture(tmp_path / "images", "1.png", seed=8)
    with (tmp_path / "images" / "1.png").open("ab") as stream:
        stream.write(b"\n")
    others.append(opened(tmp_path, raw).fingerprint)
    assert len({first, *others}) == 7


def test_nothing_of_the_pictures_is_kept_and_it_goes_to_other_processes(tmp_path: Path) -> None:
    raw = instances(tmp_path)
    for id_ in (1, 2):
        picture(tmp_path / "images", f"{id_}.png", 300, 300)
    raw["images"] = [item | {"width": 300, "height": 300} for item in raw["images"]]
    regions = opened(tmp_path, raw, 300)
    before = [regions[0], regions[1]]
    data = pickle.dumps(regions)
    assert len(data) < 20_000  # a picture has 270,000 bytes
    assert torch.equal(pickle.loads(data)[1].pixels, before[1].pixels)


# --------------------------------------------------------------------------------------------------------- captions
def written(tmp_path: Path, annotations: list[Any]) -> Path:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": [], "annotations": annotations}))
    return path


def test_captions_are_true_of_their_own_picture(tmp_path: Path) -> None:
    raw = instances(tmp_path)
    for id_, item in enumerate(raw["images"], 1):
        picture(tmp_path / "images", f"{id_}.png", 16, 8, id_)
        item["height"] = 8
    captions = written(
        tmp_path,
        [
            {"id": 1, "image_id": 2, "caption": "a dog"},
            {"id": 2, "image_id": 1, "caption": "a cat\n"},
            {"id": 3, "image_id": 2, "caption": "a tree"},
            {"id": 4, "image_id": 77, "caption": "of another picture"},
        ],
    )
    found = opened(tmp_path, raw, captions=captions).captions(12)
    assert found is not None
    assert list(found.captions) == ["a dog", "a cat", "a tree"]
    assert found.image.tolist() == [1, 0, 1]
    assert found.truth.tolist() == [[False, True, False], [True, False, True]]
    assert (found.images.shape, found.images.dtype) == ((2, 12, 12, 3), np.uint8)
    assert np.array_equal(found.images[1], fit(Image.open(tmp_path / "images" / "2.png"), 12, "letterbox"))
    assert opened(tmp_path, raw).captions(12) is None


def test_damaged_captions_are_counted_and_a_file_without_any_is_an_error(tmp_path: Path) -> None:
    good = {"id": 1, "image_id": 1, "caption": "a dog"}
    captions: list[Any] = [good, good, {"image_id": 1, "caption": "  "}, {"image_id": [1], "caption": "x"}, "x"]
    raw, path = instances(tmp_path), written(tmp_path, captions)
    regions = opened(tmp_path, raw, captions=path)
    assert regions.skipped == {"caption id is used twice": 1, "caption is damaged": 3}
    with pytest.raises(SpatialbenchError, match=r"captions\.json, caption 1: caption id is used twice; repair"):
        opened(tmp_path, raw, captions=path, strict=True)
    with pytest.raises(SpatialbenchError, match="no caption of a picture of"):
        opened(tmp_path, raw, captions=written(tmp_path, [good | {"image_id": 3}]))


# ---------------------------------------------------------------------------------------------------- what is wrong
def changed(**changes: Any) -> Callable[[Raw, Path], None]:
    """Damages the second annotation."""
    return lambda raw, images: raw["annotations"][1].update(changes)


def without(key: str) -> Callable[[Raw, Path], None]:
    return lambda raw, images: raw["annotations"][1].pop(key)


def image(**changes: Any) -> Callable[[Raw, Path], None]:
    return lambda raw, images: raw["images"][1].update(changes)


def file(action: Callable[[Path], Any]) -> Callable[[Raw, Path], None]:
    return lambda raw, images: action(images / "2.png")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.zeros((16, 16), dtype=np.uint16)).save(path)


REGIONS: dict[str, tuple[Callable[[Raw, Path], Any], str]] = {
    "no id": (without("id"), "annotation is damaged"),
    "no image_id": (without("image_id"), "annotation is damaged"),
    "no category": (without("category_id"), "annotation is damaged"),
    "no bbox": (without("bbox"), "annotation is damaged"),
    "no segmentation": (without("segmentation"), "annotation is damaged"),
    "not an object": (lambda raw, _: raw["annotations"].__setitem__(1, "x"), "annotation is damaged"),
    "id is a list": (changed(id=[1]), "annotation is damaged"),
    "id used twice": (lambda raw, _: raw["annotations"].append(annotation(2, 2)), "annotation id is used twice"),
    "unknown picture": (changed(image_id=3), "annotation of an unknown picture"),
    "unknown category": (changed(category_id=3), "category is unknown"),
    "category is a list": (changed(category_id=[2]), "category is unknown"),
    "NaN": (changed(bbox=[2, float("nan"), 4, 4]), "box is not four finite numbers"),
    "infinite": (changed(bbox=[2, 2, float("inf"), 4]), "box is not four finite numbers"),
    "three numbers": (changed(bbox=[2, 2, 4]), "box is not four finite numbers"),
    "text": (changed(bbox="2, 2, 4, 4"), "box is not four finite numbers"),
    "list of text": (changed(bbox=["2", "2", "4", "4"]), "box is not four finite numbers"),
    "endless integer": (changed(bbox=[2, 2, 4, 10**400]), "box is not four finite numbers"),
    "no area": (changed(bbox=[2, 2, 0, 4]), "box has no area"),
    "negative": (changed(bbox=[6, 6, -4, 4]), "box has no area"),
    "outside": (changed(bbox=[20, 2, 4, 4]), "box lies outside of the picture"),
    "mask of another size": (
        changed(segmentation={"size": [15, 16], "counts": [0, 240]}),
        "segmentation has another size than its picture",
    ),
    "mask without size": (changed(segmentation={"counts": [256]}), "segmentation has another size than its picture"),
    "run lengths too short": (
        changed(segmentation={"size": [16, 16], "counts": [3, 4]}),
        "segmentation has another size than its picture",
    ),
    "compressed too short": (
        changed(segmentation={"size": [16, 16], "counts": "52203"}),
        "segmentation has another size than its picture",
    ),
    "run lengths too long": (changed(segmentation={"size": [16, 16], "counts": [3, 400]}), "segmentation is damaged"),
    "negative run": (changed(segmentation={"size": [16, 16], "counts": [300, -44]}), "segmentation is damaged"),
    "compressed garbage": (changed(segmentation={"size": [16, 16], "counts": "é!"}), "segmentation is damaged"),
    "compressed cut off": (changed(segmentation={"size": [16, 16], "counts": "5o"}), "segmentation is damaged"),
    "no counts": (changed(segmentation={"size": [16, 16]}), "segmentation is damaged"),
    "segmentation is text": (changed(segmentation="x"), "segmentation is damaged"),
    "flat polygon": (changed(segmentation=SQUARE[0]), "segmentation is damaged"),
    "two points": (changed(segmentation=[[2, 2, 8, 8]]), "segmentation is damaged"),
    "odd polygon": (changed(segmentation=[[2, 2, 8, 8, 2, 8, 2]]), "segmentation is damaged"),
    "polygon of NaN": (changed(segmentation=[[2, 2, 8, 8, 2, float("nan")]]), "segmentation is damaged"),
    "polygon miles away": (changed(segmentation=[[2, 2, 8e8, 8, 2, 8]]), "segmentation is damaged"),
    "no polygon": (changed(segmentation=[]), "mask is empty"),
    "polygon without a pixel": (changed(segmentation=[[2, 2, 2, 2, 2, 2]]), "mask is empty"),
    "empty run lengths": (changed(segmentation={"size": [16, 16], "counts": [256]}), "mask is empty"),
}


@pytest.mark.parametrize(("damage", "reason"), REGIONS.values(), ids=REGIONS.keys())
def test_a_damaged_region_is_counted_and_with_strict_an_error_of_one_line(
    tmp_path: Path, damage: Callable[[Raw, Path], Any], reason: str
) -> None:
    raw = instances(tmp_path)
    if reason == "annotation id is used twice":
        raw["annotations"].append(annotation(3, 2, category_id=9))
    damage(raw, tmp_path / "images")
    regions = opened(tmp_path, raw)
    assert regions.skipped == {reason: 1}
    assert len(regions) == 2
    assert len(regions[0].label) == 1  # of the sound picture
    assert len(regions[1].label) == (2 if "twice" in reason else 0)
    line = regions.first[reason]
    assert line.startswith(f"{tmp_path / 'file.json'}: annotation ")
    with pytest.raises(SpatialbenchError) as caught:
        opened(tmp_path, raw, strict=True)
    assert str(caught.value) == f"{line}; repair or remove it, or read without strict to leave it out"
    assert "\n" not in line
    assert len(line) < len(str(tmp_path)) + 200


def test_the_message_names_the_first_one_its_picture_and_what_is_wrong(tmp_path: Path) -> None:
    annotations = [annotation(id_, 2, bbox=[20, 2, 4, 4]) for id_ in (41, 42)]
    regions = opened(tmp_path, instances(tmp_path, annotations))
    assert regions.skipped == {"box lies outside of the picture": 2}
    assert regions.first["box lies outside of the picture"] == (
        f"{tmp_path / 'file.json'}: annotation 41 of picture 2 (2.png): box lies outside of the picture: "
        "x0 y0 x1 y1 is 20, 2, 24, 6 in a picture of 16 x 16"
    )


PICTURES: dict[str, tuple[Callable[[Raw, Path], Any], str]] = {
    "no id": (lambda raw, _: raw["images"][1].pop("id"), "picture entry is damaged"),
    "no file_name": (lambda raw, _: raw["images"][1].pop("file_name"), "picture entry is damaged"),
    "no width": (lambda raw, _: raw["images"][1].pop("width"), "picture entry is damaged"),
    "height of zero": (image(height=0), "picture entry is damaged"),
    "not an object": (lambda raw, _: raw["images"].__setitem__(1, None), "picture entry is damaged"),
    "id used twice": (image(id=1), "picture id is used twice"),
    "other size": (image(width=15), "picture has another size than the file says"),
    "missing": (file(Path.unlink), "picture is missing"),
    "null in the name": (image(file_name="a\0b"), "picture cannot be read"),
    "a folder": (image(file_name="."), "picture cannot be read"),
    "truncated": (file(cut), "picture cannot be read"),
    "not an image": (file(lambda path: path.write_text("<html>")), "picture cannot be read"),
    "empty": (file(lambda path: path.write_bytes(b"")), "picture cannot be read"),
    "16 bits": (file(sixteen_bits), "picture cannot be read"),
}


@pytest.mark.parametrize(("damage", "reason"), PICTURES.values(), ids=PICTURES.keys())
def test_a_damaged_picture_is_counted_and_with_strict_an_error_of_one_line(
    tmp_path: Path, damage: Callable[[Raw, Path], Any], reason: str
) -> None:
    raw = instances(tmp_path, [annotation()])
    damage(raw, tmp_path / "images")
    regions = opened(tmp_path, raw)
    assert regions.skipped == {reason: 1}
    assert [regions.scene(row) for row in range(len(regions))] == ["1"]
    with pytest.raises(SpatialbenchError, match="; repair or remove it, or read without strict") as caught:
        opened(tmp_path, raw, strict=True)
    assert str(caught.value).startswith(f"{regions.first[reason]}; ")
    assert "\n" not in str(caught.value)


def test_a_truncated_jpeg_is_found_and_bytes_after_its_end_are_not_held_against_it(tmp_path: Path) -> None:
    raw = instances(tmp_path)
    for item, change in zip(raw["images"], (lambda data: data[:-40], lambda data: data + b"trailer"), strict=True):
        item["file_name"] = f"{item['id']}.jpg"
        picture(tmp_path / "images", item["file_name"])
        path = tmp_path / "images" / item["file_name"]
        path.write_bytes(change(path.read_bytes()))
    regions = opened(tmp_path, raw)
    assert [regions.scene(row) for row in range(len(regions))] == ["2"]
    assert regions.skipped == {"picture cannot be read": 1}
    assert "truncated" in regions.first["picture cannot be read"]


def test_what_breaks_later_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    regions = opened(tmp_path, instances(tmp_path))
    cut(tmp_path / "images" / "2.png")
    with pytest.raises(SpatialbenchError, match=r"2\.png: .*; repair it, or remove picture 2 from the JSON"):
        regions[1]
    picture(tmp_path / "images", "2.png", 8, 8)
    with pytest.raises(SpatialbenchError, match=r"2\.png: has now \(8, 8\) pixels"):
        regions[1]


def test_crowds_and_small_boxes_are_left_out_and_never_an_error(tmp_path: Path) -> None:
    run_lengths = {"size": [16, 16], "counts": [0, 256]}
    raw = instances(
        tmp_path,
        [annotation(1, iscrowd=1, segmentation=run_lengths), annotation(2, bbox=[2, 2, 10, 3]), annotation(3)],
    )
    regions = opened(tmp_path, raw, strict=True, smallest=8.0)
    assert regions.skipped == {"crowd": 1, "box is smaller than 8 pixels": 1}
    assert len(regions[0].label) == 1
    assert len(opened(tmp_path, raw, 64, smallest=8.0)[0].label) == 2  # 3 of 16 pixels are 12 of 64


def test_a_mask_that_is_gone_at_this_size_is_counted_once(tmp_path: Path) -> None:
    # 16 to 8 pixels: columns 1 3 5 ... are kept, the mask is column 4
    raw = instances(tmp_path, [annotation(segmentation={"size": [16, 16], "counts": [64, 16, 176]})])
    regions = opened(tmp_path, raw, 8, strict=True)
    for _ in range(2):
        assert regions[0].masks.shape == (0, 8, 8)
        assert regions.skipped == {"mask is empty at this size": 1}
    assert len(opened(tmp_path, raw, 16)[0].label) == 1


SEGMENTS: dict[str, tuple[Raw, str]] = {
    "not in the PNG": ({"id": 301}, "mask is empty"),
    "void": ({"id": 0}, "annotation is damaged"),
    "text": ({"id": "300"}, "annotation is damaged"),
    "twice": ({"id": 70000}, "annotation id is used twice"),
    "unknown category": ({"category_id": 1}, "category is unknown"),
    "no bbox": ({"bbox": None}, "annotation is damaged"),
    "box outside": ({"bbox": [16, 0, 2, 2]}, "box lies outside of the picture"),
}


@pytest.mark.parametrize(("segment", "reason"), SEGMENTS.values(), ids=SEGMENTS.keys())
def test_a_damaged_segment_is_counted_once(tmp_path: Path, segment: Raw, reason: str) -> None:
    raw = panoptic(tmp_path, **segment)
    regions = opened(tmp_path, raw)
    for _ in range(2):
        assert len(regions[0].label) == 1
        assert regions.skipped == {"crowd": 1, reason: 1}
    assert "of picture 1 (1.jpg): " in regions.first[reason]
    with pytest.raises(SpatialbenchError, match="repair or remove it"):
        opened(tmp_path, raw, strict=True)[0]


PANOPTIC_PICTURES: dict[str, tuple[Callable[[Raw, Path], Any], str]] = {
    "missing": (lambda raw, png: png.unlink(), "panoptic PNG is missing"),
    "truncated": (lambda raw, png: cut(png), "panoptic PNG cannot be read"),
    "size": (lambda raw, png: picture(png.parent, png.name, 8, 8), "panoptic PNG has another size than the file says"),
    "no name": (lambda raw, png: raw["annotations"][0].pop("file_name"), "panoptic annotation is damaged"),
    "two": (
        lambda raw, png: raw["annotations"].append(raw["annotations"][0]),
        "picture has several panoptic annotations",
    ),
}


@pytest.mark.parametrize(("damage", "reason"), PANOPTIC_PICTURES.values(), ids=PANOPTIC_PICTURES.keys())
def test_a_picture_with_a_damaged_png_is_left_out(
    tmp_path: Path, damage: Callable[[Raw, Path], Any], reason: str
) -> None:
    raw = panoptic(tmp_path)
    picture(tmp_path / "images", "2.jpg")
    raw["images"].append({"id": 2, "file_name": "2.jpg", "width": 16, "height": 16})
    damage(raw, tmp_path / "file" / "1.png")
    regions = opened(tmp_path, raw)
    assert [regions.scene(row) for row in range(len(regions))] == ["2"]  # without regions, which is legal
    assert regions.skipped == {reason: 1}
    with pytest.raises(SpatialbenchError, match="picture 1: "):
        opened(tmp_path, raw, strict=True)


BROKEN: dict[str, tuple[bytes, str]] = {
    "truncated": (b'{"images": [{"id": 1, "file_name": "a', "ends early"),
    "truncated word": (b'{"images": [], "annotations": nul', "ends early"),
    "truncated list": (b'{"images": [{"id": 1}', "ends early"),
    "empty": (b"", "ends early"),
    "syntax": (b'{"images": [1,], "annotations": []}', "no valid JSON"),
    "trailing": (b"{} {}", "no valid JSON"),
    "encoding": (b'{"images": "\xff"}', "no valid JSON"),
    "nested": (b"[" * 100_000, "no valid JSON"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    "list": (b"[]", "a list, not an object"),
    "no images": (b'{"annotations": [], "categories": []}', "no list 'images'"),
    "no annotations": (b'{"images": [], "categories": []}', "no list 'annotations'"),
    "categories no list": (b'{"images": [], "annotations": [], "categories": {}}', "no list 'categories'"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(SpatialbenchError, match=message) as caught:
        CocoRegions(tmp_path / "file.json", tmp_path / "images", 16)
    assert str(caught.value).startswith(str(tmp_path / "file.json"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "no categories"),
        ({"categories": [{"id": 1}]}, "no integer id and name"),
        ({"categories": ["cat"]}, "no integer id and name"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "category id 1 is used twice"),
        ({"annotations": [{"image_id": 1, "segments_info": []}]}, "has no isthing of 0 or 1"),
        ({"images": [], "annotations": []}, "no usable picture among 0: .*the list of images is empty"),
        ({"images": [{}], "annotations": []}, "no usable picture among 1: .*picture number 1: there is no id"),
    ],
)
def test_categories_and_an_empty_file_are_always_errors(tmp_path: Path, changes: Raw, message: str) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(SpatialbenchError, match=message):
        opened(tmp_path, instances(tmp_path) | changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be 1 or more, got 0"),
        ({"limit": 0}, "limit must be 1 or more, got 0"),
        ({"templates": ("a dog",)}, "template 'a dog' must have one {}"),
        ({"templates": ()}, "one prompt or more"),
        ({"masks": "."}, "it is no panoptic file; drop masks"),
        ({"captions": "missing.json"}, r"cannot read missing\.json"),
    ],
)
def test_arguments_that_cannot_be_are_one_line(tmp_path: Path, options: Raw, message: str) -> None:
    with pytest.raises(SpatialbenchError, match=message):
        opened(tmp_path, instances(tmp_path), **options)


def test_missing_files_and_folders_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpatialbenchError, match=r"cannot read .*file\.json"):
        CocoRegions(tmp_path / "file.json", tmp_path, 16)
    with pytest.raises(SpatialbenchError, match="cannot read"):
        CocoRegions(tmp_path, tmp_path, 16)
    raw = instances(tmp_path)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(SpatialbenchError, match="images: no such folder; say where the images are"):
        opened(tmp_path, raw)


# ------------------------------------------------------------------------------------------------------- data check
def test_the_check_prints_pictures_regions_and_the_first_of_each_reason(tmp_path: Path) -> None:
    annotations = [annotation(k, 1, category_id=c) for k, c in enumerate((2, 2, 9, 5, 3))]
    raw = instances(tmp_path, [*annotations, annotation(9, 2, iscrowd=1), annotation(10, 2)])
    (tmp_path / "file.json").write_text(json.dumps(raw))
    data = bytearray((tmp_path / "images" / "2.png").read_bytes())
    data[80] ^= 255  # whole by its ends, and broken inside
    (tmp_path / "images" / "2.png").write_bytes(data)
    check = check_coco(tmp_path / "file.json", tmp_path / "images", 16)
    assert (check.pictures, check.regions) == (1, {"dog": 2, "cat": 1, "tree": 1})
    assert check.skipped == {"category is unknown": 1, "crowd": 1, UNREADABLE: 1}
    stream = io.StringIO()
    print_coco(check, Console(file=stream, width=200), most=1)
    text = stream.getvalue()
    lines = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["dog", "2"] in lines
    assert ["2", "more", "classes", "2"] in lines
    assert ["3", "of", "3", "classes", "4"] in lines
    assert "1 pictures, 3 left out (pictures and regions)" in text
    assert "1 x category is unknown; the first: annotation 4 of picture 1 (1.png): no category has the id 3" in text
    assert "1 x crowd; the first: annotation 9 of picture 2" in text
    with pytest.raises(SpatialbenchError, match="category has the id 3; repair"):
        check_coco(tmp_path / "file.json", tmp_path / "images", 16, strict=True)


def test_what_is_a_coco_file_is_seen_by_its_keys(tmp_path: Path) -> None:
    for content, expected in [
        (b'{"info": {"annotations": 1}, "images": [', True),
        (b'\xef\xbb\xbf {"categories": [], "annotations": []}', True),
        (b'{"records": [{"images": 1}]}', False),
        (b'[{"images": 1}]', False),
        (b"PAR1", False),
        (b"", False),
    ]:
        (tmp_path / "file").write_bytes(content)
        assert is_coco(tmp_path / "file") is expected, content
    assert not is_coco(tmp_path / "missing")


def test_the_command_checks_a_coco_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, path = instances(tmp_path), tmp_path / "file.json"
    path.write_text(json.dumps(raw))
    assert RUN["data"](["check", str(path), "--images", str(tmp_path / "images")]) == 0
    assert "2 pictures, 0 left out" in capsys.readouterr().out
    with pytest.raises(SpatialbenchError, match="is a COCO file; say where its pictures are with --images"):
        RUN["data"](["check", str(path)])
    path.write_text("[]")
    with pytest.raises(SpatialbenchError, match="is no COCO file"):
        RUN["data"](["check", str(path), "--images", str(tmp_path)])
    with pytest.raises(SpatialbenchError, match=r"none\.json: No such file"):
        RUN["data"](["check", str(tmp_path / "none.json"), "--images", str(tmp_path)])


# ------------------------------------------------------------------------------------------------------- data export
def tiny_rooms(size: int = 20) -> RoomsSet:
    """Two scenes: a sofa before a lamp and two mugs, one of them too small, and an empty one."""
    rng = np.random.default_rng(0)
    masks = np.zeros((2, size, size), dtype=np.uint8)
    masks[0, 2:12, 3:9] = 1
    masks[0, 8:16, 7:15] = 2
    masks[0, 0:3, 15:19], masks[0, 17:18, 15:18] = 3, 4
    views = []
    for code, name in enumerate(("lamp", "sofa", "mug", "mug"), 1):
        rows, columns = np.nonzero(masks[0] == code)
        box = Box(columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        box = Box(*(float(side) for side in (box.x, box.y, box.w, box.h)))
        views.append(View(name, "red", "plain", "floor", code, box, len(rows), 2.0))
    scenes = (SceneView("tiny/7", 7, size, tuple(views)), SceneView("tiny/8", 8, size, ()))
    images = rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    return RoomsSet("val", images, np.ones((2, size, size), dtype=np.float16), masks, scenes)


def same(rooms: RoomsSet, regions: CocoRegions) -> int:
    """Asserts that pixels, boxes, labels and masks are the same, and returns the number of regions."""
    size, count = rooms.images.shape[1], 0
    assert regions.classes == tuple(kind.name for kind in KINDS)
    assert len(regions) == len(rooms.scenes)
    assert not regions.skipped
    for row, scene in enumerate(rooms.scenes):
        found, views = regions[row], scene.large
        assert regions.scene(row) == str(scene.index)
        assert np.array_equal(found.pixels.permute(1, 2, 0).numpy(), rooms.images[row])
        assert [regions.classes[label] for label in found.label] == [view.name for view in views]
        boxes = [[v.box.x, v.box.y, v.box.x + v.box.w, v.box.y + v.box.h] for v in views]
        assert torch.equal(found.boxes, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / size)
        for mask, view in zip(found.masks, views, strict=True):
            assert np.array_equal(mask.numpy(), rooms.masks[row] == view.code)
        count += len(views)
    return count


def test_exported_and_read_back_it_is_the_same(tmp_path: Path) -> None:
    rooms = tiny_rooms()
    assert export_coco(rooms, tmp_path / "out.json", 20) == 3
    regions = CocoRegions(tmp_path / "out.json", tmp_path / "out_images", 20, strict=True, smallest=1.0)
    assert same(rooms, regions) == 3
    raw = json.loads((tmp_path / "out.json").read_text())
    assert [item["id"] for item in raw["categories"]] == list(range(1, len(KINDS) + 1))
    assert [item["name"] for item in raw["categories"]] == [kind.name for kind in KINDS]
    lamp, sofa, _ = raw["annotations"]
    assert (lamp["id"], lamp["image_id"], lamp["category_id"]) == (1, 7, CATEGORY["lamp"])
    assert (lamp["bbox"], lamp["area"], lamp["iscrowd"]) == ([3, 2, 6, 10], 52, 0)  # 60 less what the sofa hides
    assert coco_mask.area(sofa["segmentation"]) == sofa["area"] == 64


def test_rooms_of_another_size_and_a_folder_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpatialbenchError, match="cannot export rooms of 20 x 20 pixels at 48; load them at 48"):
        export_coco(tiny_rooms(), tmp_path / "out.json", 48)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(SpatialbenchError, match="cannot write"):
        export_coco(tiny_rooms(), tmp_path / "file" / "out.json", 20)


def test_rendered_rooms_go_out_by_the_command_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out.json"
    argv = ["export", "--out", str(out), "--split", "val", "--limit", "2", "--size", "48", "--form", "coco"]
    assert RUN["data"](argv) == 0
    rooms = load("val", 2, 48, tmp_path / "cache")
    count = same(rooms, CocoRegions(out, tmp_path / "out_images", 48, strict=True, smallest=1.0))
    assert count > 4
    assert capsys.readouterr().out == f"{out}: {count} regions in 2 pictures\n"
