"""The controls of a test set: scorers without a model, and changes that a model must follow.

``ABOUT`` describes them, ``checks.EXACT`` has the counts of the exact ones, docs/controls.md the
reasons.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.batches import EvaluationPlans, loader
from spatialbench.data.records import RecordSet
from spatialbench.evaluation.base import Evaluation, Model
from spatialbench.evaluation.controls import heuristics
from spatialbench.evaluation.controls.checks import EXACT, OWN, check
from spatialbench.evaluation.controls.transforms import balanced, mirrored, shuffled, swapped
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.pairs import answer, answers
from spatialbench.utils.errors import SpatialbenchError

SEED = 20260
"""Seed of the random scorer and of the shuffled images."""
NO_DEPTH = "no depth is known of these records"
ABOUT = {
    "constant": "one score for every caption",
    "random": "a random score for every caption",
    "boxes": "left, right, above, under by the centres of the boxes",
    "boxes, mirrored": "the same with boxes flipped left-right",
    "elevation": "close, far: lower in the image is closer",
    "bottom edge": "close, far: ending lower is closer",
    "box size": "close, far: the larger box is closer",
    "depth": "close, far by the depth map inside the masks",
    OWN: "the page's own answers",
    "blind": "the text tower with the mean image",
    "swapped": "caption and negated caption swapped",
    "mirrored": "images flipped left-right, captions unchanged",
    "shuffled": "an image of another scene",
}
"""Scorer -> description, in the order of the table."""
OF_MODEL = (OWN, "blind", "swapped", "mirrored", "shuffled")
"""The scorers that ask a model."""


class Controls(Evaluation):
    """All controls of a test set and a model; the measures are ``<scorer>: <column>``.

    The notes hold the exact controls (``exact``, separated by semicolons), and the reason for every
    control that these records cannot have. ``page`` is for messages.
    """

    name = "controls"
    title = "Controls"
    explanation = """\
Scorers that know nothing, and changes of the test whose effect is known in advance
([docs/controls.md](../docs/controls.md)). *Exact* controls are asserted: no table is made of a test
where one fails. For the others the verdict states what the 95 % interval says. *boxes* and *depth*
are the ceiling of the rooms; *elevation*, *bottom edge* and *box size* are the worth of a shortcut
on close and far. A relation about which a scorer says nothing is a tie, 50."""
    unit = "records"

    def __init__(self, record_set: RecordSet, batch_images: int, page: str) -> None:
        self.record_set, self.batch_images, self.page = record_set, batch_images, page

    def run(self, model: Model) -> Evidence:
        """Score every control; see :meth:`Evaluation.run`.

        Raises:
            BrokenControl: an exact control fails.
        """
        values, absent = without_model(self.record_set)
        self._checked(values, absent)  # before the model is asked for anything
        more, missing = of_model(model, self.record_set, self.batch_images)
        return self._checked(values | more, absent | missing)

    def _checked(self, values: Mapping[str, np.ndarray], absent: Mapping[str, str]) -> Evidence:
        records = self.record_set.records
        exact = set(values) & set(EXACT)
        if not heuristics.is_rooms(self.record_set):
            exact -= {"boxes", "depth"}
        if not balanced(records):
            exact -= {"blind"}
        notes = {"exact": "; ".join(name for name in ABOUT if name in exact), **absent}
        evidence = answers(records, values, self.record_set.fingerprint, notes)
        check(evidence, f"{self.page}: ")
        return evidence


def without_model(record_set: RecordSet) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Score without any image.

    Returns:
        scorer -> margins, float [N]; scorer -> reason why these records cannot have it.
    """
    records = record_set.records
    values = {"constant": np.zeros(len(records)), "random": heuristics.random(records, SEED)}
    absent: dict[str, str] = {}
    if heuristics.boxes_known(records):
        flipped = mirrored(record_set).records
        values["boxes"] = heuristics.directions(records)
        values["boxes, mirrored"] = heuristics.directions(flipped)
        values |= {name: heuristics.nearness(records, name) for name in heuristics.NEARNESS}
    else:
        names = "boxes", "boxes, mirrored", *heuristics.NEARNESS
        absent |= dict.fromkeys(names, heuristics.NO_BOXES)
    if heuristics.is_rooms(record_set):
        values["depth"] = heuristics.depth(record_set)
    else:
        absent["depth"] = NO_DEPTH
    return values, absent


def of_model(
    model: Model, record_set: RecordSet, batch_images: int
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Score where a model cannot know, and where its answer must change; returns as above."""
    sets, absent = {"swapped": swapped(record_set), "mirrored": mirrored(record_set)}, {}
    try:
        sets["shuffled"] = shuffled(record_set, SEED)
    except SpatialbenchError as error:
        absent["shuffled"] = str(error)
    model.on_predict_epoch_start()  # forget the captions of an earlier evaluation
    values = {OWN: answer(model, record_set, batch_images).margin}
    values["blind"] = blind_margins(model, record_set, batch_images)
    values |= {name: answer(model, other, batch_images).margin for name, other in sets.items()}
    model.on_predict_epoch_start()
    return values, absent


@torch.inference_mode()
def blind_margins(model: Model, record_set: RecordSet, batch_images: int) -> np.ndarray:
    """Margins, float32 [N], with the mean of what is read of all images in place of every image.

    Every distinct caption has one score, so a statement and its swapped form have margins of
    exactly opposite sign.
    """
    total: Tensor | None = None
    images = 0
    for batch in loader(EvaluationPlans(record_set, batch_images)):
        features = model.pair_features(batch["pixels"].to(model.device))
        total = features.sum(0) if total is None else total + features.sum(0)
        images += len(features)
    assert total is not None, "a test set has records"
    said = [record.statement for record in record_set.records]
    captions = list(dict.fromkeys(c for s in said for c in (s.caption, s.negated.caption)))
    rows = torch.zeros(len(captions), dtype=torch.long, device=total.device)
    found = model.pair_scores(total[None] / images, rows, captions).tolist()
    scores = dict(zip(captions, found, strict=True))
    margins = [scores[one.caption] - scores[one.negated.caption] for one in said]
    return np.array(margins, dtype=np.float32)
