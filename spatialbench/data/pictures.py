"""Batches of pictures alone, for methods that learn from no caption and no box.

Letters: B pictures of G pixels a side, M pictures of a set, S the student's own size.

Source: baaivision/DIVA @ d53c668, data/ (random resized crop of 0.9 to 1 of CC3M's pictures, no flip);
mashijie1028/GenHancer @ d716ba2 crops likewise.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from lightning import Trainer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spatialbench.data.batches import ResumablePlans, training_loader
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.images import fit
from spatialbench.data.picture_sets import FolderPictures, PictureSet, RoomsPictures
from spatialbench.utils.errors import SpatialbenchError

ATTEMPTS = 10
"""Of a random crop to lie in its picture; torchvision's number."""


class PictureBatch(TypedDict):
    """What a method of pictures is given.

    Attributes:
        pixels: uint8 [B, 3, G, G], RGB.
        key: (seed, epoch, batch), of the random numbers that a method draws for this batch
            (``data.region_batches.generator``).
    """

    pixels: Tensor
    key: tuple[int, int, int]


class PictureDataset(Dataset[PictureBatch]):
    """A picture set that is indexed by plans (rows, key): one item is one whole batch.

    Args:
        pictures: the set.
        size: G.
        crop: see :func:`random_crop`, the share of the picture; None: the centre square, the same in every epoch.
        aspect: see :func:`random_crop`.
    """

    def __init__(
        self,
        pictures: PictureSet,
        size: int,
        crop: tuple[float, float] | None = None,
        aspect: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        self.pictures, self.size, self.crop, self.aspect = pictures, size, crop, aspect

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, plan: tuple[np.ndarray, tuple[int, int, int]]) -> PictureBatch:
        rows, key = plan
        rng = np.random.default_rng(key)
        pixels = np.stack([self._scaled(self.pictures.picture(int(row)), rng) for row in rows])
        return PictureBatch(
            pixels=torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))), key=key
        )

    def whole(self, row: int) -> Tensor:
        """The picture ``row`` without a random crop, uint8 [3, G, G]."""
        return torch.from_numpy(
            fit(self.pictures.picture(row), self.size, "crop").transpose(2, 0, 1).copy()
        )

    def _scaled(self, picture: Image.Image, rng: np.random.Generator) -> np.ndarray:
        if self.crop is None:
            return fit(picture, self.size, "crop")
        x, y, w, h = random_crop(rng, picture.size, self.crop, self.aspect)
        box = (x, y, x + w, y + h)
        return np.asarray(
            picture.crop(box).resize((self.size, self.size), Image.Resampling.BICUBIC)
        )


