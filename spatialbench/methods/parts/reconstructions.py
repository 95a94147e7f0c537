"""One picture of a run of a generative method: what its tokens let a denoiser see, before training and after.

Letters: B pictures of G pixels a side, N tokens of a context, W its width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from spatialbench.methods.parts.flow import between
from spatialbench.models.autoencoder import Autoencoder
from spatialbench.models.denoiser import Denoiser, denoise
from spatialbench.models.latent_diffusion import Diffusion
from spatialbench.utils.errors import atomic_path

NAME = "reconstructions.png"
"""The file in the run folder."""
PICTURES = 4
NOISE = (0.2, 0.5, 0.8)
"""Timesteps that are shown, as shares of the schedule."""
SEED = 0
"""Of the noise, and of tokens that are drawn: the same for every column and every run."""
_SMALLEST, _GAP, _TITLE = 96, 4, 26


class Panel(NamedTuple):
    """A column: its title, one or two lines, and its pictures, uint8 [B, 3, G, G]."""

    title: str
    pixels: Tensor


@torch.no_grad()
def denoised_panels(
    diffusion: Diffusion,
    pixels: Tensor,
    latents: Tensor,
    contexts: Mapping[str, Tensor],
    noise: Sequence[float] = NOISE,
) -> list[Panel]:
    """The input; then for each timestep the noised picture, and what one step of denoising makes of it.

    Args:
        diffusion: the frozen model.
        pixels: uint8 [B, 3, G, G].
        latents: of them, [B, c, h, w].
        contexts: title -> [B, N, W], what the denoiser is conditioned on.
        noise: the timesteps, as shares of the schedule.
    """
    panels = [Panel("input", pixels)]
    eps = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED)).to(latents)
    for share in noise:
        t = torch.full((len(latents),), round(share * (diffusion.steps - 1)), device=latents.device)
        panels.append(
            Panel(f"noised\nt = {int(t[0])}", diffusion.decode(diffusion.noised(latents, t, eps)))
        )
        panels += [
            Panel(
                f"{title}\nt = {int(t[0])}",
                diffusion.decode(diffusion.denoised(latents, t, eps, context)),
            )
            for title, context in contexts.items()
        ]
    return panels


@torch.no_grad()
def flow_panels(
    autoencoder: Autoencoder,
    pixels: Tensor,
    latents: Tensor,
    known: Mapping[str, tuple[Denoiser, Tensor]],
    times: Sequence[float] = (*NOISE, 1.0),
) -> list[Panel]:
    """The input; then for each time the noised picture, and where the flow of a denoiser leads from there.

    Args:
        autoencoder: of the latents.
        pixels: uint8 [B, 3, G, G].
        latents: of them, [B, c, h, w].
        known: title -> a denoiser and what it knows of the pictures, [B, D].
        times: in (0, 1]; 1 is noise alone.
    """
    panels = [Panel("input", pixels)]
    eps = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED)).to(latents)
    for time in times:
        noised = between(latents, eps, latents.new_full((len(latents),), time))
        panels.append(Panel(f"noised\nt = {time:g}", autoencoder.decode(noised)))
        panels += [
            Panel(
                f"{title}\nt = {time:g}",
                autoencoder.decode(denoise(denoiser, noised, condition, time)),
            )
            for title, (denoiser, condition) in known.items()
        ]
    return panels


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Writes panels side by side, one row for each picture, as a PNG.

    Args:
        panels: of equally many pictures; small ones are enlarged.
        path: of the file; replaced in one step.

    Raises:
        OSError: it cannot be written.
    """
    sides = [panel.pixels.shape[-1] for panel in panels]
    tile = max(_SMALLEST, *sides)
    rows = len(panels[0].pixels)
    size = (_GAP + len(panels) * (tile + _GAP), _TITLE + rows * (tile + _GAP))
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    for column, panel in enumerate(panels):
        assert len(panel.pixels) == rows, "every panel shows the same pictures"
        left = _GAP + column * (tile + _GAP)
        pen.multiline_text((left, 1), panel.title, fill="black", spacing=1)
        shown = F.interpolate(panel.pixels.cpu().float(), size=(tile, tile), mode="nearest").byte()
        for row, picture in enumerate(shown.permute(0, 2, 3, 1).numpy()):
            canvas.paste(Image.fromarray(picture), (left, _TITLE + row * (tile + _GAP)))
    with atomic_path(path) as temporary:
        canvas.save(temporary, format="PNG")
