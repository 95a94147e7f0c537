"""Batches of regions: which boxes, which crops, always the same for the same key."""

from collections import Counter
from typing import Any

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
from spatialbench.data.region_sets import Regions, RegionSet, check_regions
from tests.support.checks import refused

SIZE = 24
NAN = float("nan")


class Made(RegionSet):
    """Noise; image k has k regions, all of class k; image 2 fills only the upper half."""

    name, size, fingerprint = "made", SIZE, "made"
    classes, things, templates = ("sofa", "lamp", "bed", "box"), (True,) * 4, ("a {}",)

    def __init__(self) -> None:
        self.skipped = Counter()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> Regions:
        noise = np.random.default_rng(row).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)
        height = 0.5 if row == 2 else 1.0
        boxes = [[0.1 * k, 0.0, 0.1 * k + 0.2, height / 2] for k in range(row)]
        return Regions(
            torch.from_numpy(noise),
            (1.0, height),
            torch.tensor(boxes).reshape(-1, 4),
            torch.full((row,), row),
            torch.ones(row, SIZE, SIZE, dtype=torch.bool),
        )

    def scene(self, row: int) -> str:
        return str(row)


def batch(sampling: Sampling, rows: tuple[int, ...] = (3, 0, 2), number: int = 0) -> dict[str, Any]:
    return RegionDataset(Made(), sampling)[np.array(rows), (0, 0, number)]  # type: ignore[return-value]


def test_the_own_boxes_with_their_classes() -> None:
    made = batch(Sampling("boxes", crop_size=8, wide=0))
    assert made["image"].tolist() == [0, 0, 0, 1, 2, 2]
    assert made["label"].tolist() == [3, 3, 3, -1, 2, 2]  # image 0 is one region of no class
    assert made["boxes"][3].tolist() == [0, 0, 1, 1]
    assert sorted(made["boxes"][:3, 0].tolist()) == pytest.approx([0, 0.1, 0.2])
    assert len(made["wide"]) == 0
    few = batch(Sampling("boxes", most=2, crop_size=8))
    assert few["image"].tolist() == [0, 0, 1, 2, 2]


def test_cells_and_wide_boxes_stay_in_the_image() -> None:
    for number in range(20):
        made = batch(Sampling("grid", wide=3), (2, 1), number)
        for name, image in (("boxes", made["image"]), ("wide", made["wide_image"])):
            check_boxes(made[name])
            assert (made[name][image == 0, 3] <= 0.5 + 1e-6).all()  # image 2 is its upper half
            assert made[name][image == 1, 3].max() > 0.5
        assert made["label"].eq(-1).all()
        assert made["wide_image"].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_batch_depends_on_its_key_alone() -> None:
    first, again, other = (batch(Sampling(), number=number) for number in (3, 3, 4))
    assert torch.equal(first["wide"], again["wide"])
    assert torch.equal(first["boxes"], again["boxes"])
    assert not torch.equal(first["wide"], other["wide"])


def test_crops_are_cells_or_objects_with_their_surroundings() -> None:
    cells = batch(Sampling("grid", crop_size=8))
    assert torch.equal(cells["crop_boxes"], cells["boxes"])
    assert torch.equal(cells["crops"], crops(cells["pixels"], cells["boxes"], cells["image"], 8))
    assert cells["keys"] == []
    objects = batch(Sampling("boxes", crop_size=8), (2,))
    assert len(objects["crops"]) == 0  # fixed: cached by name
    for (x0, y0, x1, y1), view in zip(
        objects["boxes"].tolist(), objects["crop_boxes"], strict=True
    ):
        w, h = (x1 - x0) / 4, (y1 - y0) / 4
        assert view.tolist() == pytest.approx([max(0, x0 - w), 0, x1 + w, min(0.5, y1 + h)])
    assert len(batch(Sampling("grid", crop_size=0))["crops"]) == 0


def test_crops_are_named_by_their_content() -> None:
    dataset = RegionDataset(Made(), Sampling("boxes", crop_size=8))
    made = dataset[np.array([2, 3]), (0, 0, 5)]
    names = {name for row in (2, 3) for name in dataset.all_crops(row)[0]}
    assert set(made["keys"]) == names
    assert len(names) == 5
    keys, cut = dataset.all_crops(3)
    at = [made["keys"].index(keys[1])]
    assert torch.equal(
        cut[[1]], crops(made["pixels"], made["crop_boxes"][at], made["image"][at], 8)
    )
    assert dataset.all_crops(3, known=keys[:2])[0] == keys[2:]
    changed = made["pixels"].clone()
    changed[0, 0, 0, 0] ^= 1
    other = crop_keys(changed, made["crop_boxes"], made["image"])
    assert not set(other[:2]) & names  # another image
    assert set(other[2:]) < names


def test_large_seeds_have_random_numbers_of_their_own() -> None:
    first, again, other = (
        torch.rand(3, generator=generator((seed, 0, 1))) for seed in (2**31, 2**31, 123456789)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def masks(count: int, width: int = SIZE) -> torch.Tensor:
    return torch.ones(count, SIZE, width, dtype=torch.bool)


def two(*second: float) -> torch.Tensor:
    return torch.tensor([[0.0, 0, 1, 1], second])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("masks", masks(2, 9), r"masks is bool \[2, 24, 9\], not bool \[2, 24, 24\]"),
        ("masks", masks(2).float(), "masks is float32"),
        ("masks", masks(3), r"masks is bool \[3, 24, 24\]"),
        ("masks", ~masks(2), "a mask is empty"),
        ("label", torch.tensor([0, 4]), "a class is outside of 0 to 3"),
        ("label", torch.tensor([0]), r"label is int64 \[1\], not int64 \[2\]"),
        ("pixels", torch.zeros(3, 8, 8, dtype=torch.uint8), "pixels is uint8"),
        ("boxes", two(0, 0, NAN, 1), "region 1, .* is not finite"),
        ("boxes", two(0.5, 0, 0.5, 1), "region 1, .* is empty"),
        ("boxes", two(0, 0, 1, 1.2), "region 1, .* reaches out of the image"),
    ],
)
def test_a_wrong_item_of_a_region_set_is_named(
    name: str, value: torch.Tensor, message: str
) -> None:
    class Wrong(Made):
        def __getitem__(self, row: int) -> Regions:
            item = super().__getitem__(row)
            return item._replace(**{name: value}) if row == 2 else item

    with refused(f"image 2 of made: .*{message}"):
        RegionDataset(Wrong(), Sampling("boxes", crop_size=8))[np.array([3, 2]), (0, 0, 0)]
    check_regions(Made()[0], SIZE, 4, "an image without regions")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"region_batch": 0}, r"data\.region_batch is 0"),
        ({"region_images": 0}, r"data\.region_images is 0"),
        ({"region_path": "x.json"}, "go together"),
        ({"region_path": "x.json", "region_folder": "x"}, "there is no file x.json"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with refused(message):
        RegionDataModule(**settings)
