"""Files in COCO's format as the tests write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spatialbench.data.coco.coco_regions import CocoRegions

Raw = dict[str, Any]
CATEGORIES = [
    {"id": id_, "name": name} for id_, name in ((9, "cat"), (2, "dog"), (5, "tree"))
]  # ranks: dog tree cat
SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]


def write_image(folder: Path, name: str, width: int = 16, height: int = 16, seed: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)


def entry(id_: int, name: str, width: int = 16, height: int = 16) -> Raw:
    return {"id": id_, "file_name": name, "width": width, "height": height}


def annotation(id_: int = 1, image: int = 1, **changes: Any) -> Raw:
    made = {"id": id_, "image_id": image, "category_id": 2, "bbox": [2, 2, 10, 10]}
    return made | {"area": 100, "iscrowd": 0, "segmentation": SQUARE} | changes


def instances(tmp_path: Path, annotations: list[Any] | None = None) -> Raw:
    """Write images 1 and 2 of 16 x 16 pixels; return their file."""
    if annotations is None:
        annotations = [annotation(), annotation(2, 2, category_id=9)]
    for id_ in (1, 2):
        write_image(tmp_path / "images", f"{id_}.png", seed=id_)
    images = [entry(id_, f"{id_}.png") for id_ in (1, 2)]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def opened(tmp_path: Path, raw: Any, size: int = 16, **options: Any) -> CocoRegions:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(raw))
    return CocoRegions(path, tmp_path / "images", size, **{"smallest": 1.0} | options)


def one(tmp_path: Path, width: int, height: int, size: int, **changes: Any) -> CocoRegions:
    """Open a single image with a single region."""
    write_image(tmp_path / "images", "1.png", width, height)
    images, annotations = [entry(1, "1.png", width, height)], [annotation(**changes)]
    raw = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    return opened(tmp_path, raw, size)


def panoptic(tmp_path: Path, **segment: Any) -> Raw:
    """Write an image of 16 x 16: dog (300, upper left), tree (70000, from row 10 on), crowd (5)."""
    write_image(tmp_path / "images", "1.jpg")
    ids = np.zeros((16, 16), dtype=np.int64)
    ids[:8, :8], ids[10:, 3:], ids[:8, 8:] = 300, 70000, 5
    (tmp_path / "file").mkdir(exist_ok=True)
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "file" / "1.png")
    segments = [
        {"id": 300, "category_id": 2, "bbox": [0, 0, 8, 8], "iscrowd": 0} | segment,
        {"id": 70000, "category_id": 5, "bbox": [0, 0, 1, 1], "iscrowd": 0},
        {"id": 5, "category_id": 9, "bbox": [8, 0, 8, 8], "iscrowd": 1},
    ]
    return {
        "images": [entry(1, "1.jpg")],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": segments}],
        "categories": [item | {"isthing": int(item["name"] != "tree")} for item in CATEGORIES],
    }
