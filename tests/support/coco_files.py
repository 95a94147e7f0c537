"""Files in COCO's format as the tests write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spatialbench.data.coco.coco_regions import CocoRegions

Raw = dict[str, Any]
CATEGORIES = [
    {"id": 9, "name": "cat"},
    {"id": 2, "name": "dog"},
    {"id": 5, "name": "tree"},
]  # ranks: dog tree cat
SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]


def picture(
    folder: Path, name: str, width: int = 16, height: int = 16, seed: int = 0
) -> np.ndarray:
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
    annotations = (
        [annotation(), annotation(2, 2, category_id=9)] if annotations is None else annotations
    )
    return {"images": images, "annotations": annotations, "categories": CATEGORIES} | changes


def opened(tmp_path: Path, raw: Any, size: int = 16, **options: Any) -> CocoRegions:
    (tmp_path / "file.json").write_text(json.dumps(raw))
    return CocoRegions(
        tmp_path / "file.json", tmp_path / "images", size, **{"smallest": 1.0} | options
    )


def one(tmp_path: Path, width: int, height: int, size: int, **changes: Any) -> CocoRegions:
    """A single picture with a single region."""
    picture(tmp_path / "images", "1.png", width, height)
    image = {"id": 1, "file_name": "1.png", "width": width, "height": height}
    return opened(
        tmp_path,
        {"images": [image], "annotations": [annotation(**changes)], "categories": CATEGORIES},
        size,
    )


def panoptic(tmp_path: Path, **segment: Any) -> Raw:
    """One picture of 16 x 16: dog (300, rows 0 to 7 of the left), tree (70000, from row 10 on), crowd (5)."""
    picture(tmp_path / "images", "1.jpg")
    ids = np.zeros((16, 16), dtype=np.int64)
    ids[:8, :8], ids[10:, 3:], ids[:8, 8:] = 300, 70000, 5
    (tmp_path / "file").mkdir(exist_ok=True)
    Image.fromarray(
        np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    ).save(tmp_path / "file" / "1.png")
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
