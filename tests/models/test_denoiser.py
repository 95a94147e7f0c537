"""The denoiser: FLUX's layout of tokens, the paper's exact sizes, and one vector as all that it knows."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from torch import Tensor

from spatialbench.models.denoiser import (
    PRESETS,
    Architecture,
    Denoiser,
    denoise,
    pack,
    positions,
    unpack,
)
from spatialbench.utils.errors import SpatialbenchError

TINY = Architecture(2, 12, 10, 14, (4, 4, 4), 1, 1)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    torch.manual_seed(0)


def latents(count: int = 2, rows: int = 4, columns: int = 6) -> Tensor:
    return torch.randn(count, 3, rows, columns, generator=torch.Generator().manual_seed(1))


def test_tokens_are_packed_as_flux_packs_them() -> None:
    x = latents()
    assert torch.equal(pack(x), FluxPipeline._pack_latents(x, 2, 3, 4, 6))
    assert torch.equal(
        positions(2, 3), FluxPipeline._prepare_latent_image_ids(2, 2, 3, "cpu", torch.float32)
    )
    assert torch.equal(unpack(pack(x), 4, 6), x)
    with pytest.raises(
        SpatialbenchError, match=r"packs 2 x 2 cells of a latent, which has 5 x 6: .*multiple of 16"
    ):
        pack(latents(rows=5))


def test_the_light_one_has_the_papers_sizes() -> None:
    """By GenHancer's sizes: 1.31 G parameters, 45 M of them embeddings, 340 M a double block, 142 M a single one;
    projectors of 1.18 M and 19.9 M."""
    with torch.device("meta"):
        made = Denoiser("flux-lite", 16, 768, 4.0)
    count = {
        name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in made.named_modules()
    }
    flux = made.transformer
    assert (flux.inner_dim, flux.config.in_channels, flux.config.axes_dims_rope) == (
        3072,
        64,
        (16, 56, 56),
    )
    assert (len(flux.transformer_blocks), len(flux.single_transformer_blocks)) == (2, 4)
    assert count["transformer"] == pytest.approx(1310, abs=1)
    assert count["transformer.transformer_blocks.0"] == pytest.approx(340, abs=1)
    assert count["transformer.single_transformer_blocks.0"] == pytest.approx(142, abs=1)
    assert count["pooled"] == pytest.approx(1.18, abs=0.01)
    assert count["context"] == pytest.approx(19.9, abs=0.1)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_all_channels_of_a_head_to_the_axes(preset: str) -> None:
    sizes = PRESETS[preset]
    assert sum(sizes.axes) == sizes.head_dim
    assert sizes.axes[1] == sizes.axes[2]


def projected(layers: Any, c: Tensor) -> list[float]:
    """(1) as loops over one vector."""
    norm, first, _, second = layers
    mean = sum(c.tolist()) / len(c)
    variance = sum((value - mean) ** 2 for value in c.tolist()) / len(c)
    x = [(value - mean) / math.sqrt(variance + 1e-5) for value in c.tolist()]
    assert torch.equal(norm.weight, torch.ones_like(norm.weight))
    rows = zip(first.weight.tolist(), first.bias.tolist(), strict=True)
    hidden = [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in rows]
    hidden = [h * 0.5 * (1 + math.erf(h / math.sqrt(2))) for h in hidden]
    rows = zip(second.weight.tolist(), second.bias.tolist(), strict=True)
    return [sum(w * v for w, v in zip(row, hidden, strict=True)) + b for row, b in rows]


@pytest.mark.parametrize("guidance", [None, 4.0])
def test_what_the_transformer_is_given(guidance: float | None) -> None:
    made = Denoiser("tiny", 3, 8, guidance).double()
    x, t, c = latents().double(), torch.tensor([0.25, 0.5]), torch.randn(2, 8).double()
    seen: dict[str, Any] = {}
    hook = made.transformer.register_forward_pre_hook(
        lambda _, __, given: seen.update(given), with_kwargs=True
    )
    found = made(x, t, c)
    hook.remove()
    assert found.shape == x.shape
    assert torch.equal(seen["hidden_states"], pack(x))
    assert seen["timestep"].tolist() == [0.25, 0.5]  # the class makes 250 and 500 of them
    assert seen["txt_ids"].tolist() == [[0, 0, 0]]
    assert torch.equal(seen["img_ids"], positions(2, 3))
    assert guidance is None or seen["guidance"].tolist() == [4.0, 4.0]
    assert guidance is not None or seen["guidance"] is None
    assert seen["encoder_hidden_states"].shape == (2, 1, 14)
    for row in range(2):
        assert seen["encoder_hidden_states"][row, 0].tolist() == pytest.approx(
            projected(made.context, c[row])
        )
        assert seen["pooled_projections"][row].tolist() == pytest.approx(
            projected(made.pooled, c[row])
        )


def test_every_input_counts_and_no_picture_sees_another() -> None:
    made = Denoiser("tiny", 3, 8)
    x, t, c = latents(), torch.tensor([0.25, 0.5]), torch.randn(2, 8)
    found = made(x, t, c)
    for other in (made(x + 1, t, c), made(x, t + 0.1, c), made(x, t, c.flip(-1))):
        assert not torch.allclose(other, found, atol=1e-4)
    torch.testing.assert_close(made(x[1:], t[1:], c[1:]), found[1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        made(x, t, 5 * c), found, rtol=1e-3, atol=1e-4
    )  # G7: the length of c is taken away


def test_attention_written_out_is_the_fused_one() -> None:
    made = Denoiser("tiny", 3, 8).double()
    x, t, c = latents().double(), torch.tensor([0.25, 0.5]), torch.randn(2, 8).double()
    found = made(x, t, c)
    made.transformer.enable_gradient_checkpointing()
    torch.testing.assert_close(made(x, t, c), found)


def test_denoising_follows_the_flow_to_the_latent() -> None:
    """A velocity that is exact leads to z in any number of steps, and from any time."""
    z, eps = latents(), torch.randn(2, 3, 4, 6)
    asked: list[float] = []

    def exact(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        asked.append(t.tolist())
        return eps - z

    torch.testing.assert_close(denoise(exact, eps, z, step=0.25), z)  # type: ignore[arg-type]
    assert asked == [pytest.approx([t, t]) for t in (1.0, 0.75, 0.5, 0.25)]
    half = 0.5 * z + 0.5 * eps
    torch.testing.assert_close(denoise(exact, half, z, start=0.5, step=0.2), z)  # type: ignore[arg-type]
    assert asked[4:] == [pytest.approx([0.5, 0.5]), pytest.approx([0.25, 0.25])]


def test_an_unknown_preset_is_one_line() -> None:
    with pytest.raises(SpatialbenchError, match="denoiser is 'flux-lit': did you mean 'flux-lite'"):
        Denoiser("flux-lit", 4, 8)
