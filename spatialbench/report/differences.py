"""Paired differences between the rows of one table.

Clusters are drawn once for all rows, and each row draws its seeds by its name, so a pair of rows
has the same interval wherever it is printed, whatever other rows there are.
"""

import zlib
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from spatialbench.evaluation.bootstrap import LEVEL, Interval, Resampler, percentiles
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.paired import TESTED, PairedTest, paired_tests, sign_flip_ratio
from spatialbench.evaluation.statistics import BETTER, SAME, verdict
from spatialbench.results.files import Row
from spatialbench.results.schema import PAIRS


class Gain(NamedTuple):
    """Row minus row in percentage points, and its paired interval, 95 % by default."""

    points: float
    interval: Interval

    @property
    def text(self) -> str:
        """``+1.2 (-0.3 to +2.7)``."""
        return f"{self.points:+.1f} ({self.interval.low:+.1f} to {self.interval.high:+.1f})"


class Differences:
    """Differences between the rows of a table, in any measure of any evaluation.

    Args:
        rows: one at least, evaluated on the same data.

    Raises:
        SpatialbenchError: rows of different records, groups or clusters.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.evidence: dict[str, dict[str, Evidence]] = {}
        """Evaluation -> row -> evidence, its units in the order of the first row."""
        for row in rows:
            for name, found in row.evidence.items():
                known = self.evidence.setdefault(name, {})
                first = next(iter(known.values()), found)
                known[row.name] = found.aligned(first)
        self._resamplers = {
            name: Resampler(next(iter(known.values())).clusters)
            for name, known in self.evidence.items()
        }
        self._samples = cache(self._draw)
        self.tests = cache(self._tests)
        """(row, than) -> column -> test of the pair test; see ``paired.paired_tests``."""

    def evaluation_of(self, measure: str) -> str | None:
        """Return the first evaluation that has a measure, the pair test before the others."""
        for name, known in sorted(self.evidence.items(), key=lambda item: item[0] != PAIRS):
            if any(measure in found.ratios for found in known.values()):
                return name
        return None

    def between(
        self,
        row: str,
        than: str,
        measure: str,
        evaluation: str | None = None,
        level: float = LEVEL,
    ) -> Gain | None:
        """Return ``row`` minus ``than`` in an evaluation, by default the first with the measure.

        None where one of them has no number. ``level``: of the interval.
        """
        evaluation = evaluation or self.evaluation_of(measure)
        known = self.evidence.get(evaluation or "", {})
        a, b = known.get(row), known.get(than)
        if a is None or b is None or measure not in a.ratios or measure not in b.ratios:
            return None
        samples = [self._samples(name, measure, evaluation) for name in (row, than)]
        interval = percentiles(samples[0] - samples[1], level)
        points = float(np.mean(a.seed_values(measure)) - np.mean(b.seed_values(measure)))
        return None if interval is None else Gain(points, interval)

    def p(
        self, row: str, than: str, measure: str, evaluation: str, corrected: bool = True
    ) -> float:
        """Return the p-value of swapping two rows cluster by cluster.

        ``corrected`` (Holm) where the measure is one of the six relations.
        """
        if evaluation == PAIRS and measure in TESTED:
            test = self.tests(row, than)[measure]
            return test.holm if corrected else test.p
        known = self.evidence[evaluation]
        a, b = known[row], known[than]
        return sign_flip_ratio(a.ratios[measure], b.ratios[measure], a.clusters)

    def verdict(self, row: str, than: str, measure: str, evaluation: str = PAIRS) -> str:
        """Judge a difference by its interval and its corrected test, as ``compare`` prints it."""
        gain = self.between(row, than, measure, evaluation)
        if gain is None or verdict(gain.interval) == SAME:
            return SAME
        return verdict(gain.interval, self.p(row, than, measure, evaluation))

    def cell(self, row: str, than: str, measure: str, evaluation: str = PAIRS) -> str:
        """Difference and interval in Markdown, bold where the verdict tells the rows apart."""
        gain = self.between(row, than, measure, evaluation)
        if gain is None:
            return "–"
        same = self.verdict(row, than, measure, evaluation) == SAME
        return gain.text if same else f"**{gain.text}**"

    def best(self, column: str, rows: Sequence[str]) -> str | None:
        """Return the best of ``rows`` in a pair column; None if it is like the second."""
        pairs = self.evidence.get(PAIRS, {})
        means = {name: pairs[name].values().get(column, np.nan) for name in rows if name in pairs}
        known = [name for name in means if np.isfinite(means[name])]
        order = sorted(known, key=lambda name: -means[name])
        if len(order) < 2 or self.verdict(order[0], order[1], column) != BETTER:
            return None
        return order[0]

    def _draw(self, row: str, measure: str, evaluation: str) -> np.ndarray:
        """(1) of every resample of a row, float [B]."""
        ratio = self.evidence[evaluation][row].ratios[measure]
        return self._resamplers[evaluation].samples(ratio, stream(row))

    def _tests(self, row: str, than: str) -> dict[str, PairedTest]:
        a, b = (self.evidence[PAIRS][name] for name in (row, than))
        return paired_tests(a.answers(), b.answers(), a.known_margins.group, a.clusters)


def stream(name: str) -> int:
    """Return the number of the stream in which a row draws its seeds."""
    return zlib.crc32(name.encode())
