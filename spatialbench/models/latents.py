"""Latents of pictures under a frozen autoencoder, kept on disk and found by the content of the picture.

What is kept is rounded to bfloat16, and so is what is not kept yet: a picture has one latent whichever way it comes.

Letters: B pictures of G pixels a side, c h w of a latent.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.models.latent_diffusion import Diffusion
from spatialbench.utils.cache import cache_root
from spatialbench.utils.progress import progress
from spatialbench.utils.token_cache import TokenCache, content_key

VERSION = 1
"""Of how a latent is made of pixels; another version misses the cache."""
_CHUNK = 32
"""Pictures of one forward pass, always: a convolution may round differently for another number."""
_SHARD = 2048


class Pictures(Protocol):
    """A set whose every picture is always the same."""

    def __len__(self) -> int: ...

    def whole(self, row: int) -> Tensor:
        """uint8 [3, G, G]."""
        ...


class Latents:
    """Pictures -> latents.

    Args:
        diffusion: whose autoencoder.
        cache: keep them under ``cache_root()/latents``; for pictures that are never the same again it is of no use.
    """

    def __init__(self, diffusion: Diffusion, cache: bool = True) -> None:
        self.diffusion, self.cache = diffusion, cache

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, G, G] -> float32 [B, c, h, w], on the device of the pixels; no gradient."""
        if not self.cache:
            return self.diffusion.latents(pixels)
        found, missing = self._cache.get([content_key(picture) for picture in pixels.cpu().numpy()])
        found = found.float().to(pixels.device)
        if missing:
            found[missing] = self._compute(pixels[missing]).float()
        return found

    def prepare(self, pictures: Pictures) -> None:
        """Encodes what a set without random crops shows, with a progress bar. Nothing without ``cache``.

        What is there is not made again, and what is done stays after a kill.

        Raises:
            SpatialbenchError: the cache cannot be written, or a picture cannot be read.
        """
        if not self.cache:
            return
        self.refresh()
        todo: dict[bytes, Tensor] = {}
        done: dict[bytes, Tensor] = {}
        with progress("latents", len(pictures), "pictures") as advance:
            for row in range(len(pictures)):
                pixels = pictures.whole(row)
                key = content_key(pixels.numpy())
                if key not in self._cache and key not in done:
                    todo[key] = pixels
                last = row + 1 == len(pictures)
                if len(todo) == _CHUNK or last:
                    done |= self._encoded(todo)
                    todo = {}
                if len(done) >= _SHARD or (done and last):
                    self._cache.put(list(done), torch.stack(list(done.values())))
                    done = {}
                advance(1)

    def _encoded(self, pictures: dict[bytes, Tensor]) -> dict[bytes, Tensor]:
        if not pictures:
            return {}
        pixels = torch.stack(list(pictures.values())).to(self.diffusion.context.device)
        return dict(zip(pictures, self._compute(pixels).cpu(), strict=True))

    def refresh(self) -> None:
        """Takes up what other processes have put into the cache."""
        if self.cache:
            self._cache.refresh()

    @cached_property
    def _cache(self) -> TokenCache:
        name = f"v{VERSION}-{self.diffusion.latents_fingerprint}"
        return TokenCache(cache_root() / "latents" / name, self.diffusion.latent_shape)

    def _compute(self, pixels: Tensor) -> Tensor:
        """bfloat16 [B, c, h, w], in chunks of one size."""
        chunks = []
        for chunk in pixels.split(_CHUNK):
            padded = F.pad(chunk, (0, 0, 0, 0, 0, 0, 0, _CHUNK - len(chunk)))
            chunks.append(self.diffusion.latents(padded)[: len(chunk)].bfloat16())
        return torch.cat(chunks)
