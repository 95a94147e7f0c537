"""Embedding and patches are the libraries' own numbers, in one space."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from open_clip.timm_model import TimmModel
from torch import Tensor

from spatialbench.models.open_clip_student import load_clip
from spatialbench.models.towers import encode_image, visual_tokens
from tests.support.checks import close
from tests.support.models import SIZE, VARIANTS, normal_images, student


def siglip(**arguments: str) -> Any:
    settings = {"pool": "map", "proj": "none", **arguments}
    visual: Any = TimmModel("spatialbench_siglip_tower", 48, SIZE, **settings)
    return SimpleNamespace(visual=visual.eval())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_embedding_is_encode_image(variant: str) -> None:
    model, x = load_clip(student(variant, **VARIANTS[variant])), normal_images()
    tokens = visual_tokens(model, x)
    close(tokens.cls, model.encode_image(x), 0, 1e-6)
    assert (tokens.local.shape, tokens.grid) == ((3, 16, 24), (4, 4))
    assert visual_tokens(model, normal_images(3, 32, 48)).grid == (4, 6)


def test_the_patches_are_open_clips_own_projected_and_every_parameter_gets_a_gradient() -> None:
    model, x = load_clip(student()).double(), normal_images().double()
    model.visual.output_tokens = True  # patches after the norm, before the projection
    _, patches = model.visual(x)
    tokens = visual_tokens(model, x)
    close(tokens.local, patches @ model.visual.proj)
    (tokens.cls.square().sum() + tokens.local.square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.visual.parameters())
    assert all(p.grad is None for p in model.transformer.parameters())


def test_a_hook_reaches_every_block() -> None:
    seen, model, x = [], load_clip(student()), normal_images()

    def mix(block: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen.append((block, q.shape[2]))
        return q, k, v * 2

    assert not torch.allclose(visual_tokens(model, x, mix).cls, model.encode_image(x), atol=1e-3)
    assert seen == [(0, 17), (1, 17), (2, 17)]


@pytest.mark.parametrize("proj", ["none", "linear"])
def test_siglip_is_the_pooled_vector_and_what_is_pooled(proj: str) -> None:
    model, x = siglip(proj=proj), normal_images()
    visual, tokens = model.visual, visual_tokens(model, x)
    close(tokens.cls, visual(x), 0, 1e-6)
    _, features = visual.trunk.forward_intermediates(x, norm=True, output_fmt="NLC")
    close(tokens.local, visual.head(features[-1]), 0, 1e-6)
    assert tokens.grid == (4, 4)
    tokens.cls.sum().backward()
    assert visual.trunk.attn_pool.kv.weight.grad.any()


def test_a_hook_reaches_the_blocks_of_siglip() -> None:
    def mix(block: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return q, k, v * 2

    model, x = siglip(), normal_images()
    tokens, plain = visual_tokens(model, x, mix), visual_tokens(model, x)
    assert torch.equal(tokens.cls, encode_image(model, x, mix))
    assert not torch.allclose(tokens.local, plain.local, atol=1e-3)
