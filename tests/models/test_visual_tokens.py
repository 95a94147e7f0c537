"""Embedding and patches are the libraries' own numbers, in one space."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from open_clip.timm_model import TimmModel
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from spatialbench.models.open_clip_student import load_clip
from spatialbench.models.visual_tokens import visual_tokens
from spatialbench.utils.errors import SpatialbenchError
from tests.support.models import SIZE, student

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "quick_gelu": {"quick_gelu": True},
    "average": {"vision": '{"pool_type": "avg"}'},
    "norm_after_pool": {"vision": '{"pool_type": "avg", "final_ln_after_pool": true}'},
    "layer_scale": {"vision": '{"ls_init_value": 0.3, "no_ln_pre": true}'},
}


@register_model
def spatialbench_siglip(pretrained: bool = False, **arguments: Any) -> VisionTransformer:
    """SigLIP in small: no class token, attention pooling."""
    arguments = {
        key: value for key, value in arguments.items() if key in ("num_classes", "global_pool")
    }
    own = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    own |= {"class_token": False, "global_pool": "map"}
    model = VisionTransformer(**{**own, **arguments})
    model.default_cfg = {}
    return model


def siglip(**arguments: Any) -> Any:
    visual = TimmModel(
        "spatialbench_siglip", 24, SIZE, **{"pool": "map", "proj": "none", **arguments}
    )
    return SimpleNamespace(visual=visual.eval())


def pixels(height: int = SIZE, width: int = SIZE) -> Tensor:
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_embedding_is_encode_image(variant: str) -> None:
    model = load_clip(student(variant, **VARIANTS[variant]))
    found = visual_tokens(model, pixels())
    torch.testing.assert_close(found.cls, model.encode_image(pixels()), rtol=0, atol=1e-6)
    assert found.local.shape == (3, 16, 24)
    assert found.grid == (4, 4)


def test_the_patches_are_open_clips_own_projected() -> None:
    model = load_clip(student())
    model.visual.output_tokens = (
        True  # of this one model: patches after the norm, before the projection
    )
    pooled, patches = model.visual(pixels())
    found = visual_tokens(model, pixels())
    torch.testing.assert_close(found.cls, pooled, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.local, patches @ model.visual.proj, rtol=0, atol=1e-6)


def test_patches_are_in_raster_order_off_the_native_size_too() -> None:
    """With attention that moves nothing a patch is a function of its own pixels."""
    model = load_clip(student())
    with torch.no_grad():
        for block in model.visual.transformer.resblocks:
            block.attn.out_proj.weight.zero_()
    x = pixels(32, 48)
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

    model = load_clip(student())
    found = visual_tokens(model, pixels(), mix)
    assert seen == [(0, 17), (1, 17), (2, 17)]
    assert not torch.allclose(found.cls, model.encode_image(pixels()), atol=1e-3)


def test_every_parameter_of_the_image_tower_gets_a_gradient() -> None:
    model = load_clip(student())
    found = visual_tokens(model, pixels())
    (found.cls.square().sum() + found.local.square().sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.visual.parameters())
    assert all(p.grad is None for p in model.transformer.parameters())


@pytest.mark.parametrize("proj", ["none", "linear"])
def test_siglip_is_the_pooled_vector_and_what_is_pooled(proj: str) -> None:
    model = siglip(proj=proj)
    found = visual_tokens(model, pixels())
    torch.testing.assert_close(found.cls, model.visual(pixels()), rtol=0, atol=1e-6)
    features = model.visual.trunk.forward_intermediates(pixels(), norm=True, output_fmt="NLC")[1][
        -1
    ]
    torch.testing.assert_close(found.local, model.visual.head(features), rtol=0, atol=1e-6)
    assert found.grid == (4, 4)
    assert found.cls.shape[-1] == found.local.shape[-1]
    found.cls.sum().backward()
    assert model.visual.trunk.attn_pool.kv.weight.grad.any()


def test_other_towers_are_refused() -> None:
    with pytest.raises(SpatialbenchError, match="need attention pooling and no prefix tokens"):
        visual_tokens(siglip(pool="avg"), pixels())
    with pytest.raises(SpatialbenchError, match="cannot be reached into"):
        visual_tokens(siglip(), pixels(), lambda block, q, k, v: (q, k, v))
