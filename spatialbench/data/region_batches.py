"""Batches of images and boxes, for methods that learn from regions and not from pairs.

Letters: B images of S pixels a side, N regions, W wide boxes, s the student's own size.

Source: wusize/CLIPSelf @ 1c7fe9c, src/training/data.py; for the wide boxes docs/r_sc_rla.md.
"""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import Dataset

from spatialbench.data.batches import Key, ResumablePlans
from spatialbench.data.boxes import crops, grid_boxes, random_boxes, with_surroundings
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.region_sets import Regions, RegionSet, check_regions
from spatialbench.data.setting_checks import check_fills_batch, check_least, datamodule_of
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.token_cache import content_key

Kind = Literal["grid", "boxes"]


class RegionBatch(TypedDict):
    """The input of a method that learns from regions. Boxes are x0 y0 x1 y1 in [0, 1].

    An image without regions is one region itself, of no class.
    """

    pixels: Tensor  # uint8 [B, 3, S, S]
    boxes: Tensor  # float32 [N, 4], the regions
    image: Tensor  # int64 [N], row of ``pixels``
    label: Tensor  # int64 [N], class; -1: none
    crop_boxes: Tensor  # float32 [N, 4], the teacher's view of each region
    crops: Tensor  # uint8 [N, 3, s, s], the views; none if they are fixed
    keys: list[bytes]  # N names of the views by content; none if they are not fixed
    wide: Tensor  # float32 [W, 4], larger boxes at random
    wide_image: Tensor  # int64 [W], row of ``pixels``
    key: Key  # of a method's random numbers: ``generator``


@dataclass(frozen=True)
class Sampling:
    """The choice of boxes for a batch; see ``RegionDataModule``."""

    kind: Kind = "grid"
    most: int = 20
    crop_size: int = 0  # s; 0: no crops
    wide: int = 4

    @property
    def fixed(self) -> bool:
        """True if an image's crops are always the same, so that they can be cached."""
        return self.kind == "boxes" and self.crop_size > 0


class RegionDataset(Dataset[RegionBatch]):
    """A region set indexed by plans (rows, key): one item is one whole batch."""

    def __init__(self, regions: RegionSet, sampling: Sampling) -> None:
        self.regions, self.sampling = regions, sampling

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, plan: tuple[np.ndarray, Key]) -> RegionBatch:
        rows, key = plan
        rng, how = np.random.default_rng(key), self.sampling
        items = [self._item(int(row)) for row in rows]
        chosen = [self._boxes(item, rng) for item in items]
        wide = [in_square(random_boxes(rng, how.wide), item.extent) for item in items]
        pixels = torch.stack([item.pixels for item in items])
        image = torch.repeat_interleave(torch.tensor([len(boxes) for boxes, _ in chosen]))
        views = torch.cat(
            [self._view(boxes, item) for (boxes, _), item in zip(chosen, items, strict=True)]
        )
        cut = slice(0 if how.fixed or not how.crop_size else None)
        return RegionBatch(
            pixels=pixels,
            boxes=torch.cat([boxes for boxes, _ in chosen]),
            image=image,
            label=torch.cat([label for _, label in chosen]),
            crop_boxes=views,
            crops=crops(pixels, views[cut], image[cut], how.crop_size),
            keys=crop_keys(pixels, views, image) if how.fixed else [],
            wide=torch.cat(wide),
            wide_image=torch.arange(len(items)).repeat_interleave(how.wide),
            key=key,
        )

    def _item(self, row: int) -> Regions:
        item, source = self.regions[row], self.regions
        check_regions(item, source.size, len(source.classes), f"image {row} of {source.name}")
        return item

    def _boxes(self, item: Regions, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw regions of an image, with their classes."""
        if self.sampling.kind == "grid":
            boxes = in_square(grid_boxes(rng, count=self.sampling.most), item.extent)
            return boxes, torch.full((len(boxes),), -1)
        if not len(item.boxes):
            return _whole(item), torch.tensor([-1])
        order = torch.from_numpy(rng.permutation(len(item.boxes))[: self.sampling.most])
        return item.boxes[order], item.label[order]

    def _view(self, boxes: Tensor, item: Regions) -> Tensor:
        """Return the teacher's view of regions: cells themselves, objects with surroundings."""
        if self.sampling.kind == "grid":
            return boxes
        return with_surroundings(boxes, item.extent)

    def all_crops(self, row: int, known: Container[bytes] = ()) -> tuple[list[bytes], Tensor]:
        """Return names and crops [n, 3, s, s] of an image's own regions, but for ``known`` ones."""
        item = self._item(row)
        views = self._view(item.boxes if len(item.boxes) else _whole(item), item)
        pixels, image = item.pixels[None], torch.zeros(len(views), dtype=torch.int64)
        names = crop_keys(pixels, views, image)
        new = [place for place, name in enumerate(names) if name not in known]
        made = crops(pixels, views[new], image[new], self.sampling.crop_size)
        return [names[place] for place in new], made


def _whole(item: Regions) -> Tensor:
    return in_square(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), item.extent)


