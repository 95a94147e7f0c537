"""The inputs of the report: the rows of a track and all that is compared, read once.

The rest of this folder sees the statistics of ``spatialbench.report`` only through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.pairs import COLUMNS, PairEvaluation
from spatialbench.evaluation.statistics import verdict
from spatialbench.report.claims import Claim, Verdict, headings_of, judge, read_claims
from spatialbench.report.compare import Pair, judged_pairs
from spatialbench.report.differences import Differences, Gain
from spatialbench.report.evaluation_table import headings_of as evaluation_headings
from spatialbench.report.evaluation_table import notes
from spatialbench.report.rows import Reported, evaluation_classes, read_papers, stored_rows
from spatialbench.results.curves import Curve, read_curves, read_metrics
from spatialbench.results.files import STORED_BUDGET, Row, result_path
from spatialbench.results.schema import PAIRS
from spatialbench.results.stale import Today

__all__ = ["COLUMNS", "PAIRS", "ReportInputs", "Row", "Value"]


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
        classes: name -> class of the track's evaluations, the pair test first.
        claims: about this track.
        differences: between the rows.
        kept_curves: name of a row -> seed -> name of a curve -> its points.
        benchmarks: folder of the pages.
        runs: folder of the run folders, which may be gone.
    """

    rows: Sequence[Row]
    papers: Sequence[Reported]
    classes: Mapping[str, type[Evaluation]]
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
        tracks = Today.read(benchmarks).tracks
        classes = {name: evaluation_classes(found, budget) for name, found in tracks.items()}
        headings = {name: headings_of(found) for name, found in classes.items()}
        claims = read_claims(results / "claims.yaml", headings)
        own = [claim for claim in claims if claim.track == track]
        curves = {}
        for row in rows:
            path = result_path(results, track, budget, row.name)
            curves[row.name] = read_curves(path, row.result)
        known = classes.get(track, {PAIRS: PairEvaluation})
        papers, differences = read_papers(results), Differences(rows)
        return cls(rows, papers, known, own, differences, curves, benchmarks, runs)

    @cached_property
    def headings(self) -> dict[str, str]:
        """Measure -> heading, of all evaluations."""
        return headings_of(self.classes)

    @cached_property
    def others(self) -> dict[str, dict[str, str]]:
        """Evaluation beside the pairs that a row has -> its measures and their headings."""
        found = {}
        for name, cls in self.classes.items():
            if name != PAIRS and any(name in row.evidence for row in self.rows):
                found[name] = evaluation_headings(self.rows, name, cls)
        return found

    @property
    def names(self) -> list[str]:
        """Names of the rows."""
        return [row.name for row in self.rows]

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
        return [line for line in notes(self.rows, PAIRS, PairEvaluation) if line]

    def run_folder(self, row: Row, place: int) -> Path:
        """Return the run folder of the seed at a place; see ``results/run_folder.py``."""
        result, run = row.result, row.result.runs[place]
        folder = self.runs / result.track / result.budget / result.name / run.config_hash[:8]
        return folder / f"seed{run.seed}"

    def curves(self, row: Row) -> Mapping[int, Mapping[str, Curve]]:
        """Seed -> its curves: those kept beside the row, else those of the run folders."""
        if kept := self.kept_curves.get(row.name):
            return kept
        found = {}
        for place, run in enumerate(row.result.runs):
            path = self.run_folder(row, place) / "metrics.jsonl"
            if path.is_file() and (known := read_metrics(path)):
                found[run.seed] = known
        return found

    def value(self, row: Row, measure: str, evaluation: str = PAIRS) -> Value:
        """Return the value of a row in a measure of an evaluation."""
        stored = row.result.evaluations.get(evaluation)
        if stored is None or measure not in stored.value:
            return Value(None, None, None)
        spread = row.evidence[evaluation].spread(measure)
        return Value(stored.value[measure], spread, stored.interval[measure])

    def best(self, measure: str, evaluation: str = PAIRS) -> str | None:
        """Return the best row in a measure, where it can be told from the second."""
        if evaluation == PAIRS:
            return self.differences.best(measure)
        means = {row.name: self.value(row, measure, evaluation).mean for row in self.rows}
        known = {name: mean for name, mean in means.items() if mean is not None}
        first, *others = sorted(known, key=lambda name: -known[name])
        gain = self.gain(first, others[0], measure) if others else None
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
