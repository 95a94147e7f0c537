"""The VFM gives what timm computes inside, frozen, and its cache gives what it would compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from spatialbench.models import timm_vfm as module
from spatialbench.models.running import tensor_cores
from spatialbench.models.timm_vfm import VFM, load_vfm
from spatialbench.utils.errors import SpatialbenchError
from tests.support.models import OTHER, SAME, images

BOTH = pytest.mark.parametrize("spec", [SAME, OTHER])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))


def block_inputs(vfm: VFM, x: Tensor) -> list[Tensor]:
    """What enters every block of the timm model, registers and all, by timm's own functions."""
    model = vfm.model
    x = model.norm_pre(model._pos_embed(model.patch_embed((x - vfm.mean) / vfm.std)))
    inputs = []
    for block in model.blocks:
        inputs.append(x)
        x = block(x)
    return inputs


@BOTH
def test_q_k_v_are_the_ones_inside_timms_attention(spec: str) -> None:
    """The block's output recomputed from them is the block's output."""
    vfm = load_vfm(spec).double()
    for number, (x, block) in enumerate(
        zip(block_inputs(vfm, images(2)), vfm.model.blocks, strict=True)
    ):
        q, k, v = vfm.qkv(number, x)
        assert q.shape == (2, vfm.heads, x.shape[1], vfm.head_dim)
        attention = (q @ k.transpose(-1, -2) / vfm.head_dim**0.5).softmax(-1) @ v
        y = x + block.ls1(block.attn.proj(attention.transpose(1, 2).flatten(2)))
        y = y + block.ls2(block.mlp(block.norm2(y)))
        torch.testing.assert_close(y, block(x), rtol=1e-10, atol=1e-10)
        for part, wanted in zip(vfm.qkv(number, x, values=False), (q, k), strict=True):
            torch.testing.assert_close(part, wanted, rtol=1e-12, atol=1e-12)


@BOTH
def test_tokens_are_what_enters_the_blocks_without_registers(spec: str) -> None:
    vfm = load_vfm(spec, cache=False)
    tokens = vfm.tokens(images(3))
    inputs = torch.stack(block_inputs(vfm, images(3)), dim=1)
    patches = vfm.grid[0] * vfm.grid[1]
    expected = torch.cat([inputs[:, :, :1], inputs[:, :, -patches:]], dim=2)
    assert tokens.shape == (3, *vfm.token_shape)
    assert tokens.dtype == torch.bfloat16
    torch.testing.assert_close(tokens.float(), expected, rtol=2**-8, atol=1e-4)


def test_it_is_frozen() -> None:
    vfm = load_vfm(SAME)
    assert not vfm.train().training
    assert not any(part.training for part in vfm.modules())
    assert not any(parameter.requires_grad for parameter in vfm.parameters())
    assert not vfm.tokens(images(1)).requires_grad


def test_cached_is_recomputed_exactly() -> None:
    """Whatever stood beside an image when it was computed, and in another process."""
    vfm = load_vfm(SAME)
    x = images(70)
    live = load_vfm(SAME, cache=False)
    live.load_state_dict(vfm.state_dict())
    vfm.prepare(x.permute(0, 2, 3, 1).numpy())
    again = load_vfm(SAME)
    again.load_state_dict(vfm.state_dict())
    assert len(again._cache) == 70
    for rows in (slice(0, 1), slice(5, 70, 7), slice(0, 70)):
        cached = again.tokens(x[rows])
        assert cached.equal(live.tokens(x[rows])), rows
        assert cached.equal(vfm.tokens(x[rows])), rows
    assert again.tokens(x.flip(0)).equal(live.tokens(x).flip(0))


def test_what_is_in_the_cache_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    vfm = load_vfm(SAME)
    x = images(5)
    vfm.prepare(x[:4].permute(0, 2, 3, 1).numpy())
    computed: list[int] = []
    compute = vfm._compute
    monkeypatch.setattr(vfm, "_compute", lambda part: computed.append(len(part)) or compute(part))
    vfm.tokens(x[:4])
    vfm.prepare(x[:4].permute(0, 2, 3, 1).numpy())
    assert computed == []
    live = load_vfm(SAME, cache=False)
    live.load_state_dict(vfm.state_dict())
    assert vfm.tokens(x).equal(live.tokens(x))
    assert computed == [1], "only the image that is not there"


def test_images_that_repeat_are_kept_once() -> None:
    vfm = load_vfm(SAME)
    vfm.prepare(images(3)[[0, 1, 0, 2, 2]].permute(0, 2, 3, 1).numpy())
    assert len(vfm._cache) == 3


def test_other_weights_or_another_normalisation_miss_the_cache() -> None:
    vfm = load_vfm(SAME)
    x = images(2)
    vfm.prepare(x.permute(0, 2, 3, 1).numpy())
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)

    def copy(mean: tuple[float, ...] = mean, image_size: int = 32) -> VFM:
        model = timm.create_model("spatialbench_same")
        model.load_state_dict(vfm.model.state_dict())
        return VFM(model, mean, std, "copy", image_size)

    assert len(copy()._cache) == 2
    other = copy()
    with torch.no_grad():
        other.model.blocks[2].mlp.fc2.bias[3] += 1e-6
    for changed in (other, copy(mean=(0.5, 0.4, 0.31)), copy(image_size=48)):
        assert len(changed._cache) == 0
        assert changed.fingerprint != vfm.fingerprint


