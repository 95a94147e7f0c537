"""Latents of images under a frozen autoencoder, cached on disk.

Letters: B images of G pixels a side, c h w of a latent.
"""

from functools import cached_property
from typing import Protocol

from torch import Tensor

from spatialbench.models.encoded_images import EncodedImages, in_equal_chunks
from spatialbench.models.latent_diffusion import Diffusion
from spatialbench.utils.cache import cache_root

_SHARD = 2048  # latents in a file of the cache


class Images(Protocol):
    """A set in which an image is the same every time."""

    def __len__(self) -> int: ...

    def whole(self, row: int) -> Tensor:
        """uint8 [3, G, G]."""
        ...


class Latents:
    """Images -> latents, cached under ``cache_root()/latents`` unless no image recurs."""

    def __init__(self, diffusion: Diffusion, cache: bool = True) -> None:
        self.diffusion, self.cache = diffusion, cache

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, G, G] -> float32 [B, c, h, w], on the device of the pixels; no gradient."""
        return self._cache(pixels).float() if self.cache else self.diffusion.encode(pixels)

    def prepare(self, images: Images) -> None:
        """Cache the latents of a set without random crops. Finished work survives a kill.

        Raises:
            SpatialbenchError: the cache cannot be written, or an image cannot be read.
        """
        if self.cache:
            whole = map(images.whole, range(len(images)))
            self._cache.prepare(whole, len(images), "latents", _SHARD)

    def refresh(self) -> None:
        """Pick up what other processes added to the cache."""
        if self.cache:
            self._cache.cache.refresh()

    @cached_property
    def _cache(self) -> EncodedImages:
        folder = cache_root() / "latents" / f"v1-{self.diffusion.latents_fingerprint}"
        return EncodedImages(folder, self.diffusion.latent_shape, self._encoded)

    def _encoded(self, pixels: Tensor) -> Tensor:
        return in_equal_chunks(self.diffusion.encode, pixels.to(self.diffusion.context.device))
