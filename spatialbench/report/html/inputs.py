"""The inputs of the report: the rows of a track and all that is compared, read once.

The rest of this folder sees the statistics of ``spatialbench.report`` only through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from spatialbench.evaluation.measures import SELECTION, Measures
from spatialbench.evaluation.measures import TITLES as MEASURE_TITLES
from spatialbench.evaluation.statistics import COLUMNS, spread, verdict
from spatialbench.report.claims import Claim, Verdict, judge, read_claims
from spatialbench.report.compare import Pair, judged_pairs
from spatialbench.report.differences import Differences, Gain
from spatialbench.report.measures import EXPLANATION, measures_of
from spatialbench.report.selection import EXPLANATION as SELECTION_EXPLANATION
from spatialbench.report.selection import SCORERS
from spatialbench.report.stored_rows import Reported, Row
from spatialbench.report.table import TITLES as COLUMN_TITLES
from spatialbench.report.table import notes, read_papers, stored_rows
from spatialbench.results.curves import Curve, read_curves, read_metrics
from spatialbench.results.files import STORED_BUDGET, result_path
from spatialbench.results.stale import Today

__all__ = ["COLUMNS", "EXPLANATIONS", "SCORERS", "TITLES", "ReportInputs", "Row", "Value"]

TITLES = {**COLUMN_TITLES, **MEASURE_TITLES}
"""Column or measure -> heading."""
EXPLANATIONS = {"measures": EXPLANATION, "selection": SELECTION_EXPLANATION}
"""Kind of measures -> Markdown."""


class Value(NamedTuple):
    """A percentage of a row: mean and standard deviation over seeds, and the 95 % interval."""

    mean: float | None
    deviation: float | None
    interval: Sequence[float] | None


@dataclass(frozen=True)
class ReportInputs:
    """The rows of a track and what belongs to them.

    Attributes:
        rows: at least one, in the order of the table.
        papers: the papers' numbers, also those without a row of ours.
        measures, selection: name of a row -> its measures, of the rows that have some.
        claims: about this track.
        differences: between the rows.
        kept_curves: name of a row -> seed -> name of a curve -> its points.
        benchmarks: folder of the pages.
        runs: folder of the run folders, which may be gone.
    """

    rows: Sequence[Row]
    papers: Sequence[Reported]
    measures: Mapping[str, Measures]
    selection: Mapping[str, Measures]
    claims: Sequence[Claim]
    differences: Differences
    kept_curves: Mapping[str, dict[int, dict[str, Curve]]]
    benchmarks: Path
    runs: Path

    @classmethod
    def read(
        cls,
        results: Path,
        benchmarks: Path,
        track: str,
        budget: str = STORED_BUDGET,
        runs: Path = Path("runs"),
    ) -> ReportInputs:
        """Read and recount everything of a track.

        Raises:
            SpatialbenchError: no rows, a damaged file, or rows of different data.
        """
        rows = stored_rows(results, benchmarks, track, budget)
        measures, selection = measures_of(results, rows), measures_of(results, rows, "selection")
        claims = read_claims(results / "claims.yaml", Today.read(benchmarks).tracks)
        own = [claim for claim in claims if claim.track == track]
        curves = {}
        for row in rows:
            path = result_path(results, track, budget, row.result.name)
            curves[row.result.name] = read_curves(path, row.result)
        differences, papers = Differences(rows, measures, selection), read_papers(results)
        return cls(rows, papers, measures, selection, own, differences, curves, benchmarks, runs)

    @property
    def names(self) -> list[str]:
        """Names of the rows."""
        return [row.result.name for row in self.rows]

    @property
    def track(self) -> str:
        """Name of the track."""
        return self.rows[0].result.track

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Name of a row -> its number from 1, by which figures and matrices call it."""
        return {name: number for number, name in enumerate(self.names, 1)}

    def notes(self) -> list[str]:
        """Return the lines below the table."""
        return [line for line in notes(self.rows) if line]

    def run_folder(self, row: Row, place: int) -> Path:
        """Return the run folder of the seed at a place; see ``results/run_folder.py``."""
        result, run = row.result, row.result.runs[place]
        folder = self.runs / result.track / result.budget / result.name / run.config_hash[:8]
        return folder / f"seed{run.seed}"

    def curves(self, row: Row) -> Mapping[int, Mapping[str, Curve]]:
        """Seed -> its curves: those kept beside the row, else those of the run folders."""
        if kept := self.kept_curves.get(row.result.name):
            return kept
        found = {}
        for place, run in enumerate(row.result.runs):
            path = self.run_folder(row, place) / "metrics.jsonl"
            if path.is_file() and (known := read_metrics(path)):
                found[run.seed] = known
        return found

    def accuracy(self, row: Row, column: str) -> Value:
        """Return the accuracy of a row in one of ``COLUMNS``."""
        result = row.result
        return Value(result.accuracy[column], result.spread()[column], result.interval[column])

    def measured(self, row: Row, kind: str = "measures") -> dict[str, Value]:
        """Name -> value of the measures, or ``selection``, of a row; empty where it has none."""
        stated = getattr(row.result, kind)
        if stated is None:
            return {}
        measures = getattr(self, kind)[row.result.name]
        return {
            name: Value(mean, spread(measures.seed_values(name).tolist()), stated.interval[name])
            for name, mean in stated.value.items()
        }

    def measure_names(self) -> list[str]:
        """Return the measures, without those of image selection, that some row has."""
        known = {name for measures in self.measures.values() for name in measures.ratios}
        return [name for name in MEASURE_TITLES if name in known and name not in SELECTION]

    def best(self, column: str) -> str | None:
        """Return the best row of a column or measure, where it can be told from the second."""
        if column in COLUMNS:
            return self.differences.best(column)
        known = self.selection if column in SELECTION else self.measures
        values = {row: m.values()[column] for row, m in known.items() if column in m.ratios}
        first, *others = sorted(values, key=lambda row: -values[row])
        gain = self.gain(first, others[0], column) if others else None
        return first if gain is not None and verdict(gain.interval) == "better" else None

    def gain(self, row: str, than: str, column: str) -> Gain | None:
        """Return the paired difference of two rows; None where one has no such number."""
        return self.differences.between(row, than, column)

    def pairs(self, column: str) -> list[Pair]:
        """Judge every pair of rows in a column as ``spatialbench compare --all`` does."""
        return judged_pairs(self.rows, column, self.differences)[0]

    def judged_claims(self) -> list[Verdict]:
        """Judge the claims of ``results/claims.yaml`` about this track."""
        return [judge(claim, self.rows, self.differences) for claim in self.claims]
