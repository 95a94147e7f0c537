"""A frozen latent diffusion model: what it says of a picture under a context of tokens. Built on diffusers' classes.

    (1)  z = f E(x)                                  E: mean of the autoencoder's posterior, f its scaling factor
    (2)  z_t = sqrt(a_t) z + sqrt(1 - a_t) e         a_t: product of 1 - beta up to t
    (3)  L = mean over the latents of (U(z_t, t, C) - target)^2
    (4)  target = e, or v = sqrt(a_t) e - sqrt(1 - a_t) z         by the scheduler's prediction_type
    (5)  z' = (z_t - sqrt(1 - a_t) e') / sqrt(a_t), or sqrt(a_t) z_t - sqrt(1 - a_t) v'        e', v': what U says

Letters: B images, G pixels a side, c h w channels, rows and columns of the latents, N tokens of the context, W their
width, T positions of the text encoder.

Source: latent diffusion (Rombach et al., arXiv 2112.10752); baaivision/DIVA @ d53c668, models/.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spatialbench import WEIGHTS
from spatialbench.models.autoencoder import Autoencoder
from spatialbench.models.diffusion_text import PROMPT
from spatialbench.models.files.diffusion_files import (
    DTYPES,
    OWN,
    check,
    find_folder,
    random_parts,
    read_parts,
)
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.token_cache import tensors_digest


class Diffusion(Autoencoder):
    """A frozen diffusion model. Always in eval mode, never with a gradient in its own weights.

    Args:
        unet, vae: diffusers' UNet2DConditionModel and AutoencoderKL, of one dtype.
        scheduler: diffusers' DDPMScheduler; gives the betas and what the UNet predicts.
        context: E [T, W], the text encoder's hidden states of the constant prompt.
        legacy_range: see ``Autoencoder``.

    Attributes:
        image_size: G that goes with the UNet's native latents.
        latent_shape: c, h, w of those.
        steps: t is in [0, steps).
        width: W.
    """

    context: Tensor

    def __init__(
        self,
        unet: Any,
        vae: Any,
        scheduler: Any,
        context: Tensor,
        legacy_range: bool = False,
    ) -> None:
        super().__init__(vae, legacy_range)
        self.unet = unet.eval().requires_grad_(False)
        self.scheduler = scheduler
        self.register_buffer("context", context.float(), persistent=False)
        side = int(unet.config.sample_size)
        self.image_size: int = side * self.factor
        self.latent_shape: tuple[int, int, int] = (int(unet.config.in_channels), side, side)
        self.advice = f"set the page's picture_size to {self.image_size}"
        self.steps: int = scheduler.config.num_train_timesteps
        self.width: int = unet.config.cross_attention_dim

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; the losses are in float32, or in float64 with it."""
        return self.unet.dtype

    @cached_property
    def latents_fingerprint(self) -> str:
        """Hash of everything that :meth:`latents` depends on beside the picture."""
        extra = repr([self._scale, self._shift, self.legacy_range, str(self.vae.dtype)])
        return tensors_digest(self.vae.state_dict(), extra)

    def latents(self, pixels: Tensor) -> Tensor:
        """(1), float32 [B, c, h, w] of uint8 [B, 3, G', G'], G' a multiple of ``factor``; no gradient.

        Raises:
            SpatialbenchError: pictures of another type or size.
        """
        return self.encode(pixels)  # (1)

    def noised(self, z: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """(2), [B, c, h, w], of t int64 [B] and of z, eps [B, c, h, w]."""
        return self.scheduler.add_noise(z, eps, t)

    def loss(self, z: Tensor, t: Tensor, eps: Tensor, context: Tensor) -> Tensor:
        """(3), one number a sample, differentiable in the context.

        Args:
            z, eps: [B, c, h, w].
            t: int64 [B], in [0, steps).
            context: C [B, N, W].

        Returns:
            float32 [B] (float64 where the weights are).
        """
        target = eps if self._predicts_noise else self.scheduler.get_velocity(z, eps, t)  # (4)
        return (
            (self.predict(self.noised(z, t, eps), t, context) - target).square().mean((1, 2, 3))
        )  # (3)

    def predict(self, z_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """What the UNet says, [B, c, h, w] in the dtype of the losses; arguments as in :meth:`loss`, z_t noised.

        On a CPU attention is written out: torch's fused kernel has a slow backward pass there.
        """
        device = z_t.device.type
        plain = (
            device == "cpu" and not self.unet.is_gradient_checkpointing
        )  # whose second pass would have another
        with (
            torch.autocast(device, enabled=False),
            sdpa_kernel(SDPBackend.MATH) if plain else nullcontext(),
        ):
            said = self.unet(
                z_t.to(self.dtype), t, encoder_hidden_states=context.to(self.dtype)
            ).sample
        return said.to(self._exact)

    @torch.no_grad()
    def denoised(self, z: Tensor, t: Tensor, eps: Tensor, context: Tensor) -> Tensor:
        """(5): the clean latents as one step from z_t tells them, [B, c, h, w]; arguments as in :meth:`loss`."""
        z_t = self.noised(z, t, eps)
        return self.clean(z_t, t, self.predict(z_t, t, context))

    def clean(self, z_t: Tensor, t: Tensor, prediction: Tensor) -> Tensor:
        """(5), of what the UNet predicts."""
        a = self.scheduler.alphas_cumprod.to(z_t)[t].view(-1, 1, 1, 1)
        if self._predicts_noise:
            return (z_t - (1 - a).sqrt() * prediction) / a.sqrt()
        return a.sqrt() * z_t - (1 - a).sqrt() * prediction

    @property
    def _predicts_noise(self) -> bool:
        return self.scheduler.config.prediction_type == "epsilon"


def load_diffusion(
    spec: str = OWN,
    dtype: str = "bfloat16",
    legacy_range: bool = False,
    prompt: str = PROMPT,
    hashes: Mapping[str, str] | None = None,
    checkpointing: bool = False,
    random_seed: int = 0,
) -> Diffusion:
    """A frozen diffusion model.

    Args:
        spec: ``rooms-diffusion``; a folder in diffusers' layout (``unet/``, ``vae/``, ``scheduler/``, ``tokenizer/``,
            ``text_encoder/``); ``<owner>/<name>@<commit>`` on the Hugging Face Hub; or ``<preset>:random``, the exact
            architecture with random weights: ``rooms-diffusion:random``, ``sd-2-1-base:random``.
        dtype: of the frozen weights: ``bfloat16``, ``float16``, ``float32`` or ``float64``.
        legacy_range: see ``Diffusion``.
        prompt: the constant prompt.
        hashes: sha256 of files of the folder, by path (``unet/diffusion_pytorch_model.safetensors``), checked first.
        checkpointing: compute the UNet's activations again in the backward pass instead of keeping them.
        random_seed: of the weights of ``:random``.

    Raises:
        SpatialbenchError: there is nothing of that name, or it is no such model; one line.
    """
    if dtype not in DTYPES:
        raise SpatialbenchError(
            f"diffusion {spec!r}: no dtype {dtype!r}; one of {', '.join(DTYPES)}"
        )
    name, _, weights = spec.partition(":")
    if weights == "random":
        parts = random_parts(name, prompt, random_seed)
    else:
        parts = read_parts(find_folder(spec, {OWN: WEIGHTS / OWN}, hashes or {}), prompt, spec)
    check(parts, spec)
    if checkpointing:
        parts.unet.enable_gradient_checkpointing()
    for part in (parts.unet, parts.vae):
        nn.Module.to(
            part, DTYPES[dtype]
        )  # diffusers' own ``to`` warns of modules that neither of the two has
    return Diffusion(parts.unet, parts.vae, parts.scheduler, parts.context, legacy_range)
