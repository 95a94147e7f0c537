"""Exact tests, verdicts, agreement, and what a benchmark of this size can resolve.

Letters: S seeds, N records.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from spatialbench.evaluation.bootstrap import Interval
from spatialbench.evaluation.ratio import correctness

ALPHA, POWER = 0.05, 0.8


def verdict(interval: Interval | None, p: float | None = None) -> str:
    """Judge a difference: ``better``, ``worse`` or ``not distinguishable``.

    The interval must exclude zero and ``p``, corrected for multiple tests, be at most ``ALPHA``.
    """
    if interval is None or interval.low <= 0 <= interval.high or (p is not None and p > ALPHA):
        return "not distinguishable"
    return "better" if interval.low > 0 else "worse"


class McNemar(NamedTuple):
    """Records that only row a has right, that only row b has right, and the two-sided p-value."""

    wins: int
    losses: int
    p: float


def mcnemar(a: np.ndarray, b: np.ndarray) -> McNemar:
    """Exact McNemar test of two rows on the same records.

    Records are taken as independent, which those of one scene are not: see ``paired.py``.

    Args:
        a, b: float [N], margins of the same records in the same order; a tie is half right.

    Source: McNemar 1947; the exact form is the binomial test of wins against wins + losses at 1/2.
    """
    lead = correctness(a) - correctness(b)
    wins, losses = int((lead > 0).sum()), int((lead < 0).sum())
    p = stats.binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
    return McNemar(wins, losses, float(p))


def mcnemar_power(n: int, discordance: float, gain: float) -> float:
    """Probability that the exact two-sided McNemar test finds a true gain at the level ``ALPHA``.

    Args:
        n: records.
        discordance: share of records that exactly one of the two rows has right, in (0, 1].
        gain: share won minus share lost, in [0, discordance].
    """
    k = np.arange(n + 1)
    share = stats.binom.pmf(k, n, discordance)
    k, share = k[share > 1e-12], share[share > 1e-12]
    bound = stats.binom.ppf(ALPHA / 2, k, 0.5)
    # reject at losses or wins <= bound
    bound = np.where(2 * stats.binom.cdf(bound, k, 0.5) <= ALPHA, bound, bound - 1)
    q = (discordance + gain) / (2 * discordance)
    reject = stats.binom.cdf(bound, k, 1 - q) + stats.binom.cdf(bound, k, q)
    return float((share * reject).sum())


def smallest_detectable_gain(n: int, discordance: float) -> float | None:
    """Smallest true gain in points that the exact McNemar test finds four times in five.

    None if there are too few records for any gain. Records of one scene are correlated, so the
    true figure is somewhat larger.
    """
    if mcnemar_power(n, discordance, discordance) < POWER:
        return None

    def excess(gain: float) -> float:
        return mcnemar_power(n, discordance, gain) - POWER

    return 100 * float(optimize.brentq(excess, 0, discordance, xtol=1e-6))


class Agreement(NamedTuple):
    """Percent of the records that both rows have right or both wrong, and Cohen's kappa."""

    alike: float
    kappa: float | None  # in [-1, 1]; None if chance explains all agreement


def agreement(a: np.ndarray, b: np.ndarray | None = None) -> Agreement | None:
    r"""Compare two rows, mean over all pairs of a seed of one and a seed of the other.

    With :math:`x, y \in [0, 1]` the correctness of a record (a tie one half) in the two rows,

    .. math:: p_o = \overline{x y + (1 - x)(1 - y)}, \quad
              p_e = \bar x \bar y + (1 - \bar x)(1 - \bar y), \quad
              \kappa = \frac{p_o - p_e}{1 - p_e}

    p_o and p_e are averaged over the pairs of seeds, then divided. Source: Cohen, "A coefficient of
    agreement for nominal scales", 1960.

    Args:
        a: margins, float [S, N].
        b: margins of the same records, float [S', N]; None: different seeds of ``a``, which has no
            agreement if it has one seed.
    """
    x, y = correctness(a), correctness(a if b is None else b)
    observed = (x @ y.T + (1 - x) @ (1 - y).T) / x.shape[1]  # [S, S']
    mine, theirs = x.mean(1)[:, None], y.mean(1)[None]
    expected = mine * theirs + (1 - mine) * (1 - theirs)
    pairs = ~np.eye(len(x), dtype=bool) if b is None else np.ones(observed.shape, dtype=bool)
    if not pairs.any():
        return None
    o, e = float(observed[pairs].mean()), float(expected[pairs].mean())
    return Agreement(100 * o, None if 1 - e < 1e-12 else (o - e) / (1 - e))
