"""Batches of images alone, for methods that learn from no caption and no box.

Letters: B images of G pixels a side, M images of a source, S the student's own size.

Source: baaivision/DIVA @ d53c668, data/ (random resized crop of 0.9 to 1 of CC3M's images, no
flip); mashijie1028/GenHancer @ d716ba2 crops the same way.
"""

import math
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from lightning import Trainer
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from spatialbench.data.batches import Key, ResumablePlans
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.image_sources import FolderImages, ImageSource, RoomsImages
from spatialbench.data.images import fit
from spatialbench.data.setting_checks import check_fills_batch, check_least, datamodule_of
from spatialbench.utils.errors import SpatialbenchError

Span = tuple[float, float]
ATTEMPTS = 10
"""Draws of a random crop until one lies within its image; torchvision's number."""


class ImageBatch(TypedDict):
    """The input of a method that learns from images."""

    pixels: Tensor  # uint8 [B, 3, G, G], RGB
    key: Key  # of a method's random numbers: ``region_batches.generator``


class ImageDataset(Dataset[ImageBatch]):
    """An image source indexed by plans (rows, key): one item is one whole batch.

    ``crop`` and ``aspect`` are those of :func:`random_crop`; without ``crop`` an item is the centre
    square, the same in every epoch.
    """

    def __init__(
        self,
        images: ImageSource,
        size: int,
        crop: Span | None = None,
        aspect: Span = (3 / 4, 4 / 3),
    ) -> None:
        self.images, self.size, self.crop, self.aspect = images, size, crop, aspect

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, plan: tuple[np.ndarray, Key]) -> ImageBatch:
        rows, key = plan
        rng = np.random.default_rng(key)
        pixels = np.stack([self._scaled(self.images.image(int(row)), rng) for row in rows])
        channels_first = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        return ImageBatch(pixels=torch.from_numpy(channels_first), key=key)

    def whole(self, row: int) -> Tensor:
        """Return the image ``row`` without a random crop, uint8 [3, G, G]."""
        pixels = fit(self.images.image(row), self.size, "crop")
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def _scaled(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        if self.crop is None:
            return fit(image, self.size, "crop")
        x, y, w, h = random_crop(rng, image.size, self.crop, self.aspect)
        part = image.crop((x, y, x + w, y + h))
        return np.asarray(part.resize((self.size, self.size), Image.Resampling.BICUBIC))


def random_crop(
    rng: np.random.Generator, size: tuple[int, int], share: Span, aspect: Span
) -> tuple[int, int, int, int]:
    """Draw a box (x, y, width, height) in pixels of an image of ``size`` (width, height).

    Its ``share`` of the area is drawn uniformly, ``aspect`` (width over height) log-uniformly. If
    ten boxes do not fit, it is the largest one in the centre with an allowed shape.

    Source: torchvision's RandomResizedCrop.
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
    """Resize uint8 [B, 3, G, G] to [B, 3, S, S] for the student beside the autoencoder.

    Bicubic with antialiasing is CLIP's own transform; without, DIVA's code is bilinear (D3).
    """
    if pixels.shape[-1] == size:
        return pixels
    mode = "bicubic" if antialias else "bilinear"
    small = F.interpolate(pixels.float(), size=(size, size), mode=mode, antialias=antialias)
    return small.round_().clamp_(0, 255).to(torch.uint8)


def images_of(trainer: Trainer) -> ImageDataset:
    """Return the training images of a trainer; raise a SpatialbenchError if it has none."""
    return datamodule_of(trainer, ImageDataModule, "images alone").image_set


class ImageDataModule(PairDataModule):
    """Training on images alone; validation and test on pairs, as every row of the table.

    Args:
        picture_path: a folder of images, searched recursively; default: the rooms' split ``train``.
        picture_size: G, side of the square images in pixels: the autoencoder's.
        picture_images: the number of images, the first ones; default: all of a folder, or
            ``train_images`` of the rooms.
        picture_batch: images a batch.
        picture_crop: share of the image in a random crop, drawn uniformly; DIVA's is 0.9 to 1.
            None: the centre square, whose encodings can be cached.
        picture_aspect: width over height of a random crop, drawn log-uniformly.
        kwargs: of ``PairDataModule``.

    Raises:
        SpatialbenchError: a number is out of range, or there is no such folder or no image in it.
    """

    learns_from = "images"

    def __init__(
        self,
        picture_path: str | None = None,
        picture_size: int = 96,
        picture_images: int | None = None,
        picture_batch: int = 16,
        picture_crop: Span | None = None,
        picture_aspect: Span = (3 / 4, 4 / 3),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_least(8, picture_size=picture_size)
        check_least(1, picture_batch=picture_batch, picture_images=picture_images)
        low, high = picture_crop or (1.0, 1.0)
        if not 0 < low <= high <= 1 or not 0 < picture_aspect[0] <= picture_aspect[1]:
            raise SpatialbenchError(
                f"data.picture_crop {picture_crop} must rise in (0, 1], "
                f"data.picture_aspect {picture_aspect} above 0"
            )
        if picture_path is not None and not Path(picture_path).is_dir():
            raise SpatialbenchError(f"data.picture_path: there is no folder {picture_path}")
        self.picture_path, self.picture_size = picture_path, picture_size
        self.picture_images, self.picture_batch = picture_images, picture_batch
        self.picture_crop, self.picture_aspect = picture_crop, picture_aspect
        self.image_set: ImageDataset

    def setup_training(self) -> None:
        """Open the image source."""
        if hasattr(self, "image_set"):  # opened by prepare_data
            return
        images: ImageSource
        if self.picture_path is None:
            images = RoomsImages(self.picture_images or self.train_images, self.picture_size)
        else:
            images = FolderImages(self.picture_path, self.picture_images, self.strict)
        check_fills_batch(images.name, len(images), "images", picture_batch=self.picture_batch)
        crop, aspect = self.picture_crop, self.picture_aspect
        self.image_set = ImageDataset(images, self.picture_size, crop, aspect)

    def training_plans(self, world: int, rank: int) -> ResumablePlans:
        """Return batches of shuffled images."""
        return ResumablePlans(self.image_set, self.picture_batch, self.seed, world, rank)
