"""The pair test: is an image closer to its caption than to the caption with the objects swapped?

Correct iff s(image, caption) > s(image, negated caption). A tie scores one half, so a constant
scorer gets exactly 50. All is the micro average over records, macro the mean of the relations
(docs/protocol.md).

Letters: N records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from torchmetrics import Metric

from spatialbench.data.batches import EvaluationPlans, loader
from spatialbench.data.records import Record, RecordSet
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.base import Evaluation, Model
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.ratio import Margins
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

TITLES = {**{name: name.capitalize() for name in RELATIONS}, "all": "All", "macro": "macro"}
"""Column -> heading: the relations, All (micro) and the macro average."""
COLUMNS = tuple(TITLES)


class PairEvaluation(Evaluation):
    """The pair test on a set of records."""

    name = "pairs"
    title = "Pairs"
    columns = TITLES
    unit = "records"

    def __init__(self, record_set: RecordSet, batch_images: int) -> None:
        self.record_set, self.batch_images = record_set, batch_images

    def run(self, model: Model) -> Evidence:
        """Score every record once; see :meth:`Evaluation.run`."""
        outcomes = answer(model, self.record_set, self.batch_images)
        return pair_evidence(outcomes, self.record_set.records, self.record_set.fingerprint)


@torch.inference_mode()
def answer(model: Model, record_set: RecordSet, batch_images: int) -> Outcomes:
    """Score the records of a set by the steps of a test; the model keeps its caption embeddings."""
    size = len(record_set.records)
    outcomes = PairOutcomes().to(model.device)
    with progress(f"scoring {record_set.name}", size, "records") as advance:
        for batch in loader(EvaluationPlans(record_set, batch_images)):
            outcomes.update(**model.predict_step(move_data_to_device(batch, model.device)))
            advance(len(batch["captions"]))
    answered = outcomes.compute()
    check_rows(answered.record, size)
    return answered


def pair_evidence(outcomes: Outcomes, records: Sequence[Record], data: str) -> Evidence:
    """Evidence of the collected scores of every record, each once.

    Raises:
        SpatialbenchError: a record of the set has no outcome, or an outcome no record.
    """
    check_rows(outcomes.record, len(records))
    return answers(records, {"": outcomes.margin}, data)


def answers(
    records: Sequence[Record],
    values: Mapping[str, np.ndarray],
    data: str,
    notes: Mapping[str, str] | None = None,
) -> Evidence:
    """Evidence of the margins of scorers, float [N] each; the clusters are the scenes."""
    ids, group, scenes = (
        np.array(names, dtype=np.str_)
        for names in zip(*((r.record_id, r.relation, scene_of(r)) for r in records), strict=True)
    )
    rows = {name: margin.astype(np.float32)[None] for name, margin in values.items()}
    margins = Margins(ids, group, rows, RELATIONS)
    return Evidence(scenes, {}, data, margins=margins, notes=notes or {})


def scene_of(record: Record) -> str:
    """Scene of a record, or its image where no scene is known: the cluster of the bootstrap."""
    return record.scene_id or f"image {record.image}"


class Outcomes(NamedTuple):
    """The scores of N records, sorted by record."""

    record: np.ndarray  # row in ``RecordSet.records``, int64 [N], each once
    positive: np.ndarray  # s(image, caption), mostly a cosine in [-1, 1], float32 [N]
    negative: np.ndarray  # s(image, negated caption), float32 [N]

    @property
    def margin(self) -> np.ndarray:
        """Positive minus negative, float32 [N]: correct above zero, a tie at zero."""
        return self.positive - self.negative


class PairOutcomes(Metric):
    """Collect scores by record, over batches and over ranks.

    A loader that pads or repeats (DistributedSampler does both) would count a record twice; that is
    an error, never an average. Under DDP ``compute`` concatenates the records of all ranks.
    """

    full_state_update = False
    record: list[Tensor]
    positive: list[Tensor]
    negative: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in Outcomes._fields:
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, record: Tensor, positive: Tensor, negative: Tensor) -> None:
        """Add the scores of one batch: see :class:`Outcomes`, [N] each.

        Raises:
            ValueError: the three differ in shape or are not one-dimensional.
        """
        if record.ndim != 1 or not record.shape == positive.shape == negative.shape:
            shapes = [tuple(part.shape) for part in (record, positive, negative)]
            raise ValueError(f"record, positive and negative must all be [N], got {shapes}")
        self.record.append(record.detach().long())
        self.positive.append(positive.detach().float())
        self.negative.append(negative.detach().float())

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Sync as torchmetrics does; a rank without a batch contributes empty tensors."""
        if not self._is_synced and not self.record:
            empty = torch.empty(0, device=self.device)
            self.update(empty.long(), empty, empty)
        super().sync(*args, **kwargs)

    def compute(self) -> Outcomes:
        """Return the collected scores: every record once, sorted, and every score finite.

        Raises:
            SpatialbenchError: a record came twice, or has a score that is not finite.
        """
        record, positive, negative = map(_joined, (self.record, self.positive, self.negative))
        order = np.argsort(record, kind="stable")
        outcomes = Outcomes(record[order].astype(np.int64), positive[order], negative[order])
        check_rows(outcomes.record)
        bad = ~(np.isfinite(outcomes.positive) & np.isfinite(outcomes.negative))
        if bad.any():
            raise SpatialbenchError(
                f"{int(bad.sum())} of {len(bad)} records have a score that is not a finite number "
                f"(first: record {outcomes.record[bad][0]}); the training diverged or the weights "
                "are damaged: lower the learning rate"
            )
        return outcomes


