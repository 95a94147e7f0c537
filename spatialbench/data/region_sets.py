"""Region sets: images with boxes, masks and classes, whatever file or renderer they come from.

A dense map is trained on and measured by regions: an object (a *thing*) with box and mask, or a
part of the surroundings (*stuff*) with a mask.

Letters: M images, n regions of one, S pixels a side, K classes, C captions.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.boxes import check_boxes
from spatialbench.utils.errors import SpatialbenchError


class Regions(NamedTuple):
    """One image and its regions; to the right of and below ``extent`` there is padding."""

    pixels: Tensor  # uint8 [3, S, S], RGB
    extent: tuple[float, float]  # width and height of the image as shares of S, in (0, 1]
    boxes: Tensor  # float32 [n, 4], x0 y0 x1 y1 in [0, 1] of the square, inside of ``extent``
    label: Tensor  # int64 [n], in [0, K)
    masks: Tensor  # bool [n, S, S]


@dataclass(frozen=True)
class CaptionSet:
    """Images and captions for retrieval."""

    images: np.ndarray  # uint8 [M, s, s, 3] at the student's size, in the region set's order
    captions: Sequence[str]  # C
    image: np.ndarray  # int64 [C], the image that each was written for
    truth: np.ndarray  # bool [M, C], whether a caption is true of an image


class RegionSet(ABC):
    """Images of one size with their regions, by row."""

    name: str  # for people, for instance ``rooms/test``
    size: int  # S
    classes: tuple[str, ...]  # K names, as they go into a prompt ("sofa")
    things: tuple[bool, ...]  # K; a thing has boxes and masks, stuff has masks only
    templates: tuple[str, ...]  # prompts of a class, each with one ``{}``
    fingerprint: str  # hash of everything that defines the set
    skipped: Counter[str]  # reason -> number of regions (or images) that were left out

    @abstractmethod
    def __len__(self) -> int:
        """Return M."""

    @abstractmethod
    def __getitem__(self, row: int) -> Regions: ...

    @abstractmethod
    def scene(self, row: int) -> str:
        """Return the scene of an image; images of one scene are not independent."""

    def captions(self, size: int) -> CaptionSet | None:
        """Return captions of the images at ``size`` pixels; None: there are none."""
        return None

    def depth(self, row: int) -> Tensor | None:
        """Return the depth of an image, float32 [S, S], in metres; None: it is not known."""
        return None


def check_regions(item: Regions, size: int, classes: int, what: str) -> None:
    """Check that an image (named by ``what``) and its regions are as ``Regions`` promises.

    Raises:
        SpatialbenchError: a wrong shape or type, an unusable box, a class out of range, or an empty
            mask.
    """
    count = len(item.boxes)
    wanted = {
        "pixels": (torch.uint8, (3, size, size)),
        "boxes": (torch.float32, (count, 4)),
        "label": (torch.int64, (count,)),
        "masks": (torch.bool, (count, size, size)),
    }
    for name, (dtype, shape) in wanted.items():
        tensor = getattr(item, name)
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise SpatialbenchError(
                f"{what}: {name} is {_type(tensor.dtype)} {list(tensor.shape)}, not {_type(dtype)} "
                f"{list(shape)} as the image and its boxes need"
            )
    if not count:
        return
    check_boxes(item.boxes, f"{what}: ")
    if not (item.label.min() >= 0 and item.label.max() < classes):
        raise SpatialbenchError(f"{what}: a class is outside of 0 to {classes - 1}")
    if not item.masks.flatten(1).any(1).all():
        raise SpatialbenchError(f"{what}: a mask is empty; leave the region out, and count it")


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
