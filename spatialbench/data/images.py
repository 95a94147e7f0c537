"""Pictures from outside: their bytes in every form that is about, decoded with care, brought to one size."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from spatialbench.data.records import Box
from spatialbench.utils.errors import SpatialbenchError

Resize = Literal["squash", "crop", "letterbox"]
"""How a picture becomes square: ``squash`` stretches it, ``crop`` keeps the centre square of the shorter side (CLIP's
own way: a quarter of the width of a 4:3 picture is lost), ``letterbox`` keeps all of it and pads."""

PADDING = (123, 117, 104)
"""RGB of the letterbox's bars: CLIP's mean colour, so that they are near zero after normalisation."""


class BadImage(ValueError):
    """A picture that cannot be read; the message says why in a few words."""


def decode(data: bytes, upright: bool = False) -> Image.Image:
    """Decodes an encoded picture completely to 8-bit RGB.

    Args:
        data: the bytes of a file in any format that Pillow reads.
        upright: turn the picture as its EXIF orientation says. Boxes of a dataset are in the pixels as stored, so
            only a user's own photograph is turned.

    Raises:
        BadImage: truncated, no image, larger than Pillow's limit of 89 million pixels, or 16 bits deep.
    """
    if not data:
        raise BadImage("the image is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(data))
        opened.load()
    except Image.UnidentifiedImageError as error:
        raise BadImage("not an image that Pillow can read") from error
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = " ".join(str(error).split())
        raise BadImage(f"the image cannot be decoded ({reason})") from error
    if opened.mode.startswith(("I", "F")):
        raise BadImage(
            f"the image has mode {opened.mode}, more than 8 bits a channel; save it with 8 bits"
        )
    picture: Image.Image = ImageOps.exif_transpose(opened) if upright else opened
    return picture.convert("RGB")


def read_picture(path: Path) -> Image.Image:
    """A user's picture, turned upright, RGB.

    Raises:
        SpatialbenchError: missing, truncated or no picture.
    """
    try:
        return decode(path.read_bytes(), upright=True)
    except OSError as error:
        raise SpatialbenchError(
            f"cannot read the image {path}: {error.strerror or error}"
        ) from error
    except BadImage as error:
        raise SpatialbenchError(f"{path}: {error}; give a JPEG or PNG file") from error


def fit(picture: Image.Image, size: int, resize: Resize) -> np.ndarray:
    """Brings a picture to ``size`` x ``size`` pixels (bicubic, antialiased): uint8 [S, S, 3].

    A picture that has the size already comes back pixel for pixel.
    """
    x, y, w, h = _corners(place(Box(0, 0, *picture.size), picture.size, size, resize))
    scaled = picture if picture.size == (w, h) else picture.resize((w, h), Image.Resampling.BICUBIC)
    if (w, h) != (size, size):
        canvas = Image.new("RGB", (size, size), PADDING)
        canvas.paste(scaled, (x, y))
        scaled = canvas
    return np.asarray(scaled)


def place(box: Box, image_size: tuple[int, int], size: float, resize: Resize) -> Box:
    """Where a box of the original picture lies in the resized one, in its pixels; a crop may push it outside.

    Args:
        box: in pixels of the original picture.
        image_size: width and height of the original picture.
        size: side of the resized picture in pixels.
        resize: how the picture is made square.
    """
    width, height = image_size
    if resize == "squash":
        scale_x, scale_y = size / width, size / height
    else:
        scale_x = scale_y = size / (min(image_size) if resize == "crop" else max(image_size))
    left = (size - width * scale_x) / 2
    top = (size - height * scale_y) / 2
    return Box(left + box.x * scale_x, top + box.y * scale_y, box.w * scale_x, box.h * scale_y)


def _corners(box: Box) -> tuple[int, int, int, int]:
    return round(box.x), round(box.y), max(round(box.w), 1), max(round(box.h), 1)


def clip(box: Box, width: float, height: float) -> Box:
    """The part of a box inside [0, width] x [0, height]; width or height 0 when nothing is."""
    x0, y0 = min(max(box.x, 0.0), width), min(max(box.y, 0.0), height)
    x1, y1 = min(max(box.x + box.w, 0.0), width), min(max(box.y + box.h, 0.0), height)
    return Box(x0, y0, x1 - x0, y1 - y0)


def visible_share(box: Box, image_size: tuple[int, int], resize: Resize) -> float:
    """The share in [0, 1] of a box's area that the resized picture still shows."""
    placed = place(box, image_size, 1.0, resize)
    seen = clip(placed, 1.0, 1.0)
    return seen.w * seen.h / (placed.w * placed.h)


def encoded(value: Any, folder: Path) -> bytes:
    """The encoded bytes of a picture in any of the forms that EmbSpatial's files hold.

    Args:
        value: base64 text with or without a ``data:`` prefix, a path, bytes, the Hub's ``{bytes, path}`` or a Pillow
            image.
        folder: what a relative path starts from.

    Raises:
        BadImage: another form, bad base64 or no such file.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, Image.Image):
        stream = io.BytesIO()
        value.convert("RGB").save(stream, "PNG")
        return stream.getvalue()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if value == "":
        raise BadImage("the image is empty")
    if not isinstance(value, str):
        raise BadImage(
            f"the image is {type(value).__name__}, not base64 text, bytes, {{bytes, path}} or a path"
        )
    if value.startswith("data:"):
        value = value.partition(",")[2]
    elif "." in value[:4096]:  # a letter that base64 does not have and a file name does
        return _file_bytes(folder / value)
    try:
        return base64.b64decode("".join(value.split()) if "\n" in value else value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadImage(f"bad base64 ({error})") from error


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise BadImage(
            f"cannot read {str(path)[-100:]!r}: {getattr(error, 'strerror', None) or error}"
        ) from error
