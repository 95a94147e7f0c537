"""The rooms as regions: boxes, masks, names and captions of one image belong together."""

import numpy as np
import pytest

from spatialbench.data.boxes import check_boxes
from spatialbench.data.rooms.facts import MIN_AREA
from spatialbench.data.rooms.room_regions import TOO_SMALL, RoomsRegions

SIZE, IMAGES = 48, 6


@pytest.fixture(scope="module")
def regions() -> RoomsRegions:
    return RoomsRegions("val", IMAGES, SIZE)


def test_boxes_are_those_of_the_masks(regions: RoomsRegions) -> None:
    assert len(regions) == IMAGES
    seen = 0
    for row in range(IMAGES):
        item = regions[row]
        assert item.pixels.shape == (3, SIZE, SIZE)
        assert item.extent == (1, 1)
        assert len(item.boxes) == len(item.label) == len(item.masks)
        check_boxes(item.boxes)
        assert not (item.masks.sum(0) > 1).any()
        for box, mask in zip(item.boxes, item.masks, strict=True):
            y, x = mask.nonzero().T
            wanted = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
            assert (box * SIZE).tolist() == pytest.approx(wanted)
            assert mask.sum() >= MIN_AREA * SIZE**2
        names = {regions.classes[k] for k in item.label}
        assert names <= {view.name for view in regions.rooms.scenes[row].views}
        seen += len(item.label)
    views = [view for scene in regions.rooms.scenes for view in scene.views]
    small = sum(view.area < MIN_AREA * SIZE**2 for view in views)
    assert regions.skipped[TOO_SMALL] == small == len(views) - seen


def test_captions_are_true_of_their_images_and_name_colours(regions: RoomsRegions) -> None:
    made = regions.captions(32)
    assert made.images.shape == (IMAGES, 32, 32, 3)
    assert made.truth.shape == (IMAGES, len(made.captions))
    assert made.truth[made.image, np.arange(len(made.captions))].all()
    assert not made.truth.all()
    for caption, row in zip(made.captions, made.image, strict=True):
        named = [v for v in regions.rooms.scenes[row].views if v.name in caption]
        assert any(v.colour in caption for v in named), caption
    assert regions.captions(32).captions == made.captions


def test_another_set_has_another_fingerprint(regions: RoomsRegions) -> None:
    assert regions.fingerprint != RoomsRegions("val", IMAGES - 1, SIZE).fingerprint
    assert regions.scene(0) != regions.scene(1)
