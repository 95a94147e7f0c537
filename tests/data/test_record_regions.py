"""The images of records as regions: boxes and masks of the squashed image, of the first alone."""

import numpy as np
import torch

from spatialbench.data.record_regions import RecordRegions
from spatialbench.data.records import Box, Record, RecordSet
from spatialbench.data.region_sets import check_regions

SIZE = 8


def regions(images: int = 3) -> RecordRegions:
    """Images of 40 x 20 pixels; two records of image 0 share the sofa, image 2 has none."""
    boxes = {"sofa": Box(0, 0, 20, 10), "lamp": Box(20, 10, 20, 10), "bed": Box(1, 1, 1, 1)}
    said = [(0, "sofa", "lamp"), (0, "bed", "sofa"), (1, "lamp", "sofa")]
    records = [
        Record(f"{k}", row, a, "left", b, {n: boxes[n] for n in (a, b)}, (40, 20), scene_id=scene)
        for k, ((row, a, b), scene) in enumerate(zip(said, ("hall", "hall", ""), strict=True))
    ]
    pixels = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, SIZE, SIZE, 3), "u1")
    return RecordRegions(RecordSet("made", pixels, records, "f"), images)


def test_boxes_are_of_the_square_and_fill_their_masks() -> None:
    made = regions()
    assert made.classes == ("bed", "lamp", "sofa")
    item = made[0]
    check_regions(item, SIZE, 3, "image 0")
    assert [made.classes[label] for label in item.label] == ["sofa", "lamp", "bed"]
    assert item.boxes[:2].tolist() == [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]
    expected = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    expected[4:, 4:] = True
    assert torch.equal(item.masks[1], expected)
    assert item.masks[2].nonzero().tolist() == [[0, 0]]  # smaller than a pixel
    assert made[1].pixels.unique().tolist() == [1]
    check_regions(made[2], SIZE, 3, "image 2")
    assert [made.scene(row) for row in range(3)] == ["hall", "image 1", "image 2"]


def test_the_first_images_keep_their_records() -> None:
    made = regions(images=1)
    assert (len(made), made.classes, made.records.counts["left"]) == (1, ("bed", "lamp", "sofa"), 2)
    assert made.fingerprint != regions().fingerprint
