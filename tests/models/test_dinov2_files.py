"""Every published layout of a DINOv2 encoder gives the outputs of its publisher's own code.

The golden checkpoints are tiny, random and made here: in transformers' layout by transformers
itself (``save_pretrained``), in DINOv2's and Depth Anything's by renaming that, written down below
apart from the loader.
"""

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
from tests.support.checks import close, refused
from tests.support.models import images, scrambled

SIDE, PATCH, WIDTH, DEPTH, HEADS = 56, 14, 48, 3, 3
TINY = {
    **{"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS},
    **{"image_size": SIDE, "patch_size": PATCH},
}
QKV = ("query", "key", "value")


def _dinov2(**arguments: Any) -> VisionTransformer:
    sizes = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH}
    sizes |= {"num_heads": HEADS, "num_classes": 0, "init_values": 1e-5}
    model = VisionTransformer(**{**sizes, **arguments})
    model.pretrained_cfg = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    return model


def spatialbench_dinov2(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """Small vit_*_patch14_dinov2 of timm."""
    return _dinov2()


def spatialbench_dinov2_swiglu(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """Small vit_giant_patch14_dinov2 of timm."""
    return _dinov2(mlp_ratio=256 / WIDTH, mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU)


def spatialbench_dinov2_reg4(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """Small vit_*_patch14_reg4_dinov2 of timm."""
    return _dinov2(reg_tokens=4, no_embed_class=True)


for _model in (spatialbench_dinov2, spatialbench_dinov2_swiglu, spatialbench_dinov2_reg4):
    register_model(_model)


def depth_anything() -> DepthAnythingForDepthEstimation:
    config = DepthAnythingConfig(
        backbone_config=Dinov2Config(**TINY, out_indices=[1, 2, 3], reshape_hidden_states=False),
        **{"neck_hidden_sizes": [8, 8, 8], "fusion_hidden_size": 8, "patch_size": PATCH},
        **{"reassemble_factors": [2, 1, 0.5], "reassemble_hidden_size": WIDTH},
    )
    return scrambled(DepthAnythingForDepthEstimation(config))


def published(model: Any, folder: Path) -> dict[str, Tensor]:
    """Write a model in the layout of the files on the Hub, model.safetensors."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def loaded(path: Path, size: int | None = None, model: str = "spatialbench_dinov2") -> VFM:
    return load_vfm(f"{model}:{path}", size, cache=False)


def in_dinov2s_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """facebookresearch/dinov2's names, from transformers' of Dinov2Model."""
    renamed = {}
    for name, value in state.items():
        if ".attention.attention." in name:
            continue
        for theirs, own in (
            ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
            ("embeddings.", ""),
            ("layernorm.", "norm."),
            ("encoder.layer.", "blocks."),
            ("attention.output.dense", "attn.proj"),
            ("weights_in", "w12"),
            ("weights_out", "w3"),
        ):
            name = name.replace(theirs, own)
        renamed[re.sub(r"layer_scale(\d)\.lambda1", r"ls\1.gamma", name)] = value
    for block in range(DEPTH):
        for kind in ("weight", "bias"):
            place = f"encoder.layer.{block}.attention.attention"
            three = [state[f"{place}.{part}.{kind}"] for part in QKV]
            renamed[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(three)
    return renamed


def pixels(vfm: VFM, size: int = SIDE) -> Tensor:
    return (images(2, size=size).to(vfm.mean) - vfm.mean) / vfm.std


def check_blocks(vfm: VFM, reference: Any, size: int = SIDE) -> None:
    """Compare inputs and q, k, v of all blocks, and the last output, with transformers' model."""
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
            close(inputs[:, number], states[number], 1e-4)
            for part, ours in zip("qkv", vfm.qkv(number, states[number]), strict=True):
                wanted = seen[f"{number}{part}"].unflatten(-1, (HEADS, -1)).transpose(1, 2)
                close(ours, wanted, 1e-4)
        close(vfm.model.forward_features(x), reference.layernorm(states[DEPTH]), 1e-4)


@pytest.mark.parametrize("own_file", [False, True])
def test_depth_anything_in_transformers_layout_and_in_its_own(
    own_file: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = depth_anything()
    state, path = published(model, tmp_path), tmp_path / "model.safetensors"
    assert "backbone.encoder.layer.0.attention.attention.query.weight" in state
    heads = sum(name.startswith(("neck.", "head.")) for name in state)
    if own_file:
        encoder = {n.removeprefix("backbone."): v for n, v in state.items() if "backbone" in n}
        own = {f"pretrained.{name}": value for name, value in in_dinov2s_names(encoder).items()}
        path, heads = tmp_path / "depth_anything_v2_tiny.pth", 2
        names = ("projects.0.weight", "scratch.output_conv1.bias")
        torch.save(own | {f"depth_head.{name}": torch.zeros(1) for name in names}, path)
    vfm = loaded(path)
    assert f"{heads} tensors of its depth head are left out" in capsys.readouterr().err
    check_blocks(vfm, model.backbone)


@pytest.mark.parametrize(
    ("layout", "swiglu"),
    [("running", 0), *((name, swiglu) for name in ("hub", "dinov2", "timm") for swiglu in (0, 1))],
)
def test_dinov2_in_every_layout(layout: str, swiglu: int, tmp_path: Path) -> None:
    model = scrambled(Dinov2Model(Dinov2Config(**TINY, use_swiglu_ffn=bool(swiglu))))
    state, path = published(model, tmp_path), tmp_path / "encoder.safetensors"
    if layout == "running":
        state = model.state_dict()
    elif layout != "hub":
        state = in_dinov2s_names(state)
    if layout == "timm":
        del state["mask_token"]
        state = {n.replace("w12", "fc1").replace("w3", "fc2"): v for n, v in state.items()}
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    check_blocks(loaded(path, model="spatialbench_dinov2" + "_swiglu" * swiglu), model)


@pytest.mark.parametrize("size", [SIDE, 84])
def test_dinov2_with_registers(size: int, tmp_path: Path) -> None:
    """Registers are dropped from the inputs of blocks; positions are smoothed, as timm does."""
    config = Dinov2WithRegistersConfig(**TINY, num_register_tokens=4)
    model = scrambled(Dinov2WithRegistersModel(config))
    published(model, tmp_path)
    vfm = loaded(tmp_path / "model.safetensors", size, "spatialbench_dinov2_reg4")
    x = pixels(vfm, size)
    with torch.no_grad():
        states = model(x, output_hidden_states=True).hidden_states
        inputs = vfm._forward(x)
    for number in range(DEPTH):
        wanted = torch.cat([states[number][:, :1], states[number][:, 5:]], dim=1)
        close(inputs[:, number], wanted, 1e-4)


@pytest.mark.parametrize("size", [84, 42])
def test_another_size_is_transformers_own(size: int, tmp_path: Path) -> None:
    model = depth_anything()
    published(model, tmp_path)
    vfm = loaded(tmp_path / "model.safetensors", size)
    assert vfm.grid == (size // PATCH, size // PATCH)
    check_blocks(vfm, model.backbone, size)


@pytest.mark.parametrize("size", [84, 42])
def test_another_size_in_timms_layout_is_timms_own(size: int, tmp_path: Path) -> None:
    """Against timm's model made at that size, its weights converted by timm's own filter."""
    native, other = scrambled(_dinov2()), _dinov2(img_size=size).eval()
    save_file(native.state_dict(), tmp_path / "timm.safetensors")
    other.load_state_dict(checkpoint_filter_fn(native.state_dict(), other))
    vfm = loaded(tmp_path / "timm.safetensors", size)
    with torch.no_grad():
        x = pixels(vfm, size)
        close(vfm.model.forward_features(x), other.forward_features(x), 1e-5)


def cubic(distance: float) -> float:
    """Kernel of torch's bicubic interpolation, a = -0.75."""
    x, a = abs(distance), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("new", [6, 3, 24])
def test_dinov2s_own_positions_as_a_loop(new: int) -> None:
    """facebookresearch/dinov2: bicubic, not smoothed, sampled as for ``new + 0.1`` patches."""
    old = 4
    embedding = torch.randn(1, 1 + old * old, 5)
    resized = positions_for(embedding, (old, old), (new, new), 1, "dinov2")
    weights = torch.zeros(new, old, dtype=torch.float64)
    for target in range(new):
        at = (target + 0.5) * old / (new + 0.1) - 0.5
        for source in range(int(at // 1) - 1, int(at // 1) + 3):
            weights[target, min(max(source, 0), old - 1)] += cubic(at - source)
    patches = embedding[0, 1:].double().unflatten(0, (old, old))
    wanted = torch.einsum("ri,cj,ijd->rcd", weights, weights, patches).flatten(0, 1)
    close(resized[0, 1:].double(), wanted, 1e-4, 1e-5)
    assert resized[0, 0].equal(embedding[0, 0])


def test_a_file_of_dinov2s_layout_has_its_positions_resized_as_there(tmp_path: Path) -> None:
    """The three ways differ; the other two layouts are compared with their own models above."""
    state = published(scrambled(Dinov2Model(Dinov2Config(**TINY))), tmp_path)
    save_file(in_dinov2s_names(state), tmp_path / "dinov2.safetensors")
    embedding, resized = state["embeddings.position_embeddings"], {}
    for how in ("timm", "dinov2", "transformers"):
        resized[how] = positions_for(embedding, (4, 4), (3, 3), 1, how)  # type: ignore[arg-type]
    ours = loaded(tmp_path / "dinov2.safetensors", 42).model.pos_embed
    assert [how for how, theirs in resized.items() if ours.allclose(theirs)] == ["dinov2"]


ENCODER = "backbone.encoder.layer"
DAMAGES: dict[str, Tensor | None] = {
    f"{ENCODER}.0.lora.weight": torch.zeros(1),
    "backbone.embeddings.patch_embeddings.projection.weight": torch.zeros(WIDTH, 3, 16, 16),
    "backbone.layernorm.weight": None,
    f"{ENCODER}.1.attention.attention.query.weight": None,
}
"""Strange weights, another size of patch, which timm would resample silently, and missing ones."""


@pytest.mark.parametrize("name", DAMAGES)
def test_what_does_not_fit_is_refused(name: str, tmp_path: Path) -> None:
    state = published(depth_anything(), tmp_path) | {name: DAMAGES[name]}
    kept = {name: value for name, value in state.items() if value is not None}
    save_file(kept, tmp_path / "damaged.safetensors")
    with refused(r"damaged\.safetensors does not fit the model"):
        loaded(tmp_path / "damaged.safetensors")


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("run",)

    torch.save({"cls_token": Evil()}, tmp_path / "evil.pth")
    with refused(r"evil\.pth does not fit the model"):
        loaded(tmp_path / "evil.pth")
