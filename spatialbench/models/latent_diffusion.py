"""A frozen latent diffusion model and its loss on an image under a context of tokens.

    (1)  z = f E(x)                              E: mean of the autoencoder's posterior, f its scale
    (2)  z_t = sqrt(a_t) z + sqrt(1 - a_t) e     a_t: product of 1 - beta up to t
    (3)  L = mean over the latents of (U(z_t, t, C) - target)^2
    (4)  target = e, or v = sqrt(a_t) e - sqrt(1 - a_t) z      by the scheduler's prediction_type
    (5)  z' = (z_t - sqrt(1 - a_t) e') / sqrt(a_t), or sqrt(a_t) z_t - sqrt(1 - a_t) v'
         e', v': the UNet's predictions

Letters: B images, G pixels a side, c h w channels, rows and columns of the latents, N tokens of the
context, W their width, T positions of the text encoder.

Source: latent diffusion (Rombach et al., arXiv 2112.10752); baaivision/DIVA @ d53c668, models/.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from spatialbench.models.autoencoder import Autoencoder
from spatialbench.models.diffusion_text import PROMPT
from spatialbench.models.files import diffusion_files as files
from spatialbench.models.running import written_out
from spatialbench.utils.token_cache import tensors_digest


class Diffusion(Autoencoder):
    """A frozen diffusion model: diffusers' UNet2DConditionModel, AutoencoderKL and DDPMScheduler.

    ``context`` is E [T, W], the text encoder's hidden states of the constant prompt.
    """

    context: Tensor

    def __init__(
        self, unet: Any, vae: Any, scheduler: Any, context: Tensor, legacy_range: bool = False
    ) -> None:
        super().__init__(vae, legacy_range)
        self.unet = unet.eval().requires_grad_(False)
        self.scheduler = scheduler
        self.register_buffer("context", context.float(), persistent=False)
        side = int(unet.config.sample_size)
        self.image_size: int = side * self.factor  # G for the UNet's native latents
        self.latent_shape = (int(unet.config.in_channels), side, side)  # c, h, w of those
        self.advice = f"set the page's picture_size to {self.image_size}"
        self.steps: int = scheduler.config.num_train_timesteps  # t is in [0, steps)
        self.width: int = unet.config.cross_attention_dim  # W

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.unet.dtype

    @cached_property
    def latents_fingerprint(self) -> str:
        """Hash of everything that :meth:`encode` depends on but the image."""
        extra = repr([*self.scaling, self.legacy_range, str(self.vae.dtype)])
        return tensors_digest(self.vae.state_dict(), extra)

    def noised(self, z: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Add noise to latents by (2); z and eps [B, c, h, w], t int64 [B]."""
        return self.scheduler.add_noise(z, eps, t)

    def loss(self, z: Tensor, t: Tensor, eps: Tensor, context: Tensor) -> Tensor:
        """Compute (3) of latents z, noise e [B, c, h, w], t int64 [B] and context C [B, N, W].

        One number per sample, float32 [B], or float64 as the weights; differentiable in C.
        """
        target = eps if self._predicts_noise else self.scheduler.get_velocity(z, eps, t)  # (4)
        prediction = self.predict(self.noised(z, t, eps), t, context)
        return (prediction - target).square().mean((1, 2, 3))  # (3)

    def predict(self, z_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Run the UNet on noised latents; [B, c, h, w] in the dtype of the losses."""
        with torch.autocast(z_t.device.type, enabled=False), written_out(z_t, self.unet):
            context = context.to(self.dtype)
            output = self.unet(z_t.to(self.dtype), t, encoder_hidden_states=context).sample
        return output.to(self._exact)

    @torch.no_grad()
    def denoised(self, z: Tensor, t: Tensor, eps: Tensor, context: Tensor) -> Tensor:
        """Estimate the clean latents [B, c, h, w] by (5), one step from z_t; see :meth:`loss`."""
        z_t = self.noised(z, t, eps)
        return self.clean(z_t, t, self.predict(z_t, t, context))

    def clean(self, z_t: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        """Compute (5) from the UNet's prediction."""
        a = self.scheduler.alphas_cumprod.to(z_t)[t].view(-1, 1, 1, 1)
        if self._predicts_noise:
            return (z_t - (1 - a).sqrt() * prediction) / a.sqrt()
        return a.sqrt() * z_t - (1 - a).sqrt() * prediction

    @property
    def _predicts_noise(self) -> bool:
        return self.scheduler.config.prediction_type == "epsilon"


def load_diffusion(
    spec: str = files.OWN,
    dtype: str = "bfloat16",
    legacy_range: bool = False,
    prompt: str = PROMPT,
    hashes: Mapping[str, str] | None = None,
    checkpointing: bool = False,
    random_seed: int = 0,
) -> Diffusion:
    """Load a frozen diffusion model.

    Args:
        spec: ``rooms-diffusion``; a folder in diffusers' layout (``unet/``, ``vae/``,
            ``scheduler/``, ``tokenizer/``, ``text_encoder/``); ``<owner>/<name>@<commit>`` on the
            Hugging Face Hub; or an architecture with random weights, ``rooms-diffusion:random`` or
            ``sd-2-1-base:random``.
        dtype: of the frozen weights, a name of ``diffusion_files.DTYPES``.
        legacy_range: see ``Autoencoder``.
        hashes: sha256 of files of the folder by relative path, checked first.
        checkpointing: recompute the UNet's activations in the backward pass.
        random_seed: of the weights of ``:random``.

    Raises:
        SpatialbenchError: there is no such model, or it is damaged or of another kind.
    """
    files.check_dtype(dtype, spec)
    name, _, weights = spec.partition(":")
    if weights == "random":
        parts = files.random_parts(name, prompt, random_seed)
    else:
        parts = files.read_parts(files.find_folder(spec, hashes or {}), prompt, spec)
    files.check(parts, spec)
    if checkpointing:
        parts.unet.enable_gradient_checkpointing()
    for part in (parts.unet, parts.vae):
        nn.Module.to(part, files.DTYPES[dtype])  # diffusers' own ``to`` warns without need
    return Diffusion(*parts, legacy_range)
