"""Relevance against autograd through written-out attention; the model is left as it was."""

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


def attentions(model: Method, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return an embedding and the attention [1, H, T, T] of every block, all in the graph."""
    kept: list[Tensor] = []

    def block(block: Any, x: Tensor, mix: Any = None, read: Tensor | None = None) -> Tensor:
        q, k, v = project_qkv(block, x)
        if mix is not None:
            q, k, v = mix(q, k, v)
        kept.append((q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1))
        x = x + block.attn.out_proj(merge_heads(kept[-1] @ v))
        x = x + block.mlp(block.ln_2(x))
        return x if read is None else x[:, :1]

    pixels = model._normalised(image[None])
    return encode_image(model.student, pixels, model.connect(image[None]), block), kept


def written_out(model: Method, pixels: Tensor, caption: str) -> Tensor:
    """Compute equations (1) to (3) with every attention matrix in the graph, image by image."""
    rows = []
    text = model.text(model.tokenize([caption]))[0].detach()
    for pixel in pixels:
        embedding, kept = attentions(model, pixel)
        cosine = torch.nn.functional.normalize(embedding, dim=-1) @ text
        gradients = torch.autograd.grad(cosine.sum(), kept)
        rollout = torch.eye(kept[0].shape[-1])
        for each, gradient in zip(kept, gradients, strict=True):
            heads = [
                (g * a).clamp(min=0) for g, a in zip(gradient[0], each[0].detach(), strict=True)
            ]  # (1)
            rollout = rollout + sum(heads) / len(heads) @ rollout  # (2)
        rows.append(rollout[0, 1:].reshape(4, 4))  # (3)
    return torch.stack(rows)


@pytest.fixture(params=["clip", "spatial_attn"])
def model(request: pytest.FixtureRequest) -> Method:
    torch.manual_seed(3)
    if request.param == "clip":
        return Clip(models.student()).eval()
    options = {"cache": False, "value_connection": True}
    return SpatialAttention(models.student(), models.SAME, **options).eval()


def test_relevance_is_autograd_through_written_out_attention(model: Method) -> None:
    pixels = models.images(2)
    values = relevance(model, pixels, CAPTION)
    assert values.shape == (2, 4, 4)
    assert (values >= 0).all()
    assert values.max() > 0
    torch.testing.assert_close(values, written_out(model, pixels, CAPTION), rtol=1e-3, atol=1e-8)


def test_attention_is_the_product_of_written_out_attention(model: Method) -> None:
    pixels = models.images(2)
    values = attention(model, pixels)
    expected = []
    for image in pixels:
        product = torch.eye(17)
        for each in attentions(model, image)[1]:
            product = (each[0].mean(0) / 2 + torch.eye(17) / 2) @ product  # (4)
        expected.append(product[0, 1:].reshape(4, 4))
    torch.testing.assert_close(values, torch.stack(expected), rtol=1e-4, atol=1e-7)
    assert (values >= 0).all()
    assert (values.sum((1, 2)) < 1).all()  # the rest stays with the class token


def test_the_model_is_left_as_it_was(model: Method) -> None:
    pixels, attributes = models.images(1), set(vars(model))
    before = model.image(pixels)
    relevance(model, pixels, CAPTION)
    assert set(vars(model)) == attributes
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.testing.assert_close(model.image(pixels), before, rtol=0, atol=0)


def test_frozen_towers_and_other_captions(model: Method) -> None:
    """No parameter that learns is needed, and the caption matters."""
    pixels = models.images(1)
    expected = relevance(model, pixels, CAPTION)
    model.requires_grad_(False)
    torch.testing.assert_close(relevance(model, pixels, CAPTION), expected)
    assert not torch.allclose(relevance(model, pixels, "The cup is under the bed."), expected)
