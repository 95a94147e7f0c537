"""One image of a run of a generative method: what a denoiser makes of CLIP's tokens.

Letters: B images of G pixels a side.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from spatialbench.utils.errors import atomic_path

NAME = "reconstructions.png"
"""The file in the run folder."""
IMAGES = 4
NOISE = (0.2, 0.5, 0.8)
"""Times that are shown, as shares of the schedule."""
SEED = 0
"""Seed of the noise and of random tokens: the same for every column and every run."""
_SMALLEST, _GAP, _TITLE = 96, 4, 26
Column = Callable[[float, Tensor], Tensor]
"""Latents of a time and of noise [B, c, h, w]."""


class Panel(NamedTuple):
    """A column: its title of one or two lines, and its images, uint8 [B, 3, G, G]."""

    title: str
    pixels: Tensor


@torch.no_grad()
def reconstruct(
    pixels: Tensor,
    latents: Tensor,
    times: Sequence[float],
    columns: Mapping[str, Column],
    decode: Callable[[Tensor], Tensor],
) -> list[Panel]:
    """Return the input; then the columns of each time, all from the same noise.

    Args:
        pixels: uint8 [B, 3, G, G].
        latents: of the pixels, [B, c, h, w].
        times: from clean to noisy.
        columns: latents by title.
        decode: latents -> uint8 [B, 3, G, G].
    """
    eps = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED)).to(latents)
    panels = [Panel("input", pixels)]
    for t in times:
        for title, column in columns.items():
            panels.append(Panel(f"{title}\nt = {t:g}", decode(column(t, eps))))
    return panels


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Write panels side by side as a PNG, one row per image; small images are enlarged.

    Raises:
        SpatialbenchError: the file cannot be written.
    """
    tile = max(_SMALLEST, *(panel.pixels.shape[-1] for panel in panels))
    rows = len(panels[0].pixels)
    size = (_GAP + len(panels) * (tile + _GAP), _TITLE + rows * (tile + _GAP))
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    for column, panel in enumerate(panels):
        left = _GAP + column * (tile + _GAP)
        pen.multiline_text((left, 1), panel.title, fill="black", spacing=1)
        shown = F.interpolate(panel.pixels.cpu().float(), size=(tile, tile), mode="nearest").byte()
        for row, image in enumerate(shown.permute(0, 2, 3, 1).numpy()):
            canvas.paste(Image.fromarray(image), (left, _TITLE + row * (tile + _GAP)))
    with atomic_path(path) as temporary:
        canvas.save(temporary, format="PNG")
