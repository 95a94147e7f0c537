"""The pair task: counts by hand, and every record exactly once, also over ranks."""

import multiprocessing as mp
import socket

import numpy as np
import pytest
import torch

from spatialbench.data.records import Record
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation import pairs
from spatialbench.evaluation.pairs import Outcomes, PairOutcomes, pair_evidence, score
from tests.support.checks import refused


def outcomes(margin: list[float]) -> Outcomes:
    margins = np.array(margin, dtype=np.float32)
    return Outcomes(np.arange(len(margin)), margins, np.zeros_like(margins))


def test_evidence_counts_as_the_scores_do() -> None:
    margins = np.random.default_rng(0).normal(size=120).round(1).tolist()
    relations = [*RELATIONS[:5], "left"] * 20  # no "under": NaN, and not in macro
    scenes = ["room 1", ""] * 60
    records = [
        Record(f"r{k}", k, "a", relation, "b", scene_id=scene)
        for k, (relation, scene) in enumerate(zip(relations, scenes, strict=True))
    ]
    evidence = pair_evidence(outcomes(margins), records, "d")
    assert evidence.values() == pytest.approx(score(outcomes(margins), relations), nan_ok=True)
    assert evidence.clusters[:3].tolist() == ["room 1", "image 1", "room 1"]
    with refused("1 of 121 records were not scored"):
        pair_evidence(outcomes(margins), [*records, records[0]], "d")


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_outcomes_come_sorted_whatever_the_order_of_batches() -> None:
    metric = PairOutcomes()
    metric.update(torch.tensor([4, 0]), torch.tensor([0.4, 0.0]), torch.tensor([-0.4, 0.5]))
    double = torch.tensor([0.2, 0.0], dtype=torch.float64)
    metric.update(torch.tensor([2]), double[:1], double[1:])
    metric.update(torch.tensor([3, 1]), torch.tensor([0.3, 0.1]), torch.tensor([0.0, 0.0]))
    found = metric.compute()
    assert found.record.tolist() == [0, 1, 2, 3, 4]
    assert found.positive == pytest.approx(np.array([0, 0.1, 0.2, 0.3, 0.4]))
    assert found.margin == pytest.approx(np.array([-0.5, 0.1, 0.2, 0.3, 0.8]))
    assert found.positive.dtype == np.float32


@pytest.mark.parametrize(
    ("records", "scores", "message"),
    [
        ([0, 1, 1, 2], [0.0] * 4, "record 1 was scored more than once"),
        ([], [], "3 of 3 records were not scored"),
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
    metric = PairOutcomes()
    metric.update(torch.tensor(records), torch.tensor(scores), torch.zeros(len(records)))
    with refused(message):
        pairs.check_rows(metric.compute().record, 3)


def test_records_may_be_missing_in_a_sanity_check_only() -> None:
    some = Outcomes(np.array([0, 2]), np.ones(2), np.zeros(2))
    with refused("not scored"):
        score(some, ["left", "far", "left"])
    assert score(some, ["left", "far", "left"], partial=True)["left"] == 100


def _rank(rank: int, port: int) -> None:
    """One of two ranks: uneven shares, a rank without a batch, a record on both ranks."""
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        for shares in (([[4, 1], [0]], [[3, 2]]), ([[0, 3], [1], [4, 2]], [])):
            metric = PairOutcomes()
            for rows in map(torch.tensor, shares[rank]):
                metric.update(rows, rows / 10, torch.zeros(len(rows)))
            found = metric.compute()
            assert found.record.tolist() == [0, 1, 2, 3, 4]
            assert found.positive == pytest.approx(np.arange(5) / 10)
            assert score(found, ["far"] * 5)["far"] == 90  # record 0 is a tie
        repeated = PairOutcomes()
        repeated.update(torch.tensor([0, 1 + rank]), torch.zeros(2), torch.zeros(2))
        with refused("record 0 was scored more than once"):
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
