"""Regions of any file in COCO's format: instances (polygons or run lengths) and panoptic (PNGs of segment ids).

The longest side of a picture is scaled to S pixels and the rest of the square, right and below, is black; boxes and
masks go along. What cannot be used is left out and counted: pictures and instances when the file is read, segments of
panoptic PNGs when their picture is first asked for.

Letters: M pictures, n regions of one, S pixels a side, C captions.

Source: Lin et al., Microsoft COCO (arXiv 1405.0312); Kirillov et al., Panoptic Segmentation (arXiv 1801.00868);
wusize/CLIPSelf @ 1c7fe9c, src/training/data.py (COCOPanopticDataset).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from spatialbench.data.coco.account import TOO_THIN, Account, Rejected
from spatialbench.data.coco.annotations import (
    Picture,
    Reader,
    Region,
    is_panoptic,
    read_captions,
    read_classes,
    read_json,
)
from spatialbench.data.coco.masks import (
    EMPTY,
    decoded,
    kept_box,
    padded,
    padded_mask,
    scaled,
    segment_ids,
)
from spatialbench.data.images import BadImage, decode, fit
from spatialbench.data.region_sets import CaptionSet, Regions, RegionSet
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress


class CocoRegions(RegionSet):
    """The pictures of a file in COCO's format, decoded when they are asked for; nothing of them is kept in memory.

    Labels are ranks of the category ids. Every class of an instances file is a thing; a panoptic file says which are
    (isthing), and the boxes of its stuff are those of the masks. Crowds are left out.

    ``skipped`` counts what was left out, ``first`` has a line about the first one of each reason. Segments of panoptic
    PNGs, and masks that are gone at this size, are counted when their picture is first asked for: by the process that
    asked.

    Args:
        path: the JSON: images, annotations, categories.
        images: folder of the pictures.
        size: S.
        limit: the first so many usable pictures by id; all by default.
        captions: a COCO captions file of the same pictures.
        masks: for a panoptic file, the folder of its PNGs; by default the one beside it that has its name.
        strict: the first damaged picture, region or caption is an error.
        smallest: least side of a box in pixels of the square; smaller ones are left out.
        templates: prompts of a class, each with one ``{}``.

    ``fingerprint`` is a hash of both JSON files' bytes, size, limit, ``smallest``, and name and length in bytes of
    every picture and PNG: a picture that was changed to another of exactly its length is not noticed.

    Raises:
        SpatialbenchError: a file or folder is not there, not in COCO's format, or without a usable picture; with
            ``strict``, whatever is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        images: str | Path,
        size: int,
        limit: int | None = None,
        captions: str | Path | None = None,
        masks: str | Path | None = None,
        strict: bool = False,
        smallest: float = 8.0,
        templates: tuple[str, ...] = ("a photo of a {}.",),
    ) -> None:
        path = Path(path)
        _check_arguments(size, limit, templates)
        raw, digest = read_json(path, ("images", "annotations", "categories"))
        folder = _panoptic_folder(path, is_panoptic(raw), masks)
        classes = read_classes(path, raw["categories"], folder is not None)
        self.account = Account(path, strict)
        reader = Reader(
            raw, classes, _folder(images, "images"), folder, size, smallest, self.account
        )
        self.pictures = reader.pictures(limit)
        if not self.pictures:
            why = next(iter(self.account.first.values()), f"{path}: the list of images is empty")
            raise SpatialbenchError(f"no usable picture among {len(raw['images'])}: {why}")
        self.name, self.size, self.smallest = f"coco/{path.stem}", size, smallest
        self.classes, self.things, self.templates = classes.names, classes.things, tuple(templates)
        self.skipped, self.first = self.account.skipped, self.account.first
        self._written: list[tuple[int, str]] = []
        whole = [digest, size, limit, smallest, [(p.file.name, p.bytes) for p in self.pictures]]
        if captions is not None:
            rows = {picture.id: row for row, picture in enumerate(self.pictures)}
            self._written, digest = read_captions(Path(captions), rows, self.account)
            whole.append(digest)
        self.fingerprint = hashlib.sha256(repr(whole).encode()).hexdigest()[:16]
        self._seen: set[int] = set()  # rows whose masks were looked at and counted

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> Regions:
        """Raises:
        SpatialbenchError: the picture or its PNG cannot be decoded any more; with ``strict``, a mask is empty.
        """
        picture = self.pictures[row]
        stored = _decoded(picture, picture.file)
        boxes, labels, masks = [], [], []
        for box, label, mask in self._placed(row, picture):
            boxes.append(box)
            labels.append(label)
            masks.append(mask)
        w, h = scaled(*stored.size, self.size)
        return Regions(
            pixels=torch.from_numpy(padded(stored, self.size).transpose(2, 0, 1).copy()),
            extent=(w / self.size, h / self.size),
            boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            label=torch.tensor(labels, dtype=torch.int64),
            masks=torch.from_numpy(
                np.stack(masks) if masks else np.zeros((0, self.size, self.size), dtype=bool)
            ),
        )

    def scene(self, row: int) -> str:
        """The picture's id: pictures of COCO are independent of one another."""
        return str(self.pictures[row].id)

    def captions(self, size: int) -> CaptionSet | None:
        """The captions of the captions file, the pictures letterboxed at ``size`` pixels; None without such a file.

        A caption is true of the picture that it was written for and, as far as is known, of no other.
        """
        if not self._written:
            return None
        images = np.empty((len(self), size, size, 3), dtype=np.uint8)
        with progress(f"pictures of {self.name}", len(self), "images") as advance:
            for row, picture in enumerate(self.pictures):
                images[row] = fit(_decoded(picture, picture.file), size, "letterbox")
                advance(1)
        image = np.array([row for row, _ in self._written], dtype=np.int64)
        truth = np.arange(len(self))[:, None] == image
        return CaptionSet(images, [text for _, text in self._written], image, truth)

    def _placed(self, row: int, picture: Picture) -> Iterator[tuple[list[float], int, np.ndarray]]:
        """Box, label and mask [S, S] of every region of a picture; what is left out is counted the first time."""
        ids = None if picture.png is None else segment_ids(_decoded(picture, picture.png))
        for region in picture.regions:
            try:
                yield self._region(picture, region, ids)
            except Rejected as rejected:
                if row not in self._seen:
                    self.account.note(region.where, rejected)
        self._seen.add(row)

    def _region(
        self, picture: Picture, region: Region, ids: np.ndarray | None
    ) -> tuple[list[float], int, np.ndarray]:
        size = (picture.width, picture.height)
        if isinstance(region.shape, bytes):
            whole = decoded(region.shape, *size)
        else:
            assert ids is not None
            whole = ids == region.shape
        if not whole.any():
            raise Rejected(EMPTY, f"no pixel of {picture.png} has this id")
        box = region.box
        if box is None:
            rows, columns = np.flatnonzero(whole.any(1)), np.flatnonzero(whole.any(0))
            corners = [
                float(value) for value in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            ]
            box = kept_box(corners, size, self.size, self.smallest)
        mask = padded_mask(whole, self.size)
        if not mask.any():
            raise Rejected(TOO_THIN, f"no pixel is left of the mask at {self.size} pixels")
        return box, region.label, mask


