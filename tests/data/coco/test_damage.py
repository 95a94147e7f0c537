"""Everything that can be wrong with a file in COCO's format: counted, and with strict one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spatialbench.data.coco.coco_regions import CocoRegions
from tests.support.checks import refused
from tests.support.coco_files import (
    SQUARE,
    Raw,
    annotation,
    entry,
    instances,
    opened,
    panoptic,
    write_image,
)

NAN, INFINITY = float("nan"), float("inf")
REMEDY = "repair or remove it, or read without strict to leave it out"
Damage = Callable[[Raw, Path], Any]


def changed(kind: str = "annotations", **changes: Any) -> Damage:
    """Change the second annotation or image."""
    return lambda raw, images: raw[kind][1].update(changes)


def without(key: str, kind: str = "annotations") -> Damage:
    return lambda raw, images: raw[kind][1].pop(key)


def runs(counts: Any, size: Any = (16, 16)) -> Damage:
    return changed(segmentation={"size": list(size), "counts": counts})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def sixteen_bits(path: Path) -> None:
    Image.fromarray(np.zeros((16, 16), dtype=np.uint16)).save(path)


REGIONS: dict[str, dict[str, Damage]] = {
    "annotation is damaged": {
        **{f"no {k}": without(k) for k in ("id", "image_id", "category_id", "bbox")},
        "no segmentation": without("segmentation"),
        "not an object": lambda raw, _: raw["annotations"].__setitem__(1, "x"),
        "id is a list": changed(id=[1]),
    },
    "annotation id is used twice": {
        "twice": lambda raw, _: raw["annotations"].extend(
            [annotation(3, 2, category_id=9), annotation(2, 2)]
        )
    },
    "annotation of an unknown image": {"unknown image": changed(image_id=3)},
    "category is unknown": {
        "unknown category": changed(category_id=3),
        "category is a list": changed(category_id=[2]),
    },
    "box is not four finite numbers": {
        "NaN": changed(bbox=[2, NAN, 4, 4]),
        "infinite": changed(bbox=[2, 2, INFINITY, 4]),
        "three numbers": changed(bbox=[2, 2, 4]),
        "text": changed(bbox="2, 2, 4, 4"),
        "list of text": changed(bbox=["2", "2", "4", "4"]),
        "endless integer": changed(bbox=[2, 2, 4, 10**400]),
    },
    "box has no area": {
        "no area": changed(bbox=[2, 2, 0, 4]),
        "negative": changed(bbox=[6, 6, -4, 4]),
    },
    "box lies outside of the image": {"outside": changed(bbox=[20, 2, 4, 4])},
    "segmentation has another size than its image": {
        "mask of another size": runs([0, 240], (15, 16)),
        "mask without size": changed(segmentation={"counts": [256]}),
        "run lengths too short": runs([3, 4]),
        "compressed too short": runs("52203"),
    },
    "segmentation is damaged": {
        "run lengths too long": runs([3, 400]),
        "negative run": runs([300, -44]),
        "compressed garbage": runs("é!"),
        "compressed cut off": runs("5o"),
        "no counts": changed(segmentation={"size": [16, 16]}),
        "segmentation is text": changed(segmentation="x"),
        "flat polygon": changed(segmentation=SQUARE[0]),
        "two points": changed(segmentation=[[2, 2, 8, 8]]),
        "odd polygon": changed(segmentation=[[2, 2, 8, 8, 2, 8, 2]]),
        "polygon of NaN": changed(segmentation=[[2, 2, 8, 8, 2, NAN]]),
        "polygon far away": changed(segmentation=[[2, 2, 8e8, 8, 2, 8]]),
    },
    "mask is empty": {
        "no polygon": changed(segmentation=[]),
        "polygon without a pixel": changed(segmentation=[[2, 2, 2, 2, 2, 2]]),
        "empty run lengths": runs([256]),
    },
}
IMAGES: dict[str, dict[str, Damage]] = {
    "image entry is damaged": {
        **{f"no {key}": without(key, "images") for key in ("id", "file_name", "width")},
        "height of zero": changed("images", height=0),
        "not an object": lambda raw, _: raw["images"].__setitem__(1, None),
    },
    "image id is used twice": {"twice": changed("images", id=1)},
    "image has another size than the file says": {"size": changed("images", width=15)},
    "image is missing": {"missing": lambda _, images: (images / "2.png").unlink()},
    "image cannot be read": {
        "null in the name": changed("images", file_name="a\0b"),
        "a folder": changed("images", file_name="."),
        "truncated": lambda _, images: cut(images / "2.png"),
        "not an image": lambda _, images: (images / "2.png").write_text("<html>"),
        "empty": lambda _, images: (images / "2.png").write_bytes(b""),
        "16 bits": lambda _, images: sixteen_bits(images / "2.png"),
    },
}


def cases(table: dict[str, dict[str, Any]]) -> Any:
    made = [
        pytest.param(case, reason, id=name)
        for reason, named in table.items()
        for name, case in named.items()
    ]
    return pytest.mark.parametrize(("damage", "reason"), made)


@cases(REGIONS | IMAGES)
def test_damage_is_counted_and_with_strict_one_line(
    tmp_path: Path, damage: Damage, reason: str
) -> None:
    of_region = reason in REGIONS
    raw = instances(tmp_path, None if of_region else [annotation()])
    damage(raw, tmp_path / "images")
    regions = opened(tmp_path, raw)
    assert regions.skipped == {reason: 1}
    assert len(regions) == (2 if of_region else 1)
    assert len(regions[0].label) == 1  # of the sound image
    if of_region:
        assert len(regions[1].label) == (2 if "twice" in reason else 0)
    line = f"{tmp_path / 'file.json'}: {regions.account.first[reason]}"
    with refused("") as caught:
        opened(tmp_path, raw, strict=True)
    assert str(caught.value) == f"{line}; {REMEDY}"
    assert len(line) < 2 * len(str(tmp_path)) + 200


def test_the_message_names_the_first_one_its_image_and_what_is_wrong(tmp_path: Path) -> None:
    annotations = [annotation(id_, 2, bbox=[20, 2, 4, 4]) for id_ in (41, 42)]
    regions = opened(tmp_path, instances(tmp_path, annotations))
    ((reason, count),) = regions.skipped.items()
    assert count == 2
    assert regions.account.first[reason] == (
        f"annotation 41 of image 2 (2.png): {reason}: "
        "x0 y0 x1 y1 is 20, 2, 24, 6 in an image of 16 x 16"
    )


def test_a_truncated_jpeg_is_found_and_bytes_after_its_end_are_harmless(tmp_path: Path) -> None:
    raw = instances(tmp_path)
    changes: list[Callable[[bytes], bytes]] = [lambda data: data[:-40], lambda data: data + b"more"]
    for item, change in zip(raw["images"], changes, strict=True):
        item["file_name"] = f"{item['id']}.jpg"
        write_image(tmp_path / "images", item["file_name"])
        path = tmp_path / "images" / item["file_name"]
        path.write_bytes(change(path.read_bytes()))
    regions = opened(tmp_path, raw)
    assert [regions.scene(row) for row in range(len(regions))] == ["2"]
    assert regions.skipped == {"image cannot be read": 1}
    assert "truncated" in regions.account.first["image cannot be read"]


def test_what_breaks_later_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    regions = opened(tmp_path, instances(tmp_path))
    cut(tmp_path / "images" / "2.png")
    message = r"2\.png: .*; repair it, or remove image 2 from the JSON"
    with refused(message):
        regions[1]
    write_image(tmp_path / "images", "2.png", 8, 8)
    with refused(r"2\.png: its size is now \(8, 8\)"):
        regions[1]


def test_crowds_and_small_boxes_are_left_out_and_never_an_error(tmp_path: Path) -> None:
    crowd = annotation(1, iscrowd=1, segmentation={"size": [16, 16], "counts": [0, 256]})
    small = annotation(2, bbox=[2, 2, 10, 3])
    raw = instances(tmp_path, [crowd, small, annotation(3)])
    regions = opened(tmp_path, raw, strict=True, smallest=8.0)
    assert regions.skipped == {"crowd": 1, "box is smaller than 8 pixels": 1}
    assert len(regions[0].label) == 1
    assert len(opened(tmp_path, raw, 64, smallest=8.0)[0].label) == 2  # 3 of 16 pixels are 12 of 64


def test_a_mask_that_is_gone_at_this_size_is_counted_once(tmp_path: Path) -> None:
    # 16 to 8 pixels: columns 1 3 5 ... are kept, the mask is column 4
    mask = {"size": [16, 16], "counts": [64, 16, 176]}
    raw = instances(tmp_path, [annotation(segmentation=mask)])
    regions = opened(tmp_path, raw, 8, strict=True)
    for _ in range(2):
        assert regions[0].masks.shape == (0, 8, 8)
        assert regions.skipped == {"mask is empty at this size": 1}
    assert len(opened(tmp_path, raw, 16)[0].label) == 1


@cases(
    {
        "mask is empty": {"not in the PNG": {"id": 301}},
        "annotation is damaged": {
            "void": {"id": 0},
            "text": {"id": "300"},
            "no bbox": {"bbox": None},
        },
        "annotation id is used twice": {"twice": {"id": 70000}},
        "category is unknown": {"unknown category": {"category_id": 1}},
        "box has no area": {"no area": {"bbox": [6, 6, 0, 2]}},
    }
)
def test_a_damaged_segment_is_counted_once(tmp_path: Path, damage: Raw, reason: str) -> None:
    raw = panoptic(tmp_path, **damage)
    regions = opened(tmp_path, raw)
    for _ in range(2):
        assert len(regions[0].label) == 1
        assert regions.skipped == {"crowd": 1, reason: 1}
    assert "of image 1 (1.jpg): " in regions.account.first[reason]
    with refused(REMEDY):
        opened(tmp_path, raw, strict=True)[0]


@cases(
    {
        "panoptic PNG is missing": {"missing": lambda raw, png: png.unlink()},
        "panoptic PNG cannot be read": {"truncated": lambda raw, png: cut(png)},
        "panoptic PNG has another size than the file says": {
            "size": lambda raw, png: write_image(png.parent, png.name, 8, 8)
        },
        "panoptic annotation is damaged": {
            "no name": lambda raw, png: raw["annotations"][0].pop("file_name")
        },
        "image has several panoptic annotations": {
            "two": lambda raw, png: raw["annotations"].append(raw["annotations"][0])
        },
    }
)
def test_an_image_with_a_damaged_png_is_left_out(
    tmp_path: Path, damage: Damage, reason: str
) -> None:
    raw = panoptic(tmp_path)
    write_image(tmp_path / "images", "2.jpg")
    raw["images"].append(entry(2, "2.jpg"))
    damage(raw, tmp_path / "file" / "1.png")
    regions = opened(tmp_path, raw)
    assert [regions.scene(row) for row in range(len(regions))] == ["2"]  # it may have no regions
    assert regions.skipped == {reason: 1}
    with refused("image 1: "):
        opened(tmp_path, raw, strict=True)


BROKEN: dict[str, tuple[bytes, str]] = {
    "truncated": (b'{"images": [{"id": 1, "file_name": "a', "broken download"),
    "empty": (b"", "broken download"),
    "syntax": (b'{"images": [1,], "annotations": []}', "no valid JSON"),
    "trailing": (b"{} {}", "no valid JSON"),
    "encoding": (b'{"images": "\xff"}', "no valid JSON"),
    "nested": (b"[" * 100_000, "no valid JSON"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "starts with b'version https"),
    "list": (b"[]", "no list 'images'"),
    "no images": (b'{"annotations": [], "categories": []}', "no list 'images'"),
    "categories": (b'{"images": [], "annotations": [], "categories": {}}', "no list 'categories'"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "file.json").write_bytes(content)
    with refused(message) as caught:
        CocoRegions(tmp_path / "file.json", tmp_path / "images", 16)
    assert str(caught.value).startswith(str(tmp_path / "file.json"))
    assert len(str(caught.value)) < len(str(tmp_path)) + 250


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "no categories"),
        ({"categories": [{"id": 1}]}, "needs an integer id and a name; add"),
        ({"categories": ["cat"]}, "category cat needs an integer id"),
        ({"categories": [{"id": 1, "name": name} for name in "ab"]}, "a category id is used twice"),
        ({"annotations": [{"image_id": 1, "segments_info": []}]}, "needs .* and isthing of 0 or 1"),
        ({"images": [], "annotations": []}, "no usable image among 0 .it is empty"),
        ({"images": [{}], "annotations": []}, "no usable image among 1 .*number 1: there is no id"),
    ],
)
def test_categories_and_an_empty_file_are_always_errors(
    tmp_path: Path, changes: Raw, message: str
) -> None:
    (tmp_path / "file").mkdir()
    with refused(message):
        opened(tmp_path, instances(tmp_path) | changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be 1 or more, got 0"),
        ({"limit": 0}, "limit must be 1 or more, got 0"),
        ({"masks": "."}, "it is no panoptic file; drop masks"),
        ({"captions": "missing.json"}, r"cannot read missing\.json"),
    ],
)
def test_impossible_arguments_are_one_line(tmp_path: Path, options: Raw, message: str) -> None:
    with refused(message):
        opened(tmp_path, instances(tmp_path), **options)


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    raw = instances(tmp_path)
    (tmp_path / "file.json").write_text(json.dumps(raw), encoding="utf-8-sig")
    assert len(CocoRegions(tmp_path / "file.json", tmp_path / "images", 16)) == 2


def test_missing_files_and_folders_are_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "file.json", tmp_path):
        with refused("cannot read"):
            CocoRegions(path, tmp_path, 16)
    raw = instances(tmp_path)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with refused("images: no such folder; say where the images are"):
        opened(tmp_path, raw)
