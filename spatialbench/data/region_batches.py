"""Batches of pictures and boxes, for methods that learn regions and not pairs.

Letters: B pictures of S pixels a side, N regions, W wide boxes, s the student's own size.

Source: wusize/CLIPSelf @ 1c7fe9c, src/training/data.py; of the wide boxes docs/r_sc_rla.md.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spatialbench.data.batches import ResumablePlans, training_loader
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.region_sets import Regions, RegionSet, check_regions
from spatialbench.data.regions import crops, grid_boxes, random_boxes, with_surroundings
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.token_cache import content_key

Kind = Literal["grid", "boxes"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class RegionBatch(TypedDict):
    """What a method of regions is given. Boxes are x0 y0 x1 y1 in [0, 1] of the square picture.

    Attributes:
        pixels: uint8 [B, 3, S, S].
        boxes: float32 [N, 4], the regions; a picture without any has itself as one region, of no class.
        image: int64 [N], the row of ``pixels`` of each.
        label: int64 [N], the class of each, -1 where it has none.
        crop_boxes: float32 [N, 4], what the teacher sees of each region.
        crops: uint8 [N, 3, s, s], those cut out; none where they are fixed.
        keys: N names of the crops, the same whenever the same is seen; none where they are not fixed.
        wide: float32 [W, 4], larger boxes at random. wide_image: int64 [W].
        key: of the random numbers that a method draws for this batch.
    """

    pixels: Tensor
    boxes: Tensor
    image: Tensor
    label: Tensor
    crop_boxes: Tensor
    crops: Tensor
    keys: list[bytes]
    wide: Tensor
    wide_image: Tensor
    key: tuple[int, int, int]


@dataclass(frozen=True)
class Sampling:
    """Which boxes of a picture make a batch.

    Attributes:
        kind: ``grid``: the cells of one of 24 grids, drawn anew each time; ``boxes``: the set's own.
        most: at most so many regions a picture, drawn at random where there are more.
        crop_size: s, of the teacher's crops; 0: none are wanted.
        wide: so many larger boxes a picture; ``area`` and ``aspect`` as in ``random_boxes``.
    """

    kind: Kind = "grid"
    most: int = 20
    crop_size: int = 0
    wide: int = 4
    area: tuple[float, float] = (0.25, 0.5)
    aspect: tuple[float, float] = (2 / 3, 3 / 2)

    @property
    def fixed(self) -> bool:
        """Whether a picture's crops are always the same ones, so that they can be kept."""
        return self.kind == "boxes" and self.crop_size > 0


