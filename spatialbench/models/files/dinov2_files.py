"""DINOv2 encoders in the key layouts in which they are published, converted to timm's names.

timm            timm's own names.
DINOv2          facebookresearch/dinov2: timm's names, a mask token, and ``w12`` and ``w3`` of the
                giant's SwiGLU.
Depth Anything  DepthAnything/Depth-Anything-V2 (``.pth``): DINOv2's under ``pretrained.``, a DPT
                head under ``depth_head.``
transformers    Dinov2Model, alone, under ``dinov2.``, or under ``backbone.`` in
                DepthAnythingForDepthEstimation, with its DPT head under ``neck.`` and ``head.``;
                queries, keys and values apart.

Position embeddings are resized as by the publisher's own code, in one of three ways: timm smooths
(antialias), transformers does not, DINOv2 and Depth Anything do not and add 0.1 to the target side.

Source: facebookresearch/dinov2 @ e1277af, vision_transformer.py, interpolate_pos_encoding;
transformers 5.24, modeling_dinov2.py; timm 1.0, layers/pos_embed.py.
"""

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
"""The code that resizes the position embedding."""
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
"""transformers' names -> timm's."""
_ATTENTION = re.compile(
    r"encoder\.layer\.(\d+)\.attention\.(?:attention\.)?([qkv])(?:uery|ey|alue|_proj)\.(weight|bias)"
)
"""Queries, keys and values in transformers' files, and in its running model."""


class Encoder(NamedTuple):
    """An encoder from a file."""

    state: dict[str, Tensor]  # under timm's names, or those that timm's own filter converts
    positions: Positions
    omitted: int  # tensors of a depth head, which is no part of the encoder


def read_encoder(state: Mapping[str, Tensor]) -> Encoder:
    """Find the encoder in a state of any layout; names of no layout stay and fail on loading."""
    if any(name.startswith("pretrained.") for name in state):  # Depth Anything
        encoder = _below(state, "pretrained.", "depth_head.")
        return Encoder(_with_mask(encoder), "dinov2", len(state) - len(encoder))
    for prefix, heads in (("backbone.", ("neck.", "head.")), ("dinov2.", ()), ("", ())):
        if f"{prefix}embeddings.cls_token" in state:
            encoder = _below(state, prefix, *heads)
            omitted = len(state) - len(encoder)
            encoder = _with_mask(_from_transformers(encoder))
            return Encoder(encoder, _smoothed(encoder) or "transformers", omitted)
    if "mask_token" in state:  # DINOv2
        return Encoder(dict(state), _smoothed(state) or "dinov2", 0)
    return Encoder(dict(state), "timm", 0)


def load_weights(model: VisionTransformer, path: Path, spec: str) -> Positions:
    """Load a file of any layout into a timm ViT; return how its publisher resizes positions."""
    try:
        safe = path.suffix == ".safetensors"
        state: Any = load_file(path) if safe else torch.load(path, "cpu", weights_only=True)
        encoder = read_encoder(state.get("model", state.get("state_dict", state)))
        _check_patch(model, encoder.state)
        model.load_state_dict(checkpoint_filter_fn(encoder.state, model))
    except Exception as error:
        reason = first_line(error)
        raise SpatialbenchError(f"vfm {spec!r}: {path} does not fit the model: {reason}") from error
    if encoder.omitted:
        omitted = f"{encoder.omitted} tensors of its depth head are left out"
        say(f"vfm {spec}: the encoder of {path.name}; {omitted}")
    return encoder.positions


def _check_patch(model: Any, state: Mapping[str, Tensor]) -> None:
    """Compare patch sizes, since timm would resample the weights silently."""
    name = "patch_embed.proj.weight"
    shape = tuple(model.patch_embed.proj.weight.shape)
    given = tuple(state[name].shape) if name in state else shape
    if len(given) == 4 and given != shape:
        raise ValueError(f"{name} is {given} in the file and {shape} in the model")


def set_size(model: Any, image_size: int, positions: Positions) -> None:
    """Set a model to the multiple of its patch that is nearest to ``image_size``."""
    patch = model.patch_embed.patch_size[0]
    size = max(1, round(image_size / patch)) * patch
    if (size, size) == tuple(model.patch_embed.img_size):
        return
    old, embedding = model.patch_embed.grid_size, model.pos_embed
    model.set_input_size((size, size))
    if embedding is not None:
        prefix = 0 if model.no_embed_class else model.num_prefix_tokens
        new = model.patch_embed.grid_size
        resized = positions_for(embedding.detach(), old, new, prefix, positions)
        model.pos_embed = nn.Parameter(resized, requires_grad=embedding.requires_grad)


def positions_for(
    embedding: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int, how: Positions
) -> Tensor:
    """Resize a position embedding [1, prefix + rows * columns, D] as the publisher's code does.

    ``old`` and ``new`` are rows and columns; ``prefix`` counts class token and registers.
    """
    if how == "timm":
        return resample_abs_pos_embed(embedding, [*new], [*old], num_prefix_tokens=prefix)
    if old == new:
        return embedding
    patches = embedding[:, prefix:].float().unflatten(1, old).permute(0, 3, 1, 2)
    if how == "transformers":
        patches = F.interpolate(patches, size=new, mode="bicubic", align_corners=False)
    else:
        scale = ((new[0] + 0.1) / old[0], (new[1] + 0.1) / old[1])  # 0.1: against rounding
        patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
    assert tuple(patches.shape[-2:]) == new, (patches.shape, new)
    patches = patches.flatten(2).transpose(1, 2).to(embedding.dtype)
    return torch.cat([embedding[:, :prefix], patches], dim=1)


def _below(state: Mapping[str, Tensor], prefix: str, *heads: str) -> dict[str, Tensor]:
    """Remove ``prefix`` from all names, and everything under ``heads``."""
    return {n.removeprefix(prefix): value for n, value in state.items() if not n.startswith(heads)}


def _with_mask(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add a mask token, by which timm recognises DINOv2, and which it drops."""
    return {"mask_token": torch.zeros(1), **state}


def _smoothed(state: Mapping[str, Tensor]) -> Literal["timm"] | None:
    """DINOv2 with registers smooths its position embedding, in every code, as timm does."""
    return "timm" if "register_tokens" in state else None


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert transformers' names, of its files and of its running model, to timm's."""
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if match := _ATTENTION.fullmatch(name):
            parts.setdefault(f"blocks.{match[1]}.attn.qkv.{match[3]}", {})[match[2]] = value
            continue
        for pattern, ours in _NAMES:
            name, count = re.subn(f"^{pattern}", ours, name)
            if count:
                break
        renamed[name] = value
    whole = {name: three for name, three in parts.items() if len(three) == 3}
    return renamed | {n: torch.cat([three[part] for part in "qkv"]) for n, three in whole.items()}
