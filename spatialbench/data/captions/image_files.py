"""Pictures of a downloaded benchmark: read, decoded and made square as the model's own preprocessing does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torchvision.transforms.functional as TF
from PIL import Image

from spatialbench.data.images import BadImage, Resize, decode, fit
from spatialbench.utils.errors import SpatialbenchError


def content(path: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        SpatialbenchError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpatialbenchError(
            f"cannot read the picture {path}: {error.strerror or error}"
        ) from error


def decoded(name: str | Path, data: bytes, source: str) -> Image.Image:
    """The picture in ``data``, RGB.

    Args:
        name: what the message calls it.
        source: what to give instead, the end of the message.

    Raises:
        SpatialbenchError: it is truncated or no picture.
    """
    try:
        return decode(data)
    except BadImage as error:
        raise SpatialbenchError(f"{name}: {error}; give {source}") from error


def square(picture: Image.Image, size: int, resize: Resize) -> np.ndarray:
    """As torchvision and open_clip do it, to the pixel: uint8 [S, S, 3]."""
    if resize != "crop":
        return fit(picture, size, resize)
    shorter = TF.resize(picture, size, TF.InterpolationMode.BICUBIC)
    return np.asarray(TF.center_crop(shorter, [size, size]))
