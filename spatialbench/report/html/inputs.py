"""The inputs of the report: the rows of a track and all that is compared, read once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from spatialbench.evaluation.base import Evaluation
from spatialbench.report.claims import Claim, headings_of, read_claims
from spatialbench.report.compare import Pair, judged_pairs
from spatialbench.report.differences import Differences
from spatialbench.report.rows import Reported, evaluation_classes, read_papers, stored_rows
from spatialbench.results.curves import Curve, read_curves, read_metrics
from spatialbench.results.files import STORED_BUDGET, Row, result_path
from spatialbench.results.schema import PAIRS
from spatialbench.results.stale import Today


@dataclass(frozen=True)
class ReportInputs:
    """The rows of a track and what belongs to them."""

    rows: Sequence[Row]  # at least one, in the order of the table
    papers: Sequence[Reported]  # also those without a row of ours
    classes: Mapping[str, type[Evaluation]]  # the track's evaluations, the pair test first
    claims: Sequence[Claim]  # about this track
    front: Sequence[str]  # the rows of the front table
    differences: Differences
    kept_curves: Mapping[str, dict[int, dict[str, Curve]]]  # row -> seed -> name of a curve
    benchmarks: Path
    runs: Path  # folder of the run folders, which may be gone

    @classmethod
    def read(
        cls,
        results: Path,
        benchmarks: Path,
        track: str,
        budget: str = STORED_BUDGET,
        runs: Path = Path("runs"),
    ) -> Self:
        """Read and recount everything of a track.

        Raises:
            SpatialbenchError: no rows, a damaged file, or rows of different data.
        """
        rows = stored_rows(results, benchmarks, track, budget)
        tracks = Today.read(benchmarks).tracks
        claims = read_claims(results / "claims.yaml", tracks, budget)
        own = [claim for claim in claims if claim.track == track]
        paths = {row.name: result_path(results, track, budget, row.name) for row in rows}
        curves = {row.name: read_curves(paths[row.name], row.result) for row in rows}
        today = tracks.get(track)
        known, front = evaluation_classes(today, budget), today.front if today else ()
        papers, differences = read_papers(results), Differences(rows)
        return cls(rows, papers, known, own, front, differences, curves, benchmarks, runs)

    @cached_property
    def headings(self) -> dict[str, str]:
        """Measure -> heading, of all evaluations."""
        return headings_of(self.classes)

    @property
    def others(self) -> list[str]:
        """Names of the evaluations other than the pairs that a row has."""
        known = {name for row in self.rows for name in row.evidence}
        return [name for name in self.classes if name in known and name != PAIRS]

    @property
    def track(self) -> str:
        """Name of the track."""
        return self.rows[0].result.track

    @cached_property
    def names(self) -> list[str]:
        """Names of the rows."""
        return [row.name for row in self.rows]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Name of a row -> its number from 1, by which figures and matrices call it."""
        return {name: number for number, name in enumerate(self.names, 1)}

    def run_folder(self, row: Row, place: int) -> Path:
        """Return the run folder of the seed at this place."""
        result, run = row.result, row.result.runs[place]
        folder = self.runs / result.track / result.budget / result.name / run.config_hash[:8]
        return folder / f"seed{run.seed}"

    def curves(self, row: Row) -> Mapping[int, Mapping[str, Curve]]:
        """Seed -> its curves: those kept beside the row, else those of the run folders."""
        if kept := self.kept_curves.get(row.name):
            return kept
        curves = {}
        for place, run in enumerate(row.result.runs):
            path = self.run_folder(row, place) / "metrics.jsonl"
            if path.is_file() and (known := read_metrics(path)):
                curves[run.seed] = known
        return curves

    def pairs(self, column: str) -> list[Pair]:
        """Judge every pair of rows in a column as ``spatialbench compare --all`` does."""
        return judged_pairs(self.rows, column, self.differences)
