"""The JSON of COCO's files: pictures, classes and regions, everything checked that can be without decoding a picture.

Source: cocodataset.org/#format-data; cocodataset/panopticapi @ 7bb4655, format of the PNGs.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spatialbench.data.coco.account import CROWD, Account, Rejected
from spatialbench.data.coco.masks import compressed, kept_box, numbers, probe
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import Advance, progress

Id = int | str
ANNOTATION = "annotation is damaged"
CAPTION = "caption is damaged"
REUSED = "annotation id is used twice"


class Region(NamedTuple):
    """One region of a picture.

    Attributes:
        where: picture and annotation, for messages.
        box: x0 y0 x1 y1 in [0, 1] of the square; None where the mask has to be seen first (stuff).
        shape: compressed run lengths, or the segment's id in the panoptic PNG.
    """

    where: str
    label: int
    box: list[float] | None
    shape: bytes | int


class Picture(NamedTuple):
    """One picture: its file, the panoptic PNG if there is one, and the length of both in bytes."""

    id: Id
    file: Path
    width: int
    height: int
    png: Path | None
    bytes: tuple[int, int]
    regions: tuple[Region, ...]

    @property
    def where(self) -> str:
        return f"picture {self.id}"


class Classes(NamedTuple):
    """Names in the order of the category ids, whether each is a thing, and category id -> rank."""

    names: tuple[str, ...]
    things: tuple[bool, ...]
    rank: dict[int, int]


def read_json(path: Path, keys: Iterable[str]) -> tuple[dict[str, Any], str]:
    """A JSON object whose ``keys`` are lists, and the hash of the file.

    Raises:
        SpatialbenchError: no such file, no JSON object, or a key is missing.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpatialbenchError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        raw = json.loads(data)
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: JSONDecodeError, UnicodeDecodeError, a number too long
        lfs = data.startswith(b"version https://git-lfs")
        raise SpatialbenchError(
            f"{path}: {'a Git LFS pointer; fetch the file itself' if lfs else _json_reason(error)}"
        ) from error
    if not isinstance(raw, dict):
        raise SpatialbenchError(
            f"{path}: a {type(raw).__name__}, not an object as COCO's files; is it another format?"
        )
    for key in keys:
        if not isinstance(raw.get(key), list):
            raise SpatialbenchError(
                f"{path}: no list {key!r} at the top; is it a file in COCO's format?"
            )
    return raw, hashlib.sha256(data).hexdigest()


def _json_reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        rest = error.doc[error.pos :].rstrip()
        words = (
            "true",
            "false",
            "null",
            "NaN",
            "-Infinity",
        )  # cut in one of them, the parser stands before it
        early = error.msg.startswith("Unterminated") or any(word.startswith(rest) for word in words)
    else:
        early = "unexpected end" in str(error)
    return (
        "the JSON ends early (a broken download?)"
        if early
        else f"no valid JSON ({str(error)[:120]})"
    )


def is_panoptic(raw: Mapping[str, Any]) -> bool:
    return any(isinstance(item, dict) and "segments_info" in item for item in raw["annotations"])


def read_classes(path: Path, categories: list[Any], panoptic: bool) -> Classes:
    """The classes of a file, in the order of their ids; without ``panoptic`` all of them are things.

    Raises:
        SpatialbenchError: a category without id, name or (``panoptic``) isthing, or an id used twice.
    """
    for item in categories:
        if (
            not isinstance(item, dict)
            or type(item.get("id")) is not int
            or not isinstance(item.get("name"), str)
        ):
            raise SpatialbenchError(
                f"{path}: category {str(item)[:60]} has no integer id and name; add them"
            )
        if panoptic and item.get("isthing") not in (0, 1):
            raise SpatialbenchError(
                f"{path}: category {item['id']} ({item['name']}) has no isthing of 0 or 1; add it"
            )
    ordered = sorted(categories, key=lambda item: item["id"])
    ids = [item["id"] for item in ordered]
    twice = next((a for a, b in pairwise(ids) if a == b), None)
    if twice is not None or not ids:
        raise SpatialbenchError(
            f"{path}: " + ("no categories" if not ids else f"category id {twice} is used twice")
        )
    things = tuple(bool(item["isthing"]) if panoptic else True for item in ordered)
    return Classes(
        tuple(item["name"] for item in ordered), things, {id_: k for k, id_ in enumerate(ids)}
    )


