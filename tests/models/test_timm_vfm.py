"""The VFM returns timm's inner numbers, frozen, and its cache returns what it would compute."""

import itertools
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from spatialbench.models import timm_vfm
from spatialbench.models.running import tensor_cores
from spatialbench.models.timm_vfm import VFM, load_vfm
from tests.support.checks import close, refused
from tests.support.models import OTHER, SAME, images

BOTH = pytest.mark.parametrize("spec", [SAME, OTHER])


def arrays(count: int) -> np.ndarray:
    return images(count).permute(0, 2, 3, 1).numpy()


def same(vfm: VFM, cache: bool = True) -> VFM:
    """Another VFM of the same weights, as in another process."""
    other = load_vfm(SAME, cache=cache)
    other.load_state_dict(vfm.state_dict())
    return other


def counted(vfm: VFM, monkeypatch: pytest.MonkeyPatch, kill_after: int = 99) -> list[int]:
    """Numbers of images in the calls of ``_compute``, the one after ``kill_after`` interrupted."""
    computed: list[int] = []
    compute = vfm._compute

    def counting(part: Tensor) -> Tensor:
        if len(computed) == kill_after:
            raise KeyboardInterrupt
        computed.append(len(part))
        return compute(part)

    monkeypatch.setattr(vfm, "_compute", counting)
    return computed


def block_inputs(vfm: VFM, x: Tensor) -> list[Tensor]:
    """Compute the inputs of all blocks, registers included, by timm's own functions."""
    model = vfm.model
    x = model.norm_pre(model._pos_embed(model.patch_embed((x - vfm.mean) / vfm.std)))
    return list(itertools.accumulate(model.blocks[:-1], lambda y, block: block(y), initial=x))


@BOTH
def test_q_k_v_are_the_ones_inside_timms_attention(spec: str) -> None:
    """The block's output recomputed from them is the block's output."""
    vfm = load_vfm(spec).double()
    inputs = block_inputs(vfm, images(2))
    for number, (x, block) in enumerate(zip(inputs, vfm.model.blocks, strict=True)):
        q, k, v = vfm.qkv(number, x)
        assert q.shape == (2, vfm.heads, x.shape[1], vfm.head_dim)
        attention = (q @ k.transpose(-1, -2) / vfm.head_dim**0.5).softmax(-1) @ v
        y = x + block.ls1(block.attn.proj(attention.transpose(1, 2).flatten(2)))
        close(y + block.ls2(block.mlp(block.norm2(y))), block(x), 1e-10)
        close(vfm.qkv(number, x, values=False), (q, k))


@BOTH
def test_tokens_are_what_enters_the_frozen_blocks_without_registers(spec: str) -> None:
    vfm = load_vfm(spec, cache=False)
    assert not any(part.training for part in vfm.train().modules())
    assert not any(parameter.requires_grad for parameter in vfm.parameters())
    tokens = vfm.tokens(images(3))
    inputs = torch.stack(block_inputs(vfm, images(3)), dim=1)
    patches = vfm.grid[0] * vfm.grid[1]
    expected = torch.cat([inputs[:, :, :1], inputs[:, :, -patches:]], dim=2)
    assert tokens.shape == (3, *vfm.token_shape)
    assert tokens.dtype == torch.bfloat16
    torch.testing.assert_close(tokens.float(), expected, rtol=2**-8, atol=1e-4)


def test_cached_is_recomputed_exactly() -> None:
    """Whatever else was computed with an image, and in another process."""
    vfm, x = load_vfm(SAME), images(70)
    live = same(vfm, cache=False)
    live.prepare(arrays(70))
    assert len(vfm._cache.cache) == 0, "nothing is written without a cache"
    vfm.prepare(arrays(70))
    again = same(vfm)
    assert len(again._cache.cache) == 70
    for rows in (slice(0, 1), slice(5, 70, 7), slice(0, 70)):
        cached = again.tokens(x[rows])
        assert cached.equal(live.tokens(x[rows])), rows
        assert cached.equal(vfm.tokens(x[rows])), rows
    assert again.tokens(x.flip(0)).equal(live.tokens(x).flip(0))


def test_what_is_in_the_cache_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    vfm, x = load_vfm(SAME), images(5)
    vfm.prepare(arrays(5)[[0, 1, 0, 2, 3]])
    assert len(vfm._cache.cache) == 4
    computed = counted(vfm, monkeypatch)
    vfm.tokens(x[:4])
    vfm.prepare(arrays(4))
    assert computed == []
    assert vfm.tokens(x).equal(same(vfm, cache=False).tokens(x))
    assert computed == [1], "only the image that is not there"


