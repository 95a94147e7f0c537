r"""A light denoiser of FLUX's topology, conditioned on one vector per image, of diffusers' class.

    (1)  y = P_y(c),  s = P_s(c)       two projectors: LayerNorm, Linear, GELU, Linear
    (2)  u = F(x_t; t, y, s)           y and t modulate every block; s is the text stream's token

Letters: B images, C channels and H W rows and columns of a latent, N = H W / 4 tokens, D width of
the vector c.

F is diffusers' ``FluxTransformer2DModel`` with random weights: a light one learns enough (arXiv
2503.19480). P's LayerNorm removes the length of c, so c's length gets no gradient (G7 of
docs/genhancer.md).

Source: mashijie1028/GenHancer @ d716ba2; docs/genhancer.md.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor, nn

from spatialbench.models.running import written_out
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean


@dataclass(frozen=True)
class Architecture:
    """Sizes of a denoiser."""

    heads: int
    head_dim: int  # the hidden width is heads * head_dim
    pooled: int  # width of y
    context: int  # width of s
    axes: tuple[int, int, int]  # head_dim, split by the rotary embedding: nothing, row, column
    double: int = 2  # blocks of two streams
    single: int = 4  # blocks of one stream, after those


PRESETS = {
    "rooms": Architecture(3, 64, 192, 192, (16, 24, 24)),  # 5.3 M parameters
    "flux-small": Architecture(12, 64, 768, 768, (16, 24, 24)),  # 84 M, for one GPU
    "flux-lite": Architecture(24, 128, 768, 4096, (16, 56, 56)),  # 1.3 G: the paper's, exactly
}


def architecture(name: str) -> Architecture:
    """Look up a preset; a SpatialbenchError if there is none."""
    if name not in PRESETS:
        raise SpatialbenchError(f"denoiser is {name!r}{did_you_mean(name, list(PRESETS))}")
    return PRESETS[name]


class Denoiser(nn.Module):
    """F and its two projectors, with random weights.

    Args:
        preset: a name of ``PRESETS``; another raises a SpatialbenchError.
        channels: C.
        condition: D.
        guidance: the constant that FLUX's guidance embedding receives (4 in the released code,
            where it only adds a learned offset); None omits the embedding.
    """

    def __init__(
        self, preset: str, channels: int, condition: int, guidance: float | None = None
    ) -> None:
        super().__init__()
        sizes = architecture(preset)
        self.channels, self.guidance = channels, guidance
        self.transformer: Any = FluxTransformer2DModel(
            in_channels=4 * channels,
            num_layers=sizes.double,
            num_single_layers=sizes.single,
            attention_head_dim=sizes.head_dim,
            num_attention_heads=sizes.heads,
            joint_attention_dim=sizes.context,
            pooled_projection_dim=sizes.pooled,
            guidance_embeds=guidance is not None,
            axes_dims_rope=sizes.axes,
        )
        self.pooled = projector(condition, sizes.pooled)
        self.context = projector(condition, sizes.context)

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """Compute u of (2), [B, C, H, W], from noised latents x of the same shape, H and W even.

        Times t [B] are in [0, 1], where 1 is noise; the images' vectors c [B, D] not normalised.
        """
        guidance = None if self.guidance is None else x.new_full((len(x),), self.guidance)
        rows, columns = x.shape[-2:]
        with written_out(x, self.transformer):
            (u,) = self.transformer(
                hidden_states=pack(x),
                encoder_hidden_states=self.context(c)[:, None],  # (1)
                pooled_projections=self.pooled(c),
                timestep=t.to(x.dtype),  # the class multiplies by 1000
                guidance=guidance,
                img_ids=positions(rows // 2, columns // 2, x.device),
                txt_ids=torch.zeros(1, 3, device=x.device),
                return_dict=False,
            )  # (2)
        return unpack(u, rows, columns)


def projector(width: int, out: int) -> nn.Sequential:
    """LayerNorm, Linear, GELU, Linear."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out), nn.GELU(), nn.Linear(out, out))


def pack(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H W / 4, 4 C]: every 2 x 2 cells are one token, as FLUX packs them."""
    rows, columns = x.shape[-2:]
    if rows % 2 or columns % 2:
        raise SpatialbenchError(
            f"the denoiser packs 2 x 2 cells of a latent, which has {rows} x {columns}: the side "
            "of the images must be a multiple of 16 pixels for a VAE of stride 8"
        )
    return F.pixel_unshuffle(x, 2).flatten(2).mT.contiguous()


def unpack(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """Invert ``pack`` for H ``rows`` and W ``columns``."""
    return F.pixel_shuffle(tokens.mT.unflatten(2, (rows // 2, columns // 2)), 2)


def positions(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """(0, row, column) of every token, float32 [rows columns, 3]."""
    ranges = (torch.arange(count).float() for count in (1, rows, columns))
    return torch.cartesian_prod(*ranges).to(device)


@torch.no_grad()
def denoise(
    denoiser: Denoiser, x: Tensor, c: Tensor, start: float = 1.0, step: float = 0.1
) -> Tensor:
    """Follow the flow from x at the time ``start`` in (0, 1] to 0, in Euler steps near ``step``.

    x is [B, C, H, W], pure noise where ``start`` is 1; c is [B, D].
    """
    steps = max(1, round(start / step))
    sigmas = np.linspace(start, start / steps, steps).tolist()
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=sigmas, device=x.device)
    for time in scheduler.timesteps:
        t = (time / scheduler.config.num_train_timesteps).expand(len(x))
        x = scheduler.step(denoiser(x, t, c).float(), time, x, return_dict=False)[0]
    return x