def _joined(state: Tensor | list[Tensor]) -> np.ndarray:
    """Join a list of batches; after the reduction over ranks it is one tensor already."""
    if isinstance(state, list):
        state = torch.cat(state) if state else torch.empty(0)
    return state.cpu().numpy()


def check_rows(record: np.ndarray, expected: int | None = None) -> None:
    """Check that sorted ``record`` holds each row once, and all of 0 .. expected - 1 if given.

    Raises:
        SpatialbenchError: the wrong record, and what to do.
    """
    twice = record[1:][record[1:] == record[:-1]]
    if len(twice):
        raise SpatialbenchError(
            f"record {twice[0]} was scored more than once ({len(twice)} repeats in all); score "
            "every record once: set use_distributed_sampler: false and no padding"
        )
    if expected is None:
        return
    strange = record[(record < 0) | (record >= expected)]
    if len(strange):
        known = f"the set has only {expected} records"
        raise SpatialbenchError(f"record {strange[0]} was scored but {known}")
    if len(record) != expected:
        missing = np.setdiff1d(np.arange(expected), record)
        raise SpatialbenchError(
            f"{len(missing)} of {expected} records were not scored (first: record {missing[0]}); "
            "score every record once: no drop_last, no limit_test_batches"
        )


class Count(NamedTuple):
    """Counts of ``n`` records: ``correct`` and ``ties``; the rest is wrong."""

    n: int
    correct: int
    ties: int

    @property
    def accuracy(self) -> float:
        """Percent in [0, 100], a tie one half; NaN without records."""
        return 100.0 * (self.correct + 0.5 * self.ties) / self.n if self.n else float("nan")


def count(margin: np.ndarray, relation: np.ndarray) -> dict[str, Count]:
    """Count margins [N] by relation [N]; all six relations in the order of the tables."""
    chosen = {name: margin[relation == name] for name in RELATIONS}
    return {
        name: Count(len(own), int((own > 0).sum()), int((own == 0).sum()))
        for name, own in chosen.items()
    }


def score(outcomes: Outcomes, relations: Sequence[str], partial: bool = False) -> dict[str, float]:
    """Percent by column: the six relations, ``all`` and ``macro``; NaN without records.

    Args:
        relations: relation of every record of the set.
        partial: whether records may be missing, which never holds for a stored number.

    Raises:
        SpatialbenchError: a record is missing or unknown.
    """
    check_rows(outcomes.record, None if partial else len(relations))
    counts = count(outcomes.margin, np.asarray(relations)[outcomes.record])
    columns = {relation: each.accuracy for relation, each in counts.items()}
    total = Count(*np.sum([*counts.values()], 0).tolist())
    present = [each.accuracy for each in counts.values() if each.n]
    macro = sum(present) / len(present) if present else float("nan")
    return {**columns, "all": total.accuracy, "macro": macro}
