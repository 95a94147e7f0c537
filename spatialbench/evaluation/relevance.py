r"""Where a model looks when it scores a picture against a caption: attention times its gradient, over all blocks.

With y the cosine of picture and caption, A_l the attention of block l (heads averaged after the product), R_0 = 1:

    (1)  \bar A_l = mean over heads of ( dy/dA_l * A_l )^+
    (2)  R_l = R_{l-1} + \bar A_l R_{l-1}
    (3)  the relevance of a patch is its entry in the row of R_L from which the embedding is read

Source: Chefer, Gur, Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
Transformers", arXiv 2103.15679, equations (5) and (6). Here (2) runs over all blocks, as printed; the authors' CLIP
notebook runs over the last one only. A student that is not read at a class token (SigLIP, mean pooling) is read at all
its patches alike: ours.

Attention alone, which no caption moves, is rolled out beside it:

    (4)  S_l = ( (mean over heads of A_l) + 1 ) / 2 S_{l-1}, S_0 = 1, read as in (3)

Source of (4): Abnar, Zuidema, "Quantifying Attention Flow in Transformers", arXiv 2005.00928, section 3.

The attention is never taken out of the model: queries, keys and values are read where a method mixes them, what leaves
the softmax where it enters the output projection o = A v, and dy/dA_{ij} = <dy/do_i, v_j>. So every method is explained
through its own ``image``, and nothing of its forward pass is written twice.

Letters: B pictures, H heads, T tokens, t tokens that are read (T, or 1), d channels of a head, h w the grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spatialbench.models.towers import Mix, has_class_token, image_blocks, patch_size
from spatialbench.utils.errors import SpatialbenchError

Explained = Any
"""A ``spatialbench.methods.base.Method``: image, text, tokenize, connect, student."""


@dataclass
class _Seen:
    """Of one block: attention [B, H, T, T] and values [B, H, T, d], detached; what enters the output projection
    [B, t, H d], in the graph.
    """

    attention: Tensor | None = None
    values: Tensor | None = None
    output: Tensor | None = None


def relevance(model: Explained, pixels: Tensor, caption: str) -> Tensor:
    """The relevance of every patch of pictures for their cosine with a caption.

    Args:
        model: in eval mode.
        pixels: uint8 [B, 3, S, S], as ``model.image`` takes them.

    Returns:
        float32 [B, h, w] on the CPU, 0 or more; comparable within a picture, not between models.

    Raises:
        SpatialbenchError: pictures or a caption that the model does not take, or relevance that is no number.
    """
    with torch.no_grad():
        text = model.text(model.tokenize([caption]))[0].detach()
    with _watched(model) as seen, torch.enable_grad():
        cosine = model.image(pixels.to(text.device)) @ text  # [B]
        outputs = [one.output for one in seen if one.output is not None]
        if len(outputs) != len(seen):
            raise SpatialbenchError(
                "the model's image does not run through the blocks of its student: no relevance"
            )
        gradients = torch.autograd.grad(cosine.sum(), outputs)
    rollout = None
    for one, gradient in zip(seen, gradients, strict=True):
        assert one.attention is not None
        assert one.values is not None
        step = _positive(one.attention, one.values, gradient)  # (1), [B, T, T]
        rollout = (
            torch.eye(step.shape[-1], device=step.device).expand_as(step)
            if rollout is None
            else rollout
        )
        rollout = rollout + step @ rollout  # (2)
    assert rollout is not None, "a tower has blocks"
    return _read(model, rollout, pixels)


@torch.no_grad()
def attention(model: Explained, pixels: Tensor) -> Tensor:
    """(4): the attention that is paid to every patch of pictures, whatever the caption.

    Args:
        model, pixels: as of :func:`relevance`.

    Returns:
        float32 [B, h, w] on the CPU, 0 or more; the patches of a picture add up to 1 at most.

    Raises:
        SpatialbenchError: likewise.
    """
    with _watched(model) as seen:
        model.image(pixels.to(model.device))
    rollout = None
    for one in seen:
        if one.attention is None:
            raise SpatialbenchError(
                "the model's image does not run through the blocks of its student: no attention"
            )
        step = one.attention.float().mean(1)
        unit = torch.eye(step.shape[-1], device=step.device)
        rollout = (step + unit) / 2 @ (unit if rollout is None else rollout)  # (4)
    assert rollout is not None, "a tower has blocks"
    return _read(model, rollout, pixels)


def _read(model: Explained, rollout: Tensor, pixels: Tensor) -> Tensor:
    """(3), [B, h, w]."""
    found = _patches(model.student, rollout)
    if not found.isfinite().all():
        raise SpatialbenchError(
            "the map is not finite; the training diverged or the weights are damaged"
        )
    height, width = patch_size(model.student)
    grid = pixels.shape[-2] // height, pixels.shape[-1] // width
    return found.unflatten(1, grid).float().cpu()


def _positive(attention: Tensor, values: Tensor, gradient: Tensor) -> Tensor:
    """(1), [B, T, T]; the rows of tokens that the block does not read are 0."""
    heads, tokens = attention.shape[1], attention.shape[-1]
    upstream = gradient.unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, H, t, d]
    read = upstream.shape[2]
    weighted = (upstream @ values.transpose(-1, -2)) * attention[:, :, :read]  # [B, H, t, T]
    kept = weighted.clamp(min=0).mean(1)
    return nn.functional.pad(kept, (0, 0, 0, tokens - read))


def _patches(student: Any, rollout: Tensor) -> Tensor:
    """What (3) reads, [B, h w]."""
    if not has_class_token(student):
        return rollout.mean(1)
    if student.visual.pool_type == "tok":
        return rollout[:, 0, 1:]
    return rollout[:, 1:, 1:].mean(1)


@contextmanager
def _watched(model: Explained) -> Iterator[list[_Seen]]:
    """What every block of the image tower sees, for as long as this lasts; the model is left as it was."""
    blocks = image_blocks(model.student)
    seen = [_Seen() for _ in blocks]
    plain = model.connect

    def connect(x: Tensor) -> Mix:
        mix = plain(x)

        def read(block: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = (q, k, v) if mix is None else mix(block, q, k, v)
            logits = (q.detach() / math.sqrt(q.shape[-1])) @ k.detach().transpose(-1, -2)
            seen[block].attention, seen[block].values = logits.softmax(-1), v.detach()
            return q, k, v

        return read

    with ExitStack() as stack:
        for one, block in zip(seen, blocks, strict=True):
            stack.callback(_projection(block).register_forward_pre_hook(_keep(one)).remove)
        model.connect = connect  # of this instance
        stack.callback(delattr, model, "connect")
        yield seen


def _projection(block: Any) -> nn.Module:
    """What o = A v enters first: the output projection; in timm's blocks a norm before it, mostly none."""
    return block.attn.norm if hasattr(block, "norm1") else block.attn.out_proj


def _keep(one: _Seen) -> Any:
    def hook(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        (output,) = given
        output = output if output.requires_grad else output.detach().requires_grad_()
        one.output = output
        return (output,)

    return hook
