"""A latent is found by everything it depends on, and is the same whichever way it comes."""

import pytest
import torch
from torch import Tensor

from spatialbench.data.image_batches import ImageDataset
from spatialbench.models.latent_diffusion import Diffusion
from spatialbench.models.latents import Latents
from tests.support.diffusions import SIZE, diffusion
from tests.support.images import Noise

SINGLE = torch.float32


def pictures(count: int = 5) -> ImageDataset:
    return ImageDataset(Noise(count, SIZE), SIZE)


def pixels(*rows: int) -> Tensor:
    return torch.stack([pictures().whole(row) for row in rows])


def test_kept_latents_are_those_of_the_images_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = diffusion(dtype=SINGLE), pixels(4, 0, 2)
    kept = Latents(model)
    before = kept(x)  # computed
    kept.prepare(pictures())
    with monkeypatch.context() as patch:
        patch.setattr(Diffusion, "encode", lambda *_: pytest.fail("an image was encoded again"))
        assert torch.equal(kept(x), before)
        kept.prepare(pictures())  # nothing to do
        assert torch.equal(Latents(model)(x), before)  # another process
    torch.testing.assert_close(before, model.encode(x), rtol=2**-8, atol=1e-6)
    assert torch.equal(Latents(model, cache=False)(x), model.encode(x))
    x[0, 0, 0, 0] ^= 128  # an image that is new
    assert torch.equal(kept(x)[1:], before[1:])
    assert not torch.equal(kept(x)[0], before[0])


def test_changed_weights_and_another_range_miss_the_cache() -> None:
    Latents(diffusion(dtype=SINGLE)).prepare(pictures())
    changed, legacy = diffusion(dtype=SINGLE), diffusion(dtype=SINGLE, legacy_range=True)
    with torch.no_grad():
        changed.vae.encoder.conv_in.bias[0] += 1e-6
    assert len(Latents(diffusion(dtype=SINGLE))._cache.cache) == 5
    for other in (changed, legacy, diffusion(dtype=torch.bfloat16)):
        kept, x = Latents(other), pixels(0)
        assert len(kept._cache.cache) == 0
        torch.testing.assert_close(kept(x), other.encode(x), rtol=2**-8, atol=1e-6)
