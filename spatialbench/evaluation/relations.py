"""The task of the table: does an image lie closer to its caption than to the caption with the objects exchanged?

Right iff s(image, caption) > s(image, negated caption); a tie scores one half, so a constant scorer gets exactly 50.
All is the micro average over records, macro the mean of the relations (specs/poster.md section 1).

Letters: N records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from spatialbench.errors import SpatialbenchError
from spatialbench.relations import RELATIONS


class Outcomes(NamedTuple):
    """The scores of N records, sorted by record.

    Attributes:
        record: int64 [N], row in ``RecordSet.records``, each once.
        positive: float32 [N], s(image, caption), a cosine in [-1, 1].
        negative: float32 [N], s(image, negated caption), a cosine in [-1, 1].
    """

    record: np.ndarray
    positive: np.ndarray
    negative: np.ndarray

    @property
    def margin(self) -> np.ndarray:
        """float32 [N]: positive - negative. Right above zero, a tie at zero."""
        return self.positive - self.negative


class PairOutcomes(Metric):
    """Collects scores by record, over batches and over ranks.

    A loader that pads or repeats (DistributedSampler does both) would count a record twice; that is an error here,
    never an average. ``compute`` works under DDP: the ranks' records are concatenated.

    Args:
        expected: number of records; when given, ``compute`` also wants each of the rows 0 .. expected - 1.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    record: list[Tensor]
    positive: list[Tensor]
    negative: list[Tensor]

    def __init__(self, expected: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.expected = expected
        for state in ("record", "positive", "negative"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, record: Tensor, positive: Tensor, negative: Tensor) -> None:
        """Adds the scores of one batch.

        Args:
            record: int64 [N], row in ``RecordSet.records``.
            positive: float [N], s(image, caption).
            negative: float [N], s(image, negated caption).

        Raises:
            ValueError: the three differ in shape or are not one-dimensional.
        """
        if record.ndim != 1 or not record.shape == positive.shape == negative.shape:
            raise ValueError(
                f"record, positive and negative must be [N] alike, found {tuple(record.shape)}, "
                f"{tuple(positive.shape)} and {tuple(negative.shape)}"
            )
        self.record.append(record.detach().long())
        self.positive.append(positive.detach().float())
        self.negative.append(negative.detach().float())

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As in torchmetrics; a rank without a batch takes part with empty tensors of the right type."""
        if not self._is_synced and not self.record:
            self.record.append(torch.empty(0, dtype=torch.int64, device=self.device))
            self.positive.append(torch.empty(0, dtype=torch.float32, device=self.device))
            self.negative.append(torch.empty(0, dtype=torch.float32, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> Outcomes:
        """The collected scores, sorted by record.

        Raises:
            SpatialbenchError: a record came twice, is missing, or has a score that is not a number.
        """
        record, positive, negative = (_joined(state) for state in (self.record, self.positive, self.negative))
        order = np.argsort(record, kind="stable")
        outcomes = Outcomes(record[order].astype(np.int64), positive[order], negative[order])
        _check_rows(outcomes.record, self.expected)
        _check_numbers(outcomes)
        return outcomes


def _joined(state: Tensor | list[Tensor]) -> np.ndarray:
    """A list of batches in one process, one tensor after the reduction over ranks."""
    if isinstance(state, list):
        state = torch.cat(state) if state else torch.empty(0)
    return state.cpu().numpy()


def _check_rows(record: np.ndarray, expected: int | None) -> None:
    """``record`` is sorted; each row once, and all of 0 .. expected - 1 when ``expected`` is given."""
    twice = record[1:][record[1:] == record[:-1]]
    if len(twice):
        raise SpatialbenchError(
            f"record {twice[0]} was scored more than once ({len(twice)} repeats in all); evaluation must see every "
            "record exactly once: set use_distributed_sampler: false and no padding"
        )
    if expected is None:
        return
    strange = record[(record < 0) | (record >= expected)]
    if len(strange):
        raise SpatialbenchError(f"record {strange[0]} was scored but the set has only {expected} records")
    if len(record) != expected:
        missing = np.setdiff1d(np.arange(expected), record)
        raise SpatialbenchError(
            f"{len(missing)} of {expected} records were not scored (first: record {missing[0]}); evaluation must see "
            "every record exactly once: no drop_last, no limit_test_batches"
        )


def _check_numbers(outcomes: Outcomes) -> None:
    bad = ~(np.isfinite(outcomes.positive) & np.isfinite(outcomes.negative))
    if bad.any():
        raise SpatialbenchError(
            f"{int(bad.sum())} of {len(bad)} records have a score that is not a finite number (first: record "
            f"{outcomes.record[bad][0]}); the training diverged or the weights are damaged: lower the learning rate"
        )


@dataclass(frozen=True)
class Count:
    """What happened to ``n`` records: ``correct`` of them right, ``ties`` undecided, the rest wrong."""

    n: int
    correct: int
    ties: int

    @property
    def accuracy(self) -> float:
        """Percent in [0, 100], a tie one half; NaN without records."""
        return 100.0 * (self.correct + 0.5 * self.ties) / self.n if self.n else float("nan")


@dataclass(frozen=True)
class Scores:
    """Counts by relation, in the order of the tables, and their two averages.

    Attributes:
        relations: relation -> counts, all six; a relation without records has n = 0.
    """

    relations: Mapping[str, Count]

    @property
    def total(self) -> Count:
        counts = self.relations.values()
        return Count(sum(c.n for c in counts), sum(c.correct for c in counts), sum(c.ties for c in counts))

    @property
    def micro(self) -> float:
        """All: percent over records, whatever their relation."""
        return self.total.accuracy

    @property
    def macro(self) -> float:
        """Percent, the mean over the relations that have records."""
        found = [count.accuracy for count in self.relations.values() if count.n]
        return sum(found) / len(found) if found else float("nan")

    def accuracy(self) -> dict[str, float]:
        """Percent by column: the six relations, ``all`` and ``macro``."""
        columns = {relation: count.accuracy for relation, count in self.relations.items()}
        return {**columns, "all": self.micro, "macro": self.macro}


def count(margin: np.ndarray, relation: Sequence[str] | np.ndarray) -> Scores:
    """Counts by relation.

    Args:
        margin: float [N], positive - negative.
        relation: [N], one of ``RELATIONS`` each.
    """
    names = np.asarray(relation)
    return Scores(
        {
            name: Count(
                n=int((names == name).sum()),
                correct=int((margin[names == name] > 0).sum()),
                ties=int((margin[names == name] == 0).sum()),
            )
            for name in RELATIONS
        }
    )


def score(outcomes: Outcomes, relations: Sequence[str], partial: bool = False) -> Scores:
    """Accuracy by relation of collected outcomes.

    Args:
        outcomes: from ``PairOutcomes.compute``.
        relations: relation of every record of the set; ``relations[outcomes.record[i]]`` is that of outcome i.
        partial: whether records may be missing (a sanity check, ``limit_val_batches``). Never for a stored number.

    Raises:
        SpatialbenchError: a record is missing or unknown.
    """
    if partial:
        _check_rows(outcomes.record, None)
    else:
        _check_rows(outcomes.record, len(relations))
    return count(outcomes.margin, np.asarray(relations)[outcomes.record])
