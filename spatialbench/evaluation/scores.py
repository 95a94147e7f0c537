"""The numbers of the pair task, without a model: outcomes by record, counts and accuracy by relation.

Right iff s(image, caption) > s(image, negated caption); a tie scores one half, so a constant scorer gets exactly 50.
All is the micro average over records, macro the mean of the relations (docs/protocol.md).

Letters: N records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spatialbench.data.relations import RELATIONS
from spatialbench.utils.errors import SpatialbenchError


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


def check_rows(record: np.ndarray, expected: int | None) -> None:
    """Refuses a sorted ``record`` with a row twice or, when ``expected`` is given, without each of 0 .. expected - 1.

    Raises:
        SpatialbenchError: which record, and what to do.
    """
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
        raise SpatialbenchError(
            f"record {strange[0]} was scored but the set has only {expected} records"
        )
    if len(record) != expected:
        missing = np.setdiff1d(np.arange(expected), record)
        raise SpatialbenchError(
            f"{len(missing)} of {expected} records were not scored (first: record {missing[0]}); evaluation must see "
            "every record exactly once: no drop_last, no limit_test_batches"
        )


def check_numbers(outcomes: Outcomes) -> None:
    """Refuses scores that are not finite.

    Raises:
        SpatialbenchError: how many, and the first record.
    """
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
        return Count(
            sum(c.n for c in counts), sum(c.correct for c in counts), sum(c.ties for c in counts)
        )

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
        check_rows(outcomes.record, None)
    else:
        check_rows(outcomes.record, len(relations))
    return count(outcomes.margin, np.asarray(relations)[outcomes.record])
