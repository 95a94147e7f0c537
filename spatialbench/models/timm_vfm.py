"""The vision foundation model: a frozen timm ViT whose queries, keys and values others may read. The only importer of
timm beside dinov2_files.py.

Letters: B images, L blocks, T tokens (class token and patches; registers are dropped), D width, H heads, d channels
of a head.
"""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spatialbench import WEIGHTS
from spatialbench.models.files.dinov2_files import load_weights, set_size
from spatialbench.models.files.weight_files import PINNED, WeightFile, hub_weights, obtain
from spatialbench.models.running import tensor_cores
from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import first_line
from spatialbench.utils.progress import progress
from spatialbench.utils.token_cache import TokenCache, content_key, tensors_digest

CONFIGS = Path(__file__).parent / "configs"
OWN = "rooms-vfm"
"""The VFM shipped with the package: configs/rooms-vfm.json, weights/rooms-vfm.safetensors."""

_CHUNK = 32
"""Images of one forward pass, always: a matrix product may round differently for another number of rows."""
_SHARD = 512
"""Images of one file of the cache at most, and so what a kill can lose."""
_SHARD_BYTES = 1 << 30
"""Bytes of one file, which are in memory twice while it is made: of ViT-L/14 at 336 an image has 28 MB."""


class VFM(nn.Module):
    """A frozen ViT. Always in eval mode, never with a gradient.

    Args:
        model: a timm VisionTransformer with a class token, as ``build_vit`` makes it.
        mean, std: per RGB channel, in units of the range [0, 1].
        name: for messages.
        image_size: side S of the images in pixels; resized to the model's own where that is another.
        cache: keep the tokens of every image on disk, under ``cache_root()/vfm``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: VisionTransformer,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        name: str,
        image_size: int | None = None,
        cache: bool = True,
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)
        self.name = name
        self.image_size = image_size or model.patch_embed.img_size[0]
        self.cache = cache
        attention: Any = model.blocks[0].attn
        self.depth = len(model.blocks)
        self.heads: int = attention.num_heads
        self.head_dim: int = attention.head_dim
        self.grid: tuple[int, int] = model.patch_embed.grid_size

    def train(self, mode: bool = True) -> VFM:
        """Stays in eval mode."""
        return super().train(False)

    @property
    def token_shape(self) -> tuple[int, int, int]:
        """L, T, D."""
        return self.depth, 1 + self.grid[0] * self.grid[1], self.model.embed_dim

    def qkv(self, block: int, tokens: Tensor, values: bool = True) -> tuple[Tensor, ...]:
        """The block's own queries and keys, and values unless told otherwise, each [B, H, T, d].

        With the projections' bias and timm's q_norm and k_norm, before the scale 1 / sqrt(d).

        Args:
            tokens: [B, T, D], what enters the block.
        """
        layer: Any = self.model.blocks[block]
        if not torch.is_autocast_enabled(tokens.device.type):
            tokens = tokens.to(layer.attn.qkv.weight.dtype)
        wanted = 3 if values else 2
        rows = wanted * self.heads * self.head_dim
        weight, bias = layer.attn.qkv.weight[:rows], layer.attn.qkv.bias
        out = F.linear(layer.norm1(tokens), weight, None if bias is None else bias[:rows])
        q, k, *v = out.unflatten(-1, (wanted, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        return layer.attn.q_norm(q), layer.attn.k_norm(k), *v

    def tokens(self, x: Tensor) -> Tensor:
        """The tokens that enter every block, from the cache where they are there.

        Args:
            x: uint8 [B, 3, S, S].

        Returns:
            bfloat16 [B, L, T, D], class token first. The rounding to bfloat16 is the cache's and is always made, so
            that cached and computed tokens are the same.
        """
        if not self.cache:
            return self._compute(x)
        found, missing = self._cache.get([content_key(image) for image in x.cpu().numpy()])
        found = found.to(x.device)
        if missing:
            found[missing] = self._compute(x[missing])
        return found

    def refresh(self) -> None:
        """Takes up what other processes have put into the cache."""
        if self.cache:
            self._cache.refresh()

    def prepare(self, images: np.ndarray, rank: int = 0, world: int = 1) -> None:
        """Fills the cache for images uint8 [M, S, S, 3], with a progress bar. Nothing without ``cache``.

        What is there is not computed again, and what is done stays after a kill.

        Args:
            rank, world: of ``world`` processes this one takes every ``world``-th image from image ``rank``.

        Raises:
            SpatialbenchError: the cache cannot be written.
        """
        if not self.cache:
            return
        self.refresh()
        todo: dict[bytes, int] = {}
        for row in range(rank, len(images), world):
            if (key := content_key(images[row].transpose(2, 0, 1))) not in self._cache:
                todo.setdefault(key, row)
        if not todo:
            return
        keys = list(todo)
        rows_of_shard = max(
            _CHUNK,
            min(_SHARD, _SHARD_BYTES // (2 * math.prod(self.token_shape)) // _CHUNK * _CHUNK),
        )
        shown = (
            progress(f"tokens of {self.name}", len(keys), "images")
            if rank == 0
            else nullcontext(lambda _: None)
        )
        with shown as advance:
            for start in range(0, len(keys), rows_of_shard):
                shard = keys[start : start + rows_of_shard]
                parts = []
                for first in range(0, len(shard), _CHUNK):
                    rows = [todo[key] for key in shard[first : first + _CHUNK]]
                    x = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).to(self.mean.device)
                    parts.append(self._compute(x).cpu())
                    advance(len(rows))
                self._cache.put(shard, torch.cat(parts))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and of the preprocessing: of everything the tokens depend on beside the image."""
        extra = repr(
            [self.token_shape, self.heads, self.image_size, self.model.patch_embed.img_size]
        )
        return tensors_digest(
            {**self.model.state_dict(), "mean": self.mean, "std": self.std}, extra
        )

    @cached_property
    def _cache(self) -> TokenCache:
        return TokenCache(cache_root() / "vfm" / self.fingerprint, self.token_shape)

    @torch.no_grad()
    def _compute(self, x: Tensor) -> Tensor:
        """Tokens bfloat16 [B, L, T, D], computed in float32 (a GPU: TF32, finer than they) in chunks of one size."""
        chunks = []
        with torch.autocast(x.device.type, enabled=False), tensor_cores(x.device):
            for chunk in x.split(_CHUNK):
                padded = F.pad(chunk, (0, 0, 0, 0, 0, 0, 0, _CHUNK - len(chunk)))
                chunks.append(
                    self._forward((padded - self.mean) / self.std)[: len(chunk)].bfloat16()
                )
        return torch.cat(chunks)

    def _forward(self, pixels: Tensor) -> Tensor:
        """Normalised images [B, 3, S, S] -> what enters every block [B, L, T, D], through timm's own forward pass."""
        size = self.model.patch_embed.img_size
        if tuple(pixels.shape[-2:]) != tuple(size):
            pixels = F.interpolate(
                pixels, size=size, mode="bilinear", align_corners=False, antialias=True
            )
        inputs: list[Tensor] = []
        hooks = [
            block.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
            for block in self.model.blocks
        ]
        try:
            self.model.forward_features(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        tokens = torch.stack(inputs, dim=1)
        return torch.cat([tokens[:, :, :1], tokens[:, :, self.model.num_prefix_tokens :]], dim=2)


# ------------------------------------------------------------------------------------------------- loading
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per RGB channel, in units of the range [0, 1]."""


def load_vfm(
    spec: str,
    image_size: int | None = None,
    cache: bool = True,
    normalisation: Normalisation | None = None,
) -> VFM:
    """A frozen VFM.

    Args:
        spec: ``<model>[:<weights>]``. The model is ``rooms-vfm`` or a ViT of timm (``vit_large_patch14_dinov2``). The
            weights are a short name of ``weight_files.PINNED`` (``depth-anything-v2``, ``dinov2``), a file of the Hub
            (``<owner>/<name>@<commit>/<path>[#<sha256>]``), a file here, ``random``, or left out: the shipped ones,
            DINOv2's own, or timm's pretrained ones. Files are safetensors or of torch, in any layout of
            ``dinov2_files``.
        image_size: side of the images in pixels; default the model's own. Taken to the nearest multiple of the patch,
            the position embedding as the publisher of the weights takes it there.
        cache: keep tokens on disk.
        normalisation: of the pixels; default the model's own.

    Raises:
        SpatialbenchError: unknown model or weights, weights of another architecture, not a plain ViT.
    """
    model, mean, std = build_vit(spec, image_size)
    if normalisation is not None:
        mean, std = normalisation
    return VFM(model, mean, std, spec.partition(":")[0], image_size, cache)


def build_vit(
    spec: str, image_size: int | None = None
) -> tuple[Any, tuple[float, ...], tuple[float, ...]]:
    """The timm model of ``spec``, trainable, and the mean and standard deviation of its pixels; see ``load_vfm``."""
    name, _, weights = spec.partition(":")
    path = _weights_file(name, weights, spec)
    model: Any
    try:
        if name == OWN:
            arguments = json.loads((CONFIGS / f"{OWN}.json").read_text())
            mean, std = tuple(arguments.pop("mean")), tuple(arguments.pop("std"))
            model = VisionTransformer(**arguments)
        else:
            model = timm.create_model(name, pretrained=path is None and not weights, num_classes=0)
            mean, std = tuple(model.pretrained_cfg["mean"]), tuple(model.pretrained_cfg["std"])
    except (
        Exception
    ) as error:  # timm, the Hub, the network: whatever it was, the user reads one line
        raise SpatialbenchError(f"vfm {spec!r} cannot be loaded: {first_line(error)}") from error
    _check_architecture(model, name)
    positions = "timm" if path is None else load_weights(model, path, spec)
    if image_size is not None:
        set_size(model, image_size, positions)
    return model, mean, std


def published(spec: str) -> WeightFile | str | None:
    """Where the weights of ``spec`` come from: a pinned file, or the repository of the Hub that timm takes them from.

    None: shipped or random weights, or a file. The network is not asked.
    """
    name, _, weights = spec.partition(":")
    if weights == "random" or name == OWN or (weights and Path(weights).is_file()):
        return None
    file = PINNED.get((name.partition(".")[0], weights or "dinov2")) or hub_weights(weights)
    return file or str(
        getattr(timm.get_pretrained_cfg(name, allow_unregistered=True), "hf_hub_id", None) or name
    )


def _weights_file(name: str, weights: str, spec: str) -> Path | None:
    """The file that ``weights`` means; None: random ones, or what timm itself loads.

    Raises:
        SpatialbenchError: there is none.
    """
    if weights == "random":
        return None
    if name == OWN:
        weights = weights or str(WEIGHTS / f"{OWN}.safetensors")
    if Path(weights).is_file():
        return Path(weights)
    model = name.partition(".")[0]
    file = PINNED.get((model, weights or "dinov2")) or hub_weights(weights)
    if file is not None:
        return obtain(file, f"vfm {spec!r}")
    if not weights:
        return None
    tags = ", ".join(tag for known, tag in PINNED if known == model) or "none"
    raise SpatialbenchError(
        f"vfm {spec!r}: there is no weights file {weights}, nor published weights of that name (names: {tags})"
    )


def _check_architecture(model: Any, name: str) -> None:
    plain = isinstance(model, VisionTransformer) and all(
        isinstance(getattr(block, "attn", None), Attention) and hasattr(block, "norm1")
        for block in model.blocks
    )
    if not plain:
        raise SpatialbenchError(
            f"vfm {name!r} is not a plain ViT of timm; take one such as vit_large_patch14_dinov2"
        )
    if not model.has_class_token:
        raise SpatialbenchError(
            f"vfm {name!r} has no class token, and the student's class token needs one to go with"
        )
