"""The pair task: counts by hand, ties, every record exactly once, also over ranks."""

from __future__ import annotations

import multiprocessing as mp
import socket

import numpy as np
import pytest
import torch

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.pairs import Count, Outcomes, PairOutcomes, count, score
from spatialbench.utils.errors import SpatialbenchError


def outcomes(margin: list[float]) -> Outcomes:
    margins = np.array(margin, dtype=np.float32)
    return Outcomes(np.arange(len(margin)), margins, np.zeros_like(margins))


def test_counts_by_hand() -> None:
    relations = ["left", "left", "left", "far", "far", "under"]
    scores = score(outcomes([0.1, 0.0, -0.1, 0.2, 0.3, -0.2]), relations)
    assert scores.relations["left"] == Count(n=3, correct=1, ties=1)
    assert scores.relations["far"] == Count(n=2, correct=2, ties=0)
    assert scores.relations["under"] == Count(n=1, correct=0, ties=0)
    assert scores.relations["close"] == Count(n=0, correct=0, ties=0)
    accuracy = scores.accuracy()
    assert list(accuracy) == [*RELATIONS, "all", "macro"]
    assert accuracy["left"] == 50.0
    assert accuracy["all"] == pytest.approx(100 * 3.5 / 6)
    assert accuracy["macro"] == pytest.approx(
        (50 + 100 + 0) / 3
    )  # relations without records do not count
    assert np.isnan(accuracy["close"])


def test_micro_and_macro_differ_as_in_the_poster() -> None:
    """The fine-tuned CLIP row has macro 60.8 and All 65.1: depth relations have more records (poster.md section 1)."""
    scores = score(outcomes([1.0] * 6 + [1.0, -1.0]), ["far"] * 6 + ["left"] * 2)
    assert scores.micro == 87.5
    assert scores.macro == 75.0


def test_a_constant_scorer_gets_exactly_50() -> None:
    relations = list(RELATIONS) * 7
    metric = PairOutcomes(expected=len(relations))
    metric.update(torch.arange(42), torch.full((42,), 0.3), torch.full((42,), 0.3))
    assert set(score(metric.compute(), relations).accuracy().values()) == {50.0}


def test_exchanged_captions_mirror_the_accuracy() -> None:
    margin = np.random.default_rng(0).normal(size=120)
    margin[::10] = 0
    relation = list(RELATIONS) * 20
    there, back = count(margin, relation).accuracy(), count(-margin, relation).accuracy()
    assert all(there[column] + back[column] == pytest.approx(100) for column in there)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_outcomes_come_sorted_whatever_the_order_of_batches() -> None:
    metric = PairOutcomes(expected=5)
    metric.update(torch.tensor([4, 0]), torch.tensor([0.4, 0.0]), torch.tensor([-0.4, 0.5]))
    metric.update(
        torch.tensor([2]),
        torch.tensor([0.2], dtype=torch.float64),
        torch.tensor([0.0], dtype=torch.float64),
    )
    metric.update(torch.tensor([3, 1]), torch.tensor([0.3, 0.1]), torch.tensor([0.0, 0.0]))
    found = metric.compute()
    assert found.record.tolist() == [0, 1, 2, 3, 4]
    assert found.positive == pytest.approx(np.array([0, 0.1, 0.2, 0.3, 0.4]))
    assert found.margin == pytest.approx(np.array([-0.5, 0.1, 0.2, 0.3, 0.8]))
    assert found.positive.dtype == np.float32
    metric.reset()
    with pytest.raises(SpatialbenchError, match="5 of 5 records were not scored"):
        metric.compute()


@pytest.mark.parametrize(
    ("records", "scores", "message"),
    [
        ([0, 1, 1, 2], [0.0] * 4, "record 1 was scored more than once"),
        ([0, 2], [0.0] * 2, r"1 of 3 records were not scored \(first: record 1\)"),
        ([0, 1, 3], [0.0] * 3, "record 3 was scored but the set has only 3"),
        ([-1, 0, 1], [0.0] * 3, "record -1 was scored"),
        ([0, 1, 2], [0.0, float("nan"), 0.0], r"not a finite number \(first: record 1\)"),
        ([0, 1, 2], [0.0, 0.0, float("inf")], r"not a finite number \(first: record 2\)"),
    ],
)
def test_every_record_exactly_once_and_a_number(
    records: list[int], scores: list[float], message: str
) -> None:
    metric = PairOutcomes(expected=3)
    metric.update(torch.tensor(records), torch.tensor(scores), torch.zeros(len(records)))
    with pytest.raises(SpatialbenchError, match=message):
        metric.compute()


def test_missing_records_are_found_at_the_latest_by_score() -> None:
    metric = PairOutcomes()
    metric.update(torch.tensor([0, 2]), torch.tensor([1.0, 1.0]), torch.zeros(2))
    with pytest.raises(SpatialbenchError, match="not scored"):
        score(metric.compute(), ["left", "far", "left"])
    assert score(metric.compute(), ["left", "far", "left"], partial=True).relations["left"].n == 2


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\[N\] alike"):
        PairOutcomes().update(torch.arange(2), torch.zeros(2, 1), torch.zeros(2))


def _rank(rank: int, port: int) -> None:
    """One of two ranks: uneven shares, a rank without a batch, a record on both ranks."""
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        for shares in (([[4, 1], [0]], [[3, 2]]), ([[0, 3], [1], [4, 2]], [])):
            metric = PairOutcomes(expected=5)
            for rows in map(torch.tensor, shares[rank]):
                metric.update(rows, rows / 10, torch.zeros(len(rows)))
            found = metric.compute()
            assert found.record.tolist() == [0, 1, 2, 3, 4]
            assert found.positive == pytest.approx(np.arange(5) / 10)
            assert score(found, ["far"] * 5).relations["far"] == Count(n=5, correct=4, ties=1)
        repeated = PairOutcomes()
        repeated.update(torch.tensor([0, 1 + rank]), torch.zeros(2), torch.zeros(2))
        with pytest.raises(SpatialbenchError, match="record 0 was scored more than once"):
            repeated.compute()
    finally:
        torch.distributed.destroy_process_group()


def test_reduction_over_ranks() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = mp.get_context("spawn").Process(target=_rank, args=(1, port))
    other.start()
    _rank(0, port)
    other.join(60)
    assert other.exitcode == 0
