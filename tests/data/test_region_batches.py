"""Batches of regions: which boxes, which crops, always the same for the same key."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from spatialbench.data.boxes import check_boxes, crops
from spatialbench.data.region_batches import (
    RegionDataModule,
    RegionDataset,
    Sampling,
    crop_keys,
    generator,
)
from spatialbench.data.region_sets import BoxFilter, Regions, RegionSet, check_regions
from spatialbench.utils.errors import SpatialbenchError

SIZE = 24


class Made(RegionSet):
    """Noise; picture 0 has no region, picture k has k, all of class k; picture 2 fills the upper half only."""

    def __init__(self, count: int = 4) -> None:
        self.count, self.name, self.size = count, "made", SIZE
        self.classes, self.things, self.templates = (
            ("sofa", "lamp", "bed", "box"),
            (True,) * 4,
            ("a {}",),
        )
        self.fingerprint, self.skipped = "made", Counter()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Regions:
        pixels = torch.randint(
            0, 256, (3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(row)
        )
        height = 0.5 if row == 2 else 1.0
        boxes = torch.tensor(
            [[0.1 * k, 0.0, 0.1 * k + 0.2, height / 2] for k in range(row)]
        ).reshape(-1, 4)
        masks = torch.ones(row, SIZE, SIZE, dtype=torch.bool)
        return Regions(pixels, (1.0, height), boxes, torch.full((row,), row), masks)

    def scene(self, row: int) -> str:
        return str(row)


def batch(
    sampling: Sampling, rows: tuple[int, ...] = (3, 0, 2), key: tuple[int, int, int] = (0, 0, 0)
) -> dict:
    return RegionDataset(Made(), sampling)[np.array(rows), key]  # type: ignore[return-value]


def test_the_own_boxes_with_their_classes() -> None:
    found = batch(Sampling("boxes", crop_size=8, wide=0))
    assert found["image"].tolist() == [0, 0, 0, 1, 2, 2]
    assert found["label"].tolist() == [
        3,
        3,
        3,
        -1,
        2,
        2,
    ]  # a picture without regions is one region of no class
    assert found["boxes"][3].tolist() == [0, 0, 1, 1]
    assert sorted(found["boxes"][:3, 0].tolist()) == pytest.approx([0, 0.1, 0.2])
    assert len(found["wide"]) == 0
    few = batch(Sampling("boxes", most=2, crop_size=8))
    assert few["image"].tolist() == [0, 0, 1, 2, 2]


def test_cells_and_wide_boxes_stay_in_the_picture() -> None:
    for number in range(20):
        found = batch(Sampling("grid", wide=3), rows=(2, 1), key=(0, 0, number))
        for boxes, image in (
            (found["boxes"], found["image"]),
            (found["wide"], found["wide_image"]),
        ):
            check_boxes(boxes)
            assert (boxes[image == 0, 3] <= 0.5 + 1e-6).all()  # picture 2 is its upper half
            assert boxes[image == 1, 3].max() > 0.5
        assert found["label"].eq(-1).all()
        assert found["wide_image"].tolist() == [0, 0, 0, 1, 1, 1]


def test_the_same_key_gives_the_same_batch_and_another_another() -> None:
    first, again, other = (batch(Sampling(), key=key) for key in ((1, 2, 3), (1, 2, 3), (1, 2, 4)))
    assert torch.equal(first["wide"], again["wide"])
    assert torch.equal(first["boxes"], again["boxes"])
    assert not torch.equal(first["wide"], other["wide"])


def test_crops_are_cells_or_objects_with_their_surroundings() -> None:
    cells = batch(Sampling("grid", crop_size=8))
    assert torch.equal(cells["crop_boxes"], cells["boxes"])
    assert torch.equal(cells["crops"], crops(cells["pixels"], cells["boxes"], cells["image"], 8))
    assert cells["keys"] == []
    objects = batch(Sampling("boxes", crop_size=8), rows=(2,))
    assert len(objects["crops"]) == 0  # fixed: found by name
    for box, seen in zip(objects["boxes"].tolist(), objects["crop_boxes"].tolist(), strict=True):
        width, height = box[2] - box[0], box[3] - box[1]
        assert seen == pytest.approx(
            [max(0, box[0] - width / 4), 0, box[2] + width / 4, min(0.5, box[3] + height / 4)]
        )
    assert len(batch(Sampling("grid", crop_size=0))["crops"]) == 0


def test_crops_are_named_by_their_content() -> None:
    dataset = RegionDataset(Made(), Sampling("boxes", crop_size=8))
    found = dataset[np.array([2, 3]), (0, 0, 5)]
    names = {name for row in (2, 3) for name in dataset.all_crops(row)[0]}
    assert set(found["keys"]) == names
    assert len(names) == 5
    keys, cut = dataset.all_crops(3)
    place = found["keys"].index(keys[1])
    assert torch.equal(
        cut[1], crops(found["pixels"], found["crop_boxes"][[place]], found["image"][[place]], 8)[0]
    )
    changed = found["pixels"].clone()
    changed[0, 0, 0, 0] ^= 1
    other = crop_keys(changed, found["crop_boxes"], found["image"])
    assert not set(other[:2]) & names  # another picture
    assert set(other[2:]) < names


def test_large_seeds_have_random_numbers_too() -> None:
    first, other = (torch.rand(3, generator=generator((seed, 0, 1))) for seed in (2**31, 123456789))
    assert not torch.equal(first, other)
    assert torch.equal(first, torch.rand(3, generator=generator((2**31, 0, 1))))


def test_boxes_that_are_none_are_counted() -> None:
    keep = BoxFilter(smallest=2)
    assert keep.keep([-0.5, 0.1, 0.5, 2], (1, 0.5), 20) == pytest.approx([0, 0.1, 0.5, 0.5])
    for box in (
        [0, 0, float("nan"), 1],
        [0, 0, 1],
        [0.5, 0, 0.5, 1],
        [0, 0.6, 1, 0.9],
        [0, 0, 0.05, 1],
    ):
        assert keep.keep(box, (1, 0.5), 20) is None
    assert keep.skipped == {
        "box is not four finite numbers": 2,
        "box has no area": 1,
        "box lies outside of the image": 1,
        "box is smaller than 2 pixels": 1,
    }


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (
            {"masks": torch.ones(2, SIZE, 9, dtype=torch.bool)},
            r"masks is bool \[2, 24, 9\], not bool \[2, 24, 24\]",
        ),
        ({"masks": torch.ones(2, SIZE, SIZE)}, "masks is float32"),
        ({"masks": torch.ones(3, SIZE, SIZE, dtype=torch.bool)}, r"masks is bool \[3, 24, 24\]"),
        ({"masks": torch.zeros(2, SIZE, SIZE, dtype=torch.bool)}, "a mask is empty"),
        ({"label": torch.tensor([0, 4])}, "a class is outside of 0 to 3"),
        ({"label": torch.tensor([0])}, r"label is int64 \[1\], not int64 \[2\]"),
        ({"pixels": torch.zeros(3, 8, 8, dtype=torch.uint8)}, "pixels is uint8"),
        (
            {"boxes": torch.tensor([[0.0, 0, 1, 1], [0, 0, float("nan"), 1]])},
            "region 1, .* is not finite",
        ),
        ({"boxes": torch.tensor([[0.0, 0, 1, 1], [0.5, 0, 0.5, 1]])}, "region 1, .* is empty"),
        (
            {"boxes": torch.tensor([[0.0, 0, 1, 1.2], [0, 0, 1, 1]])},
            "region 0, .* reaches out of the image",
        ),
    ],
)
def test_what_a_region_set_must_not_give_is_named(changes: dict, what: str) -> None:
    class Wrong(Made):
        def __getitem__(self, row: int) -> Regions:
            item = super().__getitem__(row)
            return item._replace(**changes) if row == 2 else item

    with pytest.raises(SpatialbenchError, match=f"picture 2 of made: .*{what}"):
        RegionDataset(Wrong(), Sampling("boxes", crop_size=8))[np.array([3, 2]), (0, 0, 0)]
    check_regions(Made()[0], SIZE, 4, "a picture without regions")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"region_batch": 0}, r"data\.region_batch is 0"),
        ({"region_images": 0}, r"data\.region_images is 0"),
        ({"kind": "cells"}, r"data\.kind is 'cells'; one of grid, boxes"),
        ({"region_path": "x.json"}, "go together"),
        ({"region_path": "x.json", "region_folder": "x"}, "there is no file x.json"),
        ({"wide_area": (0.5, 0.2)}, "must rise"),
        ({"wide_aspect": (0.0, 0.2)}, "must rise"),
    ],
)
def test_wrong_settings(settings: dict, what: str) -> None:
    with pytest.raises(SpatialbenchError, match=what):
        RegionDataModule(**settings)