def _decoded(picture: Picture, file: Path) -> Image.Image:
    try:
        found = decode(file.read_bytes())
    except (BadImage, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpatialbenchError(
            f"{file}: {reason}; repair it, or remove {picture.where} from the JSON"
        ) from error
    if found.size != (picture.width, picture.height):
        raise SpatialbenchError(
            f"{file}: has now {found.size} pixels, other than before; read the file again"
        )
    return found


def _folder(path: str | Path, what: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise SpatialbenchError(f"{folder}: no such folder; say where the {what} are")
    return folder


def _panoptic_folder(path: Path, panoptic: bool, masks: str | Path | None) -> Path | None:
    """The folder of the PNGs; None for a file of instances."""
    if not panoptic:
        if masks is not None:
            raise SpatialbenchError(
                f"{path}: no annotation has segments_info, so it is no panoptic file; drop masks"
            )
        return None
    return _folder(path.with_suffix("") if masks is None else masks, "masks (the panoptic PNGs)")


def _check_arguments(size: int, limit: int | None, templates: Sequence[str]) -> None:
    for name, number in (("size", size), ("limit", 1 if limit is None else limit)):
        if number < 1:
            raise SpatialbenchError(f"{name} must be 1 or more, got {number}")
    for template in templates:
        if template.count("{}") != 1:
            raise SpatialbenchError(
                f"template {template!r} must have one {{}}, where the class goes"
            )
    if not templates:
        raise SpatialbenchError("templates must hold one prompt or more")
