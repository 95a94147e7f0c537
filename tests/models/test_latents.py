"""A latent is found by everything it depends on, and is the same whichever way it comes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spatialbench.data.pictures import PictureDataset
from spatialbench.models.latent_diffusion import Diffusion
from spatialbench.models.latents import Latents
from tests.support.diffusions import SIZE, diffusion
from tests.support.pictures import Noise


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))


def pictures(count: int = 5) -> PictureDataset:
    return PictureDataset(Noise(count, SIZE), SIZE)


def test_kept_latents_are_those_of_the_pictures_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = diffusion(dtype=torch.float32)
    kept, data = Latents(model), pictures()
    pixels = torch.stack([data.whole(row) for row in (4, 0, 2)])
    before = kept(pixels)  # computed
    kept.prepare(data)
    monkeypatch.setattr(Diffusion, "latents", lambda *_: pytest.fail("a picture was encoded again"))
    assert torch.equal(kept(pixels), before)
    kept.prepare(data)  # nothing to do
    assert torch.equal(Latents(model)(pixels), before)  # another process
    monkeypatch.undo()
    torch.testing.assert_close(before, model.latents(pixels), rtol=2**-8, atol=1e-6)
    assert torch.equal(Latents(model, cache=False)(pixels), model.latents(pixels))


def test_pictures_are_always_encoded_in_equally_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution may round differently for another number; how many are missing must not show."""
    seen, plain, data = [], Diffusion.latents, pictures()
    monkeypatch.setattr(Diffusion, "latents", lambda self, x: seen.append(len(x)) or plain(self, x))
    kept = Latents(diffusion(dtype=torch.float32))
    kept(torch.stack([data.whole(row) for row in (4, 0, 2)]))
    kept.prepare(data)
    assert seen == [32, 32]


def test_every_chunk_and_every_shard_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialbench.models.latents._CHUNK", 2)
    monkeypatch.setattr(
        "spatialbench.models.latents._SHARD", 3
    )  # pictures 1 to 4 in the first, 5 in the second
    kept = Latents(diffusion(dtype=torch.float32))
    kept.prepare(pictures())
    monkeypatch.setattr(Diffusion, "latents", lambda *_: pytest.fail("a picture was not kept"))
    assert len(kept._cache) == 5
    kept(torch.stack([pictures().whole(row) for row in range(5)]))


def test_a_picture_that_is_new_is_encoded_beside_those_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    kept, data = Latents(diffusion(dtype=torch.float32)), pictures()
    kept.prepare(data)
    pixels = torch.stack([data.whole(row) for row in (1, 3)])
    changed = pixels.clone()
    changed[0, 0, 0, 0] ^= 128
    found = kept(changed)
    assert torch.equal(found[1], kept(pixels)[1])
    assert not torch.equal(found[0], kept(pixels)[0])


def test_changed_weights_and_another_range_miss_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    Latents(diffusion(dtype=torch.float32)).prepare(pictures())
    changed = diffusion(dtype=torch.float32)
    with torch.no_grad():
        changed.vae.encoder.conv_in.bias[0] += 1
    legacy = diffusion(dtype=torch.float32, legacy_range=True)
    assert len(Latents(diffusion(dtype=torch.float32))._cache) == 5
    pixels = pictures().whole(0)[None]
    for other in (changed, legacy):
        assert len(Latents(other)._cache) == 0
        torch.testing.assert_close(
            Latents(other)(pixels), other.latents(pixels), rtol=2**-8, atol=1e-6
        )
