"""Pictures that a diffusion model makes of captions, for its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image, ImageDraw
from torch import Tensor

from spatialbench.models.files.diffusion_files import build
from spatialbench.models.latent_diffusion import Diffusion
from spatialbench.utils.errors import atomic_path

CAPTIONS = (
    "a red sofa",
    "a blue bed and a white cabinet",
    "a purple curtain and a brown table",
    "a pink armchair",
)
"""What the rows of the grid are asked to show."""
COLUMNS, STEPS, GUIDANCE = 6, 25, 3.0
_STRIP, _GAP = 16, 2


@torch.no_grad()
def sample(
    model: Diffusion, states: Tensor, empty: Tensor, guidance: float, steps: int, seed: int
) -> Tensor:
    """Pictures by DDIM (Song et al., arXiv 2010.02502) with classifier-free guidance.

    Args:
        model: predicts noise.
        states: [B, T, W], of the captions.
        empty: [T, W], of the empty caption.
        guidance: g of e = e_empty + g (e_caption - e_empty).
        steps: of DDIM.
        seed: of the noise that it begins with.

    Returns:
        uint8 [B, 3, G, G].
    """
    scheduler: Any = build(
        DDIMScheduler, {**model.scheduler.config, "set_alpha_to_one": True, "steps_offset": 1}
    )
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn((len(states), *model.latent_shape), generator=generator).to(states)
    both = torch.cat([states, empty.expand_as(states)])
    for t in scheduler.timesteps:
        times = t.to(z.device).expand(len(both))
        said, plain = model.predict(z.repeat(2, 1, 1, 1), times, both).chunk(2)
        z = scheduler.step(plain + guidance * (said - plain), t, z).prev_sample
    return model.decode(z)


def draw_samples(model: Diffusion, states: Tensor, empty: Tensor, path: Path) -> None:
    """A grid: a row of ``COLUMNS`` pictures for each of ``CAPTIONS``, which stands above it.

    Args:
        states: [len(CAPTIONS), T, W]. empty: [T, W].

    Raises:
        SpatialbenchError: the file cannot be written.
    """
    side = model.image_size + _GAP
    grid = Image.new("RGB", (COLUMNS * side, len(CAPTIONS) * (side + _STRIP)), "white")
    pen = ImageDraw.Draw(grid)
    for row, (caption, own) in enumerate(zip(CAPTIONS, states, strict=True)):
        top = row * (side + _STRIP)
        pen.text((2, top + 2), caption, fill="black")
        pictures = sample(model, own.expand(COLUMNS, -1, -1), empty, GUIDANCE, STEPS, seed=row)
        for column, picture in enumerate(pictures.permute(0, 2, 3, 1).cpu().numpy()):
            grid.paste(Image.fromarray(picture), (column * side, top + _STRIP))
    with atomic_path(path) as temporary:
        grid.save(temporary, format="PNG", optimize=True)
