"""Measures as means of ratios.

With numerators n and denominators d of U units and G groups,

    (1)  value = 100 / |P| sum_{g in P} ( sum_u n[u, g] / sum_u d[u, g] ),

    P the groups with sum_u d[u, g] > 0.

Pair accuracy counts correct records and records by relation, class-mean accuracy hits and regions
by class, mean IoU intersections and unions by class. A mean over images has one group and d = 1;
d = 0 where an image has no value.

Letters: S seeds, U units (records, images, image pairs), G groups.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from spatialbench.utils.errors import SpatialbenchError


class Ratio(NamedTuple):
    """Numerator and denominator of one measure, float32 [S, U, G] each."""

    numerator: np.ndarray
    denominator: np.ndarray

    @property
    def sums(self) -> Iterator[np.ndarray]:
        """Numerator and denominator of all units, float64 [S, G] each."""
        return (part.sum(1, dtype=np.float64) for part in self)

    @property
    def seeds(self) -> np.ndarray:
        """(1) of all units, percent, float [S]."""
        return mean_of_ratios(*self.sums)

    @property
    def groups(self) -> np.ndarray:
        """The terms of (1), percent, float [S, G]; NaN for a group without a denominator."""
        above, below = self.sums
        with np.errstate(invalid="ignore", divide="ignore"):
            return 100 * above / below


class Margins(NamedTuple):
    """Answers to binary questions, from which ratios follow: correct above zero, a tie at zero."""

    units: np.ndarray  # names, str [U], unique
    group: np.ndarray  # of each unit, str [U]
    values: Mapping[str, np.ndarray]  # float [S, U] by scorer; the pair test has one, named ""
    columns: tuple[str, ...]  # the groups, in the order of the tables

    def ratios(self) -> dict[str, Ratio]:
        """Accuracy of each scorer: by group, over units (``all``) and over groups (``macro``)."""
        one_hot = (self.group[:, None] == np.array(self.columns)).astype(np.float32)  # [U, G]
        parts = {name: one_hot[:, [g]] for g, name in enumerate(self.columns)}
        parts |= {"all": np.ones_like(one_hot[:, :1]), "macro": one_hot}
        return {
            f"{scorer}: {column}" if scorer else column: accuracy(margins, part)
            for scorer, margins in self.values.items()
            for column, part in parts.items()
        }


def accuracy(margins: np.ndarray, groups: np.ndarray | None = None) -> Ratio:
    """Accuracy of margins [S, U], counted in ``groups``, 0 or 1 [U, G]; in one group by default."""
    correct = correctness(margins).astype(np.float32)[..., None]  # [S, U, 1]
    if groups is None:
        return Ratio(correct, np.ones_like(correct))
    return Ratio(correct * groups, np.broadcast_to(groups, (len(margins), *groups.shape)))


def correctness(margin: np.ndarray) -> np.ndarray:
    """Return 1 where the margin is positive, 0.5 at a tie, else 0; float64 of the same shape."""
    return (margin > 0) + 0.5 * (margin == 0)


def mean_of_ratios(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """(1) from sums [..., G] -> [...]; NaN where no group has a denominator."""
    present = below > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * np.where(present, above / below, 0).sum(-1) / present.sum(-1)


def compact(margins: np.ndarray) -> np.ndarray:
    """Margins as float16; what it would round to zero becomes its smallest number of that sign."""
    small = margins.astype(np.float16)
    lost = (small == 0) & (margins != 0)
    small[lost] = np.copysign(np.finfo(np.float16).smallest_subnormal, margins[lost])
    return small


def check_margins(margins: Margins, clusters: np.ndarray) -> None:
    """Refuse margins that do not fit the clusters [U], with a strange group, or not finite."""
    if len(np.unique(margins.units)) != len(margins.units):
        raise SpatialbenchError("a record id appears twice")
    strange = sorted(set(margins.group.tolist()) - set(margins.columns))
    if strange:
        known = ", ".join(margins.columns)
        raise SpatialbenchError(f"unknown group {strange[0]!r}; known: {known}")
    if not margins.units.shape == margins.group.shape == clusters.shape:
        raise SpatialbenchError("record ids, groups and clusters differ in length")
    for values in margins.values.values():
        if values.ndim != 2 or values.shape[1:] != clusters.shape:
            raise SpatialbenchError(f"margins {values.shape} of {len(clusters)} records")
        if not np.isfinite(values).all():
            raise SpatialbenchError("a margin is not a finite number")


def checked(name: str, ratio: Ratio, units: int) -> Ratio:
    """Check a ratio; return it in float32 and C order: the same numbers are the same bytes."""
    above, below = (np.ascontiguousarray(part, dtype=np.float32) for part in ratio)
    problem = ""
    if above.ndim != 3 or above.shape != below.shape or above.shape[1] != units or not len(above):
        problem = f"{above.shape} and {below.shape} are not both [seeds, {units}, groups]"
    elif not (np.isfinite(above).all() and np.isfinite(below).all()):
        problem = "not a finite number; the training diverged"
    elif (above < 0).any() or (above > below * (1 + 1e-6)).any():
        problem = "a numerator is not between 0 and its denominator"
    elif not below.any((1, 2)).all():
        problem = "a seed without any denominator"
    if problem:
        raise SpatialbenchError(f"measure {name}: {problem}")
    return Ratio(above, below)
