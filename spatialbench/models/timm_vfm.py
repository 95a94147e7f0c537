"""The vision foundation model (VFM): a frozen timm ViT that exposes its queries, keys and values.

timm is imported here, in dinov2_files.py and in open_clip_student.py only.

Letters: B images, L blocks, T tokens (class token and patches; registers are dropped), D width, H
heads, d channels per head.
"""

import json
import math
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spatialbench import WEIGHTS
from spatialbench.models.encoded_images import CHUNK, EncodedImages, in_equal_chunks
from spatialbench.models.files.dinov2_files import load_weights, set_size
from spatialbench.models.files.weight_files import PINNED, WeightFile, find_weights, hub_weights
from spatialbench.models.running import tensor_cores
from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import first_line
from spatialbench.utils.token_cache import tensors_digest

CONFIGS = Path(__file__).parent / "configs"
OWN = "rooms-vfm"  # shipped with the package, in configs/ and weights/
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per RGB channel, in units of the range [0, 1]."""

_SHARD, _SHARD_BYTES = 512, 1 << 30
"""Images and bytes per file of the cache at most. ViT-L/14 at 336 has 28 MB per image."""


class VFM(nn.Module):
    """A frozen ViT. Always in eval mode, never with a gradient.

    It is a timm VisionTransformer with a class token, with the arguments of ``load_vfm``; ``mean``
    and ``std`` are per RGB channel, in units of the range [0, 1], and ``name`` is for messages.
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
        self.name, self.cache, self.depth = name, cache, len(model.blocks)
        self.image_size = image_size or model.patch_embed.img_size[0]
        attention: Any = model.blocks[0].attn
        self.heads: int = attention.num_heads
        self.head_dim: int = attention.head_dim
        self.grid: tuple[int, int] = model.patch_embed.grid_size

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    @property
    def token_shape(self) -> tuple[int, int, int]:
        """L, T, D."""
        return self.depth, 1 + self.grid[0] * self.grid[1], self.model.embed_dim

    def qkv(self, block: int, tokens: Tensor, values: bool = True) -> tuple[Tensor, ...]:
        """Compute queries, keys and (with ``values``) values of a block from its input [B, T, D].

        Each is [B, H, T, d], with bias and timm's q_norm and k_norm, before the scale 1 / sqrt(d).
        """
        layer: Any = self.model.blocks[block]
        if not torch.is_autocast_enabled(tokens.device.type):
            tokens = tokens.to(layer.attn.qkv.weight.dtype)
        parts = 3 if values else 2
        rows = parts * self.heads * self.head_dim
        weight, bias = layer.attn.qkv.weight[:rows], layer.attn.qkv.bias
        out = F.linear(layer.norm1(tokens), weight, None if bias is None else bias[:rows])
        q, k, *v = out.unflatten(-1, (parts, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        return layer.attn.q_norm(q), layer.attn.k_norm(k), *v

    def tokens(self, x: Tensor) -> Tensor:
        """Tokens bfloat16 [B, L, T, D] that enter the blocks for uint8 images, class first."""
        return self._cache(x) if self.cache else self._compute(x)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, L + 1, T, D] for uint8 images: those of ``tokens``, then the normed output.

        They are computed anew, in the precision of the weights.
        """
        return self._forward((x.to(self.mean.device) - self.mean) / self.std)

    def patches(self, x: Tensor) -> Tensor:
        """Patches after the last block and its norm, float32 [B, h', w', D]; not cached."""
        with torch.autocast(x.device.type, enabled=False):
            return self(x)[:, -1, 1:].unflatten(1, self.grid)

    def refresh(self) -> None:
        """Pick up what other processes added to the cache."""
        if self.cache:
            self._cache.cache.refresh()

    def prepare(self, images: np.ndarray, rank: int = 0, world: int = 1) -> None:
        """Fill the cache for images uint8 [M, S, S, 3]. Finished work survives a kill.

        Of ``world`` processes this one takes every ``world``-th image, starting at ``rank``.
        """
        if not self.cache:
            return
        rows = range(rank, len(images), world)
        own = (torch.from_numpy(images[row].copy()).permute(2, 0, 1) for row in rows)
        fitting = _SHARD_BYTES // (2 * math.prod(self.token_shape)) // CHUNK * CHUNK
        shard = max(CHUNK, min(_SHARD, fitting))
        self._cache.prepare(own, len(rows), f"tokens of {self.name}", shard, show=rank == 0)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything the tokens depend on but the image: weights and preprocessing."""
        sizes = [self.token_shape, self.heads, self.image_size, self.model.patch_embed.img_size]
        tensors = {**self.model.state_dict(), "mean": self.mean, "std": self.std}
        return tensors_digest(tensors, repr(sizes))

    @cached_property
    def _cache(self) -> EncodedImages:
        folder = cache_root() / "vfm" / self.fingerprint
        return EncodedImages(folder, self.token_shape, lambda x: self._compute(x))

    @torch.no_grad()
    def _compute(self, x: Tensor) -> Tensor:
        """Tokens bfloat16 [B, L, T, D], computed in float32 (on a GPU in TF32)."""
        x = x.to(self.mean.device)
        with torch.autocast(x.device.type, enabled=False), tensor_cores(x.device):
            return in_equal_chunks(lambda chunk: self(chunk)[:, :-1], x)

    def _forward(self, pixels: Tensor) -> Tensor:
        """Collect all blocks' inputs and the output [B, L + 1, T, D] in timm's own forward pass."""
        size = self.model.patch_embed.img_size
        if tuple(pixels.shape[-2:]) != tuple(size):
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        inputs: list[Tensor] = []

        def keep(_: nn.Module, arguments: tuple[Tensor]) -> None:
            inputs.append(arguments[0])

        hooks = [block.register_forward_pre_hook(keep) for block in self.model.blocks]
        try:
            inputs.append(self.model.forward_features(pixels))
        finally:
            for hook in hooks:
                hook.remove()
        tokens = torch.stack(inputs, dim=1)
        return torch.cat([tokens[:, :, :1], tokens[:, :, self.model.num_prefix_tokens :]], dim=2)


def load_vfm(
    spec: str,
    image_size: int | None = None,
    cache: bool = True,
    normalisation: Normalisation | None = None,
) -> VFM:
    """Load a frozen VFM.

    Args:
        spec: ``<model>[:<weights>]``. The model is ``rooms-vfm`` or a ViT of timm
            (``vit_large_patch14_dinov2``). The weights are a short name of ``weight_files.PINNED``
            (``depth-anything-v2``, ``dinov2``), a file of the Hub
            (``<owner>/<name>@<commit>/<path>[#<sha256>]``), a local file in any layout of
            ``dinov2_files``, or ``random``. The default is the shipped ones, DINOv2's own, or
            timm's pretrained ones.
        image_size: side of the images in pixels; default the model's own. The model is set to the
            nearest multiple of its patch, its position embedding resized as by its publisher.
        cache: keep tokens on disk.
        normalisation: of the pixels; default the model's own.

    Raises:
        SpatialbenchError: unknown or unfitting model or weights.
    """
    model, mean, std = build_vit(spec, image_size)
    mean, std = normalisation or (mean, std)
    return VFM(model, mean, std, spec.partition(":")[0], image_size, cache)


def depth_head(spec: str) -> nn.Linear | None:
    """Load the linear read-out of log depth from ``VFM.patches``, log metres of a patch's cells.

    It is in ``<weights>-heads.safetensors`` beside the weights of ``spec``, as pretraining writes
    it; None: there is no such file.

    Raises:
        SpatialbenchError: the file has no such read-out.
    """
    name, _, weights = spec.partition(":")
    path = WEIGHTS / f"{OWN}.safetensors" if name == OWN and not weights else Path(weights)
    path = path.parent / f"{path.stem}-heads.safetensors"
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        outputs, inputs = tensors["depth.weight"].shape
        head = nn.Linear(inputs, outputs)
        head.load_state_dict({part: tensors[f"depth.{part}"] for part in ("weight", "bias")})
    except Exception as error:  # safetensors raises a class of its own
        what = f"{path}: no linear read-out of depth ({first_line(error)})"
        raise SpatialbenchError(f"{what}; pretrain the VFM again, or remove the file") from error
    return head.requires_grad_(False)


def build_vit(spec: str, image_size: int | None = None) -> tuple[Any, Any, Any]:
    """Build the timm model of a ``spec`` (see ``load_vfm``), trainable; with its mean and std."""
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
    except Exception as error:  # of timm, the Hub or the network; the user reads one line
        raise SpatialbenchError(f"vfm {spec!r} cannot be loaded: {first_line(error)}") from error
    _check_architecture(model, name)
    positions = "timm" if path is None else load_weights(model, path, spec)
    if image_size is not None:
        set_size(model, image_size, positions)
    return model, mean, std


def published(spec: str) -> WeightFile | str | None:
    """Return the pinned file or the Hub's repository of weights, offline; None for local ones."""
    name, _, weights = spec.partition(":")
    if weights == "random" or name == OWN or (weights and Path(weights).is_file()):
        return None
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return _pinned(name, weights) or str(getattr(known, "hf_hub_id", None) or name)


def _pinned(name: str, weights: str) -> WeightFile | None:
    return PINNED.get((name.partition(".")[0], weights or "dinov2")) or hub_weights(weights)


def _weights_file(name: str, weights: str, spec: str) -> Path | None:
    """Find the file of ``weights``; None for random ones and for those that timm itself loads."""
    if weights == "random":
        return None
    if name == OWN:
        weights = weights or str(WEIGHTS / f"{OWN}.safetensors")
    names = [tag for model, tag in PINNED if model == name.partition(".")[0]]
    return find_weights(weights, _pinned(name, weights), f"vfm {spec!r}", not weights, names)


def _check_architecture(model: Any, name: str) -> None:
    plain = isinstance(model, VisionTransformer) and all(
        isinstance(getattr(block, "attn", None), Attention) and hasattr(block, "norm1")
        for block in model.blocks
    )
    wrong = "is not a plain ViT of timm" if not plain else "has no class token to pair"
    if not plain or not model.has_class_token:
        raise SpatialbenchError(f"vfm {name!r} {wrong}; take one such as vit_large_patch14_dinov2")
