"""Exact tests, verdicts, and what a benchmark of this size can resolve.

Letters: S seeds, N records.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from spatialbench.evaluation.bootstrap import Interval
from spatialbench.evaluation.ratio import correctness

ALPHA = 0.05


def verdict(interval: Interval | None, p: float | None = None) -> str:
    """Judge a difference: ``better``, ``worse`` or ``not distinguishable``.

    Args:
        interval: of the difference, over scenes and seeds; it must exclude zero.
        p: of a test of the difference, corrected for multiple tests; it must be at most ``ALPHA``.
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

    With several seeds or ties, a record is won when its mean correctness is higher (the sign test;
    McNemar's is its case of one seed without ties). Records are taken as independent, which those
    of one scene are not: see ``paired.py``.

    Args:
        a, b: float [S, N] or [N], margins of the same records in the same order.

    Source: McNemar 1947; the exact form is the binomial test of wins against wins + losses at 1/2.
    """
    lead = correctness(np.atleast_2d(a)).mean(0) - correctness(np.atleast_2d(b)).mean(0)
    wins, losses = int((lead > 1e-12).sum()), int((lead < -1e-12).sum())
    p = stats.binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
    return McNemar(wins, losses, float(p))


def mcnemar_power(n: int, discordance: float, gain: float, alpha: float = 0.05) -> float:
    """Probability that the exact McNemar test finds a true gain.

    Args:
        n: records.
        discordance: share of records that exactly one of the two rows has right, in (0, 1].
        gain: share won minus share lost, in [0, discordance].
        alpha: level of the two-sided test.
    """
    k = np.arange(n + 1)
    share = stats.binom.pmf(k, n, discordance)
    k, share = k[share > 1e-12], share[share > 1e-12]
    bound = stats.binom.ppf(alpha / 2, k, 0.5)
    # reject at losses or wins <= bound
    bound = np.where(2 * stats.binom.cdf(bound, k, 0.5) <= alpha, bound, bound - 1)
    q = (discordance + gain) / (2 * discordance)
    reject = stats.binom.cdf(bound, k, 1 - q) + stats.binom.cdf(bound, k, q)
    return float((share * reject).sum())


def smallest_detectable_gain(
    n: int, discordance: float, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """Smallest true gain in points that the exact McNemar test finds with this power.

    None if there are too few records for any gain. Records of one scene are correlated, so the
    true figure is somewhat larger.
    """
    if mcnemar_power(n, discordance, discordance, alpha) < power:
        return None
    root = optimize.brentq(
        lambda gain: mcnemar_power(n, discordance, gain, alpha) - power, 0, discordance, xtol=1e-6
    )
    return 100 * float(root)