def test_a_killed_preparation_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARD", 32)
    vfm = load_vfm(SAME)
    pictures = images(96).permute(0, 2, 3, 1).numpy()
    computed: list[int] = []
    compute = vfm._compute

    def killed(part: Tensor) -> Tensor:
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(len(part))
        return compute(part)

    monkeypatch.setattr(vfm, "_compute", killed)
    with pytest.raises(KeyboardInterrupt):
        vfm.prepare(pictures)
    assert len(vfm._cache) == 64
    again = load_vfm(SAME)
    again.load_state_dict(vfm.state_dict())
    del computed[:]
    monkeypatch.setattr(again, "_compute", killed)
    again.prepare(pictures)
    assert computed == [32]
    assert len(again._cache) == 96


def test_a_shard_holds_so_many_bytes_at_most_and_one_chunk_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SHARD_BYTES", 1000)
    vfm = load_vfm(SAME)
    vfm.prepare(images(70).permute(0, 2, 3, 1).numpy())
    rows = sorted(len(np.load(path, mmap_mode="r")) for path in vfm._cache.folder.glob("*.npy"))
    assert rows == [6, 32, 32]
    assert len(vfm._cache) == 70


def test_ranks_share_the_preparation() -> None:
    vfm = load_vfm(SAME)
    pictures = images(70).permute(0, 2, 3, 1).numpy()
    counts = []
    for rank in range(3):
        vfm.prepare(pictures, rank, 3)
        counts.append(len(vfm._cache))
    assert counts == [24, 47, 70]


def test_a_gpu_computes_float32_on_its_tensor_cores_and_a_cpu_as_ever() -> None:
    before = torch.get_float32_matmul_precision()
    for device, precision in (("cuda", "high"), ("cpu", before)):
        with tensor_cores(torch.device(device)):
            assert torch.get_float32_matmul_precision() == precision
        assert torch.get_float32_matmul_precision() == before


def test_a_damaged_shard_is_computed_again() -> None:
    vfm = load_vfm(SAME)
    pictures = images(3).permute(0, 2, 3, 1).numpy()
    vfm.prepare(pictures)
    (shard,) = vfm._cache.folder.glob("*.npy")
    for damage in (shard.read_bytes()[:-10], b""):
        shard.write_bytes(damage)
        again = load_vfm(SAME)
        again.load_state_dict(vfm.state_dict())
        assert len(again._cache) == 0
        again.prepare(pictures)
        assert len(again._cache) == 3


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    vfm = load_vfm(SAME)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(SpatialbenchError, match="No space left on device; make room") as error:
        vfm.prepare(images(1).permute(0, 2, 3, 1).numpy())
    assert "\n" not in str(error.value)
    assert not list(vfm._cache.folder.glob("*.npy"))


def test_without_a_cache_nothing_is_written(tmp_path: Path) -> None:
    vfm = load_vfm(SAME, cache=False)
    vfm.prepare(images(1).permute(0, 2, 3, 1).numpy())
    vfm.tokens(images(1))
    assert not (tmp_path / "cache").exists()


def test_the_precision_of_training_does_not_reach_the_tokens() -> None:
    vfm = load_vfm(SAME, cache=False)
    expected = vfm.tokens(images(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert vfm.tokens(images(2)).equal(expected)
        assert vfm.qkv(0, expected[:, 0])[0].dtype == torch.bfloat16
    assert vfm.qkv(0, expected[:, 0])[0].dtype == torch.float32


def test_images_of_a_size_that_the_patches_do_not_divide() -> None:
    """36 pixels in patches of 8: the model is taken to 40, the images are resized to it."""
    vfm = load_vfm(SAME, image_size=36, cache=False)
    assert vfm.model.patch_embed.img_size == (32, 32)
    vfm = load_vfm(SAME, image_size=37, cache=False)
    assert vfm.grid == (5, 5)
    assert vfm.tokens(images(1, size=37)).shape == (1, 3, 26, 48)


def test_the_shipped_config() -> None:
    vfm = load_vfm("rooms-vfm:random")
    assert vfm.token_shape == (6, 65, 128)
    assert vfm.heads == 4


def dinov2_names(model: VisionTransformer) -> dict[str, Tensor]:
    """A state dict as DINOv2 and Depth Anything write it: a mask token, no other difference for a plain ViT."""
    return {**model.state_dict(), "mask_token": torch.zeros(1, 48)}


@pytest.mark.parametrize(
    "form", ["timm.safetensors", "timm.pth", "depth_anything.pth", "wrapped.pth"]
)
def test_weights_from_a_file(tmp_path: Path, form: str) -> None:
    model = timm.create_model("spatialbench_same")
    state = model.state_dict()
    path = tmp_path / form
    if form.endswith("safetensors"):
        save_file(state, path)
    elif form == "depth_anything.pth":
        encoder = {f"pretrained.{name}": value for name, value in dinov2_names(model).items()}
        torch.save({**encoder, "depth_head.weight": torch.zeros(2)}, path)
    else:
        torch.save({"model": state} if form == "wrapped.pth" else state, path)
    vfm = load_vfm(f"spatialbench_same:{path}")
    assert all(value.equal(state[name]) for name, value in vfm.model.state_dict().items())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vit_of_nobody", "vfm 'vit_of_nobody' cannot be loaded: Unknown model"),
        ("rooms-vfm:missing.pth", "there is no weights file missing.pth"),
        ("test_resnet:random", "not a plain ViT"),
        ("test_vit:{broken}", "does not fit the model"),
        ("spatialbench_no_class_token:random", "has no class token"),
    ],
)
def test_a_vfm_that_cannot_be_had(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(SpatialbenchError, match=message) as error:
        load_vfm(spec.format(broken=tmp_path / "broken.pth"))
    assert "\n" not in str(error.value)
