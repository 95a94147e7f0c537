"""The controls of a test set: those without a model, and those of a page's model.

| control | what | must be |
|---|---|---|
| constant | one score for every caption | exactly 50, all ties |
| random | a score drawn for every caption | about 50 |
| boxes | left, right, above, under by the centres of the boxes | 100 where the boxes made the records (rooms) |
| boxes, mirrored | the same where pictures and boxes are flipped | left, right mirror, above, under stay: exactly |
| elevation, bottom edge, box size | close and far from the boxes alone | what a shortcut is worth |
| depth | close and far by the renderer's depth | 100 (rooms): the ceiling |
| blind | the text tower with the mean picture | exactly 50 where every caption has its exchange in the set |
| shuffled | another scene's picture | about 50 |
| exchanged | caption and negated caption exchanged | exactly 100 minus the page's accuracy, ties kept |
| mirrored | pictures flipped, captions as they were | left and right swap, the others stay |

Why each is there: docs/controls.md.
"""

from __future__ import annotations

import numpy as np

from spatialbench.data.records import RecordSet
from spatialbench.evaluation.controls import heuristics
from spatialbench.evaluation.controls.answers import PairModel, blind_margins, margins
from spatialbench.evaluation.controls.row import OWN, SIDES, Made, all_right, all_ties, half, mirror
from spatialbench.evaluation.controls.transforms import balanced, exchanged, mirrored, shuffled
from spatialbench.evaluation.pairs import Count, count
from spatialbench.utils.errors import SpatialbenchError

SEED = 20260
"""Of the random scorer and of the shuffled pictures."""
NO_BOXES = "records without the boxes of their objects"
NO_DEPTH = "no depth is known of these records"

Controls = tuple[list[Made], dict[str, str]]
"""The controls, and name -> why a control cannot be had of this set."""


def without_model(record_set: RecordSet) -> Controls:
    """Scorers that see no picture."""
    records, sizes = record_set.records, record_set.counts
    made = [
        Made(
            "constant",
            "",
            "one score for every caption",
            heuristics.constant(records),
            all_ties(sizes),
        ),
        Made("random", "", "a score drawn for every caption", heuristics.random(records, SEED)),
    ]
    absent: dict[str, str] = {}
    if heuristics.boxes_known(records):
        made += _of_boxes(record_set)
    else:
        absent |= dict.fromkeys(
            ("boxes", "boxes, mirrored", "elevation", "bottom edge", "box size"), NO_BOXES
        )
    if heuristics.is_rooms(record_set):
        expected = all_right(sizes, ("close", "far"))
        made.append(
            Made(
                "depth",
                "",
                "close, far by the depth map inside the masks",
                heuristics.depth(record_set),
                expected,
            )
        )
    else:
        absent["depth"] = NO_DEPTH
    return made, absent


def _of_boxes(record_set: RecordSet) -> list[Made]:
    records = record_set.records
    own, flipped = (
        heuristics.directions(records),
        heuristics.directions(mirrored(record_set).records),
    )
    rule = (
        all_right(record_set.counts, heuristics.DIRECTIONS)
        if heuristics.is_rooms(record_set)
        else None
    )
    swapped = mirror(_counts(own, record_set), SIDES)
    return [
        Made("boxes", "", "left, right, above, under by the centres of the boxes", own, rule),
        Made("boxes, mirrored", "", "the same with boxes flipped left-right", flipped, swapped),
        Made(
            "elevation",
            "",
            "close, far: lower in the picture is closer",
            heuristics.elevation(records),
        ),
        Made(
            "bottom edge", "", "close, far: ending lower is closer", heuristics.bottom_edge(records)
        ),
        Made("box size", "", "close, far: the larger box is closer", heuristics.box_size(records)),
    ]


def of_model(model: PairModel, page: str, record_set: RecordSet, batch_images: int) -> Controls:
    """What a model answers where it cannot know, and where its answer must turn with the question.

    Args:
        model: in eval mode.
        page: its name.
        batch_images: pictures at once.
    """
    model.on_predict_epoch_start()  # no caption of an earlier evaluation
    own = margins(model, record_set, batch_images)
    counts = _counts(own, record_set)
    made = [
        Made(OWN, page, "the page's own answers", own),
        _blind(model, page, record_set, batch_images),
        Made(
            "exchanged",
            page,
            "caption and negated caption exchanged",
            margins(model, exchanged(record_set), batch_images),
            mirror(counts),
        ),
        Made(
            "mirrored",
            page,
            "pictures flipped left-right, captions as they were",
            margins(model, mirrored(record_set), batch_images),
        ),
    ]
    absent: dict[str, str] = {}
    try:
        other = shuffled(record_set, SEED)
    except SpatialbenchError as error:
        absent["shuffled"] = str(error)
    else:
        made.append(
            Made("shuffled", page, "another scene's picture", margins(model, other, batch_images))
        )
    model.on_predict_epoch_start()
    return made, absent


def _blind(model: PairModel, page: str, record_set: RecordSet, batch_images: int) -> Made:
    found = blind_margins(model, record_set, batch_images)
    expected = half(_counts(found, record_set)) if balanced(record_set.records) else None
    return Made("blind", page, "the text tower with the mean picture", found, expected)


def _counts(found: np.ndarray, record_set: RecordSet) -> dict[str, Count]:
    return dict(count(found, relations(record_set)).relations)


def relations(record_set: RecordSet) -> np.ndarray:
    """Str [N]."""
    return np.asarray([record.relation for record in record_set.records], dtype=np.str_)
