"""Agreement by hand and by counting."""

from __future__ import annotations

import numpy as np
import pytest

from spatialbench.evaluation.agreement import agreement


def test_by_hand() -> None:
    """Ten records: both right 4, both wrong 3; 6 right of one, 5 of the other: kappa (0.7 - 0.5) / 0.5."""
    a = np.array([[1, 1, 1, 1, 1, 1, -1, -1, -1, -1]])
    b = np.array([[1, 1, 1, 1, -1, -1, 1, -1, -1, -1]])
    found = agreement(a, b)
    assert found is not None
    assert found.alike == pytest.approx(70)
    assert found.kappa == pytest.approx((0.7 - (0.6 * 0.5 + 0.4 * 0.5)) / 0.5)


def test_every_pair_of_seeds_and_none_with_itself() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 40)), rng.normal(size=(2, 40))
    right = [[(row > 0) for row in rows] for rows in (a, b)]
    across = np.mean([(x == y).mean() for x in right[0] for y in right[1]])
    within = np.mean(
        [(right[0][i] == right[0][k]).mean() for i in range(3) for k in range(3) if i != k]
    )
    first, second = agreement(a, b), agreement(a)
    assert first is not None
    assert second is not None
    assert first.alike == pytest.approx(100 * across)
    assert second.alike == pytest.approx(100 * within)


def test_ties_one_seed_and_what_chance_explains() -> None:
    tie = agreement(np.array([[0.0, 0.0]]), np.array([[1.0, -1.0]]))
    assert tie is not None
    assert tie.alike == pytest.approx(50)
    assert agreement(np.ones((1, 4))) is None
    always = agreement(np.ones((2, 4)))
    assert always is not None
    assert (always.alike, always.kappa) == (pytest.approx(100), None)
