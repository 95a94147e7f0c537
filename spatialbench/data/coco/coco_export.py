"""Rendered rooms as a COCO instances file: images as PNG, exact masks as compressed run lengths.

:class:`spatialbench.data.coco.coco_regions.CocoRegions` reads back the same pixels, boxes, labels
and masks at the same size; its ``smallest`` must be no larger than the thinnest box.
"""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from spatialbench.data.rooms.facts import View
from spatialbench.data.rooms.kinds import KINDS
from spatialbench.data.rooms.store import RoomsSet
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.progress import progress

CATEGORY: dict[str, int] = {kind.name: rank for rank, kind in enumerate(KINDS, start=1)}
"""Kind -> category id, the same in every file."""


def export_coco(rooms: RoomsSet, path: str | os.PathLike[str], size: int) -> int:
    """Write the objects that are regions of ``RoomsRegions``, and return their number.

    The images go into the folder ``<stem>_images`` beside the JSON, which is written last. The id
    of an image is the index of its scene.

    Raises:
        SpatialbenchError: the rooms have another size, or something cannot be written.
    """
    if rooms.images.shape[1:3] != (size, size):
        side = rooms.images.shape[1]
        raise SpatialbenchError(f"cannot export rooms of {side} pixels at {size}; load that size")
    target = Path(path)
    folder = target.with_name(f"{target.stem}_images")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with progress(f"writing {folder.name}", len(rooms.scenes), "images") as advance:
        for row, scene in enumerate(rooms.scenes):
            name = f"{scene.index:06d}.png"
            stream = io.BytesIO()
            Image.fromarray(rooms.images[row]).save(stream, "PNG")
            write_atomic(folder / name, stream.getvalue())
            images.append({"id": scene.index, "file_name": name, "width": size, "height": size})
            for view in scene.large:
                id_ = len(annotations) + 1
                annotations.append(_annotation(id_, scene.index, view, rooms.masks[row]))
            advance(1)
    kind = {"supercategory": "object"}
    categories = [{"id": id_, "name": name} | kind for name, id_ in CATEGORY.items()]
    info = {"description": f"rooms/{rooms.split}, rendered"}
    whole = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    write_atomic(target, json.dumps(whole) + "\n")
    return len(annotations)


def _annotation(id_: int, image: int, view: View, codes: np.ndarray) -> dict[str, Any]:
    packed = coco_mask.encode(np.asfortranarray(codes == view.code).astype(np.uint8))
    return {
        "id": id_,
        "image_id": image,
        "category_id": CATEGORY[view.name],
        "bbox": [view.box.x, view.box.y, view.box.w, view.box.h],
        "area": view.area,
        "iscrowd": 0,
        "segmentation": {"size": packed["size"], "counts": packed["counts"].decode("ascii")},
    }
