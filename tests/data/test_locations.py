"""Places of the named objects of a batch: boxes as the batch's images show them."""

import numpy as np
import pytest
import torch

from spatialbench.data.batches import TrainingPlans, loader
from spatialbench.data.locations import corners, named_boxes
from spatialbench.data.records import Box, Record, RecordSet
from tests.support.models import images

SIDE = 32
BOXES = {"sofa": Box(0, 4, 16, 8), "lamp": Box(24, 24, 8, 8), "bed": Box(8, 16, 4, 12)}


def record(image: int, subject: str, other: str, **changes: object) -> Record:
    given = {"boxes": BOXES, "image_size": (SIDE, SIDE), **changes}
    return Record(f"{image} {subject} {other}", image, subject, "left", other, **given)


def white_boxes() -> RecordSet:
    """Two black images in which a sofa's box is white; their other objects have no box."""
    pixels = np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8)
    boxes = [{"sofa": Box(2, 4, 10, 8)}, {"sofa": Box(20, 8, 6, 20)}]
    for image, box in zip(pixels, (named["sofa"] for named in boxes), strict=True):
        image[int(box.y) : int(box.y + box.h), int(box.x) : int(box.x + box.w)] = 255
    both = [record(row, "sofa", "clock", boxes=named) for row, named in enumerate(boxes)]
    return RecordSet("white", pixels, both, "white")


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_the_box_lies_where_the_batch_s_image_shows_the_object(mirror: float) -> None:
    white = white_boxes()
    (batch,) = loader(TrainingPlans(white, 2, 1, seed=0, mirror=mirror))
    boxes = torch.from_numpy(corners(white.records, "squash"))
    found = named_boxes(batch, white.records, boxes, 4)
    assert found.names == ["sofa", "sofa"], "the clock has no box"
    for image, box in zip(found.image, found.boxes, strict=True):
        rows, columns = batch["pixels"][image, 0].nonzero().unbind(1)
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert (box * SIDE).tolist() == pytest.approx([float(edge) for edge in extent])


def test_a_box_is_what_the_resized_image_shows() -> None:
    wide = record(0, "sofa", "lamp", image_size=(64, 32), boxes={"sofa": Box(8, 0, 16, 16)})
    for resize, x0, x1 in (("squash", 0.125, 0.375), ("crop", 0.0, 0.25)):
        (found,) = corners([wide], resize)
        assert found[0].tolist() == pytest.approx([x0, 0, x1, 0.5])
        assert np.isnan(found[1]).all(), "no box"
    cut_off = record(0, "sofa", "lamp", image_size=(64, 32), boxes={"sofa": Box(0, 0, 16, 16)})
    assert np.isnan(corners([cut_off], "crop")).all(), "the crop shows nothing of it"


def test_an_object_is_taken_once_and_at_most_so_many_of_an_image() -> None:
    said = [(0, "sofa", "lamp"), (0, "bed", "sofa"), (1, "clock", "lamp"), (1, "lamp", "bed")]
    records = [record(*each) for each in said]
    boxes = torch.from_numpy(corners(records, "squash"))
    data = {
        "pixels": images(2),
        "image": torch.tensor([0, 0, 1]),
        "record": torch.tensor([0, 1, 3]),
    }

    def found(most: int, **changes: torch.Tensor) -> list[tuple[int, str]]:
        chosen = named_boxes({**data, **changes}, records, boxes, most)
        assert chosen.boxes.shape == (len(chosen.names), 4)
        return list(zip(chosen.image.tolist(), chosen.names, strict=True))

    assert found(1) == [(0, "sofa"), (1, "lamp")]
    assert found(2) == [(0, "sofa"), (0, "lamp"), (1, "lamp"), (1, "bed")]
    assert found(9) == [*found(2)[:2], (0, "bed"), *found(2)[2:]]
    assert found(9, record=torch.tensor([2]), image=torch.tensor([1])) == [(1, "lamp")]
    nothing = torch.zeros(0, dtype=torch.long)
    assert found(9, record=nothing, image=nothing) == []
