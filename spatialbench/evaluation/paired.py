"""Two rows record by record: where they disagree, and whether that is chance.

Three things make records that are no independent trials, and each has its remedy here:

- **Records of one scene** share its picture. The test exchanges the two rows in whole scenes (``sign_flip``); McNemar's
  test, which takes records as independent, finds too much where they are not.
- **Several seeds** answer the same records. They are no new records: the test averages a record over its seeds first,
  and McNemar's test is made for each seed alone, never for the seeds poured together.
- **The seeds are few**, and another draw of them would give other models. No exact test speaks about that: with S seeds
  a sign flip of whole seeds has 2^S outcomes, so that p is never below 2^(1-S). The bootstrap interval draws them, and
  a verdict needs both: p says that these models differ on other scenes, the interval that other seeds do, too.

Letters: S seeds, N records, C clusters (scenes or images).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.statistics import (
    McNemar,
    correctness,
    mcnemar,
    smallest_detectable_gain,
)

TESTED = (*RELATIONS, "all")
"""The columns that are tested: the macro average has an interval only."""


class PairedTest(NamedTuple):
    """What the records of one column say about row a beside row b.

    Attributes:
        n: records.
        won: percent of the records that a has right and b wrong, a mean over seeds; a tie counts half, so that won
            minus lost is the difference of the accuracies. lost: the reverse.
        p: of ``sign_flip``. holm: the same, corrected for the six relations; p itself for All.
        seeds: exact McNemar test of each seed; empty where the rows differ in their number of seeds.
        smallest: smallest gain in points that one seed can show at this n and disagreement; None where none can.
    """

    n: int
    won: float
    lost: float
    p: float
    holm: float
    seeds: tuple[McNemar, ...]
    smallest: float | None


def paired_tests(
    a: np.ndarray, b: np.ndarray, relation: np.ndarray, cluster: np.ndarray
) -> dict[str, PairedTest]:
    """Tests of the six relations and of All; a relation without records has none.

    The six are one family (Holm 1979); All is the one question that was asked beforehand, and stands alone.

    Args:
        a: float [S_a, N], margins. b: float [S_b, N], of the same records in the same order; seed k of one is beside
            seed k of the other.
        relation: str [N]. cluster: [N], the scene of each record.
    """
    chosen = {
        name: np.ones(len(relation), bool) if name == "all" else relation == name for name in TESTED
    }
    chosen = {name: mask for name, mask in chosen.items() if mask.any()}
    found = {
        name: sign_flip(a[:, mask], b[:, mask], cluster[mask]) for name, mask in chosen.items()
    }
    family = [name for name in found if name != "all"]
    adjusted = {**found, **dict(zip(family, holm([found[name] for name in family]), strict=True))}
    return {
        name: _test(a[:, mask], b[:, mask], found[name], adjusted[name])
        for name, mask in chosen.items()
    }


def _test(a: np.ndarray, b: np.ndarray, p: float, adjusted: float) -> PairedTest:
    won, lost = disagreement(a, b)
    n, discordance = a.shape[1], (won + lost) / 100
    smallest = smallest_detectable_gain(n, discordance) if discordance else None
    seeds = tuple(mcnemar(*pair) for pair in zip(a, b, strict=True)) if len(a) == len(b) else ()
    return PairedTest(n, won, lost, p, adjusted, seeds, smallest)


def disagreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Percent of the records that only ``a`` has right, and that only ``b`` has; a mean over every seed of a beside
    every seed of b where the numbers of seeds differ, else over seed k beside seed k.

    Args:
        a, b: float [S_a, N] and [S_b, N], margins.
    """
    first, second = correctness(a), correctness(b)
    lead = first - second if len(a) == len(b) else first[:, None] - second[None]
    return 100 * float(np.maximum(lead, 0).mean()), 100 * float(np.maximum(-lead, 0).mean())


def sign_flip(a: np.ndarray, b: np.ndarray, cluster: np.ndarray) -> float:
    r"""Exact two-sided p-value of the exchange of two rows, scene by scene.

    With :math:`d_i` the correctness of record i under a minus that under b, each a mean over seeds, and
    :math:`D_c = \sum_{i \in c} d_i`: were the rows equal, every :math:`D_c` could as well have had the other sign.

    .. math:: p = P( |\textstyle\sum_c \epsilon_c D_c| \ge |\sum_c D_c| ), \quad \epsilon_c = \pm 1 \text{ alike}

    All :math:`2^C` signs are counted, not drawn: the :math:`D_c` are whole multiples of 1 / (2 S), so that the
    distribution of the sum is a sum of C coins, added one by one. One record a scene, one seed and no tie is McNemar's
    exact test.

    Args:
        a, b: float [S_a, N] and [S_b, N], margins of the same records.
        cluster: [N], scene of each record.

    Source: Fisher's randomisation test of paired differences (The Design of Experiments, 1935, section 21).
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
    share = np.ones(1)  # share[w]: chance that the sums which count as a's come to w
    for size in sizes.tolist():
        longer = np.zeros(len(share) + size)
        longer[: len(share)] = share
        longer[size:] += share
        share = longer / 2
    total = int(sizes.sum())
    extreme = np.abs(total - 2 * np.arange(total + 1)) >= abs(int(sums.sum()))
    return min(1.0, float(share[extreme].sum()))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for being several: the chance of one false finding among all of them stays the level.

    The smallest of m counts m times, the next m - 1 times, and none below one before it (Holm, Scandinavian Journal of
    Statistics 1979). statsmodels' multipletests gives the same numbers, and collects the garbage of the whole process
    at every call.
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(
        1, np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(order), 0, -1))
    )
    return corrected.tolist()