def test_other_weights_or_another_normalisation_miss_the_cache() -> None:
    vfm, std = load_vfm(SAME), (0.2, 0.25, 0.3)
    vfm.prepare(arrays(2))

    def copy(mean: tuple[float, ...] = (0.5, 0.4, 0.3), image_size: int = 32) -> VFM:
        model = timm.create_model("spatialbench_same")
        model.load_state_dict(vfm.model.state_dict())
        return VFM(model, mean, std, "copy", image_size)

    assert len(copy()._cache.cache) == 2
    other = copy()
    with torch.no_grad():
        other.model.blocks[2].mlp.fc2.bias[3] += 1e-6
    for changed in (other, copy(mean=(0.5, 0.4, 0.31)), copy(image_size=48)):
        assert len(changed._cache.cache) == 0


def test_a_killed_preparation_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_vfm, "_SHARD", 32)
    vfm = load_vfm(SAME)
    counted(vfm, monkeypatch, kill_after=2)
    with pytest.raises(KeyboardInterrupt):
        vfm.prepare(arrays(96))
    again = same(vfm)
    assert len(again._cache.cache) == 64
    computed = counted(again, monkeypatch)
    again.prepare(arrays(96))
    assert computed == [32]
    assert len(again._cache.cache) == 96


def test_a_shard_has_a_limit_in_bytes_and_one_chunk_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timm_vfm, "_SHARD_BYTES", 1000)
    vfm = load_vfm(SAME)
    vfm.prepare(arrays(70))
    shards = vfm._cache.cache.folder.glob("*.npy")
    assert sorted(len(np.load(path, mmap_mode="r")) for path in shards) == [6, 32, 32]


def test_ranks_share_the_preparation() -> None:
    vfm = load_vfm(SAME)
    for rank, count in enumerate((24, 47, 70)):
        vfm.prepare(arrays(70), rank, 3)
        assert len(vfm._cache.cache) == count


def test_a_gpu_computes_float32_on_its_tensor_cores_and_a_cpu_as_ever() -> None:
    before = torch.get_float32_matmul_precision()
    for device, precision in (("cuda", "high"), ("cpu", before)):
        with tensor_cores(torch.device(device)):
            assert torch.get_float32_matmul_precision() == precision
    assert torch.get_float32_matmul_precision() == before


def test_a_damaged_shard_is_computed_again() -> None:
    vfm = load_vfm(SAME)
    vfm.prepare(arrays(3))
    (shard,) = vfm._cache.cache.folder.glob("*.npy")
    for damage in (shard.read_bytes()[:-10], b""):
        shard.write_bytes(damage)
        again = same(vfm)
        assert len(again._cache.cache) == 0
        again.prepare(arrays(3))
        assert len(again._cache.cache) == 3


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(28, "No space left on device")
    monkeypatch.setattr(np, "save", Mock(side_effect=error))
    with refused("No space left on device; make room"):
        load_vfm(SAME).prepare(arrays(1))


def test_the_precision_of_training_does_not_reach_the_tokens() -> None:
    vfm = load_vfm(SAME, cache=False)
    expected = vfm.tokens(images(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert vfm.tokens(images(2)).equal(expected)
        assert vfm.qkv(0, expected[:, 0])[0].dtype == torch.bfloat16
    assert vfm.qkv(0, expected[:, 0])[0].dtype == torch.float32


def test_images_of_a_size_that_the_patches_do_not_divide() -> None:
    """The model is set to the nearest multiple of 8, to which the images are resized."""
    assert load_vfm(SAME, image_size=36, cache=False).model.patch_embed.img_size == (32, 32)
    vfm = load_vfm(SAME, image_size=37, cache=False)
    assert vfm.grid == (5, 5)
    assert vfm.tokens(images(1, size=37)).shape == (1, 3, 26, 48)


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_from_a_file_of_torch(tmp_path: Path, wrapped: bool) -> None:
    """Safetensors and every published layout: test_dinov2_files.py."""
    state = timm.create_model("spatialbench_same").state_dict()
    torch.save({"model": state} if wrapped else state, tmp_path / "vit.pth")
    model = load_vfm(f"spatialbench_same:{tmp_path / 'vit.pth'}").model
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())


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
def test_a_vfm_that_cannot_be_loaded(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with refused(message):
        load_vfm(spec.format(broken=tmp_path / "broken.pth"))
