"""Intervals and tests against scipy, statsmodels, published tables and values by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation import statistics
from spatialbench.evaluation.pairs import count
from spatialbench.evaluation.statistics import (
    COLUMNS,
    bootstrap,
    mcnemar,
    mcnemar_power,
    paired_difference,
    smallest_detectable_gain,
    spread,
)

N = 600
RELATION = np.repeat(RELATIONS, N // 6)
ALONE = np.arange(N)  # every record its own cluster


def margins(seed: int, shift: float = 0.3, seeds: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (seeds, N))


def test_accuracy_is_the_mean_over_seeds_of_the_counts() -> None:
    rows = margins(0, seeds=3)
    rows[:, ::7] = 0
    expected = [count(row, RELATION).accuracy() for row in rows]
    found = statistics.accuracy(rows, RELATION)
    for column in COLUMNS:
        assert found[column] == pytest.approx(np.mean([accuracy[column] for accuracy in expected]))


def test_resampling_is_the_loop_one_would_write() -> None:
    """The vectorised sums against a loop over the drawn scenes and seeds."""
    rng = np.random.default_rng(1)
    rows, cluster = margins(2, seeds=3), np.arange(N) // 5
    sums = statistics._sums(rows, RELATION, cluster, N // 5)
    scenes, seeds = rng.integers(N // 5, size=N // 5), rng.integers(3, size=3)
    weights = np.bincount(scenes, minlength=N // 5)[None].astype(float)
    found = statistics._columns(sums, weights, np.bincount(seeds, minlength=3)[None].astype(float))[
        0
    ]
    points: dict[str, list[float]] = {relation: [] for relation in RELATIONS}
    for seed, scene in itertools.product(seeds, scenes):
        for record in range(5 * scene, 5 * scene + 5):
            points[RELATION[record]].append(100.0 if rows[seed, record] > 0 else 0.0)
    single = [np.mean(points[relation]) for relation in RELATIONS]
    everything = list(itertools.chain(*points.values()))
    assert found == pytest.approx(np.array([*single, np.mean(everything), np.mean(single)]))


def test_interval_agrees_with_scipy_and_statsmodels() -> None:
    rows = margins(3)
    right = rows[0] > 0
    interval = bootstrap(rows, RELATION, ALONE, resamples=4000)["all"]
    reference = stats.bootstrap(
        (right,), np.mean, n_resamples=4000, method="percentile", rng=0
    ).confidence_interval
    normal = proportion_confint(right.sum(), N, method="normal")
    assert interval is not None
    for low, high in ((reference.low, reference.high), normal):
        assert interval.low == pytest.approx(100 * low, abs=0.4)
        assert interval.high == pytest.approx(100 * high, abs=0.4)


def test_clusters_widen_the_interval_as_cluster_robust_errors_do() -> None:
    rng = np.random.default_rng(4)
    cluster = np.arange(N) // 6
    rows = (rng.normal(0.2, 1, N // 6)[cluster] + rng.normal(0, 0.5, N))[None]
    relation = np.tile(RELATIONS, N // 6)
    interval = bootstrap(rows, relation, cluster, resamples=4000)["all"]
    fit = sm.OLS(100.0 * (rows[0] > 0), np.ones(N)).fit(
        cov_type="cluster", cov_kwds={"groups": cluster}
    )
    assert interval is not None
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * fit.bse[0], rel=0.06)
    alone = bootstrap(rows, relation, ALONE, resamples=4000)["all"]
    assert alone is not None
    assert interval.high - interval.low > 1.5 * (alone.high - alone.low)


def test_copies_of_a_record_add_nothing() -> None:
    """Five copies of every record in its own cluster give the very interval of the records themselves."""
    rows = margins(5, seeds=2)
    copied = bootstrap(
        np.repeat(rows, 5, axis=1), np.repeat(RELATION, 5), np.repeat(ALONE, 5), resamples=300
    )
    assert copied == bootstrap(rows, RELATION, ALONE, resamples=300)


def test_seeds_are_drawn_too() -> None:
    """Two seeds, one all right and one all wrong: a quarter of the draws is 0, a half 50, a quarter 100."""
    rows = np.stack([np.ones(N), -np.ones(N)])
    interval = bootstrap(rows, RELATION, ALONE, resamples=400)
    assert {tuple(bounds) for bounds in interval.values() if bounds} == {(0.0, 100.0)}
    same = bootstrap(np.ones((2, N)), RELATION, ALONE, resamples=400)
    assert {tuple(bounds) for bounds in same.values() if bounds} == {(100.0, 100.0)}


def test_a_constant_scorer_has_no_width() -> None:
    interval = bootstrap(np.zeros((1, N)), RELATION, ALONE, resamples=50)
    assert {tuple(bounds) for bounds in interval.values() if bounds} == {(50.0, 50.0)}


def test_a_relation_without_records_has_no_interval() -> None:
    interval = bootstrap(margins(6)[:, :100], RELATION[:100], ALONE[:100], resamples=50)
    assert interval["far"] is None
    assert interval["close"] is not None
    assert interval["macro"] == interval["close"] == interval["all"]


def test_the_seed_decides() -> None:
    rows = margins(7, seeds=3)
    assert bootstrap(rows, RELATION, ALONE, resamples=200) == bootstrap(
        rows, RELATION, ALONE, resamples=200
    )
    assert bootstrap(rows, RELATION, ALONE, resamples=200) != bootstrap(
        rows, RELATION, ALONE, resamples=200, seed=1
    )


def test_the_draws_are_the_same_with_every_numpy() -> None:
    """Raw PCG64 words, which numpy never changes (NEP 19): values noted with numpy 2.4."""
    assert statistics.draws((20240, 0), 5, 2).tolist() == [[1, 0, 2, 2, 0], [2, 0, 0, 1, 2]]


def test_paired_difference_agrees_with_scipy_and_is_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(8)
    shared = rng.normal(0.3, 1, N)
    a, b = (shared + rng.normal(0.1, 0.3, N))[None], (shared + rng.normal(0, 0.3, N))[None]
    found = paired_difference(a, b, RELATION, ALONE, resamples=4000)
    right = 100.0 * ((a[0] > 0) * 1.0 - (b[0] > 0) * 1.0)
    assert found.gain["all"] == pytest.approx(right.mean())
    reference = stats.bootstrap(
        (right,), np.mean, n_resamples=4000, method="percentile", rng=0
    ).confidence_interval
    interval, single = found.interval["all"], bootstrap(a, RELATION, ALONE)["all"]
    assert interval is not None
    assert single is not None
    assert interval.low == pytest.approx(reference.low, abs=0.35)
    assert interval.high == pytest.approx(reference.high, abs=0.35)
    assert interval.high - interval.low < 0.8 * (single.high - single.low)


def test_paired_difference_of_a_row_with_itself_is_zero() -> None:
    row = margins(9)
    found = paired_difference(row, row, RELATION, ALONE, resamples=100)
    assert {tuple(bounds) for bounds in found.interval.values() if bounds} == {(0.0, 0.0)}
    assert found.verdict() == "not distinguishable"
    assert paired_difference(row + 1, row, RELATION, ALONE, resamples=100).verdict() == "better"
    assert paired_difference(row - 1, row, RELATION, ALONE, resamples=100).verdict() == "worse"
    with pytest.raises(ValueError, match="one by one"):
        paired_difference(row, row[:, :10], RELATION[:10], ALONE[:10])


def test_mcnemar_is_statsmodels_exact_test() -> None:
    a, b = margins(10)[0], margins(11, shift=0.1)[0]
    table = [
        [((a > 0) & (b > 0)).sum(), ((a > 0) & (b <= 0)).sum()],
        [((a <= 0) & (b > 0)).sum(), 0],
    ]
    found = mcnemar(a, b)
    assert (found.wins, found.losses) == (table[0][1], table[1][0])
    assert found.p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)


def test_mcnemar_by_hand() -> None:
    """Five wins, no loss: p = 2 / 2^5. A tie counts half: it loses against right and wins against wrong."""
    assert mcnemar(np.ones(5), -np.ones(5)) == (5, 0, pytest.approx(0.0625))
    assert mcnemar(np.zeros(3), np.array([1.0, -1.0, 0.0]))[:2] == (1, 1)
    assert mcnemar(np.ones(3), np.ones(3)) == (0, 0, 1.0)
    # two of three seeds right against one of three: won, though the seeds disagree
    assert mcnemar(np.array([[1.0], [1.0], [-1.0]]), np.array([[-1.0], [1.0], [-1.0]]))[:2] == (
        1,
        0,
    )


@pytest.mark.parametrize(
    ("n", "published"),
    [
        (135, (7.8, 11.2, 13.7)),
        (300, (5.5, 7.5, 9.0)),
        (600, (3.8, 5.3, 6.5)),
        (3640, (1.5, 2.3, 2.8)),
    ],
)
def test_smallest_detectable_gain_against_the_published_table(
    n: int, published: tuple[float, ...]
) -> None:
    """At a discordance of 10, 20 and 30 %; the expected gains were simulated once, hence the tolerance."""
    for discordance, expected in zip((0.1, 0.2, 0.3), published, strict=True):
        assert smallest_detectable_gain(n, discordance) == pytest.approx(expected, abs=0.25)


def test_power_by_enumeration() -> None:
    """N = 7: the sum over all (wins, losses, rest) of the multinomial probability of those that scipy rejects."""
    n, discordance, gain = 7, 0.9, 0.7
    won, lost = (discordance + gain) / 2, (discordance - gain) / 2
    power = 0.0
    for wins, losses in itertools.product(range(n + 1), repeat=2):
        if 0 < wins + losses <= n and stats.binomtest(wins, wins + losses).pvalue <= 0.05:
            power += stats.multinomial.pmf(
                [wins, losses, n - wins - losses], n, [won, lost, 1 - discordance]
            )
    assert mcnemar_power(n, discordance, gain) == pytest.approx(power)
    assert smallest_detectable_gain(5, 0.1) is None


def test_spread() -> None:
    assert spread([60.0]) is None
    assert spread([60.0, 62.0, 64.0]) == pytest.approx(2.0)
