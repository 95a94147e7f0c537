"""Images of a downloaded benchmark: read, decoded, and made square as open_clip does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torchvision.transforms.functional as TF
from PIL import Image

from spatialbench.data.images import BadImage, Resize, decode, file_bytes, fit
from spatialbench.utils.errors import SpatialbenchError

Corners = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the original image, y down."""


@dataclass(frozen=True)
class ImageSource:
    """One distinct image, or one distinct crop of an image."""

    name: str  # for messages
    source: Path | bytes  # its file, or its encoded bytes
    crop: Corners | None = None  # the part that is shown, black outside of the image; None: all

    def content(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            SpatialbenchError: the file cannot be read.
        """
        source = self.source
        return source if isinstance(source, bytes) else file_bytes(source, "the image ")

    def pixels(self, data: bytes, size: int, resize: Resize, advice: str) -> np.ndarray:
        """Decode its content ``data`` to uint8 [S, S, 3].

        Raises:
            SpatialbenchError: it is no image; give ``advice``.
        """
        try:
            image = decode(data)
        except BadImage as error:
            raise SpatialbenchError(f"{self.name}: {error}; give {advice}") from error
        return square(image if self.crop is None else image.crop(self.crop), size, resize)


def square(image: Image.Image, size: int, resize: Resize) -> np.ndarray:
    """Resize to uint8 [S, S, 3], pixel for pixel as torchvision and open_clip do."""
    if resize != "crop":
        return fit(image, size, resize)
    shorter = TF.resize(image, size, TF.InterpolationMode.BICUBIC)
    return np.asarray(TF.center_crop(shorter, [size, size]))
