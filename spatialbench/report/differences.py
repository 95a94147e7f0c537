"""Paired differences of the rows of one table, in a column of the pair table or in a measure.

Every number of the report that compares two rows comes from here: scenes are drawn once for all rows, and each row
draws its seeds by its place in the table, so that the same pair has the same interval wherever it is printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from spatialbench.evaluation.measures import MeasureResampler, Measures
from spatialbench.evaluation.statistics import COLUMNS, Interval, Resampler
from spatialbench.report.rows import Row


class Gain(NamedTuple):
    """Row minus row in percentage points, and its paired 95 % interval."""

    points: float
    interval: Interval

    @property
    def cell(self) -> str:
        """``+1.2 (-0.3 to +2.7)``; bold when the interval excludes 0."""
        text = f"{self.points:+.1f} ({self.interval.low:+.1f} to {self.interval.high:+.1f})"
        return text if self.interval.low <= 0 <= self.interval.high else f"**{text}**"


class Differences:
    """Differences between the rows of a table.

    Args:
        rows: at least one, of the same records.
        beside: what was measured beside the pairs and what was selected, each name of a row -> its measures, of the
            same pictures; rows without are left out.

    Raises:
        SpatialbenchError: rows of different records.
    """

    def __init__(self, rows: Sequence[Row], *beside: Mapping[str, Measures]) -> None:
        first = rows[0].outcomes
        self.places = {row.result.name: place for place, row in enumerate(rows)}
        self._records = Resampler(first.relation, first.cluster)
        self._margins = [row.outcomes.aligned(first) for row in rows]
        self._beside = [
            (MeasureResampler(next(iter(measures.values())).scenes), [measures.get(row.result.name) for row in rows])
            for measures in beside
            if measures
        ]

    def between(self, row: str, than: str, column: str) -> Gain | None:
        """``row`` minus ``than``; None where one of them has no number in ``column``.

        Args:
            row, than: names of rows of the table.
            column: one of ``statistics.COLUMNS``, or a measure.
        """
        first, second = places = self.places[row], self.places[than]
        if column in COLUMNS:
            found = self._records.difference(self._margins[first], self._margins[second], places)
            interval = found.interval[column]
            return None if interval is None else Gain(found.gain[column], interval)
        for pictures, measures in self._beside:
            a, b = measures[first], measures[second]
            if a is not None and b is not None and column in a.ratios and column in b.ratios:
                return Gain(*pictures.difference(a.ratios[column], b.ratios[column], places))
        return None
