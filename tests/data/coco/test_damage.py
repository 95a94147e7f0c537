"""Everything that can be wrong with a file in COCO's format: counted, and with strict one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spatialbench.data.coco.regions import CocoRegions
from spatialbench.utils.errors import SpatialbenchError
from tests.support.coco_files import SQUARE, Raw, annotation, instances, opened, panoptic, picture


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
    "not an object": (
        lambda raw, _: raw["annotations"].__setitem__(1, "x"),
        "annotation is damaged",
    ),
    "id is a list": (changed(id=[1]), "annotation is damaged"),
    "id used twice": (
        lambda raw, _: raw["annotations"].append(annotation(2, 2)),
        "annotation id is used twice",
    ),
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
    "outside": (changed(bbox=[20, 2, 4, 4]), "box lies outside of the image"),
    "mask of another size": (
        changed(segmentation={"size": [15, 16], "counts": [0, 240]}),
        "segmentation has another size than its picture",
    ),
    "mask without size": (
        changed(segmentation={"counts": [256]}),
        "segmentation has another size than its picture",
    ),
    "run lengths too short": (
        changed(segmentation={"size": [16, 16], "counts": [3, 4]}),
        "segmentation has another size than its picture",
    ),
    "compressed too short": (
        changed(segmentation={"size": [16, 16], "counts": "52203"}),
        "segmentation has another size than its picture",
    ),
    "run lengths too long": (
        changed(segmentation={"size": [16, 16], "counts": [3, 400]}),
        "segmentation is damaged",
    ),
    "negative run": (
        changed(segmentation={"size": [16, 16], "counts": [300, -44]}),
        "segmentation is damaged",
    ),
    "compressed garbage": (
        changed(segmentation={"size": [16, 16], "counts": "é!"}),
        "segmentation is damaged",
    ),
    "compressed cut off": (
        changed(segmentation={"size": [16, 16], "counts": "5o"}),
        "segmentation is damaged",
    ),
    "no counts": (changed(segmentation={"size": [16, 16]}), "segmentation is damaged"),
    "segmentation is text": (changed(segmentation="x"), "segmentation is damaged"),
    "flat polygon": (changed(segmentation=SQUARE[0]), "segmentation is damaged"),
    "two points": (changed(segmentation=[[2, 2, 8, 8]]), "segmentation is damaged"),
    "odd polygon": (changed(segmentation=[[2, 2, 8, 8, 2, 8, 2]]), "segmentation is damaged"),
    "polygon of NaN": (
        changed(segmentation=[[2, 2, 8, 8, 2, float("nan")]]),
        "segmentation is damaged",
    ),
    "polygon miles away": (changed(segmentation=[[2, 2, 8e8, 8, 2, 8]]), "segmentation is damaged"),
    "no polygon": (changed(segmentation=[]), "mask is empty"),
    "polygon without a pixel": (changed(segmentation=[[2, 2, 2, 2, 2, 2]]), "mask is empty"),
    "empty run lengths": (
        changed(segmentation={"size": [16, 16], "counts": [256]}),
        "mask is empty",
    ),
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
    assert (
        str(caught.value) == f"{line}; repair or remove it, or read without strict to leave it out"
    )
    assert "\n" not in line
    assert len(line) < len(str(tmp_path)) + 200


def test_the_message_names_the_first_one_its_picture_and_what_is_wrong(tmp_path: Path) -> None:
    annotations = [annotation(id_, 2, bbox=[20, 2, 4, 4]) for id_ in (41, 42)]
    regions = opened(tmp_path, instances(tmp_path, annotations))
    assert regions.skipped == {"box lies outside of the image": 2}
    assert regions.first["box lies outside of the image"] == (
        f"{tmp_path / 'file.json'}: annotation 41 of picture 2 (2.png): box lies outside of the image: "
        "x0 y0 x1 y1 is 20, 2, 24, 6 in a picture of 16 x 16"
    )


PICTURES: dict[str, tuple[Callable[[Raw, Path], Any], str]] = {
    "no id": (lambda raw, _: raw["images"][1].pop("id"), "picture entry is damaged"),
    "no file_name": (lambda raw, _: raw["images"][1].pop("file_name"), "picture entry is damaged"),
    "no width": (lambda raw, _: raw["images"][1].pop("width"), "picture entry is damaged"),
    "height of zero": (image(height=0), "picture entry is damaged"),
    "not an object": (
        lambda raw, _: raw["images"].__setitem__(1, None),
        "picture entry is damaged",
    ),
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
    with pytest.raises(
        SpatialbenchError, match="; repair or remove it, or read without strict"
    ) as caught:
        opened(tmp_path, raw, strict=True)
    assert str(caught.value).startswith(f"{regions.first[reason]}; ")
    assert "\n" not in str(caught.value)


def test_a_truncated_jpeg_is_found_and_bytes_after_its_end_are_not_held_against_it(
    tmp_path: Path,
) -> None:
    raw = instances(tmp_path)
    for item, change in zip(
        raw["images"], (lambda data: data[:-40], lambda data: data + b"trailer"), strict=True
    ):
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
    with pytest.raises(
        SpatialbenchError, match=r"2\.png: .*; repair it, or remove picture 2 from the JSON"
    ):
        regions[1]
    picture(tmp_path / "images", "2.png", 8, 8)
    with pytest.raises(SpatialbenchError, match=r"2\.png: has now \(8, 8\) pixels"):
        regions[1]


def test_crowds_and_small_boxes_are_left_out_and_never_an_error(tmp_path: Path) -> None:
    run_lengths = {"size": [16, 16], "counts": [0, 256]}
    raw = instances(
        tmp_path,
        [
            annotation(1, iscrowd=1, segmentation=run_lengths),
            annotation(2, bbox=[2, 2, 10, 3]),
            annotation(3),
        ],
    )
    regions = opened(tmp_path, raw, strict=True, smallest=8.0)
    assert regions.skipped == {"crowd": 1, "box is smaller than 8 pixels": 1}
    assert len(regions[0].label) == 1
    assert len(opened(tmp_path, raw, 64, smallest=8.0)[0].label) == 2  # 3 of 16 pixels are 12 of 64


def test_a_mask_that_is_gone_at_this_size_is_counted_once(tmp_path: Path) -> None:
    # 16 to 8 pixels: columns 1 3 5 ... are kept, the mask is column 4
    raw = instances(
        tmp_path, [annotation(segmentation={"size": [16, 16], "counts": [64, 16, 176]})]
    )
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
    "box outside": ({"bbox": [16, 0, 2, 2]}, "box lies outside of the image"),
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
    "size": (
        lambda raw, png: picture(png.parent, png.name, 8, 8),
        "panoptic PNG has another size than the file says",
    ),
    "no name": (
        lambda raw, png: raw["annotations"][0].pop("file_name"),
        "panoptic annotation is damaged",
    ),
    "two": (
        lambda raw, png: raw["annotations"].append(raw["annotations"][0]),
        "picture has several panoptic annotations",
    ),
}


@pytest.mark.parametrize(
    ("damage", "reason"), PANOPTIC_PICTURES.values(), ids=PANOPTIC_PICTURES.keys()
)
def test_a_picture_with_a_damaged_png_is_left_out(
    tmp_path: Path, damage: Callable[[Raw, Path], Any], reason: str
) -> None:
    raw = panoptic(tmp_path)
    picture(tmp_path / "images", "2.jpg")
    raw["images"].append({"id": 2, "file_name": "2.jpg", "width": 16, "height": 16})
    damage(raw, tmp_path / "file" / "1.png")
    regions = opened(tmp_path, raw)
    assert [regions.scene(row) for row in range(len(regions))] == [
        "2"
    ]  # without regions, which is legal
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
    "categories no list": (
        b'{"images": [], "annotations": [], "categories": {}}',
        "no list 'categories'",
    ),
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
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            "category id 1 is used twice",
        ),
        ({"annotations": [{"image_id": 1, "segments_info": []}]}, "has no isthing of 0 or 1"),
        (
            {"images": [], "annotations": []},
            "no usable picture among 0: .*the list of images is empty",
        ),
        (
            {"images": [{}], "annotations": []},
            "no usable picture among 1: .*picture number 1: there is no id",
        ),
    ],
)
def test_categories_and_an_empty_file_are_always_errors(
    tmp_path: Path, changes: Raw, message: str
) -> None:
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
