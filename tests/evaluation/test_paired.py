"""Tests by swapping scenes, against enumeration and statsmodels; the rest by hand."""

import itertools

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation import paired
from spatialbench.evaluation.paired import paired_tests, sign_flip, sign_flip_ratio
from spatialbench.evaluation.ratio import Ratio, accuracy, correctness
from spatialbench.evaluation.statistics import mcnemar, smallest_detectable_gain


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
        table = np.histogram2d(a[0] > 0, b[0] > 0, bins=2)[0]
        expected = statsmodels_mcnemar(table, exact=True).pvalue
        assert sign_flip(a, b, np.arange(150)) == pytest.approx(expected, rel=1e-9)
        p = pytest.approx(expected, rel=1e-9)
        assert mcnemar(a[0], b[0]) == (table[1, 0], table[0, 1], p)


def test_scenes_and_seeds_by_enumeration() -> None:
    """Nine scenes, three seeds, ties: every one of the 2^9 swaps of whole scenes."""
    a, b = pair(1, 40, seeds=3, ties=0.2)
    scene = np.random.default_rng(2).integers(0, 9, 40)
    lead = correctness(a).mean(0) - correctness(b).mean(0)
    sums = np.bincount(scene, lead)
    flips = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=9)]
    expected = np.mean(np.array(flips) >= abs(sums.sum()) - 1e-9)
    assert sign_flip(a, b, scene) == pytest.approx(expected, rel=1e-12)


def test_edges() -> None:
    a, b = pair(6, 60)
    assert sign_flip(a, a, np.arange(60)) == 1.0
    assert sign_flip(a, b, np.arange(60)) == sign_flip(b, a, np.arange(60))
    ones = np.ones((1, 5))
    assert sign_flip(ones, -ones, np.arange(5)) == 2 / 2**5
    assert sign_flip(ones, -ones, np.zeros(5)) == 1.0  # one scene shows nothing
    many = np.ones((1, 5000))
    assert 0 <= sign_flip(many, -many, np.arange(5000)) < 1e-300


@pytest.mark.parametrize(("seed", "seeds"), [(1, (1, 1)), (3, (3, 3)), (8, (3, 2))])
def test_drawn_flips_agree_with_all_of_them(seed: int, seeds: tuple[int, int]) -> None:
    a, b = pair(seed, 120, max(seeds), ties=0.1)
    a, b, scene = a[: seeds[0]], b[: seeds[1]], np.arange(120) // 3
    exact = sign_flip(a, b, scene)
    drawn = sign_flip_ratio(accuracy(a), accuracy(b), scene.astype(str))
    assert 0.001 < exact < 1
    assert drawn == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 10_000) + 1e-4)


def test_drawn_flips_of_a_mean_of_ratios_by_enumeration() -> None:
    """Five scenes, three groups, denominators that differ between the rows: all 2^5 swaps."""
    rng = np.random.default_rng(0)
    below = rng.integers(1, 4, (2, 2, 20, 3)).astype(np.float32)  # [row, S, U, G]
    above = rng.binomial(below.astype(int), [[[[0.7]]], [[[0.4]]]]).astype(np.float32)
    scene, rows = np.arange(20) // 4, [Ratio(*parts) for parts in zip(above, below, strict=True)]

    def difference(swapped: np.ndarray) -> float:
        chosen = swapped[scene].astype(int)
        values = []
        for row in (chosen, 1 - chosen):
            n, d = (part[row, :, np.arange(20)].sum((0, 1)) for part in (above, below))
            values.append(100 * np.mean(n / d))
        return values[0] - values[1]

    flips = [difference(np.array(signs)) for signs in itertools.product((0, 1), repeat=5)]
    expected = np.mean(np.abs(flips) >= abs(flips[0]) - 1e-9)
    found = sign_flip_ratio(*rows, scene.astype(str))
    assert found == pytest.approx(expected, abs=0.02)
    assert sign_flip_ratio(*rows, scene.astype(str)) == found  # the same draws
    assert sign_flip_ratio(rows[0], rows[0], scene.astype(str)) == 1.0
    assert sign_flip_ratio(*rows, np.array(["one"] * 20)) == 1.0
    ones = Ratio(np.ones((1, 200, 1)), np.ones((1, 200, 1)))
    zeros = Ratio(np.zeros((1, 200, 1)), np.ones((1, 200, 1)))
    assert sign_flip_ratio(ones, zeros, np.arange(200).astype(str), flips=99) == 1 / 100


def test_won_minus_lost_is_the_difference() -> None:
    a, b = pair(7, 300, seeds=3, ties=0.1)
    for first, second in ((a, b), (a, b[:2])):
        won, lost = paired.disagreement(first, second)
        gain = accuracy(first).seeds.mean() - accuracy(second).seeds.mean()
        assert won - lost == pytest.approx(gain)
    first, second = np.array([[1.0, -1.0, 0.0, 1.0]]), np.array([[-1.0, 1.0, 1.0, 1.0]])
    assert paired.disagreement(first, second) == (25.0, 37.5)  # a tie against right loses one half


def test_every_column_and_its_numbers() -> None:
    a, b = pair(8, 240, seeds=2)
    relation, scene = np.tile(RELATIONS, 40), np.arange(240) // 3
    found = paired_tests(a, b, relation, scene)
    assert list(found) == list(paired.TESTED)
    left = relation == "left"
    assert found["left"].p == sign_flip(a[:, left], b[:, left], scene[left])
    assert found["left"].seeds == tuple(mcnemar(a[seed, left], b[seed, left]) for seed in range(2))
    discordance = (found["all"].won + found["all"].lost) / 100
    assert found["all"].smallest == smallest_detectable_gain(240, discordance)
    family = multipletests([found[name].p for name in RELATIONS], method="holm")[1]
    assert [found[name].holm for name in RELATIONS] == pytest.approx(family)
    assert found["all"].holm == found["all"].p
    assert paired_tests(a, b[:1], relation, scene)["all"].seeds == ()
    same = paired_tests(a, a, relation, scene)["far"]
    assert (same.p, same.holm, same.won, same.smallest) == (1.0, 1.0, 0.0, None)
    two = np.repeat(["left", "far"], 120)
    assert list(paired_tests(a, b, two, scene)) == ["far", "left", "all"]
