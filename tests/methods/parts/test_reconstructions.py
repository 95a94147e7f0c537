"""The picture of a run: every tile where it belongs, and the same noise in every column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from spatialbench.methods.parts.reconstructions import Panel, denoised_panels, draw
from tests.support.diffusions import SIZE, WIDTH, diffusion
from tests.support.models import images


def test_every_picture_is_drawn_where_it_belongs(tmp_path: Path) -> None:
    panels = [Panel(f"column {k}\nsecond line", images(2, seed=k, size=SIZE)) for k in range(3)]
    draw(panels, tmp_path / "deep" / "x.png")
    drawn = np.asarray(Image.open(tmp_path / "deep" / "x.png"))
    assert drawn.shape == (26 + 2 * 100, 4 + 3 * 100, 3)
    for column, panel in enumerate(panels):
        for row, picture in enumerate(panel.pixels):
            top, left = 26 + row * 100, 4 + column * 100
            tile = drawn[top : top + 96, left : left + 96]
            assert np.array_equal(tile[1::3, 1::3], picture.numpy().transpose(1, 2, 0))
    assert (drawn[:24] < 128).any()  # titles
    assert (drawn[24:26] == 255).all()


def test_one_step_from_the_same_noise_for_every_context() -> None:
    model = diffusion(dtype=torch.float32)
    x = images(2, size=SIZE)
    z = model.latents(x)
    context = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    contexts = {"first": context, "same": context, "other": 9 * context}
    panels = denoised_panels(model, x, z, contexts, noise=(0.0, 0.5))
    names = ["input", *(f"{name}\nt = {t}" for t in (0, 500) for name in ("noised", *contexts))]
    assert [panel.title for panel in panels] == names
    assert torch.equal(panels[0].pixels, x)
    shown = {panel.title: panel.pixels for panel in panels}
    assert torch.equal(shown["first\nt = 500"], shown["same\nt = 500"])
    assert not torch.equal(shown["first\nt = 500"], shown["other\nt = 500"])
    again = denoised_panels(model, x, z, contexts, noise=(0.0, 0.5))
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(panels, again, strict=True))
    clean, noisy = (
        (shown[f"noised\nt = {t}"].float() - model.decode(z).float()).abs().mean() for t in (0, 500)
    )
    assert clean < noisy
