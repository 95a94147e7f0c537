"""Bootstrap over clusters and seeds.

Units of one cluster (records of a scene) are not independent and seeds are few, so the bootstrap
draws clusters and seeds, both with replacement and crossed (Owen, "The pigeonhole bootstrap",
Annals of Applied Statistics 2007). With S seeds it understates the variance between seeds by the
factor (S - 1) / S, as every bootstrap of a small sample does.

Letters: S seeds, U units, G groups, C clusters, B resamples.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from spatialbench.evaluation.ratio import Ratio, mean_of_ratios

RESAMPLES = 2000
BOOTSTRAP_SEED = 20240
LEVEL = 0.95


class Interval(NamedTuple):
    """Bounds in percent (or percentage points, for a difference)."""

    low: float
    high: float


@lru_cache(maxsize=4)  # the rows of a table draw the same scenes, 25 MB of the rooms' test
def draws(seed: tuple[int, ...], size: int, resamples: int) -> np.ndarray:
    """Count each of ``size`` items in ``size`` draws with replacement, float64 [resamples, size].

    Uses raw PCG64 words, whose stream numpy never changes (NEP 19), so every version draws alike.
    """
    words = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(resamples * size)
    items = (words % np.uint64(size)).astype(np.int64)
    cells = items + size * np.repeat(np.arange(resamples), size)
    counts = np.bincount(cells, minlength=size * resamples).reshape(resamples, size)
    counts = counts.astype(np.float64)
    counts.flags.writeable = False
    return counts


def percentiles(samples: np.ndarray, level: float = LEVEL) -> Interval | None:
    """Percentile interval of resamples [B]; None where none is finite."""
    finite, tail = samples[np.isfinite(samples)], 100 * (1 - level) / 2
    return Interval(*np.percentile(finite, [tail, 100 - tail]).tolist()) if len(finite) else None


class Resampler:
    """Bootstrap over clusters and seeds: clusters are drawn once for every row to be compared.

    Args:
        clusters: str [U].
        resamples: B; memory is 8 B C bytes for C clusters.
    """

    def __init__(self, clusters: np.ndarray, resamples: int = RESAMPLES) -> None:
        names, self.codes = np.unique(clusters, return_inverse=True)
        self.count = len(names)
        self.weights = draws((BOOTSTRAP_SEED, 0), self.count, resamples)

    def samples(self, ratio: Ratio, row: int = 0) -> np.ndarray:
        """(1) of every resample, float [B]; ``row``: the stream in which a row draws its seeds."""
        values = mean_of_ratios(*(self._sums(part) for part in ratio))  # [B, S]
        seeds = values.shape[1]
        if seeds == 1:
            return values[:, 0]
        return (values * draws((BOOTSTRAP_SEED, 1, row), seeds, len(values))).sum(1) / seeds

    def interval(self, ratio: Ratio) -> Interval | None:
        """95 % interval of a measure."""
        return percentiles(self.samples(ratio))

    def difference(
        self, a: Ratio, b: Ratio, rows: tuple[int, int] = (0, 1)
    ) -> tuple[float, Interval | None]:
        """Row ``a`` minus row ``b`` in points, and its paired interval."""
        gain = float(np.mean(a.seeds) - np.mean(b.seeds))
        return gain, percentiles(self.samples(a, rows[0]) - self.samples(b, rows[1]))

    def _sums(self, part: np.ndarray) -> np.ndarray:
        """Float [S, U, G] -> sums of every resample, float [B, S, G]."""
        sums = cluster_sums(part, self.codes, self.count)
        return (self.weights @ sums.reshape(self.count, -1)).reshape(-1, *sums.shape[1:])


def cluster_sums(part: np.ndarray, codes: np.ndarray, clusters: int) -> np.ndarray:
    """Sum units [S, U, G] by cluster -> float64 [C, S, G]; ``codes``: cluster of each unit [U]."""
    width = part.shape[0] * part.shape[2]
    cells = codes[:, None] * width + np.arange(width)
    sums = np.bincount(cells.ravel(), part.transpose(1, 0, 2).ravel(), clusters * width)
    return sums.reshape(clusters, part.shape[0], part.shape[2])