def random_crop(
    rng: np.random.Generator,
    size: tuple[int, int],
    share: tuple[float, float],
    aspect: tuple[float, float],
) -> tuple[int, int, int, int]:
    """A box of random area, shape and place: x, y, width, height in pixels.

    Args:
        rng: of the draw.
        size: width and height of the picture.
        share: of the picture's area, drawn evenly.
        aspect: width over height, drawn evenly on a logarithmic scale.

    Source: torchvision's RandomResizedCrop: where ten boxes do not fit, the largest one in the centre whose shape is
        allowed.
    """
    width, height = size
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(*share)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)), w, h
    ratio = min(max(width / height, aspect[0]), aspect[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (width - w) // 2, (height - h) // 2, max(w, 1), max(h, 1)


def resized(pixels: Tensor, size: int, antialias: bool = True) -> Tensor:
    """Pictures at another size, for the student beside the autoencoder.

    Args:
        pixels: uint8 [B, 3, G, G].
        size: S.
        antialias: bicubic with antialiasing, as CLIP's own transform; False: bilinear without, as DIVA's code
            (decision D3).

    Returns:
        uint8 [B, 3, S, S].
    """
    if pixels.shape[-1] == size:
        return pixels
    mode = "bicubic" if antialias else "bilinear"
    found = F.interpolate(
        pixels.float(), size=(size, size), mode=mode, antialias=antialias, align_corners=False
    )
    return found.round_().clamp_(0, 255).to(torch.uint8)


def pictures_of(trainer: Trainer) -> PictureDataset:
    """What a method of pictures learns from.

    Raises:
        SpatialbenchError: another datamodule.
    """
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, PictureDataModule):
        name = f"{PictureDataModule.__module__}.{PictureDataModule.__qualname__}"
        raise SpatialbenchError(
            f"the method learns from pictures alone: the page needs data.class_path {name}"
        )
    return data.picture_set


class PictureDataModule(PairDataModule):
    """Training on pictures alone; validation and test on pairs, as every row of the table.

    Args:
        picture_path: a folder of pictures, with all folders in it; without it the rooms' split ``train``.
        picture_size: G, side of the square pictures in pixels: what the autoencoder reads.
        picture_images: the first so many pictures; none: all of a folder, of the rooms as many as ``train_images``.
        picture_batch: pictures a batch.
        picture_crop: share of the picture that a random crop takes, drawn evenly; DIVA's is 0.9 to 1. None: the centre
            square, so that what is computed of a picture can be kept.
        picture_aspect: width over height of a random crop, drawn evenly on a logarithmic scale.
        kwargs: of ``PairDataModule``.

    Raises:
        SpatialbenchError: a number is out of range, or there is no such folder or no picture in it.
    """

    def __init__(
        self,
        picture_path: str | None = None,
        picture_size: int = 96,
        picture_images: int | None = None,
        picture_batch: int = 16,
        picture_crop: tuple[float, float] | None = None,
        picture_aspect: tuple[float, float] = (3 / 4, 4 / 3),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        count = 1 if picture_images is None else picture_images
        limits = {
            "picture_size": (picture_size, 8),
            "picture_batch": (picture_batch, 1),
            "picture_images": (count, 1),
        }
        for name, (value, least) in limits.items():
            if value < least:
                raise SpatialbenchError(f"data.{name} is {value}; it must be {least} or more")
        share, aspect = (
            (1.0, 1.0) if picture_crop is None else tuple(picture_crop),
            tuple(picture_aspect),
        )
        if not 0 < share[0] <= share[1] <= 1 or not 0 < aspect[0] <= aspect[1]:
            raise SpatialbenchError(
                f"data.picture_crop {share} must rise in (0, 1], data.picture_aspect {aspect} above 0"
            )
        if (
            picture_path is not None and not Path(picture_path).is_dir()
        ):  # now, not after the pairs have been read
            raise SpatialbenchError(f"data.picture_path: there is no folder {picture_path}")
        self.picture_path, self.picture_size, self.picture_images = (
            picture_path,
            picture_size,
            picture_images,
        )
        self.picture_batch = picture_batch
        self.picture_crop: tuple[float, float] | None = (
            None if picture_crop is None else (share[0], share[1])
        )
        self.picture_aspect: tuple[float, float] = (aspect[0], aspect[1])
        self.picture_set: PictureDataset

    def setup_training(self) -> None:
        if hasattr(self, "picture_set"):  # prepare_data has been here
            return
        pictures: PictureSet
        if self.picture_path is None:
            pictures = RoomsPictures(self.picture_images or self.train_images, self.picture_size)
        else:
            pictures = FolderPictures(self.picture_path, self.picture_images, self.strict)
        if len(pictures) < self.picture_batch:
            raise SpatialbenchError(
                f"the picture set {pictures.name} has {len(pictures)} pictures, fewer than one batch of "
                f"{self.picture_batch}; lower data.picture_batch or give more"
            )
        self.picture_set = PictureDataset(
            pictures, self.picture_size, self.picture_crop, self.picture_aspect
        )

    def train_dataloader(self) -> DataLoader[Any]:
        count = len(self.picture_set)
        return training_loader(
            ResumablePlans(self.picture_set, count, self.picture_batch, self.seed, *self.ranks()),
            self.workers,
        )
