r"""Relevance maps: where a model looks when it scores an image against a caption.

Attention times its gradient. With y the cosine of image and caption, A_l the attention of block l
(heads averaged after the product) and R_0 = 1:

    (1)  \bar A_l = mean over heads of ( dy/dA_l * A_l )^+
    (2)  R_l = R_{l-1} + \bar A_l R_{l-1}
    (3)  the relevance of a patch is its entry in the row of R_L from which the embedding is read

Source: Chefer, Gur, Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and
Encoder-Decoder Transformers", arXiv 2103.15679, equations (5) and (6). Here (2) runs over all
blocks, as printed; the authors' CLIP notebook uses the last block only. A student without a class
token (SigLIP, mean pooling) is read at the mean of its patches: ours.

Attention alone, which does not depend on the caption, is rolled out in the same way:

    (4)  S_l = ( (mean over heads of A_l) + 1 ) / 2 S_{l-1}, S_0 = 1, read as in (3)

Source of (4): Abnar, Zuidema, "Quantifying Attention Flow in Transformers", arXiv 2005.00928,
section 3.

A ``Mix`` records queries, keys and values, a hook the input o = A v of the output projection, and
dy/dA_{ij} = <dy/do_i, v_j>.

Letters: B images, H heads, T tokens, t tokens that are read (T, or 1), d channels of a head, h w
the grid.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spatialbench.models.towers import attention_weights, has_class_token, image_blocks, patch_grid
from spatialbench.utils.errors import SpatialbenchError

Explained = Any
"""A ``spatialbench.methods.base.Method``: image, text, tokenize, connect, student, device."""


@dataclass
class _Seen:
    """Attention [B, H, T, T], values [B, H, T, d] and input of the projection of every block."""

    attention: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)  # [B, t, H d], in the graph


def relevance(model: Explained, pixels: Tensor, caption: str) -> Tensor:
    """Compute the relevance of every patch for the cosine of each image with a caption.

    Args:
        model: in eval mode.
        pixels: uint8 [B, 3, S, S], as ``model.image`` takes them.
        caption: one sentence.

    Returns:
        float32 [B, h, w] on the CPU, 0 or more; comparable within an image, not between models.

    Raises:
        SpatialbenchError: an input that the model does not take, or a map that is not finite.
    """
    with torch.no_grad():
        text = model.text(model.tokenize([caption]))[0].detach()
    with torch.enable_grad():
        image, seen = _forward(model, pixels)
        gradients = torch.autograd.grad((image @ text).sum(), seen.outputs)
    rollout = _unit(seen).expand(len(pixels), -1, -1)
    for attention, values, gradient in zip(seen.attention, seen.values, gradients, strict=True):
        rollout = rollout + _positive(attention, values, gradient) @ rollout  # (2)
    return _read(model, rollout, pixels)


@torch.no_grad()
def attention(model: Explained, pixels: Tensor) -> Tensor:
    """Compute the attention (4) that is paid to every patch, whatever the caption.

    Like :func:`relevance`; the patches of an image add up to 1 at most.
    """
    _, seen = _forward(model, pixels)
    rollout = unit = _unit(seen)
    for attention in seen.attention:
        rollout = (attention.float().mean(1) + unit) / 2 @ rollout  # (4)
    return _read(model, rollout, pixels)


def _unit(seen: _Seen) -> Tensor:
    """Return the unit matrix of the tokens, [T, T]."""
    attention = seen.attention[0]
    return torch.eye(attention.shape[-1], device=attention.device)


def _forward(model: Explained, pixels: Tensor) -> tuple[Tensor, _Seen]:
    """Return the embeddings [B, D], and what every block saw on the way."""
    seen, pixels = _Seen(), pixels.to(model.device)
    blocks, mix = image_blocks(model.student), model.connect(pixels)

    def watch(block: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (q, k, v) if mix is None else mix(block, q, k, v)
        seen.attention.append(attention_weights(q.detach(), k.detach()))
        seen.values.append(v.detach())
        return q, k, v

    def keep(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (output,) = inputs
        if not output.requires_grad:
            output = output.detach().requires_grad_(torch.is_grad_enabled())
        seen.outputs.append(output)
        return (output,)

    with ExitStack() as stack:
        for block in blocks:
            # the first module that o = A v enters; in timm's blocks a norm, mostly the identity
            attn = block.attn
            projection = attn.norm if hasattr(block, "norm1") else attn.out_proj
            stack.callback(projection.register_forward_pre_hook(keep).remove)
        image = model.image(pixels, watch)
    if not len(seen.attention) == len(seen.outputs) == len(blocks):
        raise SpatialbenchError(
            "the model's image does not run through the blocks of its student: no map"
        )
    return image, seen


def _positive(attention: Tensor, values: Tensor, gradient: Tensor) -> Tensor:
    """Equation (1), [B, T, T]; the rows of tokens that the block does not read are 0."""
    heads, tokens = attention.shape[1], attention.shape[-1]
    upstream = gradient.unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, H, t, d]
    read = upstream.shape[2]
    weighted = (upstream @ values.transpose(-1, -2)) * attention[:, :, :read]  # [B, H, t, T]
    return nn.functional.pad(weighted.clamp(min=0).mean(1), (0, 0, 0, tokens - read))


def _read(model: Explained, rollout: Tensor, pixels: Tensor) -> Tensor:
    """Equation (3), [B, h, w]."""
    if not has_class_token(model.student):
        patches = rollout.mean(1)
    elif model.student.visual.pool_type == "tok":
        patches = rollout[:, 0, 1:]
    else:
        patches = rollout[:, 1:, 1:].mean(1)
    if not patches.isfinite().all():
        raise SpatialbenchError(
            "the map is not finite; the training diverged or the weights are damaged"
        )
    return patches.unflatten(1, patch_grid(model.student, pixels)).float().cpu()
