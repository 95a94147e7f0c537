"""McNemar's test and its power against scipy and a published table; the rest by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats

from spatialbench.evaluation import statistics
from spatialbench.evaluation.bootstrap import Interval
from spatialbench.evaluation.statistics import (
    agreement,
    mcnemar,
    smallest_detectable_gain,
    verdict,
)


def test_mcnemar_by_hand() -> None:
    """Five wins, no loss: p = 2 / 2^5. A tie loses against right and wins against wrong."""
    assert mcnemar(np.ones(5), -np.ones(5)) == (5, 0, pytest.approx(0.0625))
    assert mcnemar(np.zeros(3), np.array([1.0, -1.0, 0.0]))[:2] == (1, 1)
    assert mcnemar(np.ones(3), np.ones(3)) == (0, 0, 1.0)


@pytest.mark.parametrize(
    ("n", "published"), [(135, (7.8, 11.2, 13.7)), (600, (3.8, 5.3, 6.5)), (3640, (1.5, 2.3, 2.8))]
)
def test_smallest_detectable_gain_against_the_published_table(
    n: int, published: tuple[float, ...]
) -> None:
    """At a discordance of 10, 20 and 30 %; the published gains were simulated."""
    for discordance, expected in zip((0.1, 0.2, 0.3), published, strict=True):
        assert smallest_detectable_gain(n, discordance) == pytest.approx(expected, abs=0.25)


def test_power_by_enumeration() -> None:
    """Sum the multinomial probability of all (wins, losses, rest) of 7 that scipy rejects."""
    n, discordance, gain = 7, 0.9, 0.7
    won, lost = (discordance + gain) / 2, (discordance - gain) / 2
    power = 0.0
    for wins, losses in itertools.product(range(n + 1), repeat=2):
        if 0 < wins + losses <= n and stats.binomtest(wins, wins + losses).pvalue <= 0.05:
            counts, chances = [wins, losses, n - wins - losses], [won, lost, 1 - discordance]
            power += stats.multinomial.pmf(counts, n, chances)
    assert statistics.mcnemar_power(n, discordance, gain) == pytest.approx(power)
    assert smallest_detectable_gain(5, 0.1) is None


def test_a_verdict_needs_the_interval_and_the_test() -> None:
    assert verdict(Interval(0.1, 2.0)) == verdict(Interval(0.1, 2.0), 0.05) == "better"
    assert verdict(Interval(-2.0, -0.1), 0.01) == "worse"
    assert verdict(Interval(0.1, 2.0), 0.051) == "not distinguishable"
    assert verdict(Interval(-0.1, 2.0), 0.001) == "not distinguishable"
    assert verdict(None, 0.001) == "not distinguishable"


def test_agreement_by_hand() -> None:
    """Ten records: both right 4, both wrong 3; 6 right in one, 5 in the other."""
    a = np.array([[1, 1, 1, 1, 1, 1, -1, -1, -1, -1]])
    b = np.array([[1, 1, 1, 1, -1, -1, 1, -1, -1, -1]])
    kappa = (0.7 - (0.6 * 0.5 + 0.4 * 0.5)) / 0.5
    assert agreement(a, b) == pytest.approx((70, kappa))


def test_every_pair_of_seeds_and_none_with_itself() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 40)) > 0, rng.normal(size=(2, 40)) > 0
    across = np.mean([(x == y).mean() for x in a for y in b])
    within = np.mean([(a[i] == a[k]).mean() for i in range(3) for k in range(3) if i != k])
    assert agreement(a - 0.5, b - 0.5).alike == pytest.approx(100 * across)
    assert agreement(a - 0.5).alike == pytest.approx(100 * within)


def test_ties_one_seed_and_what_chance_explains() -> None:
    assert agreement(np.array([[0.0, 0.0]]), np.array([[1.0, -1.0]])).alike == pytest.approx(50)
    assert agreement(np.ones((1, 4))) is None
    assert agreement(np.ones((2, 4))) == (pytest.approx(100), None)
