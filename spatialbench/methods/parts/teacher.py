"""A frozen CLIP that teaches: what it says of crops, and how its tokens are alike, with a Refiner on it or without.

Letters: B images, h w tokens of a map, N crops, D joint width, L blocks of the image tower, K of the Refiner.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialbench.data.region_batches import RegionDataset
from spatialbench.models.towers import Block, Model, encode_dense, encode_image
from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress
from spatialbench.utils.token_cache import TokenCache, tensors_digest

CROPS_VERSION = 1
"""Of how crops are cut and scaled (``data.regions.crops``); another version misses the cache."""
_CHUNK = 64
_SHARD = 4096


def refiner_blocks(model: Model, count: int) -> nn.ModuleList:
    """A copy of the last ``count`` blocks of the image tower, trainable: the Refiner as it begins.

    Raises:
        SpatialbenchError: the tower has no so many blocks.
    """
    blocks = model.visual.transformer.resblocks
    if not 1 <= count <= len(blocks):
        raise SpatialbenchError(
            f"a Refiner of {count} blocks on an image tower of {len(blocks)}: give 1 to {len(blocks)}"
        )
    return nn.ModuleList(copy.deepcopy(block) for block in blocks[-count:]).requires_grad_(True)


def with_refiner(model: Model, refiner: nn.ModuleList) -> Sequence[Block]:
    """The blocks of the image tower, the last K of them the Refiner's."""
    return [*model.visual.transformer.resblocks[: -len(refiner)], *refiner]


class Teacher(nn.Module):
    """Always in eval mode, never with a gradient.

    Args:
        model: open_clip's; copied.
        mean, std: per RGB channel [3, 1, 1], in units of [0, 255].
        refiner: K blocks in the place of the last K; None: the model's own.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: Model, mean: Tensor, std: Tensor, refiner: nn.ModuleList | None = None
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.refiner = (
            None if refiner is None else copy.deepcopy(refiner).eval().requires_grad_(False)
        )
        self.register_buffer("mean", mean.clone(), persistent=False)
        self.register_buffer("std", std.clone(), persistent=False)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def dense(self, x: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> float32 [B, h, w, D], unit norm; through the Refiner where there is one."""
        blocks = None if self.refiner is None else with_refiner(self.model, self.refiner)
        return F.normalize(
            encode_dense(self.model, (x - self.mean) / self.std, blocks=blocks).float(), dim=-1
        )

    @torch.no_grad()
    def crops(self, x: Tensor) -> Tensor:
        """uint8 [N, 3, s, s] -> float32 [N, D], unit norm: CLIP's own embedding of each crop, always in float32."""
        with torch.autocast(self.mean.device.type, enabled=False):
            parts = [
                encode_image(self.model, (part - self.mean) / self.std)
                for part in x.split(4 * _CHUNK)
            ]
            return F.normalize(torch.cat(parts), dim=-1)

    # ---------------------------------------------------------------------------------------- crops that recur
    @cached_property
    def fingerprint(self) -> str:
        """Hash of the image tower's weights and of the normalisation."""
        return tensors_digest(
            {**self.model.visual.state_dict(), "mean": self.mean, "std": self.std}
        )

    def cache(self, size: int) -> TokenCache:
        """Embeddings of crops of ``size`` pixels by their name, bfloat16 [D]."""
        width = self.model.visual.output_dim
        return TokenCache(
            cache_root() / "crops" / f"v{CROPS_VERSION}-{self.fingerprint}-{size}", (width,)
        )

    def prepare(self, regions: RegionDataset) -> TokenCache:
        """Embeds every crop of a set whose crops are fixed, with a progress bar; what is there is not made again.

        Raises:
            SpatialbenchError: the cache cannot be written, or a picture cannot be read.
        """
        cache = self.cache(regions.sampling.crop_size)
        todo: dict[bytes, Tensor] = {}
        with progress("crops for the teacher", len(regions), "images") as advance:
            for row in range(len(regions)):
                todo |= dict(zip(*regions.all_crops(row, known=cache), strict=True))
                if len(todo) >= _SHARD or (todo and row + 1 == len(regions)):
                    cache.put(list(todo), self._embedded(torch.stack(list(todo.values()))))
                    todo = {}
                advance(1)
        return cache

    def _embedded(self, x: Tensor) -> Tensor:
        """bfloat16 [N, D], computed in chunks of one size."""
        chunks = []
        for chunk in x.split(_CHUNK):
            padded = F.pad(chunk, (0, 0, 0, 0, 0, 0, 0, _CHUNK - len(chunk)))
            chunks.append(self.crops(padded.to(self.mean.device))[: len(chunk)].bfloat16().cpu())
        return torch.cat(chunks)
