"""The bootstrap, against one written out in plain Python, scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from spatialbench.evaluation.bootstrap import BOOTSTRAP_SEED, Resampler, draws
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


def test_interval_agrees_with_scipy() -> None:
    rows = margins(3)
    right = rows[0] > 0
    interval = Resampler(ALONE, 4000).interval(accuracy(rows))
    reference = stats.bootstrap(
        (right,), np.mean, n_resamples=4000, method="percentile", rng=0
    ).confidence_interval
    assert interval == pytest.approx((100 * reference.low, 100 * reference.high), abs=0.4)


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


def test_resamples_without_any_denominator_are_left_out() -> None:
    """A value on one unit of eight: a third of the resamples do not draw it."""
    below = np.eye(1, 8)[0]
    resampler, ratio = Resampler(ALONE[:8]), values(0.5 * below, below)
    assert 0.2 < np.isnan(resampler.samples(ratio)).mean() < 0.5
    assert resampler.interval(ratio) == (50, 50)
