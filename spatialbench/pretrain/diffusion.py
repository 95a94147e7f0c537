"""The autoencoder of the rooms' diffusion model; its UNet is trained in ``unet.py``.

x is a picture in [-1, 1], E and D the two halves, n standard normal noise:

    (1)  (mu, log s^2) = E(x),  z = mu + s n
    (2)  L_x = mean over pixels of | D(z) - x |
    (3)  L_z = mean over latents of (mu^2 + s^2 - 1 - log s^2) / 2
    (4)  L = L_x + w L_z

Source: latent diffusion (Rombach et al., arXiv 2112.10752), with two changes: no perceptual and no adversarial loss,
which need networks of their own, and a weight of (3) under which the latents stay near a standard normal.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from spatialbench.models.files.diffusion_files import OWN, build, preset_config
from spatialbench.pretrain.data import DenseBatch
from spatialbench.pretrain.student import adamw
from spatialbench.utils.errors import write_atomic


def divergence(posterior: DiagonalGaussianDistribution) -> Tensor:
    """(3), a scalar in nats a latent number."""
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def psnr(found: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures in [-1, 1], dB [B], from [B, 3, S, S] twice."""
    error = (found.clamp(-1, 1) - wanted).float().square().mean((1, 2, 3))
    return 10 * (4 / error.clamp(min=1e-12)).log10()


def step_generator(seed: int, step: int) -> torch.Generator:
    """Random numbers that depend on seed and step alone, so that a resumed training draws the same."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def cropped(pixels: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """[B, 3, S, S] -> [B, 3, side, side], one place for all of them."""
    spare = pixels.shape[-1] - side
    row, column = torch.randint(spare + 1, (2,), generator=generator).tolist()
    return pixels[..., row : row + side, column : column + side]


class VaePretraining(L.LightningModule):
    """Trains the autoencoder.

    Args:
        preset: a name of ``backbones.diffusion_files.PRESETS``.
        lr, weight_decay, warmup: as in ``StudentPretraining``.
        latent_weight: w of (4).
        crop: side in pixels of the squares that it is trained on, a multiple of 8, one place a batch; the model is
            convolutional, and four times the steps for the same pixels is what a short training needs.
        seed: of the noise in (1) and of the crops.
        export: folder in diffusers' layout where ``finish`` writes ``vae/`` (float16) and ``vae.json``, the scores.
    """

    def __init__(
        self,
        preset: str = OWN,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: int = 100,
        latent_weight: float = 5e-4,
        crop: int = 48,
        seed: int = 0,
        export: str = "spatialbench/weights/rooms-diffusion",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.vae = build(AutoencoderKL, preset_config(preset)["vae"])
        self.scores: dict[str, float] = {}

    def training_step(self, batch: DenseBatch, _: int) -> Tensor:
        generator = step_generator(self.hparams["seed"], self.global_step)
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

    def on_validation_epoch_start(self) -> None:
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def validation_step(self, batch: DenseBatch, _: int) -> None:
        x = signed(batch["pixels"])
        posterior = self.vae.encode(x).latent_dist
        found = self.vae.decode(posterior.mean).sample
        self._kept.append((psnr(found, x), posterior.mean.float(), divergence(posterior)))

    def on_validation_epoch_end(self) -> None:
        ratios, means, divergences = zip(*self._kept, strict=True)
        self.scores = {
            "psnr": torch.cat(ratios).mean().item(),
            "latent_std": torch.cat(means).std().item(),
            "latent_nats": torch.stack(divergences).mean().item(),
        }
        self.log_dict({f"val/{name}": value for name, value in self.scores.items()}, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return adamw(self, self.hparams["lr"], self.hparams["weight_decay"], self.hparams["warmup"])

    def finish(self, run_dir: Path) -> dict[str, float]:
        """Writes weights and scores; called when the page's training is done."""
        folder = Path(self.hparams["export"])
        self.vae.register_to_config(scaling_factor=round(1 / self.scores["latent_std"], 5))
        save_part(self.vae.half(), folder / "vae")
        write_scores(folder / "vae.json", self.scores)
        return self.scores


def signed(pixels: Tensor) -> Tensor:
    """uint8 in [0, 255] -> float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def save_part(part: Any, folder: Path) -> None:
    """Writes a model or scheduler of diffusers into its folder, each file whole or not at all.

    Raises:
        SpatialbenchError: a file cannot be written.
    """
    with TemporaryDirectory() as temporary:
        part.save_pretrained(temporary)
        for path in sorted(Path(temporary).iterdir()):
            write_atomic(folder / path.name, path.read_bytes())


def write_scores(path: Path, scores: dict[str, float]) -> None:
    """JSON, four digits behind the point.

    Raises:
        SpatialbenchError: the file cannot be written.
    """
    assert all(math.isfinite(value) for value in scores.values()), scores
    write_atomic(
        path, json.dumps({name: round(value, 4) for name, value in scores.items()}, indent=2) + "\n"
    )
