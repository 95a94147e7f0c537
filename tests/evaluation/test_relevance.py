"""Relevance against autograd through written-out attention; the model is left as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from spatialbench.evaluation.relevance import attention, relevance
from spatialbench.methods.base import Method
from spatialbench.methods.clip import Clip
from spatialbench.methods.spatial_attn import SpatialAttention
from spatialbench.models.towers import encode_image, merge_heads, project_qkv
from tests.support import models

CAPTION = "The sofa is left of the lamp."


def attentions(model: Method, one: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The embedding of a picture and the attention [1, H, T, T] of every block, all in the graph."""
    kept: list[Tensor] = []

    def block(block: Any, x: Tensor, mix: Any = None, read: Tensor | None = None) -> Tensor:
        q, k, v = project_qkv(block, x)
        if mix is not None:
            q, k, v = mix(q, k, v)
        kept.append((q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1))
        x = x + block.attn.out_proj(merge_heads(kept[-1] @ v))
        x = x + block.mlp(block.ln_2(x))
        return x if read is None else x[:, :1]

    return encode_image(
        model.student, model._normalised(one[None]), model.connect(one[None]), block
    ), kept


def written_out(model: Method, pixels: Tensor, caption: str) -> Tensor:
    """Equations (1) to (3) with every attention matrix in the graph, picture by picture."""
    rows = []
    for one in pixels:
        found, kept = attentions(model, one)
        image = found / found.norm(dim=-1, keepdim=True)
        text = model.text(model.tokenize([caption]))[0].detach()
        gradients = torch.autograd.grad((image @ text).sum(), kept)
        rollout = torch.eye(kept[0].shape[-1])
        for each, gradient in zip(kept, gradients, strict=True):
            heads = [
                (g * a).clamp(min=0) for g, a in zip(gradient[0], each[0].detach(), strict=True)
            ]  # (1)
            rollout = rollout + sum(heads) / len(heads) @ rollout  # (2)
        rows.append(rollout[0, 1:].reshape(4, 4))  # (3)
    return torch.stack(rows)


def method(kind: str) -> Method:
    torch.manual_seed(3)
    if kind == "clip":
        return Clip(models.student()).eval()
    return SpatialAttention(
        models.student(), models.SAME, cache=False, value_connection=True
    ).eval()


@pytest.mark.parametrize("kind", ["clip", "spatial_attn"])
def test_relevance_is_autograd_through_written_out_attention(kind: str) -> None:
    model, pixels = method(kind), models.images(2)
    found = relevance(model, pixels, CAPTION)
    assert found.shape == (2, 4, 4)
    assert (found >= 0).all()
    assert found.max() > 0
    torch.testing.assert_close(found, written_out(model, pixels, CAPTION), rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("kind", ["clip", "spatial_attn"])
def test_attention_is_the_product_of_written_out_attention(kind: str) -> None:
    model, pixels = method(kind), models.images(2)
    found = attention(model, pixels)
    expected = []
    for one in pixels:
        product = torch.eye(17)
        for each in attentions(model, one)[1]:
            product = (each[0].mean(0) / 2 + torch.eye(17) / 2) @ product  # (4)
        expected.append(product[0, 1:].reshape(4, 4))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-7)
    assert (found >= 0).all()
    assert (found.sum((1, 2)) < 1).all()  # the rest stays with the class token
    assert "connect" not in vars(model)


def test_the_model_is_left_as_it_was() -> None:
    model, pixels = method("clip"), models.images(1)
    before = model.image(pixels)
    relevance(model, pixels, CAPTION)
    assert "connect" not in vars(model)
    assert all(
        not block.attn.out_proj._forward_pre_hooks
        for block in model.student.visual.transformer.resblocks
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(model.image(pixels), before, rtol=0, atol=0)


def test_frozen_towers_and_other_captions() -> None:
    """No parameter that learns is needed, and the caption matters."""
    model, pixels = method("clip"), models.images(1)
    expected = relevance(model, pixels, CAPTION)
    model.requires_grad_(False)
    torch.testing.assert_close(relevance(model, pixels, CAPTION), expected)
    assert not torch.allclose(relevance(model, pixels, "The cup is under the bed."), expected)
