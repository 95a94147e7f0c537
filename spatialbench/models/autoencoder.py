"""A frozen autoencoder: images to latents, the posterior's mean or drawn from it, and back.

    (1)  z = f (m + s n - b)     m, s: mean and deviation of the posterior; f, b: scale and shift
    (2)  x = D(z / f + b)

Letters: B images, G pixels a side, C channels and H W rows and columns of the latents.

Source: latent diffusion (Rombach et al., arXiv 2112.10752); mashijie1028/GenHancer @ d716ba2.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from diffusers import AutoencoderKL
from open_clip.constants import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    OPENAI_DATASET_MEAN,
    OPENAI_DATASET_STD,
)
from torch import Tensor, nn

from spatialbench.models.files import diffusion_files as files
from spatialbench.utils.errors import SpatialbenchError

_OPENAI = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
_IMAGENET = IMAGENET_MEAN, IMAGENET_STD


class Autoencoder(nn.Module):
    """diffusers' AutoencoderKL, always in eval mode, never with a gradient in its own weights.

    With ``legacy_range``, as in DIVA's released code, pixels are normalised with OpenAI's mean and
    deviation, which is undone with ImageNet's: the contrast shrinks to about 0.85.
    """

    advice = "take a student of such a size"  # about images of another size, in messages

    def __init__(self, vae: Any, legacy_range: bool = False) -> None:
        super().__init__()
        self.vae = vae.eval().requires_grad_(False)
        self.legacy_range = legacy_range
        self.channels: int = vae.config.latent_channels
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)  # pixels a side of one latent

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode images uint8 [B, 3, G, G] by (1): float32 [B, C, H, W], or float64 as the weights.

        n is drawn from a generator of the CPU, the same on every device; without one it is 0. G
        must be a multiple of ``factor``.

        Raises:
            SpatialbenchError: images of another type, or G not a multiple of ``factor``.
        """
        with torch.autocast(pixels.device.type, enabled=False):
            posterior = self.vae.encode(self.vae_input(pixels).to(self.vae.dtype)).latent_dist
        z = posterior.mean.to(self._exact)
        if generator is not None:
            n = torch.randn(z.shape, generator=generator, dtype=torch.float32)
            z = z + posterior.std.to(z) * n.to(z)
        scale, shift = self.scaling
        return (z - shift) * scale  # (1)

    def vae_input(self, pixels: Tensor) -> Tensor:
        """Scale uint8 [B, 3, G, G] to float32 [B, 3, G, G] in [-1, 1], or in DIVA's range."""
        wrong = pixels.ndim != 4 or any(side % self.factor for side in pixels.shape[-2:])
        if pixels.dtype != torch.uint8 or wrong or pixels.shape[1] != 3:
            dtype = str(pixels.dtype).removeprefix("torch.")
            raise SpatialbenchError(
                "the autoencoder reads images uint8 [B, 3, H, W] with H and W multiples of "
                f"{self.factor}, found {dtype} {list(pixels.shape)}; {self.advice}"
            )
        x = pixels.to(self._exact) / 255
        if self.legacy_range:
            (mean, std), (other_mean, other_std) = (
                [x.new_tensor(part).view(3, 1, 1) for part in pair] for pair in (_OPENAI, _IMAGENET)
            )
            x = (x - mean) / std * other_std + other_mean
        return 2 * x - 1

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Decode latents [B, C, H, W] by (2) to uint8 [B, 3, G, G]."""
        scale, shift = self.scaling
        with torch.autocast(z.device.type, enabled=False):
            x = self.vae.decode((z / scale + shift).to(self.vae.dtype)).sample  # (2)
        return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    @property
    def scaling(self) -> tuple[float, float]:
        """The pair f, b."""
        return self.vae.config.scaling_factor, self.vae.config.shift_factor or 0.0

    @property
    def _exact(self) -> torch.dtype:
        """The dtype of latents and losses: float32, or float64 as the weights."""
        return torch.promote_types(self.vae.dtype, torch.float32)


def load_autoencoder(
    spec: str = files.OWN,
    dtype: str = "bfloat16",
    hashes: Mapping[str, str] | None = None,
) -> Autoencoder:
    """Load the autoencoder of a diffusion model; arguments and errors as in ``load_diffusion``.

    ``spec`` may also be ``flux-vae:random``, and only ``vae/`` of a folder is read.
    """
    files.check_dtype(dtype, spec)
    name, _, weights = spec.partition(":")
    if weights == "random":
        vae = files.random_autoencoder(name)
    else:
        vae = files.read_part(AutoencoderKL, files.find_folder(spec, hashes or {}) / "vae", spec)
    return Autoencoder(nn.Module.to(vae, files.DTYPES[dtype]))
