"""The autoencoder of the rooms' diffusion model; its UNet is trained in ``unet.py``.

x is an image in [-1, 1], E and D the two halves, n standard normal noise:

    (1)  (mu, log s^2) = E(x),  z = mu + s n
    (2)  L_x = mean over pixels of | D(z) - x |
    (3)  L_z = mean over latents of (mu^2 + s^2 - 1 - log s^2) / 2
    (4)  L = L_x + w L_z

Source: latent diffusion (Rombach et al., arXiv 2112.10752), with two changes: no perceptual and no
adversarial loss, which need networks of their own, and a weight of (3) that keeps the latents near
a standard normal.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from spatialbench.models.files.diffusion_files import OWN, build, preset_config
from spatialbench.pretrain.data import DenseBatch
from spatialbench.pretrain.pretraining import Pretraining, write_scores
from spatialbench.utils.errors import write_atomic


def divergence(posterior: DiagonalGaussianDistribution) -> Tensor:
    """Return (3), a scalar in nats per latent number."""
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def psnr(decoded: Tensor, x: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB, [B], of images [B, 3, S, S] in [-1, 1]."""
    error = (decoded.clamp(-1, 1) - x).float().square().mean((1, 2, 3))
    return 10 * (4 / error.clamp(min=1e-12)).log10()


def cropped(pixels: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Crop [B, 3, S, S] to [B, 3, side, side], at one random place for all images."""
    spare = pixels.shape[-1] - side
    row, column = torch.randint(spare + 1, (2,), generator=generator).tolist()
    return pixels[..., row : row + side, column : column + side]


class VaePretraining(Pretraining):
    """The training of the autoencoder.

    Args:
        preset: a name of ``models.files.diffusion_files.PRESETS``.
        lr: peak learning rate of AdamW; linear warm-up, then a cosine to zero.
        warmup: steps.
        latent_weight: w of (4).
        crop: side in pixels of the training crops, a multiple of 8, at one place per batch; the
            model is convolutional, and a short training needs four times the steps for its pixels.
        export: folder in diffusers' layout for ``vae/`` (float16) and ``vae.json``, the scores.
    """

    def __init__(
        self,
        preset: str = OWN,
        lr: float = 1e-3,
        warmup: int = 100,
        latent_weight: float = 5e-4,
        crop: int = 48,
        export: str = "spatialbench/weights/rooms-diffusion",
    ) -> None:
        super().__init__()
        self.vae = build(AutoencoderKL, preset_config(preset)["vae"])

    def training_step(self, batch: DenseBatch, _: int) -> Tensor:
        """Return (4)."""
        generator = torch.Generator().manual_seed(self.global_step)  # the same when resumed
        x = signed(cropped(batch["pixels"], self.hparams["crop"], generator))
        posterior = self.vae.encode(x).latent_dist
        n = torch.randn(posterior.mean.shape, generator=generator).to(x)
        z = posterior.mean + posterior.std * n  # (1)
        pixel = (self.vae.decode(z).sample.float() - x).abs().mean()  # (2)
        latent = divergence(posterior)  # (3)
        self.log_dict({"pixel": pixel, "latent": latent}, prog_bar=True)
        loss = pixel + self.hparams["latent_weight"] * latent  # (4)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: DenseBatch, _: int) -> None:
        """Keep the error of the decoded mean, and the latents."""
        x = signed(batch["pixels"])
        posterior = self.vae.encode(x).latent_dist
        decoded = self.vae.decode(posterior.mean).sample
        nats = divergence(posterior)[None]
        self.keep(psnr=psnr(decoded, x), means=posterior.mean.float(), nats=nats)

    def summary(self, rows: dict[str, Tensor]) -> dict[str, float]:
        """Return PSNR in dB, and the latents' deviation and divergence."""
        return {
            "psnr": rows["psnr"].mean().item(),
            "latent_std": rows["means"].std().item(),
            "latent_nats": rows["nats"].mean().item(),
        }

    def write(self, target: Path) -> None:
        """Write the weights, with the latents' scale, and the scores."""
        self.vae.register_to_config(scaling_factor=round(1 / self.scores["latent_std"], 5))
        save_part(self.vae.half(), target / "vae")
        write_scores(target / "vae.json", self.scores)


def signed(pixels: Tensor) -> Tensor:
    """Map uint8 in [0, 255] to float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def save_part(part: Any, folder: Path) -> None:
    """Write a model or scheduler of diffusers into its folder, each file atomically.

    Raises:
        SpatialbenchError: a file cannot be written.
    """
    with TemporaryDirectory() as temporary:
        part.save_pretrained(temporary)
        for path in sorted(Path(temporary).iterdir()):
            write_atomic(folder / path.name, path.read_bytes())