def generator(key: Key) -> torch.Generator:
    """Return the generator of a batch, which depends on (seed, epoch, batch) alone."""
    state = np.random.SeedSequence([int(part) for part in key]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)


def regions_of(trainer: Trainer, wide: bool) -> RegionDataset:
    """Return the training regions of a trainer.

    Raises:
        SpatialbenchError: another datamodule, or no larger boxes although ``wide`` needs them.
    """
    data = datamodule_of(trainer, RegionDataModule, "regions")
    if wide and not data.sampling.wide:
        raise SpatialbenchError(
            "data.init_args.wide is 0, but this method learns from larger boxes; 4 is usual"
        )
    return data.region_set


def crop_keys(pixels: Tensor, boxes: Tensor, image: Tensor) -> list[bytes]:
    """Name each crop by its content: the image's pixels and the box."""
    images = [content_key(item.numpy()) for item in pixels]
    return [
        content_key(np.frombuffer(images[row] + box.tobytes(), dtype=np.uint8))
        for row, box in zip(image.tolist(), boxes.numpy(), strict=True)
    ]


def in_square(boxes: Tensor, extent: tuple[float, float]) -> Tensor:
    """Map boxes [n, 4] of an image to the square that it lies in."""
    return boxes * torch.tensor(extent * 2)


class RegionDataModule(PairDataModule):
    """Training on regions; validation and test on pairs, as every row of the table.

    Args:
        kind: ``grid``, the cells of a grid drawn anew each time, needs only images; ``boxes`` are
            the set's own, with their classes.
        region_path: a COCO-format file of instances, together with ``region_folder``; default: the
            rooms' split ``train``.
        region_folder: the folder of the file's images.
        region_size: S, side of the square images in pixels; whole patches of the student.
        region_images: the number of images, the first ones; 0: all of a file.
        region_batch: images a batch.
        most: at most so many regions an image.
        crops: crop the regions for a teacher.
        wide: number of larger boxes an image, for the correlation of tokens and for the Refiner.
        kwargs: of ``PairDataModule``.

    Raises:
        SpatialbenchError: a number is out of range, or a file is missing or unusable.
    """

    learns_from = "regions"

    def __init__(
        self,
        kind: Kind = "grid",
        region_path: str | None = None,
        region_folder: str | None = None,
        region_size: int = 192,
        region_images: int = 4000,
        region_batch: int = 16,
        most: int = 20,
        crops: bool = True,
        wide: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_least(8, region_size=region_size)
        check_least(1, region_batch=region_batch, most=most)
        check_least(0, wide=wide)
        check_least(0 if region_path else 1, region_images=region_images)
        if (region_path is None) != (region_folder is None):
            raise SpatialbenchError(
                "data.region_path and data.region_folder go together: the file and its images"
            )
        if region_path is not None and not Path(region_path).is_file():
            raise SpatialbenchError(f"data.region_path: there is no file {region_path}")
        self.region_path, self.region_folder = region_path, region_folder
        self.region_size, self.region_images = region_size, region_images
        self.region_batch = region_batch
        crop_size = self.image_size if crops else 0
        self.sampling = Sampling(kind, most, crop_size, wide)
        self.region_set: RegionDataset

    def setup_training(self) -> None:
        """Open the region set."""
        if hasattr(self, "region_set"):  # opened by prepare_data
            return
        regions = self._regions()
        check_fills_batch(regions.name, len(regions), "images", region_batch=self.region_batch)
        self.region_set = RegionDataset(regions, self.sampling)

    def _regions(self) -> RegionSet:
        size, images = self.region_size, self.region_images
        if self.region_path is None or self.region_folder is None:
            from spatialbench.data.rooms.room_regions import RoomsRegions  # needs the renderer

            return RoomsRegions("train", images, size)
        from spatialbench.data.coco.coco_regions import CocoRegions

        folder, limit = self.region_folder, images or None
        return CocoRegions(self.region_path, folder, size, limit, strict=self.strict)

    def training_plans(self, world: int, rank: int) -> ResumablePlans:
        """Return batches of shuffled images."""
        return ResumablePlans(self.region_set, self.region_batch, self.seed, world, rank)
