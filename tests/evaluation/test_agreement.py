"""Agreement by hand and by counting."""

from __future__ import annotations

import numpy as np
import pytest

from spatialbench.evaluation.agreement import agreement


def test_by_hand() -> None:
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
