"""The autoencoder alone: latents of the posterior, their scale, and where it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spatialbench.models.autoencoder import Autoencoder, load_autoencoder
from spatialbench.utils.errors import SpatialbenchError
from tests.support.diffusions import CHANNELS, SCALE, SIDE, SIZE, vae
from tests.support.models import images

SHIFT = 0.3


def made(shift: float | None = SHIFT) -> Autoencoder:
    plain = torch.nn.Module.double(vae())
    plain.register_to_config(shift_factor=shift)
    return Autoencoder(plain)


def test_latents_are_the_printed_equation() -> None:
    x = images(2, size=SIZE)
    for shift in (SHIFT, None):
        one = made(shift)
        posterior = one.vae.encode(x.double() / 255 * 2 - 1).latent_dist
        n = torch.randn(
            (2, CHANNELS, SIDE, SIDE), generator=torch.Generator().manual_seed(3)
        ).double()
        wanted = SCALE * (posterior.mean + posterior.std * n - (shift or 0.0))  # (1)
        torch.testing.assert_close(one.encode(x, torch.Generator().manual_seed(3)), wanted)
        torch.testing.assert_close(one.encode(x), SCALE * (posterior.mean - (shift or 0.0)))
        assert (posterior.std > 1e-3).all()


def test_pictures_come_back_through_the_same_scale() -> None:
    one = made()
    z = torch.randn(2, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).double()
    said = one.vae.decode(z / SCALE + SHIFT).sample  # (2)
    wanted = ((said + 1) / 2 * 255).round().clamp(0, 255)
    assert torch.equal(one.decode(z).double(), wanted)


def test_it_is_frozen() -> None:
    one = made().train()
    assert not one.vae.training
    assert not any(parameter.requires_grad for parameter in one.parameters())
    assert not one.encode(images(1, size=SIZE)).requires_grad


def test_of_a_folder_only_the_autoencoder_is_read(tmp_path: Path) -> None:
    vae(5).save_pretrained(tmp_path / "vae")
    found = load_autoencoder(str(tmp_path), "float32")
    torch.testing.assert_close(found.vae.state_dict(), dict(vae(5).state_dict()))
    assert load_autoencoder(str(tmp_path)).vae.dtype == torch.bfloat16
    assert load_autoencoder(str(tmp_path)).encode(images(1, size=SIZE)).dtype == torch.float32


def test_the_shipped_one() -> None:
    one = load_autoencoder()
    assert one.encode(images(1, size=96)).shape == (1, one.channels, 12, 12)


def test_random_weights_of_known_architectures() -> None:
    """FLUX's: 16 channels, shift 0.1159, scale 0.3611 (mashijie1028/GenHancer @ d716ba2)."""
    state = torch.random.get_rng_state()
    small = load_autoencoder("rooms-diffusion:random", "float32")
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(
        small.vae.state_dict(),
        load_autoencoder("rooms-diffusion:random", "float32").vae.state_dict(),
    )
    flux = load_autoencoder("flux-vae:random")
    assert (flux.channels, flux.factor) == (16, 8)
    assert (flux.vae.config.shift_factor, flux.vae.config.scaling_factor) == (0.1159, 0.3611)
    assert sum(p.numel() for p in flux.parameters()) == pytest.approx(83.8e6, rel=0.01)


@pytest.mark.parametrize(
    ("spec", "dtype", "what"),
    [
        ("nowhere", "float32", "diffusion 'nowhere': no such folder"),
        ("nowhere:random", "float32", "no such preset"),
        ("rooms-diffusion", "int8", "no dtype 'int8'"),
    ],
)
def test_what_is_not_there_is_one_line(spec: str, dtype: str, what: str) -> None:
    with pytest.raises(SpatialbenchError, match=what) as caught:
        load_autoencoder(spec, dtype)
    assert "\n" not in str(caught.value)


def test_pictures_of_another_size_are_one_line() -> None:
    with pytest.raises(SpatialbenchError, match=r"multiples of 4, found uint8 \[1, 3, 30, 30\]"):
        made().encode(images(1, size=30))
