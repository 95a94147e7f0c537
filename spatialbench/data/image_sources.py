"""Sources of images without captions or boxes: a folder, or the rooms.

Letters: M images of a source.
"""

import math
import os
import sys
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from PIL import Image

from spatialbench.data.images import BadImage, decode
from spatialbench.utils.errors import SpatialbenchError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_REPORTED_SINGLY = 3


class ImageSource(ABC):
    """Images by row, before they are cropped and scaled."""

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """Return M."""

    @abstractmethod
    def image(self, row: int) -> Image.Image:
        """Return one image."""


class RoomsImages(ImageSource):
    """The first M = ``images`` rooms of the split ``train`` at ``size`` pixels, rendered if new."""

    name = "rooms/train"

    def __init__(self, images: int, size: int) -> None:
        from spatialbench.data.rooms import load  # the renderer is not needed for files

        self.images = load("train", images, size).images

    def __len__(self) -> int:
        return len(self.images)

    def image(self, row: int) -> Image.Image:
        """Return one rendered image."""
        return Image.fromarray(np.asarray(self.images[row]))


class FolderImages(ImageSource):
    """Every image below a folder, in the order of the paths.

    Links to folders are not followed; ``images`` takes only the first ones. Files are opened when
    they are used, so that a folder may have millions. An unreadable one is an error if ``strict``;
    otherwise it is reported, and the next readable one replaces it, the same in every epoch.

    Raises:
        SpatialbenchError: there is no image in the folder; later, none can be read.
    """

    def __init__(self, folder: str | Path, images: int | None = None, strict: bool = False) -> None:
        self.folder, self.strict, self.name = Path(folder), strict, str(folder)
        paths = (
            os.path.join(place, name)
            for place, _, names in os.walk(self.folder)
            for name in names
            if name.lower().endswith(SUFFIXES)
        )
        self.paths = sorted(paths)[:images]
        if not self.paths:
            raise SpatialbenchError(
                f"data.picture_path: there is no image ({', '.join(SUFFIXES)}) in {folder}; "
                "unpack archives first"
            )
        self.unreadable: set[str] = set()

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, row: int) -> Image.Image:
        """Return one image, or the next one that is readable."""
        for step in range(len(self)):
            path = self.paths[(row + step) % len(self)]
            try:
                return decode(Path(path).read_bytes(), upright=True)
            except (BadImage, OSError) as error:
                self._report(path, str(getattr(error, "strerror", None) or error))
        raise SpatialbenchError(
            f"data.picture_path: none of the {len(self)} images in {self.folder} can be read"
        )

    def _report(self, path: str, reason: str) -> None:
        if self.strict:
            raise SpatialbenchError(
                f"{path}: {reason}; repair or remove it, or set data.strict to false"
            )
        if path in self.unreadable:
            return
        self.unreadable.add(path)
        count = len(self.unreadable)
        line = f"{count} images of {self.folder} could not be read so far"
        if count <= _REPORTED_SINGLY:
            line = f"{path}: {reason}; the next image replaces it"
        if count <= _REPORTED_SINGLY or math.log10(count).is_integer():
            print(line, file=sys.stderr, flush=True)
