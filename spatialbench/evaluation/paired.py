"""Paired tests of two rows: do they differ by more than chance?

Records are not independent trials, for three reasons:

- **Records of one scene** share its image. The tests swap the two rows in whole scenes
  (``sign_flip``); McNemar's test takes records as independent and finds too much.
- **Several seeds** answer the same records, which adds no records. The tests average a record over
  its seeds first; McNemar's test is made for each seed alone.
- **Seeds are few**, and others would give other models. No exact test covers that: a sign flip of S
  whole seeds has 2^S outcomes. So a verdict also needs the bootstrap interval, which draws seeds.

Letters: S seeds, N records or U units, G groups, C clusters (scenes or images), B flips.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.bootstrap import cluster_sums
from spatialbench.evaluation.ratio import Ratio, correctness, mean_of_ratios
from spatialbench.evaluation.statistics import McNemar, mcnemar, smallest_detectable_gain

TESTED = (*RELATIONS, "all")
"""The columns that are tested; the macro average has an interval only."""
FLIPS, FLIP_SEED = 10_000, 20240
_AT_ONCE = 1000  # flips


class PairedTest(NamedTuple):
    """Tests of row a against row b in one column of n records."""

    n: int
    won: float  # percent of the records that only a has right, mean over seeds; a tie counts half
    lost: float  # that only b has right; won minus lost is the difference of the accuracies
    p: float  # of ``sign_flip``
    holm: float  # p corrected for the six relations; for All, p itself
    seeds: tuple[McNemar, ...]  # of each seed; empty if the rows have different numbers of seeds

    @property
    def smallest(self) -> float | None:
        """Smallest gain in points that one seed can show at this n and disagreement."""
        discordance = (self.won + self.lost) / 100
        return smallest_detectable_gain(self.n, discordance) if discordance else None


def paired_tests(
    a: np.ndarray, b: np.ndarray, relation: np.ndarray, cluster: np.ndarray
) -> dict[str, PairedTest]:
    """Test the six relations and All; a relation without records is left out.

    The six relations are one family (Holm 1979). All is one question asked beforehand, so it is not
    corrected.

    Args:
        a: margins, float [S_a, N].
        b: margins of the same records, float [S_b, N]; seed k of a is paired with seed k of b.
        relation: str [N].
        cluster: scene of each record, [N].
    """
    chosen = {name: (relation == name) | (name == "all") for name in TESTED}
    chosen = {name: mask for name, mask in chosen.items() if mask.any()}
    p = {name: sign_flip(a[:, mask], b[:, mask], cluster[mask]) for name, mask in chosen.items()}
    family = [name for name in p if name != "all"]
    adjusted = {**p, **dict(zip(family, holm([p[name] for name in family]), strict=True))}
    return {
        name: _test(a[:, mask], b[:, mask], p[name], adjusted[name])
        for name, mask in chosen.items()
    }


def _test(a: np.ndarray, b: np.ndarray, p: float, adjusted: float) -> PairedTest:
    won, lost = disagreement(a, b)
    seeds = tuple(mcnemar(*pair) for pair in zip(a, b, strict=True)) if len(a) == len(b) else ()
    return PairedTest(a.shape[1], won, lost, p, adjusted, seeds)


def disagreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Percent of the records [S, N] that only ``a`` has right, and that only ``b`` has.

    Mean over seed k of a against seed k of b; over all pairs of seeds if their numbers differ.
    """
    first, second = correctness(a), correctness(b)
    lead = first - second if len(a) == len(b) else first[:, None] - second[None]
    return 100 * float(np.maximum(lead, 0).mean()), 100 * float(np.maximum(-lead, 0).mean())


