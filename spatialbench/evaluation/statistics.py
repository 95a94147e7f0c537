"""How sure a number is: intervals, paired differences, and what a benchmark of this size can resolve.

Records of one scene are not independent and seeds are few, so intervals come from a bootstrap that draws scenes and
seeds, both with replacement and crossed (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007). With S
seeds the part between seeds is understated by the factor (S - 1) / S, as in every bootstrap of a small sample.

Letters: S seeds, N records, C clusters (scenes or images), R relations, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from spatialbench.data.relations import RELATIONS

COLUMNS: tuple[str, ...] = (*RELATIONS, "all", "macro")
"""The columns of every table: the relations, All (micro) and the macro average."""

RESAMPLES = 2000
BOOTSTRAP_SEED = 20240
LEVEL = 0.95
ALPHA = 0.05


class Interval(NamedTuple):
    """Bounds in percent (or percentage points, for a difference)."""

    low: float
    high: float


def correctness(margin: np.ndarray) -> np.ndarray:
    """float64 of the same shape: 1 where the margin is positive, 0.5 at a tie, 0 else."""
    return (margin > 0) + 0.5 * (margin == 0)


def accuracy(margins: np.ndarray, relation: np.ndarray) -> dict[str, float]:
    """Percent by column, mean over seeds; NaN for a relation without records.

    Args:
        margins: float [S, N] or [N].
        relation: str [N].
    """
    together = np.zeros(len(relation), dtype=np.int64)  # all records in one cluster, drawn once
    columns = _columns(_sums(np.atleast_2d(margins), relation, together, 1), np.ones((1, 1)))
    return dict(zip(COLUMNS, columns[0].tolist(), strict=True))


class _Sums(NamedTuple):
    """Points and counts added up by cluster, the only thing a resample needs.

    Attributes:
        points: float [C, R, S], sum of ``correctness``.
        counts: float [C, R], records.
    """

    points: np.ndarray
    counts: np.ndarray


def _sums(margins: np.ndarray, relation: np.ndarray, cluster: np.ndarray, clusters: int) -> _Sums:
    """Adds up margins [S, N] by (cluster, relation); ``cluster`` int [N] in [0, clusters)."""
    code = np.array([RELATIONS.index(name) for name in relation.tolist()], dtype=np.int64)
    cell = cluster * len(RELATIONS) + code
    size = clusters * len(RELATIONS)
    points = np.stack(
        [np.bincount(cell, row, minlength=size) for row in correctness(margins)], axis=-1
    )
    counts = np.bincount(cell, minlength=size).astype(np.float64)
    return _Sums(
        points.reshape(clusters, len(RELATIONS), -1), counts.reshape(clusters, len(RELATIONS))
    )


def _columns(sums: _Sums, weights: np.ndarray, seeds: np.ndarray | None = None) -> np.ndarray:
    """Percent [B, len(COLUMNS)] of B resamples.

    Args:
        sums: of the whole set.
        weights: float [B, C], how often each cluster was drawn.
        seeds: float [B, S], how often each seed was drawn; None: each once.
    """
    clusters, relations, count = sums.points.shape
    points = (weights @ sums.points.reshape(clusters, -1)).reshape(
        -1, relations, count
    )  # [B, R, S]
    counts = weights @ sums.counts  # [B, R]
    drawn = np.ones((len(weights), count)) if seeds is None else seeds
    right = np.einsum("brs,bs->br", points, drawn) / count
    with np.errstate(invalid="ignore"):
        single = 100 * right / counts
        micro = 100 * right.sum(1) / counts.sum(1)
        present = counts > 0
        macro = np.where(present, single, 0).sum(1) / present.sum(1)
    return np.column_stack([single, micro, macro])


@lru_cache(maxsize=4)  # the rows of a table draw the same scenes, 25 MB of the rooms' test
def draws(seed: tuple[int, ...], size: int, resamples: int) -> np.ndarray:
    """float64 [resamples, size], not to be changed: how often each of ``size`` things came in ``size`` draws with
    replacement.

    From raw PCG64 words, whose stream numpy never changes (NEP 19); a table comes out the same with every version.
    """
    words = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(resamples * size) % np.uint64(
        size
    )
    cells = words.astype(np.int64) + size * np.repeat(np.arange(resamples), size)
    found = (
        np.bincount(cells, minlength=size * resamples).reshape(resamples, size).astype(np.float64)
    )
    found.flags.writeable = False
    return found


@dataclass(frozen=True)
class Difference:
    """Accuracy of ``a`` minus accuracy of ``b``, in percentage points, on the same records.

    Attributes:
        gain: column -> difference of the means over seeds.
        interval: column -> bootstrap interval of the difference.
    """

    gain: dict[str, float]
    interval: dict[str, Interval | None]

    def verdict(self, column: str = "all") -> str:
        """``better``, ``worse`` or ``not distinguishable``: whether the interval excludes zero."""
        return verdict(self.interval[column])


def verdict(interval: Interval | None, p: float | None = None) -> str:
    """``better``, ``worse`` or ``not distinguishable`` of a difference.

    Args:
        interval: of the difference, over scenes and seeds; it must exclude zero.
        p: where the difference was tested, too, it must be ``ALPHA`` at most; corrected where it is one of several.
    """
    if interval is None or interval.low <= 0 <= interval.high or (p is not None and p > ALPHA):
        return "not distinguishable"
    return "better" if interval.low > 0 else "worse"


class Resampler:
    """Draws scenes once, for every row that is to be compared on these records.

    Args:
        relation: str [N], one of ``RELATIONS`` each.
        cluster: [N], name of the scene or image of each record.
        resamples: B; memory is 8 B C bytes.
        seed: the same seed gives the same draws.
    """

    def __init__(
        self,
        relation: np.ndarray,
        cluster: np.ndarray,
        resamples: int = RESAMPLES,
        seed: int = BOOTSTRAP_SEED,
    ) -> None:
        names, self.codes = np.unique(cluster, return_inverse=True)
        self.relation, self.clusters, self.seed = relation, len(names), seed
        self.weights = draws((seed, 0), len(names), resamples)

    def columns(self, margins: np.ndarray, row: int = 0) -> np.ndarray:
        """Percent [B, len(COLUMNS)] of every resample.

        Args:
            margins: float [S, N].
            row: number of the row; every row draws its seeds for itself.
        """
        margins = np.atleast_2d(margins)
        sums = _sums(margins, self.relation, self.codes, self.clusters)
        seeds = (
            draws((self.seed, 1, row), len(margins), len(self.weights))
            if len(margins) > 1
            else None
        )
        return _columns(sums, self.weights, seeds)

    def difference(
        self, a: np.ndarray, b: np.ndarray, rows: tuple[int, int] = (0, 1), level: float = LEVEL
    ) -> Difference:
        """Row ``a`` minus row ``b``, margins float [S_a, N] and [S_b, N]; ``rows``: their numbers in ``columns``."""
        first, second = accuracy(a, self.relation), accuracy(b, self.relation)
        gain = {name: first[name] - second[name] for name in COLUMNS}
        return Difference(
            gain, intervals(self.columns(a, rows[0]) - self.columns(b, rows[1]), level)
        )


def intervals(values: np.ndarray, level: float = LEVEL) -> dict[str, Interval | None]:
    """Percentile interval of every column of resamples [B, len(COLUMNS)]; None where there are no records."""
    tail = 100 * (1 - level) / 2
    found: dict[str, Interval | None] = {}
    for name, column in zip(COLUMNS, values.T, strict=True):
        finite = column[np.isfinite(column)]
        bounds = np.percentile(finite, [tail, 100 - tail]).tolist() if len(finite) else None
        found[name] = None if bounds is None else Interval(*bounds)
    return found


def bootstrap(
    margins: np.ndarray,
    relation: np.ndarray,
    cluster: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
    level: float = LEVEL,
) -> dict[str, Interval | None]:
    """Percentile interval of the accuracy of every column, over clusters and seeds.

    Args:
        margins: float [S, N], positive - negative.
        relation, cluster, resamples, seed: see ``Resampler``.
        level: in (0, 1).

    Returns:
        column -> interval in percent, None for a relation without records.
    """
    return intervals(Resampler(relation, cluster, resamples, seed).columns(margins), level)


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    relation: np.ndarray,
    cluster: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
    level: float = LEVEL,
) -> Difference:
    """Difference of two rows on the same records: one draw of clusters serves both, seeds are drawn for each.

    Args:
        a: float [S_a, N], margins.
        b: float [S_b, N], margins of the same records in the same order.
        relation, cluster, resamples, seed, level: as in ``bootstrap``.
    """
    if np.shape(a)[-1] != np.shape(b)[-1]:
        raise ValueError(
            f"rows of {np.shape(a)[-1]} and {np.shape(b)[-1]} records cannot be compared one by one"
        )
    return Resampler(relation, cluster, resamples, seed).difference(a, b, level=level)


class McNemar(NamedTuple):
    """``wins``: records that only a has right; ``losses``: only b; ``p``: two-sided exact p-value."""

    wins: int
    losses: int
    p: float


def mcnemar(a: np.ndarray, b: np.ndarray) -> McNemar:
    """Exact McNemar test of two rows on the same records.

    With several seeds (or ties) a record counts as won when its mean correctness is higher: the sign test, of which
    McNemar's is the case of one seed without ties. It takes records as independent; ``paired_difference`` does not.

    Args:
        a, b: float [S, N] or [N], margins of the same records in the same order.

    Source: McNemar 1947; the exact form is the binomial test of wins against wins + losses at 1/2.
    """
    lead = correctness(np.atleast_2d(a)).mean(0) - correctness(np.atleast_2d(b)).mean(0)
    wins, losses = int((lead > 1e-12).sum()), int((lead < -1e-12).sum())
    p = stats.binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
    return McNemar(wins, losses, float(p))


def mcnemar_power(n: int, discordance: float, gain: float, alpha: float = 0.05) -> float:
    """Chance that the exact McNemar test finds a true gain.

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
    bound = np.where(
        2 * stats.binom.cdf(bound, k, 0.5) <= alpha, bound, bound - 1
    )  # reject at losses or wins <= bound
    q = (discordance + gain) / (2 * discordance)
    reject = stats.binom.cdf(bound, k, 1 - q) + stats.binom.cdf(bound, k, q)
    return float((share * reject).sum())


def smallest_detectable_gain(
    n: int, discordance: float, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """Smallest true gain, in percentage points, that the exact McNemar test finds with the wanted power.

    None when no gain is found with that power: too few records. Records of one scene are correlated, so the true
    figure is somewhat larger.
    """
    if mcnemar_power(n, discordance, discordance, alpha) < power:
        return None
    root = optimize.brentq(
        lambda gain: mcnemar_power(n, discordance, gain, alpha) - power, 0, discordance, xtol=1e-6
    )
    return 100 * float(root)


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation over seeds (n - 1 in the denominator); None for a single seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
