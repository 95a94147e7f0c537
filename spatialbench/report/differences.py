"""Paired differences of the rows of one table, in a column of the pair table or in a measure.

Every number of the report that compares two rows comes from here: scenes are drawn once for all rows, and each row
draws its seeds by its name, so that the same pair has the same interval wherever it is printed and whatever other rows
there are.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from spatialbench.evaluation.measures import MeasureResampler, Measures
from spatialbench.evaluation.paired import TESTED, PairedTest, paired_tests
from spatialbench.evaluation.statistics import (
    COLUMNS,
    Interval,
    Resampler,
    accuracy,
    intervals,
    verdict,
)
from spatialbench.report.stored_rows import Row


class Gain(NamedTuple):
    """Row minus row in percentage points, and its paired 95 % interval."""

    points: float
    interval: Interval

    @property
    def text(self) -> str:
        """``+1.2 (-0.3 to +2.7)``."""
        return f"{self.points:+.1f} ({self.interval.low:+.1f} to {self.interval.high:+.1f})"

    @property
    def cell(self) -> str:
        """The same in Markdown; bold when the interval excludes 0."""
        return self.text if self.interval.low <= 0 <= self.interval.high else f"**{self.text}**"


class Differences:
    """Differences between the rows of a table.

    Args:
        rows: at least one, of the same records.
        beside: what was measured beside the pairs and what was selected, each name of a row -> its measures, of the
            same pictures; rows without are left out.

    Raises:
        SpatialbenchError: rows of different records, relations or scenes.
    """

    def __init__(self, rows: Sequence[Row], *beside: Mapping[str, Measures]) -> None:
        self._first = first = rows[0].outcomes
        self._records = Resampler(first.relation, first.cluster)
        self.margins = {row.result.name: row.outcomes.aligned(first) for row in rows}
        self._beside = [
            (MeasureResampler(next(iter(measures.values())).scenes), measures)
            for measures in beside
            if measures
        ]
        self._means = {
            name: accuracy(margins, first.relation) for name, margins in self.margins.items()
        }
        self._resampled: dict[str, np.ndarray] = {}
        self._tests: dict[tuple[str, str], dict[str, PairedTest]] = {}

    def between(self, row: str, than: str, column: str) -> Gain | None:
        """``row`` minus ``than``; None where one of them has no number in ``column``.

        Args:
            row, than: names of rows of the table.
            column: one of ``statistics.COLUMNS``, or a measure.
        """
        if column in COLUMNS:
            interval = intervals(self._draws(row) - self._draws(than))[column]
            points = self._means[row][column] - self._means[than][column]
            return None if interval is None else Gain(points, interval)
        for pictures, measures in self._beside:
            a, b = measures.get(row), measures.get(than)
            if a is not None and b is not None and column in a.ratios and column in b.ratios:
                places = stream(row), stream(than)
                return Gain(*pictures.difference(a.ratios[column], b.ratios[column], places))
        return None

    def tests(self, row: str, than: str) -> dict[str, PairedTest]:
        """Column -> the paired test of ``row`` beside ``than``; see ``paired.paired_tests``."""
        if (row, than) not in self._tests:
            pair = self.margins[row], self.margins[than]
            self._tests[row, than] = paired_tests(*pair, self._first.relation, self._first.cluster)
        return self._tests[row, than]

    def verdict(self, row: str, than: str, column: str) -> str:
        """``better``, ``worse`` or ``not distinguishable``: by the interval, and by the corrected test of a column that
        is tested."""
        gain = self.between(row, than, column)
        p = self.tests(row, than)[column].holm if gain is not None and column in TESTED else None
        return verdict(None if gain is None else gain.interval, p)

    def best(self, column: str) -> str | None:
        """The row with the highest accuracy in a column of the pair table; None where it cannot be told from the
        second."""
        known = [name for name, means in self._means.items() if np.isfinite(means[column])]
        order = sorted(known, key=lambda name: -self._means[name][column])
        if len(order) < 2 or self.verdict(order[0], order[1], column) != "better":
            return None
        return order[0]

    def _draws(self, row: str) -> np.ndarray:
        """Percent [B, len(COLUMNS)] of every resample of a row."""
        if row not in self._resampled:
            self._resampled[row] = self._records.columns(self.margins[row], stream(row))
        return self._resampled[row]


def stream(name: str) -> int:
    """The number by which a row draws its seeds: two rows draw theirs apart, and the same row always alike."""
    return zlib.crc32(name.encode())
