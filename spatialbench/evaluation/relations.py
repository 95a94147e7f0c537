"""The task of the table: does an image lie closer to its caption than to the caption with the objects exchanged?

:class:`PairOutcomes` collects what a model answers; the counting is in ``scores.py``, which needs no torch.

Letters: N records.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from spatialbench.evaluation.scores import (
    Count,
    Outcomes,
    Scores,
    check_numbers,
    check_rows,
    count,
    score,
)

__all__ = ["Count", "Outcomes", "PairOutcomes", "Scores", "count", "score"]


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
        record, positive, negative = (
            _joined(state) for state in (self.record, self.positive, self.negative)
        )
        order = np.argsort(record, kind="stable")
        outcomes = Outcomes(record[order].astype(np.int64), positive[order], negative[order])
        check_rows(outcomes.record, self.expected)
        check_numbers(outcomes)
        return outcomes


def _joined(state: Tensor | list[Tensor]) -> np.ndarray:
    """A list of batches in one process, one tensor after the reduction over ranks."""
    if isinstance(state, list):
        state = torch.cat(state) if state else torch.empty(0)
    return state.cpu().numpy()
