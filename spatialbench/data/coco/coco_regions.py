"""Regions of any file in COCO's format: instances or panoptic.

The longest side of an image is scaled to S pixels; the rest of the square, right and below, is
black. Boxes and masks follow. Unusable images and instances are left out and counted when the file
is read; segments of panoptic PNGs when their image is first accessed.

Letters: M images, n regions of an image, S pixels a side, C captions.

Source: Lin et al., Microsoft COCO (arXiv 1405.0312); Kirillov et al., Panoptic Segmentation (arXiv
1801.00868); wusize/CLIPSelf @ 1c7fe9c, src/training/data.py (COCOPanopticDataset).
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import spatialbench.data.coco.annotations as coco_json
import spatialbench.data.coco.masks as coco_masks
from spatialbench.data.account import Account, Rejected
from spatialbench.data.coco.annotations import CocoImage, Region
from spatialbench.data.images import BadImage, decode, fit
from spatialbench.data.region_sets import CaptionSet, Regions, RegionSet
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

TOO_THIN = "mask is empty at this size"
HARMLESS = (coco_json.CROWD, TOO_THIN, "box is smaller")
"""Prefixes of the reasons that are not damage."""


class CocoRegions(RegionSet):
    """The images of a file in COCO's format, decoded on access and never kept in memory.

    Labels are ranks of the category ids. Every class of an instances file is a thing; a panoptic
    file marks its things (isthing), and boxes of stuff follow from the masks. Crowds are left out.

    ``account`` and its counts ``skipped`` say what was left out. Segments of panoptic PNGs, and
    masks that vanish at this size, are counted by the process that first accesses their image.

    ``fingerprint`` hashes the bytes of both JSON files, size, limit, ``smallest``, and name and
    length of every image and PNG. It misses an image replaced by another one of the same length.

    Args:
        path: the JSON: images, annotations, categories.
        images: folder of the images.
        size: S.
        limit: use the first usable images by id, up to this number; all by default.
        captions: a COCO captions file of the same images.
        masks: folder of a panoptic file's PNGs; by default the one of its name.
        strict: the first damaged image, region or caption is an error.
        smallest: least side of a box in pixels of the square; smaller ones are left out.

    Raises:
        SpatialbenchError: a file or folder is missing, not in COCO's format, or without a usable
            image; with ``strict``, the first damaged item. On access, the image is damaged since.
    """

    templates = ("a photo of a {}.",)

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
    ) -> None:
        path = Path(path)
        for name, number in (("size", size), ("limit", limit)):
            if number is not None and number < 1:
                raise SpatialbenchError(f"{name} must be 1 or more, got {number}")
        raw, digest = coco_json.read_json(path, ("images", "annotations", "categories"))
        pngs = _png_folder(path, coco_json.is_panoptic(raw), masks)
        classes = coco_json.read_classes(path, raw["categories"], pngs is not None)
        self.account = Account(path, strict, HARMLESS)
        folder = _folder(images, "images")
        reader = coco_json.Reader(raw, classes, folder, pngs, size, smallest, self.account)
        self.images = reader.images(limit)
        self.account.require(len(self.images), "image")
        self.name, self.size, self.smallest = f"coco/{path.stem}", size, smallest
        self.classes, self.things = classes.names, classes.things
        self.skipped = self.account.dropped
        self._captions: list[tuple[int, str]] = []
        whole = [digest, size, limit, smallest, [(i.file.name, i.bytes) for i in self.images]]
        if captions is not None:
            rows = {image.id: row for row, image in enumerate(self.images)}
            self._captions, digest = coco_json.read_captions(Path(captions), rows, self.account)
            whole.append(digest)
        self.fingerprint = hashlib.sha256(repr(whole).encode()).hexdigest()[:16]
        self._seen: set[int] = set()  # rows whose masks were counted

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Regions:
        image = self.images[row]
        pixels = _decoded(image, image.file)
        ids = None if image.png is None else coco_masks.segment_ids(_decoded(image, image.png))
        boxes, labels, shapes = [], [], []
        for region in image.regions:
            try:
                box, mask = self._region(image, region, ids)
            except Rejected as rejected:
                if row not in self._seen:
                    self.account.drop(rejected.reason, region.where, rejected.why)
                continue
            boxes.append(box)
            labels.append(region.label)
            shapes.append(mask)
        self._seen.add(row)
        w, h = coco_masks.scaled(*pixels.size, self.size)
        none = np.zeros((0, self.size, self.size), dtype=bool)
        return Regions(
            pixels=torch.from_numpy(coco_masks.padded(pixels, self.size).transpose(2, 0, 1).copy()),
            extent=(w / self.size, h / self.size),
            boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            label=torch.tensor(labels, dtype=torch.int64),
            masks=torch.from_numpy(np.stack(shapes) if shapes else none),
        )

    def scene(self, row: int) -> str:
        """Return the image's id: images of COCO are independent."""
        return str(self.images[row].id)

    def captions(self, size: int) -> CaptionSet | None:
        """Return the captions, with images letterboxed at ``size`` pixels; None without a file.

        A caption counts as true of its own image only.
        """
        if not self._captions:
            return None
        images = np.empty((len(self), size, size, 3), dtype=np.uint8)
        with progress(f"images of {self.name}", len(self), "images") as advance:
            for row, image in enumerate(self.images):
                images[row] = fit(_decoded(image, image.file), size, "letterbox")
                advance(1)
        own = np.array([row for row, _ in self._captions], dtype=np.int64)
        truth = np.arange(len(self))[:, None] == own
        return CaptionSet(images, [text for _, text in self._captions], own, truth)

    def _region(
        self, image: CocoImage, region: Region, ids: np.ndarray | None
    ) -> tuple[list[float], np.ndarray]:
        """Return box and mask [S, S] of a region."""
        size = (image.width, image.height)
        if isinstance(region.shape, bytes):
            whole = coco_masks.decoded(region.shape, *size)
        else:
            whole = np.asarray(ids == region.shape)
        if not whole.any():
            raise Rejected(coco_masks.EMPTY, f"no pixel of {image.png} has this id")
        box = region.box
        if box is None:
            rows, columns = np.flatnonzero(whole.any(1)), np.flatnonzero(whole.any(0))
            corners = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            box = coco_masks.kept_box([float(c) for c in corners], size, self.size, self.smallest)
        mask = coco_masks.padded_mask(whole, self.size)
        if not mask.any():
            raise Rejected(TOO_THIN, f"no pixel is left of the mask at {self.size} pixels")
        return box, mask


def _decoded(image: CocoImage, file: Path) -> Image.Image:
    try:
        pixels = decode(file.read_bytes())
    except (BadImage, OSError) as error:
        why = f"{getattr(error, 'strerror', None) or error}; repair it, or remove image {image.id}"
        raise SpatialbenchError(f"{file}: {why} from the JSON") from error
    if pixels.size != (image.width, image.height):
        raise SpatialbenchError(f"{file}: its size is now {pixels.size}; read the file again")
    return pixels


def _folder(path: str | Path, what: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise SpatialbenchError(f"{folder}: no such folder; say where the {what} are")
    return folder


def _png_folder(path: Path, panoptic: bool, masks: str | Path | None) -> Path | None:
    if panoptic:
        return _folder(masks or path.with_suffix(""), "masks (the panoptic PNGs)")
    if masks is not None:
        raise SpatialbenchError(f"{path}: no segments_info, so it is no panoptic file; drop masks")
    return None
