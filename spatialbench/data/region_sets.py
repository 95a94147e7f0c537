"""What a source of regions yields: pictures with boxes, masks and classes, whatever file or renderer they come from.

A region is what a dense map is trained on and measured by: an object (a *thing*) with box and mask, or a part of the
surroundings (*stuff*) with a mask.

Letters: M pictures, n regions of one, S pixels a side, K classes, C captions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.regions import check_boxes
from spatialbench.utils.errors import SpatialbenchError


class Regions(NamedTuple):
    """One picture and its regions.

    Attributes:
        pixels: uint8 [3, S, S], RGB.
        extent: width and height of the picture as shares of S, in (0, 1]: what lies right of it and below is padding.
        boxes: float32 [n, 4], x0 y0 x1 y1 in [0, 1] of the square, inside of ``extent``.
        label: int64 [n], in [0, K).
        masks: bool [n, S, S].
    """

    pixels: Tensor
    extent: tuple[float, float]
    boxes: Tensor
    label: Tensor
    masks: Tensor


@dataclass(frozen=True)
class CaptionSet:
    """Pictures and captions for retrieval.

    Attributes:
        images: uint8 [M, s, s, 3], at the student's own size; picture m is picture m of the region set.
        captions: C sentences.
        image: int64 [C], the picture that each was written for.
        truth: bool [M, C], whether a caption is true of a picture.
    """

    images: np.ndarray
    captions: Sequence[str]
    image: np.ndarray
    truth: np.ndarray


class RegionSet(ABC):
    """Pictures of one size with their regions, by row.

    Attributes:
        name: for people, for instance ``rooms/test``.
        size: S.
        classes: the K names, as they go into a prompt ("sofa").
        things: bool of each class: a thing has boxes and masks, stuff has masks only.
        templates: prompts of a class, each with one ``{}``.
        fingerprint: hash of everything that defines the set.
        skipped: reason -> number of regions (or pictures) that were left out.
    """

    name: str
    size: int
    classes: tuple[str, ...]
    things: tuple[bool, ...]
    templates: tuple[str, ...]
    fingerprint: str
    skipped: Counter[str]

    @abstractmethod
    def __len__(self) -> int:
        """M."""

    @abstractmethod
    def __getitem__(self, row: int) -> Regions: ...

    @abstractmethod
    def scene(self, row: int) -> str:
        """The scene of a picture; pictures of one scene are not independent."""

    def captions(self, size: int) -> CaptionSet | None:
        """Captions of these pictures, the pictures at ``size`` pixels; None where there are none."""
        return None


@dataclass
class BoxFilter:
    """Which regions are taken: counted, never dropped silently.

    Args:
        smallest: least side of a box in pixels of the square picture.
        skipped: reason -> number of regions left out so far.
    """

    smallest: float = 1.0
    skipped: Counter[str] = field(default_factory=Counter)

    def keep(
        self, box: Sequence[float], extent: tuple[float, float], size: int
    ) -> list[float] | None:
        """A box cut at the picture, or None (and a count) for one that is no box.

        Args:
            box: x0 y0 x1 y1 in [0, 1] of the square.
            extent: of the picture.
        """
        values = np.asarray(box, dtype=np.float64)
        if values.shape != (4,) or not np.isfinite(values).all():
            self.skipped["box is not four finite numbers"] += 1
            return None
        cut = np.clip(values, 0, [extent[0], extent[1], extent[0], extent[1]])
        if (values[2:] <= values[:2]).any():
            self.skipped["box has no area"] += 1
        elif (cut[2:] <= cut[:2]).any():
            self.skipped["box lies outside of the picture"] += 1
        elif ((cut[2:] - cut[:2]) * size < self.smallest).any():
            self.skipped[f"box is smaller than {self.smallest:g} pixels"] += 1
        else:
            return cut.tolist()
        return None


def check_regions(item: Regions, size: int, classes: int, what: str) -> None:
    """Whether a picture and its regions are what ``Regions`` says.

    Args:
        size: S.
        classes: K.
        what: of which picture, for the message.

    Raises:
        SpatialbenchError: something has another shape or type, a box cannot be used, a class is out of range, or a mask
            is empty.
    """
    count = len(item.boxes)
    wanted = {
        "pixels": (item.pixels, torch.uint8, (3, size, size)),
        "boxes": (item.boxes, torch.float32, (count, 4)),
        "label": (item.label, torch.int64, (count,)),
        "masks": (item.masks, torch.bool, (count, size, size)),
    }
    for name, (found, dtype, shape) in wanted.items():
        if found.dtype != dtype or tuple(found.shape) != shape:
            raise SpatialbenchError(
                f"{what}: {name} is {_type(found.dtype)} {list(found.shape)}, not {_type(dtype)} {list(shape)} as the "
                "picture and its boxes ask for"
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
