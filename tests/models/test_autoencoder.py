"""The autoencoder alone: latents of the posterior, their scale, and the sources of its weights."""

from pathlib import Path

import pytest
import torch

from spatialbench.models.autoencoder import Autoencoder, load_autoencoder
from tests.support.checks import refused
from tests.support.diffusions import CHANNELS, SCALE, SIDE, SIZE, vae
from tests.support.models import images

SHAPE = (2, CHANNELS, SIDE, SIDE)


@pytest.mark.parametrize("shift", [0.3, None])
def test_latents_are_the_printed_equations(shift: float | None) -> None:
    plain, x = torch.nn.Module.double(vae()), images(2, size=SIZE)
    plain.register_to_config(shift_factor=shift)
    model = Autoencoder(plain)
    posterior = model.vae.encode(x.double() / 255 * 2 - 1).latent_dist
    n = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3)).double()
    wanted = SCALE * (posterior.mean + posterior.std * n - (shift or 0.0))  # (1)
    torch.testing.assert_close(model.encode(x, torch.Generator().manual_seed(3)), wanted)
    torch.testing.assert_close(model.encode(x), SCALE * (posterior.mean - (shift or 0.0)))
    assert (posterior.std > 1e-3).all()
    z = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).double()
    decoded = model.vae.decode(z / SCALE + (shift or 0.0)).sample  # (2)
    assert model.decode(z).double().equal(((decoded + 1) / 2 * 255).round().clamp(0, 255))


def test_of_a_folder_only_the_autoencoder_is_read(tmp_path: Path) -> None:
    vae(5).save_pretrained(tmp_path / "vae")
    state = load_autoencoder(str(tmp_path), "float32").vae.state_dict()
    torch.testing.assert_close(state, dict(vae(5).state_dict()))
    half = load_autoencoder(str(tmp_path))
    assert half.vae.dtype == torch.bfloat16
    assert half.encode(images(1, size=SIZE)).dtype == torch.float32


def test_the_shipped_one_and_random_weights_of_known_architectures() -> None:
    """FLUX's: 16 channels, shift 0.1159, scale 0.3611 (mashijie1028/GenHancer @ d716ba2)."""
    assert load_autoencoder().encode(images(1, size=96)).shape == (1, 4, 12, 12)
    state = torch.random.get_rng_state()
    first, again = (load_autoencoder("rooms-diffusion:random").vae.state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(first, again)
    flux = load_autoencoder("flux-vae:random")
    assert (flux.channels, flux.factor) == (16, 8)
    assert (flux.vae.config.shift_factor, flux.vae.config.scaling_factor) == (0.1159, 0.3611)
    assert sum(p.numel() for p in flux.parameters()) == pytest.approx(83.8e6, rel=0.01)


def test_an_unknown_dtype_or_preset_is_one_line() -> None:
    with refused("no dtype 'int8'; one of float64"):
        load_autoencoder(dtype="int8")
    with refused("no such preset"):
        load_autoencoder("nowhere:random")