class RegionDataset(Dataset[RegionBatch]):
    """A region set that is indexed by plans (rows, key): one item is one whole batch."""

    def __init__(self, regions: RegionSet, sampling: Sampling) -> None:
        self.regions, self.sampling = regions, sampling

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, plan: tuple[np.ndarray, tuple[int, int, int]]) -> RegionBatch:
        rows, key = plan
        rng = np.random.default_rng(key)
        items = [self._item(int(row)) for row in rows]
        chosen = [self._boxes(item, rng) for item in items]
        wide = [in_square(random_boxes(rng, self.sampling.wide, self.sampling.area, self.sampling.aspect), item.extent)
                for item in items]  # fmt: skip
        pixels = torch.stack([item.pixels for item in items])
        image = torch.repeat_interleave(torch.tensor([len(boxes) for boxes, _ in chosen]))
        crop_boxes = torch.cat(
            [self.seen(boxes, item) for (boxes, _), item in zip(chosen, items, strict=True)]
        )
        size, fixed = self.sampling.crop_size, self.sampling.fixed
        cut = size > 0 and not fixed
        return RegionBatch(
            pixels=pixels,
            boxes=torch.cat([boxes for boxes, _ in chosen]),
            image=image,
            label=torch.cat([label for _, label in chosen]),
            crop_boxes=crop_boxes,
            crops=crops(pixels, crop_boxes, image, size)
            if cut
            else pixels.new_empty(0, 3, size, size),
            keys=crop_keys(pixels, crop_boxes, image) if fixed else [],
            wide=torch.cat(wide),
            wide_image=torch.arange(len(items)).repeat_interleave(self.sampling.wide),
            key=key,
        )

    def _item(self, row: int) -> Regions:
        item = self.regions[row]
        check_regions(
            item,
            self.regions.size,
            len(self.regions.classes),
            f"picture {row} of {self.regions.name}",
        )
        return item

    def _boxes(self, item: Regions, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Regions and classes of a picture."""
        if self.sampling.kind == "grid":
            boxes = in_square(grid_boxes(rng, count=self.sampling.most), item.extent)
            return boxes, torch.full((len(boxes),), -1)
        if not len(item.boxes):
            return in_square(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), item.extent), torch.tensor([-1])
        order = torch.from_numpy(rng.permutation(len(item.boxes))[: self.sampling.most])
        return item.boxes[order], item.label[order]

    def seen(self, boxes: Tensor, item: Regions) -> Tensor:
        """What the teacher sees of regions: a cell itself, an object with its surroundings."""
        if self.sampling.kind == "grid":
            return boxes
        return with_surroundings(boxes, item.extent)

    def all_crops(self, row: int, known: Container[bytes] = ()) -> tuple[list[bytes], Tensor]:
        """The names and the crops [n, 3, s, s] of every region that the picture ``row`` can ever have (``boxes``).

        Args:
            known: names of crops that are not wanted.
        """
        item = self._item(row)
        boxes = (
            item.boxes
            if len(item.boxes)
            else in_square(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), item.extent)
        )
        seen, pixels = self.seen(boxes, item), item.pixels[None]
        names = crop_keys(pixels, seen, torch.zeros(len(boxes), dtype=torch.int64))
        new = [place for place, name in enumerate(names) if name not in known]
        image = torch.zeros(len(new), dtype=torch.int64)
        return [names[place] for place in new], crops(
            pixels, seen[new], image, self.sampling.crop_size
        )


def generator(key: tuple[int, int, int]) -> torch.Generator:
    """Of a batch's random numbers: the same for the same (seed, epoch, batch)."""
    state = np.random.SeedSequence([int(part) for part in key]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)


def regions_of(trainer: Trainer, wide: bool) -> RegionDataset:
    """What a method of regions learns from.

    Args:
        trainer: whose datamodule it is.
        wide: whether the method needs the larger boxes.

    Raises:
        SpatialbenchError: another datamodule, or no larger boxes.
    """
    data = getattr(trainer, "datamodule", None)
    name = f"{RegionDataModule.__module__}.{RegionDataModule.__qualname__}"
    if not isinstance(data, RegionDataModule):
        raise SpatialbenchError(
            f"the method learns from regions: the page needs data.class_path {name}"
        )
    if wide and not data.sampling.wide:
        raise SpatialbenchError(
            "data.init_args.wide is 0, and this method learns from larger boxes; 4 is usual"
        )
    return data.region_set


def crop_keys(pixels: Tensor, boxes: Tensor, image: Tensor) -> list[bytes]:
    """A name of each crop by content: of its picture's pixels and its box."""
    pictures = [content_key(picture.numpy()) for picture in pixels]
    return [
        content_key(np.frombuffer(pictures[row] + box.tobytes(), dtype=np.uint8))
        for row, box in zip(image.tolist(), boxes.numpy(), strict=True)
    ]


def in_square(boxes: Tensor, extent: tuple[float, float]) -> Tensor:
    """Boxes of a picture [n, 4] -> of the square that it lies in."""
    return boxes * torch.tensor(extent * 2)


class RegionDataModule(PairDataModule):
    """Training on regions; validation and test on pairs, as every row of the table.

    Args:
        kind: which regions: ``grid``, the cells of a grid drawn anew each time, needs nothing but pictures; ``boxes``
            are the set's own, with their classes.
        region_path: a COCO-format file of instances, read beside ``region_folder``; without it the rooms' split
            ``train``.
        region_folder: the folder of the file's pictures.
        region_size: S, side of the square pictures in pixels; whole patches of the student.
        region_images: the first so many pictures; 0: all of a file.
        region_batch: pictures a batch.
        most: at most so many regions a picture.
        crops: cut the regions out for a teacher; false where none looks at them.
        wide: so many larger boxes a picture, for the correlation of tokens and for the Refiner.
        wide_area: their share of the picture, drawn evenly.
        wide_aspect: width over height, drawn evenly on a logarithmic scale.
        kwargs: of ``PairDataModule``.

    Raises:
        SpatialbenchError: a number is out of range, or a file is not there or cannot be used.
    """

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
        wide_area: tuple[float, float] = (0.25, 0.5),
        wide_aspect: tuple[float, float] = (2 / 3, 3 / 2),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        limits = {
            "region_size": (region_size, 8),
            "region_batch": (region_batch, 1),
            "most": (most, 1),
        }
        limits |= {"wide": (wide, 0), "region_images": (region_images, 0 if region_path else 1)}
        for name, (value, least) in limits.items():
            if value < least:
                raise SpatialbenchError(f"data.{name} is {value}; it must be {least} or more")
        if kind not in KINDS:
            raise SpatialbenchError(f"data.kind is {kind!r}; one of {', '.join(KINDS)}")
        if (region_path is None) != (region_folder is None):
            raise SpatialbenchError(
                "data.region_path and data.region_folder go together: the file and its pictures"
            )
        if region_path is not None and not Path(region_path).is_file():
            raise SpatialbenchError(f"data.region_path: there is no file {region_path}")
        area, aspect = tuple(wide_area), tuple(wide_aspect)
        if not 0 < area[0] <= area[1] <= 1 or not 0 < aspect[0] <= aspect[1]:
            raise SpatialbenchError(
                f"data.wide_area {area} must rise in (0, 1], data.wide_aspect {aspect} above 0"
            )
        self.region_path, self.region_folder = region_path, region_folder
        self.region_size, self.region_images, self.region_batch = (
            region_size,
            region_images,
            region_batch,
        )
        crop_size = self.image_size if crops else 0
        self.sampling = Sampling(kind, most, crop_size, wide, area, aspect)  # type: ignore[arg-type]
        self.region_set: RegionDataset

    def setup_training(self) -> None:
        if hasattr(self, "region_set"):  # prepare_data has been here
            return
        regions = self._regions()
        if len(regions) < self.region_batch:
            raise SpatialbenchError(
                f"the region set {regions.name} has {len(regions)} pictures, fewer than one batch of "
                f"{self.region_batch}; lower data.region_batch or give more (data.region_images)"
            )
        self.region_set = RegionDataset(regions, self.sampling)

    def _regions(self) -> RegionSet:
        if self.region_path is None or self.region_folder is None:
            from spatialbench.data.rooms.regions import (
                RoomsRegions,
            )  # the renderer is not needed for files

            return RoomsRegions("train", self.region_images, self.region_size)
        from spatialbench.data.coco.coco_regions import CocoRegions

        limit = self.region_images or None
        return CocoRegions(
            self.region_path, self.region_folder, self.region_size, limit, strict=self.strict
        )

    def train_dataloader(self) -> DataLoader[Any]:
        count = len(self.region_set)
        return training_loader(
            ResumablePlans(self.region_set, count, self.region_batch, self.seed, *self.ranks()),
            self.workers,
        )
