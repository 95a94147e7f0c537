"""Images without captions or boxes, for the tests."""

import numpy as np
from PIL import Image

from spatialbench.data.image_sources import ImageSource


class Noise(ImageSource):
    """Noise; image k is always the same."""

    name = "noise"

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size

    def __len__(self) -> int:
        return self.count

    def image(self, row: int) -> Image.Image:
        return Image.fromarray(
            np.random.default_rng(row).integers(0, 256, (self.size, self.size, 3), dtype=np.uint8)
        )
