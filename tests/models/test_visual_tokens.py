"""Embedding and patches are the libraries' own numbers, in one space."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from open_clip.timm_model import TimmModel
from torch import Tensor

from spatialbench.models.open_clip_student import load_clip
from spatialbench.models.visual_tokens import visual_tokens
from tests.support.checks import close, refused
from tests.support.models import SIZE, VARIANTS, normal_images, student


def siglip(pool: str = "map", proj: str = "none") -> Any:
    visual = TimmModel("spatialbench_siglip_tower", 48, SIZE, pool=pool, proj=proj)
    return SimpleNamespace(visual=visual.eval())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_embedding_is_encode_image(variant: str) -> None:
    model, x = load_clip(student(variant, **VARIANTS[variant])), normal_images()
    tokens = visual_tokens(model, x)
    close(tokens.cls, model.encode_image(x), 0, 1e-6)
    assert tokens.local.shape == (3, 16, 24)
    assert tokens.grid == (4, 4)


def test_the_patches_are_open_clips_own_projected_and_every_parameter_gets_a_gradient() -> None:
    model = load_clip(student())
    model.visual.output_tokens = True  # patches after the norm, before the projection
    _, patches = model.visual(normal_images())
    tokens = visual_tokens(model, normal_images())
    close(tokens.local, patches @ model.visual.proj, 0, 1e-6)
    (tokens.cls.square().sum() + tokens.local.square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.visual.parameters())
    assert all(p.grad is None for p in model.transformer.parameters())


def test_patches_are_in_raster_order_off_the_native_size_too() -> None:
    """With attention that moves nothing a patch is a function of its own pixels."""
    model, x = load_clip(student()), normal_images(3, 32, 48)
    with torch.no_grad():
        for block in model.visual.transformer.resblocks:
            block.attn.out_proj.weight.zero_()
    changed = x.clone()
    changed[:, :, 8:16, 40:48] += 1  # row 1 of 4, column 5 of 6
    before, after = visual_tokens(model, x), visual_tokens(model, changed)
    assert before.grid == (4, 6)
    moved = (before.local != after.local).any(-1)
    assert moved.nonzero()[:, 1].tolist() == [11] * 3


def test_a_hook_reaches_every_block() -> None:
    seen = []

    def mix(block: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen.append((block, q.shape[2]))
        return q, k, v * 2

    model, x = load_clip(student()), normal_images()
    changed = visual_tokens(model, x, mix)
    assert seen == [(0, 17), (1, 17), (2, 17)]
    assert not torch.allclose(changed.cls, model.encode_image(x), atol=1e-3)


@pytest.mark.parametrize("proj", ["none", "linear"])
def test_siglip_is_the_pooled_vector_and_what_is_pooled(proj: str) -> None:
    visual, x = siglip(proj=proj).visual, normal_images()
    tokens = visual_tokens(SimpleNamespace(visual=visual), x)
    close(tokens.cls, visual(x), 0, 1e-6)
    _, features = visual.trunk.forward_intermediates(x, norm=True, output_fmt="NLC")
    close(tokens.local, visual.head(features[-1]), 0, 1e-6)
    assert tokens.grid == (4, 4)
    tokens.cls.sum().backward()
    assert visual.trunk.attn_pool.kv.weight.grad.any()


def test_other_towers_are_refused() -> None:
    with refused("without attention pooling, or with prefix tokens"):
        visual_tokens(siglip(pool="avg"), normal_images())
    with refused("no access to the blocks of a timm tower"):
        visual_tokens(siglip(), normal_images(), lambda block, q, k, v: (q, k, v))
