"""What the report speaks of: the rows of a track and all that is compared, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spatialbench.evaluation.measures import Measures
from spatialbench.report.claims import Claim, read_claims
from spatialbench.report.differences import Differences
from spatialbench.report.measures import measures_of
from spatialbench.report.stored_rows import Reported, Row
from spatialbench.report.table import read_papers, stored_rows
from spatialbench.results.curves import Curve, read_curves
from spatialbench.results.files import STORED_BUDGET, result_path
from spatialbench.results.stale import Today


@dataclass(frozen=True)
class Material:
    """The rows of a track and what belongs to them.

    Attributes:
        rows: at least one, in the order of the table.
        papers: the papers' numbers; those of rows that are not there, too.
        measures, selection: name of a row -> its measures, of the rows that have some.
        claims: of this track.
        differences: of the rows.
        curves: name of a row -> seed -> name of a curve -> its points, of the rows that have some kept.
        benchmarks: the folder of the pages. runs: of the run folders, which may be gone.
    """

    rows: Sequence[Row]
    papers: Sequence[Reported]
    measures: Mapping[str, Measures]
    selection: Mapping[str, Measures]
    claims: Sequence[Claim]
    differences: Differences
    curves: Mapping[str, dict[int, dict[str, Curve]]]
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
    ) -> Material:
        """Reads and recounts everything of a track.

        Raises:
            SpatialbenchError: no rows, a damaged row, rows of different data, a wrong file of papers or claims.
        """
        rows = stored_rows(results, benchmarks, track, budget)
        measures, selection = measures_of(results, rows), measures_of(results, rows, "selection")
        claims = read_claims(results / "claims.yaml", Today.read(benchmarks).tracks)
        own = [claim for claim in claims if claim.track == track]
        differences = Differences(rows, measures, selection)
        paths = {
            row.result.name: result_path(results, track, budget, row.result.name) for row in rows
        }
        curves = {row.result.name: read_curves(paths[row.result.name], row.result) for row in rows}
        return cls(
            rows,
            read_papers(results),
            measures,
            selection,
            own,
            differences,
            curves,
            benchmarks,
            runs,
        )

    @property
    def track(self) -> str:
        return self.rows[0].result.track

    @property
    def budget(self) -> str:
        return self.rows[0].result.budget

    @property
    def names(self) -> list[str]:
        """Of the rows."""
        return [row.result.name for row in self.rows]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Name of a row -> its number, from 1; what figures and matrices call it."""
        return {name: number for number, name in enumerate(self.names, 1)}

    def run_folder(self, row: Row, place: int) -> Path:
        """The folder of a row's run; see ``spatialbench/runs.py``.

        Args:
            place: of the seed.
        """
        result = row.result
        run = result.runs[place]
        folder = self.runs / result.track / result.budget / result.name / run.config_hash[:8]
        return folder / f"seed{run.seed}"
