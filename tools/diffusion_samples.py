"""Samples of the shipped diffusion model, for its card.

``python -m tools.diffusion_samples`` writes ``spatialbench/weights/rooms-diffusion.png``.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from PIL import Image, ImageDraw
from torch import Tensor

from spatialbench import WEIGHTS
from spatialbench.models.diffusion_text import STUDENT_FILE, caption_states
from spatialbench.models.files.diffusion_files import OWN, build
from spatialbench.models.latent_diffusion import Diffusion, load_diffusion
from spatialbench.models.open_clip_student import TextTokenizer, load_clip
from spatialbench.utils.errors import atomic_path

CAPTIONS = (
    "a red sofa",
    "a blue bed and a white cabinet",
    "a purple curtain and a brown table",
    "a pink armchair",
)
"""Captions of the rows of the grid."""
COLUMNS, STEPS, GUIDANCE = 6, 25, 3.0
_STRIP, _GAP = 16, 2


@torch.no_grad()
def sample(
    model: Diffusion, states: Tensor, empty: Tensor, guidance: float, steps: int, seed: int
) -> Tensor:
    """Sample images by DDIM (Song et al., arXiv 2010.02502) with classifier-free guidance.

    Args:
        model: predicts noise.
        states: [B, T, W], of the captions.
        empty: [T, W], of the empty caption.
        guidance: g of e = e_empty + g (e_caption - e_empty).
        steps: of DDIM.
        seed: of the initial noise.

    Returns:
        uint8 [B, 3, G, G].
    """
    settings = {**model.scheduler.config, "set_alpha_to_one": True, "steps_offset": 1}
    scheduler: Any = build(DDIMScheduler, settings)
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
    """Write a PNG with a row of ``COLUMNS`` images below each of ``CAPTIONS``.

    Args:
        model: predicts noise.
        states: [len(CAPTIONS), T, W], of the captions.
        empty: [T, W], of the empty caption.
        path: of the file.

    Raises:
        SpatialbenchError: the file cannot be written.
    """
    side = model.image_size + _GAP
    grid = Image.new("RGB", (COLUMNS * side, len(CAPTIONS) * (side + _STRIP)), "white")
    pen = ImageDraw.Draw(grid)
    for row, (caption, own) in enumerate(zip(CAPTIONS, states, strict=True)):
        top = row * (side + _STRIP)
        pen.text((2, top + 2), caption, fill="black")
        images = sample(model, own.expand(COLUMNS, -1, -1), empty, GUIDANCE, STEPS, seed=row)
        for column, image in enumerate(images.permute(0, 2, 3, 1).cpu().numpy()):
            grid.paste(Image.fromarray(image), (column * side, top + _STRIP))
    with atomic_path(path) as temporary:
        grid.save(temporary, format="PNG", optimize=True)


def main() -> None:
    """Write the samples of the shipped model."""
    text = json.loads((WEIGHTS / OWN / STUDENT_FILE).read_text())
    student, tokenizer = load_clip(text["student"]), TextTokenizer(text["student"])
    with torch.no_grad():
        states = caption_states(student, tokenizer, [*CAPTIONS, ""], text["length"])
    model = load_diffusion(OWN, dtype="float32")
    draw_samples(model, states[:-1], states[-1], WEIGHTS / f"{OWN}.png")


if __name__ == "__main__":
    main()
