"""Every published layout of a DINOv2 encoder gives the outputs of its publisher's own code.

The golden checkpoints are tiny, random and made here: in transformers' layout by transformers itself
(``save_pretrained``), in DINOv2's and Depth Anything's by renaming that, written down below apart from the loader.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.layers import SwiGLUPacked
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from spatialbench.models.files.dinov2_files import positions_for
from spatialbench.models.timm_vfm import VFM, load_vfm
from spatialbench.utils.errors import SpatialbenchError
from tests.support.models import images

SIDE, PATCH, WIDTH, DEPTH, HEADS = 56, 14, 48, 3, 3
TINY = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def _dinov2(**arguments: Any) -> VisionTransformer:
    sizes = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": DEPTH,
        "num_heads": HEADS,
    }
    model = VisionTransformer(**{**sizes, "num_classes": 0, "init_values": 1e-5, **arguments})
    model.pretrained_cfg = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return model


@register_model
def spatialbench_dinov2(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """timm's vit_*_patch14_dinov2 in small."""
    return _dinov2()


@register_model
def spatialbench_dinov2_swiglu(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """timm's vit_giant_patch14_dinov2 in small."""
    return _dinov2(mlp_ratio=256 / WIDTH, mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU)


@register_model
def spatialbench_dinov2_reg4(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """timm's vit_*_patch14_reg4_dinov2 in small."""
    return _dinov2(reg_tokens=4, no_embed_class=True)


def scrambled(model: torch.nn.Module) -> Any:
    """Random everywhere: in a fresh model norms and layer scales are one, and an exchange would not be seen."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def depth_anything() -> DepthAnythingForDepthEstimation:
    encoder = Dinov2Config(**TINY, out_indices=[1, 2, 3], reshape_hidden_states=False)
    config = DepthAnythingConfig(
        backbone_config=encoder,
        neck_hidden_sizes=[8, 8, 8],
        fusion_hidden_size=8,
        reassemble_factors=[2, 1, 0.5],
        reassemble_hidden_size=WIDTH,
        patch_size=PATCH,
    )
    return scrambled(DepthAnythingForDepthEstimation(config))


def published(model: Any, folder: Path) -> dict[str, Tensor]:
    """A model in the layout of the files on the Hub."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def in_dinov2s_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """facebookresearch/dinov2's names, from transformers' of Dinov2Model."""
    found = {}
    for name, value in state.items():
        if ".attention.attention." in name:
            continue
        name = name.replace("embeddings.position_embeddings", "pos_embed").replace(
            "layernorm.", "norm."
        )
        name = name.replace("embeddings.patch_embeddings.projection.", "patch_embed.proj.")
        name = name.replace("embeddings.", "").replace("encoder.layer.", "blocks.")
        name = name.replace("attention.output.dense", "attn.proj").replace("weights_in", "w12")
        name = name.replace("weights_out", "w3")
        found[re.sub(r"layer_scale(\d)\.lambda1", r"ls\1.gamma", name)] = value
    for block in range(DEPTH):
        for kind in ("weight", "bias"):
            three = [
                state[f"encoder.layer.{block}.attention.attention.{part}.{kind}"]
                for part in ("query", "key", "value")
            ]
            found[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(three)
    return found


def pixels(vfm: VFM, size: int = SIDE, count: int = 2) -> Tensor:
    return (images(count, size=size).to(vfm.mean) - vfm.mean) / vfm.std


def check_blocks(vfm: VFM, reference: Any, size: int = SIDE) -> None:
    """Inputs of all blocks and the last output, and q, k, v of every block, are those of transformers' model."""
    x = pixels(vfm, size)
    seen: dict[str, Tensor] = {}
    for number, layer in enumerate(reference.encoder.layer):
        for part in "qkv":
            projection = getattr(layer.attention, f"{part}_proj")
            projection.register_forward_hook(
                lambda _, __, out, key=f"{number}{part}": seen.update({key: out})
            )
    with torch.no_grad():
        states = reference(x, output_hidden_states=True).hidden_states
        inputs = vfm._forward(x)
        for number in range(DEPTH):
            torch.testing.assert_close(inputs[:, number], states[number], rtol=1e-4, atol=1e-4)
            for part, found in zip("qkv", vfm.qkv(number, states[number]), strict=True):
                wanted = seen[f"{number}{part}"].unflatten(-1, (HEADS, -1)).transpose(1, 2)
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        last = vfm.model.forward_features(x)
        torch.testing.assert_close(last, reference.layernorm(states[DEPTH]), rtol=1e-4, atol=1e-4)


def test_depth_anything_in_transformers_layout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = depth_anything()
    state = published(model, tmp_path)
    assert "backbone.encoder.layer.0.attention.attention.query.weight" in state
    vfm = load_vfm(f"spatialbench_dinov2:{tmp_path / 'model.safetensors'}", cache=False)
    heads = sum(name.startswith(("neck.", "head.")) for name in state)
    assert f"{heads} tensors of its depth head are left out" in capsys.readouterr().err
    check_blocks(vfm, model.backbone)


def test_depth_anythings_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = depth_anything()
    state = published(model, tmp_path)
    encoder = {
        name.removeprefix("backbone."): v
        for name, v in state.items()
        if name.startswith("backbone.")
    }
    own = {f"pretrained.{name}": value for name, value in in_dinov2s_names(encoder).items()}
    own |= {
        "depth_head.projects.0.weight": torch.zeros(1),
        "depth_head.scratch.output_conv1.bias": torch.zeros(1),
    }
    torch.save(own, tmp_path / "depth_anything_v2_tiny.pth")
    vfm = load_vfm(f"spatialbench_dinov2:{tmp_path / 'depth_anything_v2_tiny.pth'}", cache=False)
    assert "2 tensors of its depth head are left out" in capsys.readouterr().err
    check_blocks(vfm, model.backbone)


@pytest.mark.parametrize(
    ("layout", "swiglu"),
    [
        ("hub", 0),
        ("dinov2", 0),
        ("timm", 0),
        ("running", 0),
        ("hub", 1),
        ("dinov2", 1),
        ("timm", 1),
    ],
)
def test_dinov2_in_every_layout(layout: str, swiglu: int, tmp_path: Path) -> None:
    model = scrambled(Dinov2Model(Dinov2Config(**TINY, use_swiglu_ffn=bool(swiglu))))
    spec = "spatialbench_dinov2_swiglu" if swiglu else "spatialbench_dinov2"
    state, path = published(model, tmp_path), tmp_path / "encoder.safetensors"
    if layout == "running":
        state = model.state_dict()
    elif layout != "hub":
        state = in_dinov2s_names(state)
    if layout == "timm":
        del state["mask_token"]
        state = {
            name.replace("w12", "fc1").replace("w3", "fc2"): value for name, value in state.items()
        }
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    check_blocks(load_vfm(f"{spec}:{path}", cache=False), model)


@pytest.mark.parametrize("size", [SIDE, 84])
def test_dinov2_with_registers(size: int, tmp_path: Path) -> None:
    """The registers are dropped from what enters the blocks; position embeddings are smoothed, as timm does."""
    model = scrambled(
        Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**TINY, num_register_tokens=4))
    )
    published(model, tmp_path)
    vfm = load_vfm(f"spatialbench_dinov2_reg4:{tmp_path / 'model.safetensors'}", size, cache=False)
    x = pixels(vfm, size)
    with torch.no_grad():
        states = model(x, output_hidden_states=True).hidden_states
        inputs = vfm._forward(x)
    for number in range(DEPTH):
        wanted = torch.cat([states[number][:, :1], states[number][:, 5:]], dim=1)
        torch.testing.assert_close(inputs[:, number], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [84, 42, 70])
