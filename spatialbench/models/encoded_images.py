"""Results of a frozen encoder, cached on disk by the content of each image.

The cache holds bfloat16, and computed results are rounded to it too: an image has one result.

Letters: B images of S pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.utils.progress import progress
from spatialbench.utils.token_cache import TokenCache, content_key

CHUNK = 32
"""Images in every forward pass, since rounding may depend on their number."""


def in_equal_chunks(
    encode: Callable[[Tensor], Tensor], images: Tensor, size: int = CHUNK
) -> Tensor:
    """Encode images [B, 3, S, S] in bfloat16, exactly ``size`` of them at a time."""
    chunks = []
    for chunk in images.split(size):
        padded = F.pad(chunk, (0, 0, 0, 0, 0, 0, 0, size - len(chunk)))
        chunks.append(encode(padded)[: len(chunk)].bfloat16())
    return torch.cat(chunks)


def fill(
    cache: TokenCache,
    items: Iterable[tuple[bytes, Tensor]],
    encode: Callable[[Tensor], Tensor],
    shard: int,
    chunk: int = CHUNK,
) -> None:
    """Encode the items that a cache lacks. Shards that were written survive a kill.

    Args:
        cache: of the results.
        items: keys and images uint8 [3, S, S]; equal keys are encoded once.
        encode: [B, 3, S, S] -> bfloat16 [B, ...].
        shard: images per file of the cache, about.
        chunk: images per call of ``encode``.

    Raises:
        SpatialbenchError: the cache cannot be written.
    """
    done: dict[bytes, Tensor] = {}
    missing = _missing(cache, items)
    while part := dict(islice(missing, chunk)):
        done.update(zip(part, encode(torch.stack(list(part.values()))).cpu(), strict=True))
        if len(done) >= shard:
            cache.put(list(done), torch.stack(list(done.values())))
            done = {}
    if done:
        cache.put(list(done), torch.stack(list(done.values())))


def _missing(
    cache: TokenCache, items: Iterable[tuple[bytes, Tensor]]
) -> Iterator[tuple[bytes, Tensor]]:
    seen: set[bytes] = set()
    for key, image in items:
        if key not in cache and key not in seen:
            seen.add(key)
            yield key, image


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
        bar = progress(description, count, "images") if show else nullcontext(lambda _: None)
        with bar as advance:

            def items() -> Iterator[tuple[bytes, Tensor]]:
                for image in images:
                    yield content_key(image.numpy()), image
                    advance(1)

            fill(self.cache, items(), lambda part: self.encode(part.to(device)), shard)
