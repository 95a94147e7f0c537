"""Results of a frozen encoder, cached on disk by the content of each image.

The cache holds bfloat16. Computed results are rounded to it too, so an image has one result.

Letters: B images of S pixels a side.
"""

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
Encode = Callable[[Tensor], Tensor]  # images [B, 3, S, S] -> results [B, ...]
Item = tuple[bytes, Tensor]  # key and image uint8 [3, S, S]


def in_equal_chunks(encode: Encode, images: Tensor, size: int | None = None) -> Tensor:
    """Encode images [B, 3, S, S] in bfloat16, exactly ``size`` (``CHUNK``) of them at a time."""
    size, chunks = size or CHUNK, []
    for chunk in images.split(size):
        padded = F.pad(chunk, (0, 0, 0, 0, 0, 0, 0, size - len(chunk)))
        chunks.append(encode(padded)[: len(chunk)].bfloat16())
    return torch.cat(chunks)


def fill(
    cache: TokenCache,
    items: Iterable[Item],
    encode: Encode,
    shard: int,
    chunk: int | None = None,
) -> None:
    """Encode the items that a cache lacks. Shards that were written survive a kill.

    Equal keys are encoded once, ``chunk`` (``CHUNK``) images in a call, to bfloat16 results; a file
    of the cache gets about ``shard``. A cache that cannot be written raises a SpatialbenchError.
    """
    missing = _missing(cache, items)
    done: dict[bytes, Tensor] = {}
    while part := dict(islice(missing, chunk or CHUNK)):
        done.update(zip(part, encode(torch.stack(list(part.values()))).cpu(), strict=True))
        if len(done) >= shard:
            cache.put(list(done), torch.stack(list(done.values())))
            done = {}
    if done:
        cache.put(list(done), torch.stack(list(done.values())))


def _missing(cache: TokenCache, items: Iterable[Item]) -> Iterator[Item]:
    seen: set[bytes] = set()
    for key, image in items:
        if key not in cache and key not in seen:
            seen.add(key)
            yield key, image


class EncodedImages:
    """A disk cache in front of an encoder, uint8 [B, 3, S, S] -> bfloat16 [B, *shape].

    The folder is named by a hash of everything the results depend on but the image.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], encode: Encode) -> None:
        self.cache, self.encode = TokenCache(folder, shape), encode

    def __call__(self, images: Tensor) -> Tensor:
        """Results bfloat16 [B, *shape] of images uint8 [B, 3, S, S], cached ones where possible."""
        results, missing = self.cache.get([content_key(image) for image in images.cpu().numpy()])
        results = results.to(images.device)
        if missing:
            results[missing] = self.encode(images[missing])
        return results

    def prepare(
        self, images: Iterable[Tensor], count: int, description: str, shard: int, show: bool = True
    ) -> None:
        """Cache the results of ``count`` images uint8 [3, S, S]; see ``fill``.

        ``description`` heads the progress bar, which is drawn if ``show``.

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

            fill(self.cache, items(), self.encode, shard)
