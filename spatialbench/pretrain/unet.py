"""The UNet of the rooms' diffusion model: predicts the noise in latents, given captions.

    (1)  z_t = sqrt(a_t) z + sqrt(1 - a_t) e    z: latents of an image, e: normal noise, t uniform
    (2)  L = mean over images and latents of (U(z_t, t, C) - e)^2

C are the hidden states of the student's text tower for some of the image's captions, one after the
other; for every tenth image those of empty captions, so that samples can be guided (Ho and
Salimans, arXiv 2207.12598). A short caption says little of an image, and a UNet that reads only one
learns to ignore it.

Source: latent diffusion (Rombach et al., arXiv 2112.10752), with Stable Diffusion's betas.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from spatialbench.pretrain.diffusion import save_part
from spatialbench.pretrain.pretraining import Pretraining, write_scores
from spatialbench.utils.errors import write_atomic


class UnetPretraining(Pretraining):
    """The training of the UNet, on latents that are computed once.

    Args:
        preset: a name of ``models.files.diffusion_files.PRESETS`` whose text encoder is a student's
            text tower.
        autoencoder: folder in diffusers' layout, of which ``vae/`` is read.
        lr: peak learning rate of AdamW; linear warm-up, then a cosine to zero.
        warmup: steps.
        captions: number of an image's captions at once, one of two in either order; where an image
            has fewer, empty ones fill up.
        empty: share of the images without a caption.
        export: folder in diffusers' layout for ``unet/`` (float16), ``scheduler/``,
            ``student.json`` and ``unet.json``, the scores.
    """

    def __init__(
        self,
        preset: str = OWN,
        autoencoder: str = "spatialbench/weights/rooms-diffusion",
        lr: float = 1e-3,
        warmup: int = 100,
        captions: int = 1,
        empty: float = 0.1,
        export: str = "spatialbench/weights/rooms-diffusion",
    ) -> None:
        super().__init__()
        config = preset_config(preset)
        self.text: dict[str, Any] = config["text"]
        unet = build(UNet2DConditionModel, config["unet"])
        scheduler = build(DDPMScheduler, config["scheduler"])
        vae = read_part(AutoencoderKL, Path(autoencoder) / "vae", autoencoder)
        context = torch.zeros(self.text["length"], unet.config.cross_attention_dim)
        self.model = Diffusion(unet, vae, scheduler, context)
        self.model.unet.requires_grad_(True)  # in eval mode: it has no dropout
        self.student = load_clip(self.text["student"]).requires_grad_(False)
        self.tokenizer = TextTokenizer(self.text["student"])
        self.latents = Latents(self.model)

    def states(self, captions: Sequence[Sequence[str]]) -> Tensor:
        """Return C, float32 [B, n T, W], of n captions for each of B images."""
        flat = [caption for own in captions for caption in own]
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            states = caption_states(self.student, self.tokenizer, flat, self.text["length"])
        return states.unflatten(0, (len(captions), -1)).flatten(1, 2)

    def loss(self, z: Tensor, t: Tensor, eps: Tensor, states: Tensor) -> Tensor:
        """Return (2) per image, float32 [B]."""
        z_t = self.model.noised(z, t, eps)  # (1)
        with sdpa_kernel(SDPBackend.MATH):  # the CPU's fused kernel is slow backward in bfloat16
            said = self.model.unet(z_t, t, encoder_hidden_states=states).sample
        return (said.float() - eps).square().mean((1, 2, 3))

    def training_step(self, batch: CaptionBatch, _: int) -> Tensor:
        """Return (2)."""
        z, t, eps, generator = self._drawn(batch, self.global_step)
        chosen = choose_captions(batch, self.hparams["captions"], generator)
        without = torch.rand(len(z), generator=generator) < self.hparams["empty"]
        pairs = zip(without, chosen, strict=True)
        captions = [[""] * len(own) if empty else own for empty, own in pairs]
        loss = self.loss(z, t, eps, self.states(captions)).mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: CaptionBatch, number: int) -> None:
        """Keep the loss with the image's own captions, another image's, and empty ones."""
        z, t, eps, generator = self._drawn(batch, number)
        own = choose_captions(batch, self.hparams["captions"], generator)
        captions = {"own": own, "other": own[1:] + own[:1], "empty": [[""] * len(c) for c in own]}
        self.keep(**{k: self.loss(z, t, eps, self.states(c)) for k, c in captions.items()})

    def _drawn(
        self, batch: CaptionBatch, step: int
    ) -> tuple[Tensor, Tensor, Tensor, torch.Generator]:
        """Return z, t, e, and the generator of the step for further draws."""
        generator = torch.Generator().manual_seed(step)  # the same when resumed
        z = self.latents(batch["pixels"])
        t = torch.randint(self.model.steps, (len(z),), generator=generator).to(z.device)
        return z, t, torch.randn(z.shape, generator=generator).to(z), generator

    def summary(self, rows: dict[str, Tensor]) -> dict[str, float]:
        """Return the losses, and the percentage that the right captions take off."""
        losses = torch.stack([rows[name] for name in ("own", "other", "empty")])
        own, other, empty = losses.double().mean(1).tolist()
        scores = {"loss": own, "loss_other_caption": other, "loss_empty_caption": empty}
        return {**scores, "text_use": 100 * (1 - own / other)}

    def on_fit_start(self) -> None:
        """Encode every image that the cache of latents lacks."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        for loader in (data.train_dataloader(), data.val_dataloader()):
            self.latents.prepare(loader.dataset)

    def write(self, target: Path) -> None:
        """Write the weights, the noise schedule, the name of the text encoder and the scores."""
        save_part(self.model.unet.half(), target / "unet")
        save_part(self.model.scheduler, target / "scheduler")
        write_atomic(target / STUDENT_FILE, json.dumps(self.text, indent=2) + "\n")
        write_scores(target / "unet.json", self.scores)
        self.model.unet.float()


def choose_captions(batch: CaptionBatch, count: int, generator: torch.Generator) -> list[list[str]]:
    """Choose ``count`` of each image's captions in random order; "" where there are no more.

    Of two captions that name the same objects in either order one is taken.
    """
    own: list[list[str]] = [[] for _ in range(len(batch["pixels"]))]
    draws = torch.rand(len(batch["captions"]), 2, generator=generator).tolist()
    twins = batch["twin"].tolist()
    for caption in sorted(range(len(draws)), key=lambda c: draws[c][0]):
        first, second = sorted((caption, twins[caption]))
        if caption == (first if draws[first][1] < 0.5 else second):
            own[int(batch["image"][caption])].append(batch["captions"][caption])
    return [(chosen + [""] * count)[:count] for chosen in own]
