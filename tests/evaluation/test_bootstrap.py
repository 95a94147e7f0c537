"""The bootstrap, against one written out in plain Python, scipy, statsmodels and known truths."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from spatialbench.evaluation.bootstrap import BOOTSTRAP_SEED, Resampler, draws, spread
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.ratio import Ratio, accuracy
from tests.evaluation.test_evidence import formula, one

N = 600
ALONE = np.array([f"{number:03}" for number in range(N)])  # every record its own cluster


def margins(seed: int, shift: float = 0.3, seeds: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (seeds, N))


def values(*parts: np.ndarray) -> Ratio:
    """Build a mean over units, of one seed."""
    above, below = parts if len(parts) == 2 else (parts[0], np.ones(len(parts[0])))
    return Evidence.of(["x"] * len(above), {"m": (above, below)}, "x").ratios["m"]


@pytest.fixture
def three() -> Evidence:
    return Evidence.join([one(seed) for seed in range(3)])


@pytest.mark.parametrize("row", [0, 3])
def test_samples_are_the_loop_one_would_write(three: Evidence, row: int) -> None:
    """The same draws of scenes and seeds, each unit taken as often as its scene was drawn."""
    resamples = 40
    clusters = three.clusters.tolist()
    names = sorted(set(clusters))
    scenes = draws((BOOTSTRAP_SEED, 0), len(names), resamples).astype(int)
    seeds = draws((BOOTSTRAP_SEED, 1, row), 3, resamples).astype(int)
    resampler = Resampler(three.clusters, resamples)
    for above, below in three.ratios.values():
        found = resampler.samples(Ratio(above, below), row)
        for b in range(resamples):
            units = [
                unit
                for unit, scene in enumerate(clusters)
                for _ in range(scenes[b, names.index(scene)])
            ]
            sample = [
                formula(above[seed][units].tolist(), below[seed][units].tolist())
                for seed in range(3)
                for _ in range(seeds[b, seed])
            ]
            assert found[b] == pytest.approx(sum(sample) / 3, abs=1e-4)


def test_the_draws_are_the_same_with_every_numpy() -> None:
    """Raw PCG64 words, which numpy never changes (NEP 19): values noted with numpy 2.4."""
    assert draws((20240, 0), 5, 2).tolist() == [[1, 0, 2, 2, 0], [2, 0, 0, 1, 2]]


def test_seeds_are_drawn_too_unless_there_is_one(three: Evidence) -> None:
    """Two seeds, one all right and one all wrong: 0, 50 or 100."""
    resampler = Resampler(three.clusters, 50)
    single, many = one(0).ratios["box"], three.ratios["box"]
    assert np.array_equal(resampler.samples(single, 0), resampler.samples(single, 5))
    assert not np.array_equal(resampler.samples(many, 0), resampler.samples(many, 5))
    rows = np.stack([np.ones(N), -np.ones(N)])
    assert Resampler(ALONE, 400).interval(accuracy(rows)) == (0, 100)
    assert Resampler(ALONE, 400).interval(accuracy(np.ones((2, N)))) == (100, 100)
    assert Resampler(ALONE, 50).interval(accuracy(np.zeros((1, N)))) == (50, 50)


def test_the_interval_contains_the_share_of_samples_it_says(three: Evidence) -> None:
    resampler = Resampler(three.clusters)
    for level in (0.5, 0.95):
        samples = resampler.samples(three.ratios["box"])
        low, high = resampler.interval(three.ratios["box"], level)
        assert np.mean((samples >= low) & (samples <= high)) == pytest.approx(level, abs=0.01)
        assert np.mean(samples < low) == pytest.approx((1 - level) / 2, abs=0.01)


def test_interval_agrees_with_scipy_and_statsmodels() -> None:
    rows = margins(3)
    right = rows[0] > 0
    interval = Resampler(ALONE, 4000).interval(accuracy(rows))
    reference = stats.bootstrap(
        (right,), np.mean, n_resamples=4000, method="percentile", rng=0
    ).confidence_interval
    for low, high in (reference, proportion_confint(right.sum(), N, method="normal")):
        assert interval == pytest.approx((100 * low, 100 * high), abs=0.4)


def test_clusters_widen_the_interval_as_cluster_robust_errors_do() -> None:
    rng = np.random.default_rng(4)
    cluster = np.arange(N) // 6
    rows = (rng.normal(0.2, 1, N // 6)[cluster] + rng.normal(0, 0.5, N))[None]
    low, high = Resampler(cluster.astype(str), 4000).interval(accuracy(rows))
    fit = sm.OLS(100.0 * (rows[0] > 0), np.ones(N)).fit(
        cov_type="cluster", cov_kwds={"groups": cluster}
    )
    assert high - low == pytest.approx(2 * 1.96 * fit.bse[0], rel=0.06)
    alone = Resampler(ALONE, 4000).interval(accuracy(rows))
    assert high - low > 1.5 * (alone.high - alone.low)


def test_copies_of_a_record_add_nothing() -> None:
    """Five copies of every record in its own cluster give the interval of the records."""
    rows = margins(5, seeds=2)
    copied = Resampler(np.repeat(ALONE, 5), 300).interval(accuracy(np.repeat(rows, 5, axis=1)))
    assert copied == Resampler(ALONE, 300).interval(accuracy(rows))


def test_a_row_minus_itself_is_nothing(three: Evidence) -> None:
    resampler = Resampler(three.clusters)
    for name, ratio in three.ratios.items():
        assert resampler.difference(ratio, ratio, (0, 0)) == (0.0, (0.0, 0.0))
        single = one(0).ratios[name]
        assert resampler.difference(single, single) == (0.0, (0.0, 0.0))
    gain, interval = resampler.difference(three.ratios["box"], three.ratios["box"])
    assert gain == 0  # and yet other seeds of each
    assert interval.low < 0 < interval.high


def test_a_difference_is_paired_by_scene() -> None:
    """A row that is better by the same everywhere: scenes differ by 60 points, the rows hardly."""
    rng = np.random.default_rng(0)
    level = rng.choice([0.2, 0.8], 40)
    base, better = (values(level + up) for up in (0, 0.02 + 0.001 * rng.random(40)))
    resampler = Resampler(ALONE[:40])
    gain, interval = resampler.difference(better, base)
    assert 2.0 < interval.low < gain < interval.high < 2.1
    alone = resampler.interval(base)
    assert alone.high - alone.low > 10
    assert resampler.difference(base, better)[0] == pytest.approx(-gain)


def test_a_difference_agrees_with_scipy() -> None:
    rng = np.random.default_rng(8)
    shared = rng.normal(0.3, 1, N)
    a, b = ((shared + rng.normal(up, 0.3, N))[None] for up in (0.1, 0))
    gain, interval = Resampler(ALONE, 4000).difference(accuracy(a), accuracy(b))
    right = 100.0 * ((a[0] > 0) * 1.0 - (b[0] > 0) * 1.0)
    assert gain == pytest.approx(right.mean())
    reference = stats.bootstrap(
        (right,), np.mean, n_resamples=4000, method="percentile", rng=0
    ).confidence_interval
    assert interval == pytest.approx(tuple(reference), abs=0.35)


def test_resamples_without_any_denominator_are_left_out() -> None:
    """A value on one unit of eight: a third of the resamples do not draw it."""
    below = np.eye(1, 8)[0]
    resampler, ratio = Resampler(ALONE[:8]), values(0.5 * below, below)
    assert 0.2 < np.isnan(resampler.samples(ratio)).mean() < 0.5
    assert resampler.interval(ratio) == (50, 50)


def test_the_seed_decides() -> None:
    ratio = accuracy(margins(7, seeds=3))
    first, again, other = (Resampler(ALONE, 200, seed).interval(ratio) for seed in (0, 0, 1))
    assert first == again != other


def test_spread() -> None:
    assert spread([60.0]) is None
    assert spread([60.0, 62.0, 64.0]) == pytest.approx(2.0)
