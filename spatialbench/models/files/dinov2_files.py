"""DINOv2 encoders in the key layouts in which they are published, brought to timm's names.

timm            timm's own names.
DINOv2          facebookresearch/dinov2: timm's names, a mask token, and ``w12`` and ``w3`` of the giant's SwiGLU.
Depth Anything  DepthAnything/Depth-Anything-V2 (``.pth``): DINOv2's under ``pretrained.``, a DPT head under
                ``depth_head.``
transformers    Dinov2Model, alone, under ``dinov2.``, or under ``backbone.`` in DepthAnythingForDepthEstimation, with
                its DPT head under ``neck.`` and ``head.``; queries, keys and values apart.

Position embeddings are made for another image size as the publisher's own code does it, which is three ways: timm
smooths (antialias), transformers does not, DINOv2 and Depth Anything do not and add 0.1 to the wanted side.

Source: facebookresearch/dinov2 @ e1277af, vision_transformer.py, interpolate_pos_encoding; transformers 5.24,
modeling_dinov2.py; timm 1.0, layers/pos_embed.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import first_line
from spatialbench.utils.say import say

Positions = Literal["timm", "dinov2", "transformers"]
"""How the position embedding comes to another grid."""

OFFSET = 0.1
"""What DINOv2 adds to the wanted number of patches a side, against rounding; it shifts the embedding a little."""

_PARTS = ("query", "key", "value")
_NAMES = (
    (r"embeddings\.(cls_token|mask_token|register_tokens)", r"\1"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"encoder\.layer\.(\d+)\.attention\.(?:output\.dense|o_proj)\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.", r"blocks.\1.mlp.fc1."),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_out\.", r"blocks.\1.mlp.fc2."),
    (r"encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"layernorm\.", "norm."),
)
_ATTENTION = re.compile(
    r"encoder\.layer\.(\d+)\.attention\.(?:attention\.(query|key|value)|([qkv])_proj)\.(weight|bias)"
)


class Encoder(NamedTuple):
    """An encoder out of a file.

    Attributes:
        state: the weights under timm's names, but for what timm's own filter brings there (DINOv2's SwiGLU).
        positions: how its publisher makes position embeddings for another size.
        left: tensors of a depth head, which are not of the encoder.
    """

    state: dict[str, Tensor]
    positions: Positions
    left: int


def read_encoder(state: Mapping[str, Tensor]) -> Encoder:
    """The encoder in a state of any of the layouts; what belongs to none of them stays and is refused on loading."""
    if any(name.startswith("pretrained.") for name in state):  # Depth Anything
        encoder, left = _below(state, "pretrained.", ("depth_head.",))
        return Encoder(_with_mask(encoder), "dinov2", left)
    for prefix in ("backbone.", "dinov2.", ""):
        if f"{prefix}embeddings.cls_token" in state:
            encoder, left = _below(
                state, prefix, ("neck.", "head.") if prefix == "backbone." else ()
            )
            encoder = _with_mask(_from_transformers(encoder))
            return Encoder(encoder, _smoothed(encoder) or "transformers", left)
    if "mask_token" in state:  # DINOv2
        return Encoder(dict(state), _smoothed(state) or "dinov2", 0)
    return Encoder(dict(state), "timm", 0)


def load_weights(model: VisionTransformer, path: Path, spec: str) -> Positions:
    """Loads a file of any layout into a timm ViT.

    Returns:
        how its publisher makes position embeddings for another size.

    Raises:
        SpatialbenchError: the file cannot be read, or does not fit the model.
    """
    try:
        state: Mapping[str, Tensor]
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, "cpu", weights_only=True)
        )
        state = state.get("model", state.get("state_dict", state))  # type: ignore[assignment]
        encoder = read_encoder(state)
        _check_patch(model, encoder.state)
        model.load_state_dict(checkpoint_filter_fn(encoder.state, model))
    except Exception as error:
        raise SpatialbenchError(
            f"vfm {spec!r}: {path} does not fit the model: {first_line(error)}"
        ) from error
    if encoder.left:
        say(
            f"vfm {spec}: the encoder of {path.name}; {encoder.left} tensors of its depth head are left out"
        )
    return encoder.positions


def _check_patch(model: Any, state: Mapping[str, Tensor]) -> None:
    """timm would bring weights of another patch size to the model's without a word."""
    name = "patch_embed.proj.weight"
    wanted, found = (
        tuple(model.patch_embed.proj.weight.shape),
        tuple(state[name].shape) if name in state else None,
    )
    if found is not None and len(found) == 4 and found != wanted:
        raise ValueError(f"{name} is {found} in the file and {wanted} in the model")


def set_size(model: Any, image_size: int, positions: Positions) -> None:
    """Takes a model to the multiple of its patch that is nearest to ``image_size``."""
    patch = model.patch_embed.patch_size[0]
    size = max(1, round(image_size / patch)) * patch
    if (size, size) == tuple(model.patch_embed.img_size):
        return
    old, embedding = model.patch_embed.grid_size, model.pos_embed
    model.set_input_size((size, size))
    if embedding is not None:
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        found = positions_for(
            embedding.detach(), old, model.patch_embed.grid_size, prefix, positions
        )
        model.pos_embed = nn.Parameter(found, requires_grad=embedding.requires_grad)


def positions_for(
    embedding: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int, how: Positions
) -> Tensor:
    """A position embedding on another grid, as the publisher of the weights makes it.

    Args:
        embedding: [1, prefix + rows * columns, D].
        old, new: rows and columns.
        prefix: class token and registers that have a position.
    """
    if how == "timm":
        return resample_abs_pos_embed(embedding, [*new], [*old], num_prefix_tokens=prefix)
    if old == new:
        return embedding
    patches = embedding[:, prefix:].float().unflatten(1, old).permute(0, 3, 1, 2)
    if how == "transformers":
        patches = F.interpolate(patches, size=new, mode="bicubic", align_corners=False)
    else:
        scale = ((new[0] + OFFSET) / old[0], (new[1] + OFFSET) / old[1])
        patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
    assert tuple(patches.shape[-2:]) == new, (patches.shape, new)
    return torch.cat(
        [embedding[:, :prefix], patches.flatten(2).transpose(1, 2).to(embedding.dtype)], dim=1
    )


def _below(
    state: Mapping[str, Tensor], prefix: str, heads: tuple[str, ...]
) -> tuple[dict[str, Tensor], int]:
    """What stands under ``prefix``, without it, and how many tensors stand under ``heads``; all else is kept."""
    kept = {name: value for name, value in state.items() if not (heads and name.startswith(heads))}
    return {name.removeprefix(prefix): value for name, value in kept.items()}, len(state) - len(
        kept
    )


def _with_mask(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm knows DINOv2 by its mask token, which not every encoder has, and drops it."""
    return {"mask_token": torch.zeros(1), **state}


def _smoothed(state: Mapping[str, Tensor]) -> Literal["timm"] | None:
    """DINOv2 with registers smooths its position embedding, in every code, as timm does."""
    return "timm" if "register_tokens" in state else None


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names, of the files as published and of the running model, to timm's."""
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if match := _ATTENTION.fullmatch(name):
            part = match[2] or {"q": "query", "k": "key", "v": "value"}[match[3]]
            parts.setdefault(f"blocks.{match[1]}.attn.qkv.{match[4]}", {})[part] = value
            continue
        for pattern, ours in _NAMES:
            changed, count = re.subn(f"^{pattern}", ours, name)
            if count:
                name = changed
                break
        found[name] = value
    for name, three in parts.items():
        if set(three) == set(_PARTS):
            found[name] = torch.cat([three[part] for part in _PARTS])
    return found