def read_captions(
    path: Path, rows: Mapping[Id, int], account: Account
) -> tuple[list[tuple[int, str]], str]:
    """The captions of a COCO captions file as (row, sentence), in its order, and the hash of the file.

    Captions of other pictures are passed over: the file is usually that of the whole split.

    Raises:
        SpatialbenchError: the file cannot be read or has no caption of these pictures; ``account.strict``, and one is
            damaged.
    """
    raw, digest = read_json(path, ("annotations",))
    found, seen = [], set()
    for position, item in enumerate(raw["annotations"]):
        image, id_ = _id(item, "image_id"), _id(item, "id")
        where = f"{path.name}, caption {f'number {position + 1}' if id_ is None else id_}"
        if image is None or not isinstance(item.get("caption"), str) or not item["caption"].strip():
            account.note(where, Rejected(CAPTION, "there is no image_id or no caption"))
        elif id_ is not None and id_ in seen:
            account.note(where, Rejected("caption id is used twice"))
        elif image in rows:
            found.append((rows[image], " ".join(item["caption"].split())))
        seen.add(id_)
    if not found:
        raise SpatialbenchError(
            f"{path}: no caption of a picture of {account.path}; is it the file of this split?"
        )
    return found, digest


@dataclass
class Reader:
    """Turns the entries of a file into pictures with regions.

    Args:
        raw: the file.
        classes: its classes.
        images: folder of the pictures.
        masks: folder of the panoptic PNGs; None for a file of instances.
        size: S.
        smallest: least side of a box in pixels of the square.
        account: what is left out is counted there.
    """

    raw: Mapping[str, Any]
    classes: Classes
    images: Path
    masks: Path | None
    size: int
    smallest: float
    account: Account

    def pictures(self, limit: int | None) -> list[Picture]:
        """The first ``limit`` usable pictures by id; regions of pictures that are not reached are not looked at.

        Raises:
            SpatialbenchError: ``account.strict``, and something is damaged.
        """
        entries = self._entries()
        annotations = self._by_picture()
        total = len(entries) if limit is None else min(limit, len(entries))
        with progress(f"reading {self.account.path.name}", total, "pictures") as advance:
            return list(islice(self._usable(entries, annotations, advance), limit))

    def _usable(
        self, entries: dict[Id, dict[str, Any]], annotations: dict[Id, list[Any]], advance: Advance
    ) -> Iterator[Picture]:
        for id_ in sorted(entries, key=lambda key: (isinstance(key, str), key)):
            try:
                picture = self._picture(entries[id_], annotations.get(id_, []))
            except Rejected as rejected:
                self.account.note(f"picture {id_}", rejected)
                continue
            advance(1)
            yield picture

    def _entries(self) -> dict[Id, dict[str, Any]]:
        """Picture id -> its entry, those with all fields."""
        found: dict[Id, dict[str, Any]] = {}
        for position, item in enumerate(self.raw["images"]):
            id_ = _id(item, "id")
            try:
                if id_ is None:
                    raise Rejected("picture entry is damaged", "there is no id")
                if id_ in found:
                    raise Rejected("picture id is used twice")
                if not isinstance(item.get("file_name"), str) or not item["file_name"]:
                    raise Rejected("picture entry is damaged", "there is no file_name")
                for key in ("width", "height"):
                    if type(item.get(key)) is not int or item[key] < 1:
                        raise Rejected("picture entry is damaged", f"there is no {key} in pixels")
            except Rejected as rejected:
                self.account.note(
                    f"picture number {position + 1}" if id_ is None else f"picture {id_}", rejected
                )
            else:
                assert id_ is not None
                found[id_] = item
        return found

    def _by_picture(self) -> dict[Id, list[Any]]:
        """Picture id -> its annotations."""
        known = {_id(item, "id") for item in self.raw["images"]}
        found = defaultdict(list)
        for position, item in enumerate(self.raw["annotations"]):
            image = _id(item, "image_id")
            if image is None:
                rejected = Rejected(ANNOTATION, "there is no image_id")
            elif image not in known:
                rejected = Rejected(
                    "annotation of an unknown picture", f"no picture has the image_id {image}"
                )
            else:
                found[image].append(item)
                continue
            name = _id(item, "id")
            self.account.note(
                f"annotation number {position + 1}" if name is None else f"annotation {name}",
                rejected,
            )
        return found

    def _picture(self, entry: dict[str, Any], annotations: list[Any]) -> Picture:
        file, png, size = self.images / entry["file_name"], None, (entry["width"], entry["height"])
        lengths, items = (probe(file, size, "picture"), 0), annotations
        if self.masks is not None:
            items = []
            if len(annotations) > 1:
                raise Rejected(
                    "picture has several panoptic annotations",
                    "more than one annotation has its image_id",
                )
            for annotation in annotations:
                name, items = annotation.get("file_name"), annotation.get("segments_info")
                if not isinstance(name, str) or not name or not isinstance(items, list):
                    raise Rejected(
                        "panoptic annotation is damaged",
                        "there is no file_name or no segments_info",
                    )
                png = self.masks / name
                lengths = lengths[0], probe(png, size, "panoptic PNG")
        return Picture(entry["id"], file, *size, png, lengths, tuple(self._regions(entry, items)))

    def _regions(self, entry: dict[str, Any], items: list[Any]) -> Iterator[Region]:
        kind, seen = "annotation" if self.masks is None else "segment", set()
        for position, item in enumerate(items):
            id_ = _id(item, "id")
            name = f"number {position + 1}" if id_ is None else str(id_)
            where = f"{kind} {name} of picture {entry['id']} ({entry['file_name']})"
            try:
                if id_ is None or (self.masks is not None and not (type(id_) is int and id_ > 0)):
                    raise Rejected(
                        ANNOTATION,
                        "there is no id" if id_ is None else "a segment's id is a positive integer",
                    )
                if id_ in seen:
                    raise Rejected(REUSED)
                seen.add(id_)
                yield self._region(where, item, (entry["width"], entry["height"]))
            except Rejected as rejected:
                self.account.note(where, rejected)

    def _region(self, where: str, item: dict[str, Any], size: tuple[int, int]) -> Region:
        if item.get("iscrowd"):
            raise Rejected(CROWD)
        category = _present(item, "category_id")
        if type(category) is not int or category not in self.classes.rank:
            raise Rejected("category is unknown", f"no category has the id {str(category)[:40]}")
        label, box = self.classes.rank[category], None
        if self.classes.things[label]:
            corners = numbers(_present(item, "bbox"))
            x, y, w, h = (
                corners if corners is not None and len(corners) == 4 else np.full(4, np.nan)
            )
            box = kept_box([x, y, x + w, y + h], size, self.size, self.smallest)
        if self.masks is not None:
            return Region(where, label, box, item["id"])
        return Region(where, label, box, compressed(_present(item, "segmentation"), *size))


def _present(item: dict[str, Any], key: str) -> Any:
    if item.get(key) is None:
        raise Rejected(ANNOTATION, f"there is no {key}")
    return item[key]


def _id(item: Any, key: str) -> Id | None:
    """An id, or None where there is none that can be one."""
    value = item.get(key) if isinstance(item, dict) else None
    return (
        value
        if isinstance(value, int | str) and not isinstance(value, bool) and value != ""
        else None
    )
