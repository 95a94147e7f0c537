"""Where pictures without captions or boxes come from: a folder, or the rooms.

Letters: M pictures of a set.
"""

from __future__ import annotations

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
_TOLD_ONE_BY_ONE = 3


class PictureSet(ABC):
    """Pictures by row, before they are cropped and scaled."""

    name: str

    @abstractmethod
    def __len__(self) -> int:
        """M."""

    @abstractmethod
    def picture(self, row: int) -> Image.Image: ...


class RoomsPictures(PictureSet):
    """The first rooms of the split ``train``, rendered where they are not in the cache yet.

    Args:
        images: M.
        size: pixels a side.

    Raises:
        SpatialbenchError: the cache cannot be written.
    """

    name = "rooms/train"

    def __init__(self, images: int, size: int) -> None:
        from spatialbench.data.rooms import load  # the renderer is not needed for files

        self.images = load("train", images, size).images

    def __len__(self) -> int:
        return len(self.images)

    def picture(self, row: int) -> Image.Image:
        return Image.fromarray(np.asarray(self.images[row]))


class FolderPictures(PictureSet):
    """Every picture below a folder, in the order of the paths.

    A file is first opened when its turn comes: millions of them are not read beforehand. One that cannot be read is
    told of, and the next readable one stands in for it, the same one in every epoch.

    Args:
        folder: searched with all folders in it; links to folders are not followed.
        images: the first so many; None: all.
        strict: a file that cannot be read is an error.

    Raises:
        SpatialbenchError: no such folder, or no picture in it.
    """

    def __init__(self, folder: str | Path, images: int | None = None, strict: bool = False) -> None:
        self.folder, self.strict, self.name = Path(folder), strict, str(folder)
        if not self.folder.is_dir():
            raise SpatialbenchError(f"data.picture_path: there is no folder {folder}")
        found = (
            os.path.join(place, name)
            for place, _, names in os.walk(self.folder)
            for name in names
            if name.lower().endswith(SUFFIXES)
        )
        self.paths = sorted(found)[:images]
        if not self.paths:
            raise SpatialbenchError(
                f"data.picture_path: there is no picture ({', '.join(SUFFIXES)}) in {folder}; unpack archives first"
            )
        self.unreadable: set[str] = set()

    def __len__(self) -> int:
        return len(self.paths)

    def picture(self, row: int) -> Image.Image:
        """Raises:
        SpatialbenchError: it cannot be read and ``strict`` is set, or no picture of the folder can be read.
        """
        for step in range(len(self)):
            path = self.paths[(row + step) % len(self)]
            try:
                return decode(Path(path).read_bytes(), upright=True)
            except (BadImage, OSError) as error:
                self._tell(path, str(getattr(error, "strerror", None) or error))
        raise SpatialbenchError(
            f"data.picture_path: none of the {len(self)} pictures in {self.folder} can be read"
        )

    def _tell(self, path: str, reason: str) -> None:
        if self.strict:
            raise SpatialbenchError(
                f"{path}: {reason}; repair or remove it, or set data.strict to false"
            )
        if path in self.unreadable:
            return
        self.unreadable.add(path)
        count = len(self.unreadable)
        if count <= _TOLD_ONE_BY_ONE:
            print(
                f"{path}: {reason}; the next picture stands in for it", file=sys.stderr, flush=True
            )
        elif math.log10(count).is_integer():
            print(
                f"{count} pictures of {self.folder} could not be read so far",
                file=sys.stderr,
                flush=True,
            )
