"""The UNet of the rooms' diffusion model: learns to tell the noise in latents, with a caption to read.

    (1)  z_t = sqrt(a_t) z + sqrt(1 - a_t) e      z: latents of a picture, e: standard normal, t uniform
    (2)  L = mean over pictures and latents of (U(z_t, t, C) - e)^2

C are the hidden states of the student's text tower for some of the picture's captions, one after the other; for every
tenth picture those of empty captions, so that samples can be guided (Ho and Salimans, arXiv 2207.12598). A short
caption says little of a picture, and a UNet that reads but one learns to do without.

Source: latent diffusion (Rombach et al., arXiv 2112.10752), with Stable Diffusion's betas.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from spatialbench.models.diffusion_text import STUDENT_FILE, caption_states
from spatialbench.models.files.diffusion_files import OWN, build, preset_config, read_part
from spatialbench.models.latent_diffusion import Diffusion
from spatialbench.models.latents import Latents
from spatialbench.models.open_clip_student import TextTokenizer, load_clip
from spatialbench.pretrain.data import CaptionBatch
from spatialbench.pretrain.diffusion import save_part, step_generator, write_scores
from spatialbench.pretrain.samples import CAPTIONS, draw_samples
from spatialbench.pretrain.student import adamw
from spatialbench.utils.errors import write_atomic


class UnetPretraining(L.LightningModule):
    """Trains the UNet on latents that are computed once.

    Args:
        preset: a name of ``backbones.diffusion_files.PRESETS`` whose text encoder is a student's text tower.
        autoencoder: folder in diffusers' layout, whose ``vae/`` is taken.
        lr, weight_decay, warmup: as in ``StudentPretraining``.
        captions: so many of a picture's captions at once; of one that was written in both orders of its objects only
            one. Where a picture has fewer, empty ones fill up.
        empty: share of the pictures that come without a caption.
        seed: of t, noise, and the choice of captions.
        export: folder in diffusers' layout where ``finish`` writes ``unet/`` (float16), ``scheduler/``,
            ``student.json`` and ``unet.json``, the scores; the samples go beside it, ``<export>.png``.
    """

    def __init__(
        self,
        preset: str = OWN,
        autoencoder: str = "spatialbench/weights/rooms-diffusion",
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: int = 100,
        captions: int = 1,
        empty: float = 0.1,
        seed: int = 0,
        export: str = "spatialbench/weights/rooms-diffusion",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        config = preset_config(preset)
        self.text: dict[str, Any] = config["text"]
        unet, scheduler = (
            build(UNet2DConditionModel, config["unet"]),
            build(DDPMScheduler, config["scheduler"]),
        )
        vae = read_part(AutoencoderKL, Path(autoencoder) / "vae", autoencoder)
        self.model = Diffusion(
            unet, vae, scheduler, torch.zeros(self.text["length"], unet.config.cross_attention_dim)
        )
        self.model.unet.requires_grad_(True)  # in eval mode, as everything there: it has no dropout
        self.student = load_clip(self.text["student"]).requires_grad_(False)
        self.tokenizer = TextTokenizer(self.text["student"])
        self.scores: dict[str, float] = {}
        self.latents = Latents(self.model)

    def states(self, captions: Sequence[Sequence[str]]) -> Tensor:
        """C, float32 [B, n T, W], of n captions for each of B pictures."""
        flat = [caption for own in captions for caption in own]
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            found = caption_states(self.student, self.tokenizer, flat, self.text["length"])
        return found.unflatten(0, (len(captions), -1)).flatten(1, 2)

    def loss(self, z: Tensor, t: Tensor, eps: Tensor, states: Tensor) -> Tensor:
        """(2), a picture: float32 [B]."""
        with sdpa_kernel(
            SDPBackend.MATH
        ):  # in bfloat16 the CPU's fused kernel has a slow backward pass
            said = self.model.unet(
                self.model.noised(z, t, eps), t, encoder_hidden_states=states
            ).sample  # (1)
        return (said.float() - eps).square().mean((1, 2, 3))

    def training_step(self, batch: CaptionBatch, _: int) -> Tensor:
        generator = step_generator(self.hparams["seed"], self.global_step)
        count = len(batch["pixels"])
        z = self.latents(batch["pixels"])
        t = torch.randint(self.model.steps, (count,), generator=generator).to(z.device)
        eps = torch.randn(z.shape, generator=generator).to(z)
        chosen = choose_captions(batch, self.hparams["captions"], generator)
        without = torch.rand(count, generator=generator) < self.hparams["empty"]
        captions = [
            [""] * len(own) if gone else own for gone, own in zip(without, chosen, strict=True)
        ]
        loss = self.loss(z, t, eps, self.states(captions)).mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._kept: list[Tensor] = []

    def validation_step(self, batch: CaptionBatch, number: int) -> None:
        """The loss with the picture's own captions, the next picture's, and empty ones, at the same t and noise."""
        generator = step_generator(self.hparams["seed"], number)
        z = self.latents(batch["pixels"])
        t = torch.randint(self.model.steps, (len(z),), generator=generator).to(z.device)
        eps = torch.randn(z.shape, generator=generator).to(z)
        own = choose_captions(batch, self.hparams["captions"], generator)
        empty = [[""] * len(captions) for captions in own]
        losses = [self.loss(z, t, eps, self.states(c)) for c in (own, own[1:] + own[:1], empty)]
        self._kept.append(torch.stack(losses))

    def on_validation_epoch_end(self) -> None:
        own, other, empty = torch.cat(self._kept, dim=1).double().mean(1).tolist()
        self.scores = {
            "loss": own,
            "loss_other_caption": other,
            "loss_empty_caption": empty,
            "text_use": 100 * (1 - own / other),
        }
        self.log_dict({f"val/{name}": value for name, value in self.scores.items()}, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return adamw(self, self.hparams["lr"], self.hparams["weight_decay"], self.hparams["warmup"])

    def on_fit_start(self) -> None:
        """Every picture goes through the autoencoder now, or did so in an earlier start."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        for loader in (data.train_dataloader(), data.val_dataloader()):
            self.latents.prepare(loader.dataset)

    # ---------------------------------------------------------------------------------------- the end
    def finish(self, run_dir: Path) -> dict[str, float]:
        """Writes weights, scores and samples; called when the page's training is done."""
        folder = Path(self.hparams["export"])
        save_part(self.model.unet.half(), folder / "unet")
        save_part(self.model.scheduler, folder / "scheduler")
        write_atomic(folder / STUDENT_FILE, json.dumps(self.text, indent=2) + "\n")
        write_scores(folder / "unet.json", self.scores)
        self.model.unet.float()
        shown = self.states([[caption] for caption in CAPTIONS])
        draw_samples(self.model, shown, self.states([[""]])[0], folder.with_suffix(".png"))
        return self.scores


def choose_captions(batch: CaptionBatch, count: int, generator: torch.Generator) -> list[list[str]]:
    """``count`` of each picture's captions, in an order drawn anew; "" where there are no more.

    Of two captions that name the same objects in either order one is taken.
    """
    own: list[list[str]] = [[] for _ in range(len(batch["pixels"]))]
    draws = torch.rand(len(batch["captions"]), 2, generator=generator).tolist()
    twins = batch["twin"].tolist()
    for caption in sorted(range(len(draws)), key=lambda c: draws[c][0]):
        first, second = sorted((caption, twins[caption]))
        if caption == (first if draws[first][1] < 0.5 else second):
            own[int(batch["image"][caption])].append(batch["captions"][caption])
    return [(found + [""] * count)[:count] for found in own]