def test_another_size_is_transformers_own(size: int, tmp_path: Path) -> None:
    model = depth_anything()
    published(model, tmp_path)
    vfm = load_vfm(f"spatialbench_dinov2:{tmp_path / 'model.safetensors'}", size, cache=False)
    assert vfm.grid == (size // PATCH, size // PATCH)
    check_blocks(vfm, model.backbone, size)


@pytest.mark.parametrize("size", [84, 42])
def test_another_size_in_timms_layout_is_timms_own(size: int, tmp_path: Path) -> None:
    """timm's model made at that size, its weights brought there by timm's own filter."""
    native = scrambled(_dinov2())
    save_file(native.state_dict(), tmp_path / "timm.safetensors")
    vfm = load_vfm(f"spatialbench_dinov2:{tmp_path / 'timm.safetensors'}", size, cache=False)
    other = _dinov2(img_size=size).eval()
    other.load_state_dict(checkpoint_filter_fn(native.state_dict(), other))
    x = pixels(vfm, size)
    with torch.no_grad():
        torch.testing.assert_close(
            vfm.model.forward_features(x), other.forward_features(x), rtol=1e-5, atol=1e-5
        )


def cubic(distance: float) -> float:
    """The kernel of torch's bicubic interpolation, a = -0.75."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("new", [6, 3, 24])
def test_dinov2s_own_positions_as_a_loop(new: int) -> None:
    """facebookresearch/dinov2: bicubic, no smoothing, sampled as if for ``new + 0.1`` patches a side."""
    old = 4
    embedding = torch.randn(1, 1 + old * old, 5)
    found = positions_for(embedding, (old, old), (new, new), 1, "dinov2")
    weights = torch.zeros(new, old, dtype=torch.float64)
    for target in range(new):
        at = (target + 0.5) * old / (new + 0.1) - 0.5
        for source in range(int(at // 1) - 1, int(at // 1) + 3):
            weights[target, min(max(source, 0), old - 1)] += cubic(at - source)
    patches = embedding[0, 1:].double().unflatten(0, (old, old))
    wanted = torch.einsum("ri,cj,ijd->rcd", weights, weights, patches).flatten(0, 1)
    torch.testing.assert_close(found[0, 1:].double(), wanted, rtol=1e-4, atol=1e-5)
    assert found[0, 0].equal(embedding[0, 0])


def test_the_file_says_how_its_positions_are_resized(tmp_path: Path) -> None:
    """The same weights in three layouts, at another size: three position embeddings."""
    state = published(scrambled(Dinov2Model(Dinov2Config(**TINY))), tmp_path)
    own = in_dinov2s_names(state)
    save_file(own, tmp_path / "dinov2.safetensors")
    save_file(
        {name: value for name, value in own.items() if name != "mask_token"},
        tmp_path / "timm.safetensors",
    )
    layouts = {"timm": "timm", "dinov2": "dinov2", "transformers": "model"}
    for how, name in layouts.items():
        vfm = load_vfm(f"spatialbench_dinov2:{tmp_path / name}.safetensors", 84, cache=False)
        wanted = positions_for(state["embeddings.position_embeddings"], (4, 4), (6, 6), 1, how)  # type: ignore[arg-type]
        assert vfm.model.pos_embed.equal(wanted), how
    embedding = state["embeddings.position_embeddings"]
    smaller = [positions_for(embedding, (4, 4), (3, 3), 1, how) for how in layouts]  # type: ignore[arg-type]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert not smaller[one].allclose(smaller[other])


@pytest.mark.parametrize("damage", ["strange", "missing", "lone", "patch"])
def test_what_does_not_fit_is_told(damage: str, tmp_path: Path) -> None:
    state = published(depth_anything(), tmp_path)
    query = "backbone.encoder.layer.1.attention.attention.query.weight"
    if damage == "strange":
        state["backbone.encoder.layer.0.lora.weight"] = torch.zeros(1)
    elif damage == "patch":  # timm would resample it without a word
        name = "backbone.embeddings.patch_embeddings.projection.weight"
        state[name] = torch.zeros(WIDTH, 3, 16, 16)
    else:
        del state["backbone.layernorm.weight" if damage == "missing" else query]
    save_file(state, tmp_path / "damaged.safetensors")
    with pytest.raises(
        SpatialbenchError, match=r"damaged\.safetensors does not fit the model"
    ) as caught:
        load_vfm(f"spatialbench_dinov2:{tmp_path / 'damaged.safetensors'}")
    assert "\n" not in str(caught.value)


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("run",)

    torch.save({"cls_token": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(SpatialbenchError, match=r"evil\.pth does not fit the model"):
        load_vfm(f"spatialbench_dinov2:{tmp_path / 'evil.pth'}")
