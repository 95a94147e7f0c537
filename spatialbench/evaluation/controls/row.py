"""A control as a row: what it answered, what it must, and whether that holds.

Exact controls have counts that are known before anything is scored; another count is a fault of the data, of the
scoring or of the arithmetic, and no number of the table can be trusted. Of the others the interval says what they are.

Letters: N records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.pairs import Count, count
from spatialbench.evaluation.statistics import COLUMNS, Resampler, accuracy, intervals
from spatialbench.utils.errors import SpatialbenchError

CHANCE = 50.0
SIDES = ("left", "right")
SWAP = "left and right, labels exchanged, minus the page itself"
REST = "the other relations, minus the page itself"
ABOVE = "left and right of the page itself, minus 50"
"""The differences of the control ``mirrored``: where ``ABOVE`` holds 0, a page has nothing that could swap."""


class BrokenControl(SpatialbenchError):
    """An exact control has not the counts that it must have: the run fails."""


class Made(NamedTuple):
    """A control as it was scored.

    Attributes:
        name: for instance ``constant``.
        page: whose model was asked; empty for a scorer without a model.
        about: what it is, for people.
        margins: float [N].
        expected: relation -> the counts that it must have; a relation that is left out may have any. None: not exact.
    """

    name: str
    page: str
    about: str
    margins: np.ndarray
    expected: Mapping[str, Count] | None = None


@dataclass(frozen=True)
class ControlRow:
    """A control in a file.

    Attributes:
        name, page, about: as in ``Made``.
        expected: likewise.
        relations: relation -> counts, all six.
        accuracy, interval: column -> percent, and its 95 % interval over scenes; None for a relation without records.
        differences: of ``mirrored`` ``SWAP``, ``REST`` and ``ABOVE``: points, low, high; else none.
    """

    name: str
    page: str
    about: str
    expected: dict[str, Count] | None
    relations: dict[str, Count]
    accuracy: dict[str, float | None]
    interval: dict[str, list[float] | None]
    differences: dict[str, list[float]]

    @property
    def verdict(self) -> str:
        """In a few words."""
        if self.expected is not None:
            return "exact, holds"
        if self.differences:
            none = {name: low <= 0 <= high for name, (_, low, high) in self.differences.items()}
            sides = "at chance" if none.get(ABOVE) else "swap" if none.get(SWAP) else "do not swap"
            return f"left, right {sides}; the others {'stay' if none.get(REST, True) else 'change'}"
        if self.name == OWN:
            return "the page itself"
        bounds = self.interval["all"]
        return (
            "contains 50"
            if bounds is None or bounds[0] <= CHANCE <= bounds[1]
            else "does not contain 50"
        )


OWN = "as it is"
"""The page's own answers, beside which its controls stand."""


def row_of(
    made: Made, own: np.ndarray | None, relation: np.ndarray, cluster: np.ndarray
) -> ControlRow:
    """Counts and intervals of a control.

    Args:
        own: float [N], the margins of the page itself, for the differences of ``mirrored``.
        relation, cluster: str [N].
    """
    found = accuracy(made.margins, relation)
    bounds = intervals(Resampler(relation, cluster).columns(made.margins))
    return ControlRow(
        name=made.name,
        page=made.page,
        about=made.about,
        expected=None if made.expected is None else dict(made.expected),
        relations=dict(count(made.margins, relation).relations),
        accuracy={
            name: None if np.isnan(value) else round(value, 4) for name, value in found.items()
        },
        interval={
            name: None if pair is None else [round(b, 3) for b in pair]
            for name, pair in bounds.items()
        },
        differences=_differences(made, own, relation, cluster),
    )


def _differences(
    made: Made, own: np.ndarray | None, relation: np.ndarray, cluster: np.ndarray
) -> dict[str, list[float]]:
    if made.name != "mirrored" or own is None:
        return {}
    side, level, found = np.isin(relation, SIDES), np.zeros_like(own), {}
    pairs = {
        SWAP: (side, -made.margins, own),
        REST: (~side, made.margins, own),
        ABOVE: (side, own, level),
    }
    for name, (some, a, b) in pairs.items():  # a scorer without an opinion is at 50
        if some.any():
            pair = Resampler(relation[some], cluster[some]).difference(a[some], b[some])
            gain, bounds = pair.gain["all"], pair.interval["all"]
            assert bounds is not None, "there are records"
            found[name] = [round(value, 3) for value in (gain, *bounds)]
    return found


def check(rows: Sequence[ControlRow], where: str = "") -> None:
    """Whether every exact control holds.

    Raises:
        BrokenControl: the first that does not, and how many there are.
    """
    broken = [line for row in rows for line in _broken(row)]
    if broken:
        more = f" ({len(broken) - 1} more such)" if len(broken) > 1 else ""
        raise BrokenControl(
            f"{where}broken control: {broken[0]}{more}; no number of this test can be trusted"
        )


def _broken(row: ControlRow) -> list[str]:
    lines = []
    for relation, wanted in (row.expected or {}).items():
        found = row.relations[relation]
        if found != wanted:
            whose = f" of {row.page}" if row.page else ""
            lines.append(
                f"{row.name}{whose} has {_shown(found)} on {relation} and must have {_shown(wanted)}"
            )
    return lines


def _shown(counts: Count) -> str:
    return f"{counts.accuracy:.2f} ({counts.correct} right, {counts.ties} ties of {counts.n})"


# ------------------------------------------------------------------------------------------------ what must come out
def all_ties(sizes: Mapping[str, int]) -> dict[str, Count]:
    """Every record a tie: exactly 50."""
    return {relation: Count(n, 0, n) for relation, n in sizes.items()}


def all_right(sizes: Mapping[str, int], relations: Sequence[str]) -> dict[str, Count]:
    """Every record of ``relations`` right: exactly 100."""
    return {relation: Count(sizes[relation], sizes[relation], 0) for relation in relations}


def mirror(counts: Mapping[str, Count], relations: Sequence[str] = RELATIONS) -> dict[str, Count]:
    """100 minus the accuracy of ``relations``, ties kept; the other relations as they are."""
    return {
        name: Count(found.n, found.n - found.correct - found.ties, found.ties)
        if name in relations
        else found
        for name, found in counts.items()
    }


def half(counts: Mapping[str, Count]) -> dict[str, Count]:
    """Exactly 50 beside as many ties as there are."""
    return {
        name: Count(found.n, (found.n - found.ties) // 2, found.ties)
        for name, found in counts.items()
    }


assert set(SIDES) < set(RELATIONS) < set(COLUMNS)
