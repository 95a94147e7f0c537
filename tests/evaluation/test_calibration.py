"""Intervals and tests on simulated tables whose truth is known: coverage, size and power.

The tables are like the rooms': several records a scene, right or wrong together; seeds, each with
its own luck. The margin of record i of scene c under seed s is

    m = level + scene_c + own_cr + luck_s + noise,    noise ~ N(0, 1)

with ``scene`` shared by all rows, ``own`` the row's own in that scene and ``luck`` the row's own
with that seed, all normal: the true accuracy is Phi(level / sqrt(1 + sum of the variances)). Seeds
are fixed; the bounds are three standard errors over ``TABLES`` tables.

Letters: T tables, S seeds, N records.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import stats

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.bootstrap import Resampler, percentiles
from spatialbench.evaluation.paired import holm, sign_flip, sign_flip_ratio
from spatialbench.evaluation.ratio import Ratio, accuracy
from spatialbench.evaluation.statistics import ALPHA, mcnemar

TABLES = 500
SCENES, PER_SCENE = 90, 6
N = SCENES * PER_SCENE
SCENE = np.repeat([f"s{number:02}" for number in range(SCENES)], PER_SCENE)
RELATION = np.tile(RELATIONS, SCENES)
ALONE = np.arange(N).astype(str)
SHARED, OWN = 0.8, 0.6
"""Standard deviations of what a scene does to all rows, and to one row."""


def tables(
    seed: int, *levels: float, seeds: int = 1, luck: float = 0.0
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield ``TABLES`` times one row [S, N] for each of ``levels``."""
    rng = np.random.default_rng(seed)
    for _ in range(TABLES):
        shared = rng.normal(0, SHARED, SCENES)
        yield tuple(
            level
            + np.repeat(shared + rng.normal(0, OWN, SCENES), PER_SCENE)
            + rng.normal(0, luck, (seeds, 1))
            + rng.standard_normal((seeds, N))
            for level in levels
        )


def truth(level: float, luck: float = 0.0) -> float:
    """Accuracy in percent of a row at a level."""
    return 100 * float(stats.norm.cdf(level / np.sqrt(1 + SHARED**2 + OWN**2 + luck**2)))


def within(share: float, expected: float, count: int = TABLES) -> bool:
    """Return whether a share of ``count`` is the expected one but for chance."""
    return abs(share - expected) <= 3 * np.sqrt(expected * (1 - expected) / count)


def coverage(
    seed: int, levels: tuple[float, ...], cluster: np.ndarray, seeds: int = 1, luck: float = 0.0
) -> float:
    """Count how often the interval, of a row or of the difference of two, contains the truth."""
    resampler = Resampler(cluster, resamples=500)
    expected = truth(levels[0], luck) - (truth(levels[1], luck) if len(levels) > 1 else 0)
    held = 0
    for rows in tables(seed, *levels, seeds=seeds, luck=luck):
        samples = [resampler.samples(accuracy(row), place) for place, row in enumerate(rows)]
        low, high = percentiles(samples[0] - samples[1] if len(rows) > 1 else samples[0])
        held += low <= expected <= high
    return held / TABLES


@pytest.mark.parametrize(("seed", "levels"), [(1, (0.5,)), (2, (0.5, 0.3))])
def test_the_interval_contains_the_truth_95_times_in_100(
    seed: int, levels: tuple[float, ...]
) -> None:
    """Without clusters it would be too narrow."""
    assert within(coverage(seed, levels, SCENE), 0.95)
    assert coverage(seed, levels, ALONE) < 0.9


@pytest.mark.parametrize(("seeds", "least"), [(3, 0.9), (10, 0.92)])
def test_with_luck_of_the_seeds_the_intervals_nearly_hold(seeds: int, least: float) -> None:
    """Luck of 2.7 points, three times that of the rooms' rows.

    The part between S seeds is understated by (S - 1) / S.
    """
    for levels in ((0.5,), (0.5, 0.3)):
        assert coverage(3, levels, SCENE, seeds, luck=0.1) >= least


def test_swapping_scenes_finds_nothing_where_nothing_is() -> None:
    """5 in 100; McNemar's test, for which records are independent, finds three times as many."""
    found = [
        (sign_flip(a, b, SCENE), mcnemar(a[0], b[0]).p, _drawn(accuracy(a), accuracy(b)))
        for a, b in tables(4, 0.4, 0.4)
    ]
    by_scene, by_record, drawn = (np.array(found) <= ALPHA).mean(0)
    assert within(by_scene, ALPHA)
    assert within(drawn, ALPHA)
    assert by_record > 2 * ALPHA


def _drawn(a: Ratio, b: Ratio) -> float:
    return sign_flip_ratio(a, b, SCENE, flips=399)


def test_holm_keeps_the_six_relations_together_at_5_in_100() -> None:
    """One false finding among six: with Holm as seldom as in one test, without much oftener."""
    chosen = [relation == RELATION for relation in RELATIONS]
    family = np.array(
        [
            [sign_flip(a[:, mask], b[:, mask], SCENE[mask]) for mask in chosen]
            for a, b in tables(5, 0.4, 0.4)
        ]
    )
    corrected = np.array([holm(row) for row in family.tolist()])
    assert (corrected.min(1) <= ALPHA).mean() <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / TABLES)
    assert (family.min(1) <= ALPHA).mean() > 2 * ALPHA


def test_a_verdict_needs_the_interval_because_seeds_have_luck() -> None:
    """Two equal methods, three lucky seeds: the models differ, and the exact test says so.

    The interval draws the seeds too, and does not take that for a difference of the methods.
    """
    resampler = Resampler(SCENE, resamples=500)
    tested, judged = 0, 0
    for a, b in tables(6, 0.4, 0.4, seeds=3, luck=0.1):
        if sign_flip(a, b, SCENE) <= ALPHA:
            tested += 1
            _, (low, high) = resampler.difference(accuracy(a), accuracy(b))
            judged += not low <= 0 <= high
    assert tested / TABLES > 1.5 * ALPHA
    assert judged / TABLES <= 0.09  # 5 in 100 but for the few seeds


def test_swapping_scenes_finds_what_a_test_of_the_scenes_means_finds() -> None:
    """Power: a true gain of 8 points, as often as the t-test of the scenes finds it."""
    found = []
    for a, b in tables(8, 0.6, 0.3):
        lead = ((a[0] > 0) * 1.0 - (b[0] > 0)).reshape(SCENES, PER_SCENE).sum(1)
        drawn = _drawn(accuracy(a), accuracy(b))
        found.append((sign_flip(a, b, SCENE), drawn, stats.ttest_1samp(lead, 0).pvalue))
    exact, drawn, by_mean = (np.array(found) <= ALPHA).mean(0)
    assert exact > 0.4
    assert exact == pytest.approx(by_mean, abs=0.04)
    assert drawn == pytest.approx(by_mean, abs=0.04)