def sign_flip(a: np.ndarray, b: np.ndarray, cluster: np.ndarray) -> float:
    r"""Exact two-sided p-value of swapping two rows scene by scene.

    With :math:`d_i` the correctness of record i in a minus that in b, each a mean over seeds, and
    :math:`D_c = \sum_{i \in c} d_i`: if the rows were equal, every :math:`D_c` could as well have
    the other sign.

    .. math:: p = P( |\textstyle\sum_c \epsilon_c D_c| \ge |\sum_c D_c| ),
              \quad \epsilon_c = \pm 1 \text{ with equal probability}

    All :math:`2^C` signs are counted, not drawn: the :math:`D_c` are multiples of 1 / (2 S), so the
    distribution of the sum is built up coin by coin. With one record a scene, one seed and no tie
    this is McNemar's exact test.

    Args:
        a, b: margins of the same records, float [S_a, N] and [S_b, N].
        cluster: scene of each record, [N].

    Source: Fisher, The Design of Experiments, 1935, section 21.
    """
    unit = 2 * math.lcm(len(a), len(b))
    lead = np.rint(unit * (correctness(a).mean(0) - correctness(b).mean(0)))
    _, codes = np.unique(cluster, return_inverse=True)
    sums = np.bincount(codes, lead).astype(np.int64)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    sums //= np.gcd.reduce(sums)
    sizes = np.sort(np.abs(sums))
    share = np.ones(1)  # share[w]: probability that the sums that count for a add up to w
    for size in sizes.tolist():
        longer = np.zeros(len(share) + size)
        longer[: len(share)] = share
        longer[size:] += share
        share = longer / 2
    total = int(sizes.sum())
    extreme = np.abs(total - 2 * np.arange(total + 1)) >= abs(int(sums.sum()))
    return min(1.0, float(share[extreme].sum()))


def sign_flip_ratio(a: Ratio, b: Ratio, clusters: np.ndarray, flips: int = FLIPS) -> float:
    r"""Monte-Carlo two-sided p-value of swapping two rows cluster by cluster, for any measure.

    The statistic t is the difference of (1) of ``ratio.py`` between the rows, numerators and
    denominators averaged over seeds. Each of B flips swaps the rows in clusters chosen at random.

    .. math:: p = \frac{1 + |\{b : |t_b| \ge |t|\}|}{1 + B}

    Args:
        a, b: the measure of two rows on the same units, [S_a, U, G] and [S_b, U, G].
        clusters: str [U].

    Source: Phipson and Smyth, "Permutation p-values should never be zero", 2010.
    """
    names, codes = np.unique(clusters, return_inverse=True)
    seeds = math.lcm(len(a.numerator), len(b.numerator))  # sums of integers stay integers
    rows = [
        np.stack([cluster_sums(part, codes, len(names)).sum(1) for part in row], 1)  # [C, 2, G]
        * (seeds // len(row.numerator))
        for row in (a, b)
    ]
    (mine, theirs), lead = (row.sum(0) for row in rows), rows[0] - rows[1]
    lead = lead[lead.any((1, 2))]  # the other clusters change nothing

    def statistic(swapped: np.ndarray) -> np.ndarray:
        """Differences [B] when what ``swapped`` [B, 2, G] holds moves from a to b."""
        first, second = mine - swapped, theirs + swapped
        return mean_of_ratios(*first.swapaxes(0, 1)) - mean_of_ratios(*second.swapaxes(0, 1))

    observed, extreme = abs(statistic(np.zeros((1, *mine.shape)))[0]), 0
    for signs in _signs(len(lead), flips):
        swapped = (signs @ lead.reshape(len(lead), mine.size)).reshape(-1, *mine.shape)
        extreme += int((np.abs(statistic(swapped)) >= observed - 1e-9).sum())
    return (1 + extreme) / (1 + flips)


def _signs(clusters: int, flips: int) -> Iterator[np.ndarray]:
    """Draw 0 or 1 for each cluster and flip, float64 [b, C], from raw words as in ``draws``."""
    words = np.random.PCG64(np.random.SeedSequence((FLIP_SEED, 2)))
    for start in range(0, flips, _AT_ONCE):
        count = min(_AT_ONCE, flips - start)
        bits = np.unpackbits(words.random_raw(-(-count * clusters // 64)).view(np.uint8))
        yield bits[: count * clusters].reshape(count, clusters).astype(np.float64)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for multiple tests: the family-wise error stays at the level.

    The smallest of m p-values is multiplied by m, the next by m - 1, and none is below the one
    before it (Holm, Scandinavian Journal of Statistics 1979). statsmodels' multipletests gives the
    same numbers but runs the garbage collector on every call.
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(order))
    steps = np.asarray(p)[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return corrected.tolist()
