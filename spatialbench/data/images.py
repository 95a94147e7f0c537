"""Images from outside: encoded bytes in every usual form, safe decoding, resizing to a square."""

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
"""Way to a square image: ``squash`` stretches it; ``crop`` keeps the centre square of the
shorter side, as CLIP does (a 4:3 image loses a quarter of its width); ``letterbox`` pads it."""

PADDING = (123, 117, 104)
"""RGB of the letterbox's bars: CLIP's mean colour, near zero after normalisation."""


class BadImage(ValueError):
    """An image that cannot be read; the message says why in a few words."""


def decode(data: bytes, upright: bool = False) -> Image.Image:
    """Decode an encoded image completely, to 8-bit RGB.

    ``upright`` applies the EXIF orientation: only for a user's own photograph, as the boxes of a
    dataset are in pixels of the image as stored.

    Raises:
        BadImage: truncated, no image, beyond Pillow's limit of 89 million pixels, or 16 bits deep.
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
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = " ".join(str(error).split())
        raise BadImage(f"the image cannot be decoded ({reason})") from error
    if opened.mode.startswith(("I", "F")):
        raise BadImage(f"the image has mode {opened.mode}, more than 8 bits a channel; save with 8")
    image: Image.Image = ImageOps.exif_transpose(opened) if upright else opened
    return image.convert("RGB")


def file_bytes(path: Path, what: str = "") -> bytes:
    """Read a file, or raise a SpatialbenchError that names ``what`` before it."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise SpatialbenchError(f"cannot read {what}{path}: {reason}") from error


def read_image(path: Path) -> Image.Image:
    """Read a user's image as RGB, in its EXIF orientation.

    Raises:
        SpatialbenchError: missing, truncated or no image.
    """
    try:
        return decode(file_bytes(path, "the image "), upright=True)
    except BadImage as error:
        raise SpatialbenchError(f"{path}: {error}; give a JPEG or PNG file") from error


def fit(image: Image.Image, size: int, resize: Resize) -> np.ndarray:
    """Resize an image (bicubic, antialiased) to uint8 [S, S, 3], S the ``size``.

    An image that has the size already is returned pixel for pixel.
    """
    box = place(Box(0, 0, *image.size), image.size, size, resize)
    w, h = max(round(box.w), 1), max(round(box.h), 1)
    scaled = image if image.size == (w, h) else image.resize((w, h), Image.Resampling.BICUBIC)
    if (w, h) != (size, size):
        canvas = Image.new("RGB", (size, size), PADDING)
        canvas.paste(scaled, (round(box.x), round(box.y)))
        scaled = canvas
    return np.asarray(scaled)


def place(box: Box, image_size: tuple[int, int], size: float, resize: Resize) -> Box:
    """Map a box in pixels of an image (width, height) to the resized one; a crop may cut it off."""
    width, height = image_size
    if resize == "squash":
        scale_x, scale_y = size / width, size / height
    else:
        scale_x = scale_y = size / (min(image_size) if resize == "crop" else max(image_size))
    left = (size - width * scale_x) / 2
    top = (size - height * scale_y) / 2
    return Box(left + box.x * scale_x, top + box.y * scale_y, box.w * scale_x, box.h * scale_y)


def clip(box: Box, width: float, height: float) -> Box:
    """Cut a box to [0, width] x [0, height]; its width or height is 0 when nothing is inside."""
    x0, y0 = min(max(box.x, 0.0), width), min(max(box.y, 0.0), height)
    x1, y1 = min(max(box.x + box.w, 0.0), width), min(max(box.y + box.h, 0.0), height)
    return Box(x0, y0, x1 - x0, y1 - y0)


def visible_share(box: Box, image_size: tuple[int, int], resize: Resize) -> float:
    """Return the share in [0, 1] of a box's area that the resized image still shows."""
    placed = place(box, image_size, 1.0, resize)
    visible = clip(placed, 1.0, 1.0)
    return visible.w * visible.h / (placed.w * placed.h)


def encoded(value: Any, folder: Path) -> bytes:
    """Return the encoded bytes of an image in any of the forms of EmbSpatial's files.

    ``value`` is base64 text with or without a ``data:`` prefix, a path from ``folder`` on, bytes,
    or the Hub's ``{bytes, path}``.

    Raises:
        BadImage: another form, bad base64 or no such file.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if value == "":
        raise BadImage("the image is empty")
    if not isinstance(value, str):
        kind = type(value).__name__
        raise BadImage(f"the image is {kind}, not base64 text, bytes, {{bytes, path}} or a path")
    if value.startswith("data:"):
        value = value.partition(",")[2]
    elif "." in value[:4096]:  # a character that file names have and base64 does not
        path = folder / value
        try:
            return path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a null character
            reason = getattr(error, "strerror", None) or error
            raise BadImage(f"cannot read {str(path)[-100:]!r}: {reason}") from error
    try:
        return base64.b64decode("".join(value.split()) if "\n" in value else value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadImage(f"bad base64 ({error})") from error
