"""The JSON of COCO's files: images, classes and regions, checked as far as possible undecoded.

Source: cocodataset.org/#format-data; cocodataset/panopticapi @ 7bb4655, format of the PNGs.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spatialbench.data.account import Account, Rejected
from spatialbench.data.coco.masks import compressed, kept_box, numbers, probe
from spatialbench.data.images import file_bytes
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

Id = int | str
CROWD = "crowd"
ENTRY = "image entry is damaged"
ANNOTATION = "annotation is damaged"


class Region(NamedTuple):
    """One region of an image."""

    where: str  # annotation and image, for messages
    label: int  # rank of its class
    box: list[float] | None  # x0 y0 x1 y1 in [0, 1] of the square; None for stuff: of the mask
    shape: bytes | int  # compressed run lengths, or the segment's id in the panoptic PNG


class CocoImage(NamedTuple):
    """One image: its file, its panoptic PNG if there is one, and the length in bytes of both."""

    id: Id
    file: Path
    width: int
    height: int
    png: Path | None
    bytes: tuple[int, int]
    regions: tuple[Region, ...]


class Classes(NamedTuple):
    """Names in the order of the category ids, whether each is a thing, category id -> rank."""

    names: tuple[str, ...]
    things: tuple[bool, ...]
    rank: dict[int, int]


def read_json(path: Path, keys: Iterable[str]) -> tuple[dict[str, Any], str]:
    """Read a JSON object whose ``keys`` are lists, and hash the file.

    Raises:
        SpatialbenchError: no such file, no JSON object, or a key is missing.
    """
    data = file_bytes(path)
    try:
        raw = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # ValueError: JSON, UTF-8 or too long a number
        why = f"no valid JSON, or a broken download ({str(error)[:120]})"
        raise SpatialbenchError(f"{path}: {why}; it starts with {data[:20]!r}") from error
    for key in keys:
        if not isinstance(raw, dict) or not isinstance(raw.get(key), list):
            raise SpatialbenchError(f"{path}: no list {key!r} at the top; is it in COCO's format?")
    return raw, hashlib.sha256(data).hexdigest()


def is_panoptic(raw: Mapping[str, Any]) -> bool:
    """Return whether an annotation has ``segments_info``."""
    return any(isinstance(item, dict) and "segments_info" in item for item in raw["annotations"])


def read_classes(path: Path, categories: list[Any], panoptic: bool) -> Classes:
    """Read the classes in the order of their ids; without ``panoptic`` all of them are things.

    Raises:
        SpatialbenchError: an id is used twice, or an id, a name or (``panoptic``) an isthing lacks.
    """
    wanted = "an integer id and a name" + (", and isthing of 0 or 1" if panoptic else "")
    for item in categories:
        fields = item if isinstance(item, dict) else {}
        right = type(fields.get("id")) is int and isinstance(fields.get("name"), str)
        if not right or (panoptic and fields.get("isthing") not in (0, 1)):
            raise SpatialbenchError(f"{path}: category {str(item)[:60]} needs {wanted}; add them")
    ordered = sorted(categories, key=lambda item: item["id"])
    rank = {item["id"]: rank for rank, item in enumerate(ordered)}
    if not 0 < len(ordered) == len(rank):
        raise SpatialbenchError(f"{path}: no categories, or a category id is used twice")
    things = tuple(not panoptic or bool(item["isthing"]) for item in ordered)
    return Classes(tuple(item["name"] for item in ordered), things, rank)


def read_captions(
    path: Path, rows: Mapping[Id, int], account: Account
) -> tuple[list[tuple[int, str]], str]:
    """Read the captions of a COCO captions file as (row, sentence), and hash the file.

    Captions of images that have no row are skipped: the file is usually that of the whole split.

    Raises:
        SpatialbenchError: the file cannot be read or has no caption of these images; with
            ``account.strict``, one is damaged.
    """
    raw, digest = read_json(path, ("annotations",))
    captions: list[tuple[int, str]] = []
    seen: set[Id | None] = set()
    for position, item in enumerate(raw["annotations"], start=1):
        image, id_ = _id(item, "image_id"), _id(item, "id")
        with account.dropping(f"{path.name}, {_name('caption', id_, position)}"):
            text = None if image is None else item.get("caption")
            if image is None or not isinstance(text, str) or not text.strip():
                raise Rejected("caption is damaged", "there is no image_id or no caption")
            if id_ is not None and id_ in seen:
                raise Rejected("caption id is used twice")
            if image in rows:
                captions.append((rows[image], " ".join(text.split())))
        seen.add(id_)
    if not captions:
        why = f"no caption of an image of {account.source}; is it the file of this split?"
        raise SpatialbenchError(f"{path}: {why}")
    return captions, digest


@dataclass
class Reader:
    """Turns entries of a file into images with regions; ``png_folder`` is None for instances."""

    raw: Mapping[str, Any]
    classes: Classes
    folder: Path
    png_folder: Path | None
    size: int
    smallest: float
    account: Account

    def images(self, limit: int | None) -> list[CocoImage]:
        """Read the first ``limit`` usable images by id, and no regions of later ones.

        Raises:
            SpatialbenchError: ``account.strict``, and something is damaged.
        """
        entries, annotations = self._entries(), self._by_image()
        images: list[CocoImage] = []
        total = len(entries) if limit is None else min(limit, len(entries))
        with progress(f"reading {self.account.source.name}", total, "images") as advance:
            for id_ in sorted(entries, key=lambda key: (isinstance(key, str), key)):
                if len(images) == limit:
                    break
                with self.account.dropping(f"image {id_}"):
                    images.append(self._image(entries[id_], annotations.get(id_, [])))
                    advance(1)
        return images

    def _entries(self) -> dict[Id, dict[str, Any]]:
        """Image id -> its entry, if it has all fields."""
        entries: dict[Id, dict[str, Any]] = {}
        for position, item in enumerate(self.raw["images"], start=1):
            self.account.read += 1
            id_ = _id(item, "id")
            with self.account.dropping(_name("image", id_, position)):
                if id_ is None:
                    raise Rejected(ENTRY, "there is no id")
                if id_ in entries:
                    raise Rejected("image id is used twice")
                name, sides = item.get("file_name"), [item.get(key) for key in ("width", "height")]
                sound = isinstance(name, str) and name
                if not sound or not all(type(side) is int and side > 0 for side in sides):
                    raise Rejected(ENTRY, "there is no file_name, or no width or height in pixels")
                entries[id_] = item
        return entries

    def _by_image(self) -> dict[Id, list[Any]]:
        """Image id -> its annotations."""
        annotations: dict[Id, list[Any]] = defaultdict(list)
        known = {_id(item, "id") for item in self.raw["images"]}
        for position, item in enumerate(self.raw["annotations"], start=1):
            image = _id(item, "image_id")
            with self.account.dropping(_name("annotation", _id(item, "id"), position)):
                if image is None:
                    raise Rejected(ANNOTATION, "there is no image_id")
                if image not in known:
                    why = f"no image has the image_id {image}"
                    raise Rejected("annotation of an unknown image", why)
                annotations[image].append(item)
        return annotations

    def _image(self, entry: dict[str, Any], annotations: list[Any]) -> CocoImage:
        size = (entry["width"], entry["height"])
        file, png = self.folder / entry["file_name"], None
        lengths, items = (probe(file, size, "image"), 0), annotations
        if self.png_folder is not None and annotations:
            if len(annotations) > 1:
                raise Rejected("image has several panoptic annotations")
            name, items = (annotations[0].get(key) for key in ("file_name", "segments_info"))
            if not isinstance(name, str) or not name or not isinstance(items, list):
                raise Rejected("panoptic annotation is damaged", "no file_name or no segments_info")
            png = self.png_folder / name
            lengths = lengths[0], probe(png, size, "panoptic PNG")
        return CocoImage(entry["id"], file, *size, png, lengths, self._regions(entry, items))

    def _regions(self, entry: dict[str, Any], items: list[Any]) -> tuple[Region, ...]:
        panoptic, regions, seen = self.png_folder is not None, [], set()
        kind = "segment" if panoptic else "annotation"
        for position, item in enumerate(items, start=1):
            id_ = _id(item, "id")
            where = f"{_name(kind, id_, position)} of image {entry['id']} ({entry['file_name']})"
            with self.account.dropping(where):
                if id_ is None or (panoptic and not (isinstance(id_, int) and id_ > 0)):
                    expected = "positive integer " if panoptic else ""
                    raise Rejected(ANNOTATION, f"there is no {expected}id")
                if id_ in seen:
                    raise Rejected("annotation id is used twice")
                seen.add(id_)
                regions.append(self._region(where, item, (entry["width"], entry["height"])))
        return tuple(regions)

    def _region(self, where: str, item: dict[str, Any], size: tuple[int, int]) -> Region:
        if item.get("iscrowd"):
            raise Rejected(CROWD)
        category = _present(item, "category_id")
        if type(category) is not int or category not in self.classes.rank:
            raise Rejected("category is unknown", f"no category has the id {str(category)[:40]}")
        label, box = self.classes.rank[category], None
        if self.classes.things[label]:
            values = numbers(_present(item, "bbox"))
            x, y, w, h = values if values is not None and len(values) == 4 else np.full(4, np.nan)
            box = kept_box([x, y, x + w, y + h], size, self.size, self.smallest)
        if self.png_folder is not None:
            return Region(where, label, box, item["id"])
        return Region(where, label, box, compressed(_present(item, "segmentation"), *size))


def _present(item: dict[str, Any], key: str) -> Any:
    if item.get(key) is None:
        raise Rejected(ANNOTATION, f"there is no {key}")
    return item[key]


def _id(item: Any, key: str) -> Id | None:
    value = item.get(key) if isinstance(item, dict) else None
    usable = isinstance(value, int | str) and not isinstance(value, bool) and value != ""
    return value if usable else None


def _name(kind: str, id_: Id | None, position: int) -> str:
    return f"{kind} number {position}" if id_ is None else f"{kind} {id_}"
