"""The picture of a run: every tile in its place, and the same noise in every column."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from spatialbench.methods.parts.reconstructions import Panel, draw, reconstruct
from tests.support.diffusions import SIZE
from tests.support.models import images


def test_every_image_is_drawn_in_its_place(tmp_path: Path) -> None:
    panels = [Panel(f"column {k}\nsecond line", images(2, seed=k, size=SIZE)) for k in range(3)]
    draw(panels, tmp_path / "deep" / "x.png")
    drawn = np.asarray(Image.open(tmp_path / "deep" / "x.png"))
    assert drawn.shape == (26 + 2 * 100, 4 + 3 * 100, 3)
    for column, panel in enumerate(panels):
        for row, image in enumerate(panel.pixels):
            top, left = 26 + row * 100, 4 + column * 100
            tile = drawn[top : top + 96, left : left + 96]
            assert np.array_equal(tile[1::3, 1::3], image.numpy().transpose(1, 2, 0))
    assert (drawn[:24] < 128).any()  # titles
    assert (drawn[24:26] == 255).all()


def test_every_column_of_every_run_has_the_same_noise() -> None:
    x, z = images(2, size=SIZE), torch.zeros(2, 4, 8, 8)
    columns = {"noise": lambda t, eps: eps, "some": lambda t, eps: t * eps}
    panels, again = (reconstruct(x, z, (0.5, 1), columns, torch.clone) for _ in range(2))
    titles = [f"{title}\nt = {t}" for t in (0.5, 1) for title in columns]
    assert [panel.title for panel in panels] == ["input", *titles]
    shown = [panel.pixels for panel in panels]
    assert torch.equal(shown[0], x)
    assert torch.equal(shown[1], shown[3])
    assert torch.equal(shown[2], 0.5 * shown[1])
    assert all(torch.equal(*pair) for pair in zip(shown, (p.pixels for p in again), strict=True))
