"""The denoiser: FLUX's layout of tokens, the paper's exact sizes, one vector as condition."""

import math
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from torch import Tensor

from spatialbench.models import denoiser
from spatialbench.models.denoiser import Architecture, Denoiser, denoise, pack, positions
from tests.support.checks import refused

TINY = Architecture(2, 12, 10, 14, (4, 4, 4), 1, 1)
TIMES = torch.tensor([0.25, 0.5])


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(denoiser.PRESETS, "tiny", TINY)
    torch.manual_seed(0)


def latents(rows: int = 4) -> Tensor:
    return torch.randn(2, 3, rows, 6, generator=torch.Generator().manual_seed(1))


def test_tokens_are_packed_as_flux_packs_them() -> None:
    x = latents()
    assert torch.equal(pack(x), FluxPipeline._pack_latents(x, 2, 3, 4, 6))
    theirs = FluxPipeline._prepare_latent_image_ids(2, 2, 3, "cpu", torch.float32)
    assert torch.equal(positions(2, 3), theirs)
    assert torch.equal(denoiser.unpack(pack(x), 4, 6), x)
    with refused(r"packs 2 x 2 cells of a latent, which has 5 x 6: .*multiple of 16"):
        pack(latents(rows=5))


def test_the_light_one_has_the_papers_sizes() -> None:
    """Count in millions of parameters. Of F, 45 are embeddings."""
    with torch.device("meta"):
        model = Denoiser("flux-lite", 16, 768, 4.0)
    flux, config = model.transformer, model.transformer.config
    assert (flux.inner_dim, config.in_channels, config.axes_dims_rope) == (3072, 64, (16, 56, 56))
    assert (len(flux.transformer_blocks), len(flux.single_transformer_blocks)) == (2, 4)
    for name, millions, tolerance in (
        ("transformer", 1310, 1),
        ("transformer.transformer_blocks.0", 340, 1),
        ("transformer.single_transformer_blocks.0", 142, 1),
        ("pooled", 1.18, 0.01),
        ("context", 19.9, 0.1),
    ):
        count = sum(p.numel() for p in model.get_submodule(name).parameters()) / 1e6
        assert count == pytest.approx(millions, abs=tolerance), name


def projected(layers: Any, c: Tensor) -> list[float]:
    """(1) as loops over one vector."""
    norm, first, _, second = layers
    assert torch.equal(norm.weight, torch.ones_like(norm.weight))
    x = ((c - c.mean()) / (c.var(correction=0) + 1e-5).sqrt()).tolist()

    def linear(layer: Any, x: list[float]) -> list[float]:
        rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in rows]

    return linear(second, [h * 0.5 * (1 + math.erf(h / 2**0.5)) for h in linear(first, x)])


@pytest.mark.parametrize("guidance", [None, 4.0])
def test_the_inputs_of_the_transformer(guidance: float | None) -> None:
    model = Denoiser("tiny", 3, 8, guidance).double()
    x, c = latents().double(), torch.randn(2, 8).double()
    seen: dict[str, Any] = {}
    model.transformer.register_forward_pre_hook(
        lambda _, __, given: seen.update(given), with_kwargs=True
    )
    assert model(x, TIMES, c).shape == x.shape
    assert torch.equal(seen["hidden_states"], pack(x))
    assert seen["timestep"].tolist() == [0.25, 0.5]  # the class makes 250 and 500 of them
    assert seen["txt_ids"].tolist() == [[0, 0, 0]]
    assert torch.equal(seen["img_ids"], positions(2, 3))
    assert seen["guidance"] is None if guidance is None else seen["guidance"].tolist() == [4, 4]
    context, pooled = seen["encoder_hidden_states"], seen["pooled_projections"]
    assert context.shape == (2, 1, 14)
    for row in range(2):
        assert context[row, 0].tolist() == pytest.approx(projected(model.context, c[row]))
        assert pooled[row].tolist() == pytest.approx(projected(model.pooled, c[row]))


def test_every_input_counts_and_no_image_sees_another() -> None:
    model, x, c = Denoiser("tiny", 3, 8), latents(), torch.randn(2, 8)
    u = model(x, TIMES, c)
    for other in (model(x + 1, TIMES, c), model(x, TIMES + 0.1, c), model(x, TIMES, c.flip(-1))):
        assert not torch.allclose(other, u, atol=1e-4)
    torch.testing.assert_close(model(x[1:], TIMES[1:], c[1:]), u[1:], rtol=1e-4, atol=1e-5)
    longer = model(x, TIMES, 5 * c)  # G7: the length of c is removed
    torch.testing.assert_close(longer, u, rtol=1e-3, atol=1e-4)


def test_attention_written_out_is_the_fused_one() -> None:
    model = Denoiser("tiny", 3, 8).double()
    x, c = latents().double(), torch.randn(2, 8).double()
    u = model(x, TIMES, c)
    model.transformer.enable_gradient_checkpointing()
    torch.testing.assert_close(model(x, TIMES, c), u)


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
    assert asked[4:] == [pytest.approx([t, t]) for t in (0.5, 0.25)]


def test_an_unknown_preset_is_one_line() -> None:
    with refused("denoiser is 'flux-lit': did you mean 'flux-lite'"):
        Denoiser("flux-lit", 4, 8)
