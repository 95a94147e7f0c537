"""Pictures of relevance: the map of ``evaluation.relevance`` laid over a picture."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from PIL import Image

STRENGTH = 0.72
"""How much of the colour covers the picture where relevance is greatest."""


def overlay(picture: Image.Image, found: np.ndarray) -> Image.Image:
    """A map over the grey picture: the more relevant, the less of the picture and the warmer the colour.

    Args:
        picture: RGB.
        found: [h, w], 0 or more; shown relative to its greatest value.
    """
    largest = float(found.max())
    small = Image.fromarray((found / largest if largest > 0 else found * 0).astype(np.float32))
    share = np.clip(np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC)), 0, 1)[..., None]  # [H, W, 1]
    colour = 255 * colormaps["inferno"](share[..., 0])[..., :3]
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None] * np.ones(3)
    weight = STRENGTH * (0.25 + 0.75 * share)
    return Image.fromarray(np.rint((1 - weight) * grey + weight * colour).astype(np.uint8))
