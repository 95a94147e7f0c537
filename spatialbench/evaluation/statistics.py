"""Exact tests, verdicts, agreement, and what a benchmark of this size can resolve.

Letters: S seeds, N records.
"""

from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from spatialbench.evaluation.bootstrap import Interval
from spatialbench.evaluation.ratio import correctness

ALPHA, POWER = 0.05, 0.8
BETTER, WORSE, SAME = "better", "worse", "not distinguishable"


def verdict(interval: Interval | None, p: float | None = None, bound: float = 0.0) -> str:
    """Judge a difference: ``BETTER`` than a bound, ``WORSE`` or ``SAME``.

    The one rule of ``compare``, of claims and of bold marks. The whole interval must lie on one
    side of the bound, and ``p``, corrected for multiple tests, be at most ``ALPHA``. Only at bound
    0 is there a p: rows can be swapped where they would be equal.
    """
    if interval is None or interval.low <= bound <= interval.high or (p is not None and p > ALPHA):
        return SAME
    return BETTER if interval.low > bound else WORSE


def equivalent(interval: Interval, margin: float) -> bool:
    """Return whether an interval at the level 1 - 2 ``ALPHA`` lies within +- ``margin``.

    That is two one-sided tests, each at ``ALPHA`` (TOST; Schuirmann 1987).
    """
    return -margin < interval.low and interval.high < margin


def smallest_effect(interval: Interval, equivalence: bool = False) -> float:
    r"""Smallest effect in points that data with an interval of this width show four times in five.

    With :math:`s` the standard error, of which a 95 % interval spans :math:`2 z_{0.975}`:

    .. math:: (z_{1 - \alpha / 2} + z_{\text{power}})\, s, \quad\text{or for an equivalence}\quad
              (z_{1 - \alpha} + z_{(1 + \text{power}) / 2})\, s

    The first is the true difference, or the distance from a bound, that is found with ``POWER``;
    the second the margin within which two equal rows are found equivalent.
    """
    z = stats.norm.ppf
    error = standard_error(interval)
    if equivalence:
        return error * float(z(1 - ALPHA) + z((1 + POWER) / 2))
    return error * float(z(1 - ALPHA / 2) + z(POWER))


def standard_error(interval: Interval) -> float:
    """Return the standard error of which an interval at the level 1 - ``ALPHA`` is made."""
    return (interval.high - interval.low) / (2 * float(stats.norm.ppf(1 - ALPHA / 2)))


def p_beyond(points: float, interval: Interval, bound: float = 0.0) -> float:
    """Two-sided p-value of a difference against a bound, by the interval's standard error."""
    distance, error = abs(points - bound), standard_error(interval)
    return float(2 * stats.norm.sf(distance / error)) if error else float(distance == 0)


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
