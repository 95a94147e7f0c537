"""Results of a frozen encoder, cached on disk by the content of each image.

The cache holds bfloat16, and computed results are rounded to it too: an image has one result.

Letters: B images of S pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.utils.progress import progress
from spatialbench.utils.token_cache import TokenCache, content_key

CHUNK = 32
"""Images in every forward pass, since rounding may depend on their number."""


def in_chunks(encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Encode images [B, 3, S, S] in bfloat16, exactly ``CHUNK`` of them at a time."""
    chunks = []
    for chunk in images.split(CHUNK):
        padded = F.pad(chunk, (0, 0, 0, 0, 0, 0, 0, CHUNK - len(chunk)))
        chunks.append(encode(padded)[: len(chunk)].bfloat16())
    return torch.cat(chunks)


class EncodedImages:
    """A disk cache in front of an encoder.

    Args:
        folder: of the cache, named by a hash of everything the results depend on but the image.
        shape: of one result.
        encode: uint8 [B, 3, S, S] -> bfloat16 [B, *shape].
    """

    def __init__(
        self, folder: Path, shape: tuple[int, ...], encode: Callable[[Tensor], Tensor]
    ) -> None:
        self.cache, self.encode = TokenCache(folder, shape), encode

    def __call__(self, images: Tensor) -> Tensor:
        """Results bfloat16 [B, *shape] of images uint8 [B, 3, S, S], cached ones where possible."""
        results, missing = self.cache.get([content_key(image) for image in images.cpu().numpy()])
        results = results.to(images.device)
        if missing:
            results[missing] = self.encode(images[missing])
        return results

    def prepare(
        self,
        images: Iterable[Tensor],
        count: int,
        description: str,
        device: torch.device,
        shard: int,
        show: bool = True,
    ) -> None:
        """Cache the results of images, unless it has them. Shards that were written survive a kill.

        Args:
            images: uint8 [3, S, S].
            count: of the images.
            description: of the progress bar.
            device: to encode on.
            shard: images per file of the cache.
            show: the progress bar.

        Raises:
            SpatialbenchError: the cache cannot be written.
        """
        self.cache.refresh()
        todo: dict[bytes, Tensor] = {}
        done: dict[bytes, Tensor] = {}
        bar = progress(description, count, "images") if show else nullcontext(lambda _: None)
        with bar as advance:
            for number, image in enumerate(images, start=1):
                key = content_key(image.numpy())
                if key not in self.cache and key not in done:
                    todo[key] = image
                if todo and (len(todo) == CHUNK or number == count):
                    results = self.encode(torch.stack(list(todo.values())).to(device)).cpu()
                    done |= dict(zip(todo, results, strict=True))
                    todo = {}
                if len(done) >= shard or (done and number == count):
                    self.cache.put(list(done), torch.stack(list(done.values())))
                    done = {}
                advance(1)
