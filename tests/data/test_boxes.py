"""Boxes drawn by rule and their crops."""

import numpy as np
import pytest
import torch

from spatialbench.data.boxes import check_boxes, crops, enlarged, grid_boxes, grids, random_boxes

WHOLE = [0.0, 0.0, 1.0, 1.0]


def test_there_are_24_grids_up_to_6() -> None:
    assert len(grids()) == len(set(grids())) == 24
    for rows, columns in grids():
        assert 1 <= rows <= 6
        assert rows <= 2 * columns
        assert columns <= 2 * rows


def test_the_cells_of_a_grid_tile_the_image() -> None:
    seen = set()
    for seed in range(200):
        boxes = grid_boxes(np.random.default_rng(seed), count=36)
        check_boxes(boxes)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        assert area.sum().item() == pytest.approx(1, abs=1e-5)
        seen.add(len(boxes))
        assert len(grid_boxes(np.random.default_rng(seed))) == min(20, len(boxes))
    assert {1, 36} <= seen


def test_random_boxes_keep_their_range() -> None:
    boxes = random_boxes(np.random.default_rng(0), 500)
    check_boxes(boxes)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    assert ((width * height >= 0.25 - 1e-5) & (width * height <= 0.5 + 1e-5)).all()
    assert ((width / height >= 2 / 3 - 1e-4) & (width / height <= 3 / 2 + 1e-4)).all()
    assert boxes[:, :2].min() < 0.05
    assert boxes[:, 2:].max() > 0.95


def test_enlarged_boxes_keep_their_centre_and_end_at_the_image() -> None:
    boxes = enlarged(torch.tensor([[0.4, 0.4, 0.6, 0.5], [0.0, 0.0, 0.2, 0.2]]), 1.5)
    wanted = torch.tensor([[0.35, 0.375, 0.65, 0.525], [0.0, 0.0, 0.25, 0.25]])
    torch.testing.assert_close(boxes, wanted)


def test_a_crop_shows_its_box_centred_on_black() -> None:
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    pixels[1, 0, 2:4, 4:8] = 200  # a red bar, twice as wide as high
    boxes = torch.tensor([[0.5, 0.25, 1.0, 0.5], WHOLE])
    made = crops(pixels, boxes, torch.tensor([1, 0]), 16)
    wanted = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    wanted[0, 0, 4:12] = 200
    assert torch.equal(made, wanted)


def test_the_whole_image_at_its_own_size_is_the_image() -> None:
    pixels = torch.randint(0, 256, (1, 3, 12, 12), dtype=torch.uint8)
    assert torch.equal(crops(pixels, torch.tensor([WHOLE]), torch.tensor([0]), 12), pixels)


def test_a_box_smaller_than_a_pixel_is_that_pixel() -> None:
    pixels = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    pixels[0, :, 3, 3] = 9
    assert (crops(pixels, torch.tensor([[0.97, 0.97, 1.0, 1.0]]), torch.tensor([0]), 5) == 9).all()


@pytest.mark.parametrize("side", [8, 16, 56])
@pytest.mark.parametrize("cells", [2, 3, 4, 5, 6])
def test_a_cell_shows_nothing_of_its_neighbours(side: int, cells: int) -> None:
    size = side * cells
    stripes = (torch.arange(size) // side).to(torch.uint8)  # the column of the cell
    pixels = stripes.expand(1, 3, size, size).contiguous()
    corners = torch.tensor([[k / cells, 0, (k + 1) / cells, 1 / cells] for k in range(cells)])
    made = crops(pixels, corners, torch.zeros(cells, dtype=torch.long), side)
    assert all((made[k] == k).all() for k in range(cells))
