"""Encode images once: compute what a token cache lacks, in chunks of one size, and store it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.utils.token_cache import TokenCache

Encode = Callable[[Tensor], Tensor]


def in_equal_chunks(encode: Encode, x: Tensor, size: int) -> Tensor:
    """Return ``encode(x)`` in bfloat16, computed in chunks that are padded to ``size`` rows.

    A matrix product or a convolution may round differently for another number of rows.

    Args:
        encode: maps each row independently.
        x: [B, 3, H, W].
        size: rows of every chunk.
    """
    chunks = []
    for chunk in x.split(size):
        padded = F.pad(chunk, (0, 0, 0, 0, 0, 0, 0, size - len(chunk)))
        chunks.append(encode(padded)[: len(chunk)].bfloat16())
    return torch.cat(chunks)


def fill(
    cache: TokenCache, items: Iterable[tuple[bytes, Tensor]], encode: Encode, chunk: int, shard: int
) -> None:
    """Encode and store the items that the cache lacks.

    Args:
        cache: keeps every finished shard when the process is killed.
        items: keys and images; equal keys are encoded once.
        encode: images [n <= chunk, 3, H, W] -> bfloat16 [n, ...].
        chunk: images of one call of ``encode``.
        shard: tokens of one file of the cache, about.

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
