"""The table of the stored rows, and what stands below it.

Nothing here depends on the clock, the locale or the machine: the same result files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.evaluation.statistics import COLUMNS, bootstrap, smallest_detectable_gain
from spatialbench.report.differences import Differences
from spatialbench.report.stored_rows import Reported, Row, no_rows, read_reported, read_rows
from spatialbench.report.table_model import (
    Cell,
    Line,
    Sheet,
    accuracy_cell,
    check_format,
    interval_cell,
    number,
    show,
    write,
)
from spatialbench.results.files import STORED_BUDGET
from spatialbench.results.stale import Today

TITLES = {
    **{relation: relation.capitalize() for relation in RELATIONS},
    "all": "All",
    "macro": "macro",
}
DISCORDANCES = (0.1, 0.2, 0.3)


def table(
    results: str | Path = "results",
    benchmarks: str | Path = "benchmarks",
    track: str = "rooms",
    format: str = "text",
    reported: bool = False,
    budget: str = STORED_BUDGET,
) -> str:
    """The table of a track.

    Args:
        results: folder of the result files and of reported.yaml.
        benchmarks: folder of the pages and tracks, by which stale rows are found.
        format: one of ``sheet.FORMATS``.
        reported: set the papers' numbers beside ours.
        budget: ``full`` for the stored rows.

    Raises:
        SpatialbenchError: no rows, a damaged row, rows of different data, an unknown format.
    """
    check_format(format)
    rows = stored_rows(Path(results), Path(benchmarks), track, budget)
    return write(sheet_of(rows, read_papers(Path(results)) if reported else []), format)


def stored_rows(results: Path, benchmarks: Path, track: str, budget: str) -> list[Row]:
    """The rows of a track in the order of the table, at least one.

    Raises:
        SpatialbenchError: no rows, a damaged row, rows of different data.
    """
    rows = read_rows(
        results, benchmarks, track, budget, [paper.name for paper in read_papers(results)]
    )
    if not rows:
        raise no_rows(results, Today.read(benchmarks), track, budget)
    return rows


def read_papers(results: Path) -> list[Reported]:
    """results/reported.yaml; none when there is no such file."""
    path = results / "reported.yaml"
    return read_reported(path) if path.exists() else []


def stale_notes(rows: Sequence[Row]) -> list[str]:
    """One line for each row that is not what would be made today."""
    return [
        f"{row.result.name} is stale: {', '.join(row.stale)}; {row.result.command}"
        for row in rows
        if row.stale
    ]


# ----------------------------------------------------------------------------------------------------------- sheet


BEST = "Emphasis (a star in a terminal): the best of its column, where the paired test tells it from the second."
HEADER = ("", *TITLES.values(), "95 % interval of All", "seeds", "n")


def sheet_of(
    rows: Sequence[Row], papers: Sequence[Reported] = (), differences: Differences | None = None
) -> Sheet:
    """The table of rows; the best of a column is bold where it can be told from the second.

    Args:
        papers: set below the row of the same name.
        differences: of these rows; None: made here.
    """
    differences = Differences(rows) if differences is None else differences
    best = {column: differences.best(column) for column in COLUMNS}
    first = rows[0].result
    return Sheet(
        title=f"{first.track}, budget {first.budget}: accuracy in %",
        header=HEADER,
        lines=_lines(rows, papers, best),
        notes=[*notes(rows), *(["", BEST] if any(best.values()) else [])],
        data=[*map(_row_json, rows), *map(_paper_json, papers)],
        rows=_csv(rows, papers, best),
    )


def _lines(
    rows: Sequence[Row], papers: Sequence[Reported], best: Mapping[str, str | None]
) -> list[Line]:
    lines = []
    for row in rows:
        lines.append(Line(_own_cells(row, best)))
        lines += [_paper_line(paper) for paper in papers if paper.name == row.result.name]
    ours = {row.result.name for row in rows}
    return lines + [_paper_line(paper) for paper in papers if paper.name not in ours]


def _own_cells(row: Row, best: Mapping[str, str | None]) -> list[Cell | str]:
    result, spread = row.result, row.result.spread()
    cells = [
        Cell(accuracy_cell(result.accuracy[column], spread[column]), best[column] == result.name)
        for column in COLUMNS
    ]
    return [
        shown_name(row),
        *cells,
        interval_cell(result.interval["all"]),
        str(len(result.seeds)),
        str(result.n),
    ]


def _paper_line(paper: Reported) -> Line:
    cells = [
        f"{paper.name}, {paper.paper}",
        *(number(paper.column(column)) for column in COLUMNS),
        "",
        "",
        "",
    ]
    return Line(cells, paper=True)


def shown_name(row: Row) -> str:
    """The name of a row, marked where it is stale."""
    return row.result.name + (" (stale)" if row.stale else "")


def _row_json(row: Row) -> dict[str, Any]:
    """``{name, accuracy: {close, ..., all, macro}, interval, seeds, n}``: accuracy in percent, mean over seeds; the two
    bounds of the 95 % interval of All in percent; the seeds; records of the test."""
    result = row.result
    return {
        "name": result.name,
        "accuracy": result.accuracy,
        "interval": result.interval["all"],
        "seeds": result.seeds,
        "n": result.n,
    }


def _paper_json(paper: Reported) -> dict[str, Any]:
    """The same of a paper's row, without interval, and where it stands."""
    return {
        "name": paper.name,
        "accuracy": {column: _rounded(paper.column(column)) for column in COLUMNS},
        "interval": None,
        "seeds": [],
        "n": None,
        "paper": paper.paper,
        "table": paper.table,
        "row": paper.row,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _csv(
    rows: Sequence[Row], papers: Sequence[Reported], best: Mapping[str, str | None]
) -> list[list[object]]:
    """One line for each row; for every column accuracy, spread over seeds, low, high; the columns it is best in."""
    parts = [f"{column}{part}" for column in COLUMNS for part in ("", "_spread", "_low", "_high")]
    lines: list[list[object]] = [["name", "paper", *parts, "seeds", "n", "stale", "best"]]
    for row in rows:
        result, spread = row.result, row.result.spread()
        values: list[float | None] = []
        for column in COLUMNS:
            values += [
                result.accuracy[column],
                spread[column],
                *(result.interval[column] or (None, None)),
            ]
        won = " ".join(column for column in COLUMNS if best[column] == result.name)
        seeds = " ".join(map(str, result.seeds))
        lines.append([result.name, "", *values, seeds, result.n, "; ".join(row.stale), won])
    for paper in papers:
        values = [value for column in COLUMNS for value in (paper.column(column), None, None, None)]
        lines.append([paper.name, paper.paper, *values, "", "", "", ""])
    return lines


# ------------------------------------------------------------------------------------------------------------ notes


def notes(rows: Sequence[Row]) -> list[str]:
    """What stands below a table: what is stale, what the data were, what the benchmark can resolve."""
    stale = stale_notes(rows)
    return [*stale, *([""] if stale else []), fingerprint_line(rows), "", *resolution_lines(rows)]


def fingerprint_line(rows: Sequence[Row]) -> str:
    """What the rows share."""
    first = rows[0].result
    tracks = ", ".join(sorted({row.result.track_hash for row in rows}))
    return (
        f"Track {first.track} ({tracks}), budget {first.budget}, data {first.data_fingerprint}, "
        f"captions {first.grammar}; {first.n} records, chance is 50."
    )


def resolution_lines(rows: Sequence[Row]) -> list[str]:
    """The smallest gain that these numbers of records can show."""
    first = rows[0].result
    sizes = {"All": first.n}
    by_relation = sorted({count for count in first.counts.values() if count})
    for size in by_relation:
        sizes[f"a relation of {size}"] = size
    parts = []
    for name, size in sizes.items():
        gains = [smallest_detectable_gain(size, discordance) for discordance in DISCORDANCES]
        parts.append(f"{' / '.join(number(gain) for gain in gains)} points on {name}")
    return [
        "Smallest paired gain that one seed can show (exact McNemar, 5 %, power 80 %; 10 / 20 / 30 % of the records "
        f"answered differently): {'; '.join(parts)}."
    ]


def print_run(title: str, outcomes: RunOutcomes) -> None:
    """Prints the table of one run: accuracy, 95 % interval, records and ties, by relation."""
    scores = outcomes.scores()
    accuracy = scores.accuracy()
    bounds = bootstrap(outcomes.margin, outcomes.relation, outcomes.cluster)
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("")
    for column in COLUMNS:
        drawn.add_column(TITLES[column], justify="right", no_wrap=True)
    counts = [*scores.relations.values(), scores.total]
    drawn.add_row(
        "accuracy %", *(number(None if np.isnan(accuracy[c]) else accuracy[c]) for c in COLUMNS)
    )
    drawn.add_row("95 % from", *(number(pair.low if pair else None) for pair in bounds.values()))
    drawn.add_row("to", *(number(pair.high if pair else None) for pair in bounds.values()))
    drawn.add_row("records", *(str(count.n) for count in counts), "")
    if scores.total.ties:
        drawn.add_row("ties (one half each)", *(str(count.ties) for count in counts), "")
    show(drawn)
