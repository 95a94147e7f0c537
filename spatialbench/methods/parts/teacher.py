"""A frozen CLIP that teaches, with a Refiner or without: embeddings of crops, and dense maps.

Letters: B images, h w tokens of a map, N crops, D joint width, K blocks of the Refiner.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialbench.data.region_batches import RegionDataset
from spatialbench.models.encoded_images import fill, in_equal_chunks
from spatialbench.models.towers import Block, Model, encode_dense, encode_image
from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress
from spatialbench.utils.token_cache import TokenCache, tensors_digest

CROPS_VERSION = 1
"""Version of cutting and scaling crops (``data.boxes.crops``); another misses the cache."""
_CHUNK = 64
_SHARD = 4096


def refiner_blocks(model: Model, count: int) -> nn.ModuleList:
    """Return a trainable copy of the image tower's last ``count`` blocks: the untrained Refiner.

    Raises:
        SpatialbenchError: the tower has fewer blocks, or ``count`` is below 1.
    """
    blocks = model.visual.transformer.resblocks
    if not 1 <= count <= len(blocks):
        raise SpatialbenchError(
            f"a Refiner of {count} blocks on an image tower of {len(blocks)}: "
            f"give 1 to {len(blocks)}"
        )
    return nn.ModuleList(copy.deepcopy(block) for block in blocks[-count:]).requires_grad_(True)


def with_refiner(model: Model, refiner: nn.ModuleList) -> Sequence[Block]:
    """Return the image tower's blocks, the last K replaced by the Refiner's."""
    return [*model.visual.transformer.resblocks[: -len(refiner)], *refiner]


class Teacher(nn.Module):
    """A CLIP that is always in eval mode and never gets a gradient.

    Args:
        model: open_clip's; copied.
        mean: per RGB channel [3, 1, 1], in units of [0, 255].
        std: as ``mean``.
        refiner: K blocks in place of the last K; None: the model's own.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: Model, mean: Tensor, std: Tensor, refiner: nn.ModuleList | None = None
    ) -> None:
        super().__init__()
        self.model, self.refiner = copy.deepcopy((model, refiner))
        self.eval().requires_grad_(False)
        self.register_buffer("mean", mean.clone(), persistent=False)
        self.register_buffer("std", std.clone(), persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def dense(self, x: Tensor) -> Tensor:
        """Map uint8 [B, 3, H, W] to float32 [B, h, w, D], unit norm, through the Refiner if any."""
        blocks = None if self.refiner is None else with_refiner(self.model, self.refiner)
        dense = encode_dense(self.model, (x - self.mean) / self.std, blocks=blocks)
        return F.normalize(dense.float(), dim=-1)

    @torch.no_grad()
    def crops(self, x: Tensor) -> Tensor:
        """Embed crops uint8 [N, 3, s, s] by CLIP itself, always in float32: [N, D], unit norm."""
        with torch.autocast(self.mean.device.type, enabled=False):
            parts = [
                encode_image(self.model, (part - self.mean) / self.std)
                for part in x.split(4 * _CHUNK)
            ]
            return F.normalize(torch.cat(parts), dim=-1)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the image tower's weights and of the normalisation."""
        visual = self.model.visual.state_dict()
        return tensors_digest({**visual, "mean": self.mean, "std": self.std})

    def cache(self, size: int) -> TokenCache:
        """Return the embeddings of crops of ``size`` pixels by their key, bfloat16 [D]."""
        name = f"v{CROPS_VERSION}-{self.fingerprint}-{size}"
        return TokenCache(cache_root() / "crops" / name, (self.model.visual.output_dim,))

    def prepare(self, regions: RegionDataset) -> None:
        """Embed the crops of a set whose crops are fixed, except those in the cache.

        Raises:
            SpatialbenchError: the cache cannot be written, or an image cannot be read.
        """
        cache = self.cache(regions.sampling.crop_size)

        def items() -> Iterator[tuple[bytes, Tensor]]:
            with progress("crops for the teacher", len(regions), "images") as advance:
                for row in range(len(regions)):
                    yield from zip(*regions.all_crops(row, known=cache), strict=True)
                    advance(1)

        fill(cache, items(), self.embedded, _SHARD, _CHUNK)

    def embedded(self, x: Tensor) -> Tensor:
        """Embed crops in chunks of one size, bfloat16 [N, D]."""
        return in_equal_chunks(self.crops, x.to(self.mean.device), _CHUNK)
