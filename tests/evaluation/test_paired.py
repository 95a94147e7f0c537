"""The exact exchange test against enumeration, scipy and statsmodels; disagreement and Holm by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.paired import TESTED, disagreement, holm, paired_tests, sign_flip
from spatialbench.evaluation.statistics import (
    Interval,
    accuracy,
    correctness,
    mcnemar,
    smallest_detectable_gain,
    verdict,
)


def pair(
    seed: int, records: int, seeds: int = 1, ties: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Margins of two rows, the first somewhat better, some of them exactly 0."""
    rng = np.random.default_rng(seed)
    rows = rng.normal([[[0.4]], [[0.1]]], 1, (2, seeds, records)) * (
        rng.random((2, seeds, records)) >= ties
    )
    return rows[0], rows[1]


def test_one_record_a_scene_and_one_seed_is_statsmodels_exact_mcnemar() -> None:
    for seed in range(8):
        a, b = pair(seed, 150)
        right = (a[0] > 0).astype(int), (b[0] > 0).astype(int)
        table = np.histogram2d(*right, bins=2)[0]
        expected = statsmodels_mcnemar(table, exact=True).pvalue
        assert sign_flip(a, b, np.arange(150)) == pytest.approx(expected, rel=1e-9)
        assert mcnemar(a, b).p == pytest.approx(expected, rel=1e-9)


def test_scenes_and_seeds_by_enumeration() -> None:
    """Nine scenes, three seeds, ties: every one of the 2^9 exchanges of whole scenes."""
    a, b = pair(1, 40, seeds=3, ties=0.2)
    scene = np.random.default_rng(2).integers(0, 9, 40)
    lead = correctness(a).mean(0) - correctness(b).mean(0)
    sums = [lead[scene == number].sum() for number in range(9)]
    flips = [
        abs(sum(sign * value for sign, value in zip(signs, sums, strict=True)))
        for signs in _signs(9)
    ]
    assert sign_flip(a, b, scene) == pytest.approx(
        np.mean(np.array(flips) >= abs(sum(sums)) - 1e-9), rel=1e-12
    )


def _signs(size: int) -> list[tuple[int, ...]]:
    return list(itertools.product((-1, 1), repeat=size))


def test_scipys_permutation_test_counts_the_same() -> None:
    a, b = pair(3, 48, ties=0.1)
    scene = np.arange(48) // 4
    sums = np.bincount(scene, correctness(a[0]) - correctness(b[0]))
    found = stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(a, b, scene) == pytest.approx(found.pvalue, rel=1e-12)


def test_the_exchange_is_of_scenes_and_not_of_records() -> None:
    """Every record four times: as records of one scene they add nothing, as scenes of their own they seem to."""
    a, b = pair(13, 100)
    copies = [np.repeat(row, 4, axis=1) for row in (a, b)]
    once = sign_flip(a, b, np.arange(100))
    assert sign_flip(*copies, np.repeat(np.arange(100), 4)) == pytest.approx(once, rel=1e-9)
    assert sign_flip(*copies, np.arange(400)) < 0.01 * once


def test_seeds_are_no_new_records() -> None:
    a, b = pair(5, 100)
    once = sign_flip(a, b, np.arange(100))
    assert sign_flip(
        np.repeat(a, 3, axis=0), np.repeat(b, 3, axis=0), np.arange(100)
    ) == pytest.approx(once, rel=1e-9)
    assert sign_flip(np.repeat(a, 3, axis=0), b, np.arange(100)) == pytest.approx(once, rel=1e-9)


def test_edges() -> None:
    a, b = pair(6, 60)
    assert sign_flip(a, a, np.arange(60)) == 1.0
    assert sign_flip(a, b, np.arange(60)) == sign_flip(b, a, np.arange(60))
    assert sign_flip(np.ones((1, 5)), -np.ones((1, 5)), np.arange(5)) == 2 / 2**5
    assert (
        sign_flip(np.ones((1, 5)), -np.ones((1, 5)), np.zeros(5)) == 1.0
    )  # one scene shows nothing
    many = np.ones((1, 5000))
    assert 0 <= sign_flip(many, -many, np.arange(5000)) < 1e-300


def test_won_minus_lost_is_the_difference() -> None:
    a, b = pair(7, 300, seeds=3, ties=0.1)
    relation = np.tile(RELATIONS, 50)
    for first, second in ((a, b), (a, b[:2])):
        won, lost = disagreement(first, second)
        gain = accuracy(first, relation)["all"] - accuracy(second, relation)["all"]
        assert won - lost == pytest.approx(gain)
    by_hand = disagreement(np.array([[1.0, -1.0, 0.0, 1.0]]), np.array([[-1.0, 1.0, 1.0, 1.0]]))
    assert by_hand == (25.0, 37.5)  # a tie against right loses one half


def test_every_column_and_its_numbers() -> None:
    a, b = pair(8, 240, seeds=2)
    relation, scene = np.tile(RELATIONS, 40), np.arange(240) // 3
    found = paired_tests(a, b, relation, scene)
    assert list(found) == list(TESTED)
    left = relation == "left"
    assert found["left"].p == sign_flip(a[:, left], b[:, left], scene[left])
    assert found["left"].seeds == tuple(mcnemar(a[seed, left], b[seed, left]) for seed in range(2))
    discordance = (found["all"].won + found["all"].lost) / 100
    assert found["all"].smallest == smallest_detectable_gain(240, discordance)
    family = [found[name].p for name in RELATIONS]
    assert [found[name].holm for name in RELATIONS] == pytest.approx(
        multipletests(family, method="holm")[1]
    )
    assert found["all"].holm == found["all"].p
    assert paired_tests(a, b[:1], relation, scene)["all"].seeds == ()
    same = paired_tests(a, a, relation, scene)["far"]
    assert (same.p, same.holm, same.won, same.smallest) == (1.0, 1.0, 0.0, None)


def test_a_relation_without_records_is_not_tested() -> None:
    a, b = pair(9, 40)
    assert list(paired_tests(a, b, np.repeat(["left", "far"], 20), np.arange(40))) == [
        "far",
        "left",
        "all",
    ]


def test_holm_by_hand() -> None:
    """Smallest times 3, next times 2, last times 1, never falling."""
    assert holm([0.02, 0.04, 0.01]) == pytest.approx([0.04, 0.04, 0.03])
    assert holm([]) == []


def test_a_verdict_needs_the_interval_and_the_test() -> None:
    assert verdict(Interval(0.1, 2.0)) == verdict(Interval(0.1, 2.0), 0.05) == "better"
    assert verdict(Interval(-2.0, -0.1), 0.01) == "worse"
    assert verdict(Interval(0.1, 2.0), 0.051) == "not distinguishable"
    assert verdict(Interval(-0.1, 2.0), 0.001) == "not distinguishable"
    assert verdict(None, 0.001) == "not distinguishable"
