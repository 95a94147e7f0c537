"""The table of the stored rows: markdown, JSON, CSV, for a terminal; and results/README.md.

Nothing here depends on the clock, the locale or the machine: the same result files give the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from spatialbench.errors import SpatialbenchError
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.evaluation.statistics import COLUMNS, bootstrap, smallest_detectable_gain
from spatialbench.relations import RELATIONS
from spatialbench.report.rows import Reported, Row, read_reported, read_rows
from spatialbench.results import STORED_BUDGET

FORMATS = ("text", "md", "json", "csv")
TITLES = {**{relation: relation.capitalize() for relation in RELATIONS}, "all": "All", "macro": "macro"}
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
        format: ``text`` for a terminal, ``md``, ``json``, ``csv``.
        reported: set the papers' numbers beside ours.
        budget: ``full`` for the stored rows.

    Raises:
        SpatialbenchError: no rows, a damaged row, rows of different data, an unknown format.
    """
    check_format(format)
    rows = stored_rows(Path(results), Path(benchmarks), track, budget)
    shown = read_papers(Path(results)) if reported else []
    if format == "json":
        for note in stale_notes(rows):  # the form has no place for it
            print(note, file=sys.stderr)
        return json.dumps(as_json(rows, shown), indent=2) + "\n"
    if format == "csv":
        return as_csv(rows, shown)
    if format == "md":
        return "\n".join([*markdown(rows, shown), "", *notes(rows)]) + "\n"
    return as_text(rows, shown)


def check_format(format: str) -> None:
    """Raises SpatialbenchError unless it is one of ``FORMATS``."""
    if format not in FORMATS:
        raise SpatialbenchError(f"unknown format {format!r}: one of {', '.join(FORMATS)}")


def stored_rows(results: Path, benchmarks: Path, track: str, budget: str) -> list[Row]:
    """The rows of a track in the order of the table, at least one.

    Raises:
        SpatialbenchError: no rows, a damaged row, rows of different data.
    """
    rows = read_rows(results, benchmarks, track, budget, [paper.name for paper in read_papers(results)])
    if not rows:
        raise SpatialbenchError(
            f"no rows of track {track} at budget {budget} in {results}: spatialbench run benchmarks/*.yaml "
            f"--track {track} --budget {budget}"
        )
    return rows


def read_papers(results: Path) -> list[Reported]:
    """results/reported.yaml; none when there is no such file."""
    path = results / "reported.yaml"
    return read_reported(path) if path.exists() else []


def stale_notes(rows: Sequence[Row]) -> list[str]:
    """One line for each row that is not what would be made today."""
    return [
        f"{row.result.name} is stale: {', '.join(row.stale)}; spatialbench run {row.result.page} "
        f"--track {row.result.track} --budget {row.result.budget}"
        for row in rows
        if row.stale
    ]


# ----------------------------------------------------------------------------------------------------------- cells


def number(value: float | None, digits: int = 1) -> str:
    """Fixed digits with a point whatever the locale; a dash where there is nothing."""
    return "–" if value is None else f"{value:.{digits}f}"


def accuracy_cell(mean: float | None, spread: float | None) -> str:
    """``66.7 ± 0.4``: mean and standard deviation over seeds."""
    return number(mean) if spread is None else f"{number(mean)} ± {number(spread)}"


def interval_cell(bounds: Sequence[float] | None) -> str:
    return "–" if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}"


def own_cells(row: Row) -> list[str]:
    result, spread = row.result, row.result.spread()
    cells = [accuracy_cell(result.accuracy[column], spread[column]) for column in COLUMNS]
    return [
        result.name + (" (stale)" if row.stale else ""),
        *cells,
        interval_cell(result.interval["all"]),
        str(len(result.seeds)),
        str(result.n),
    ]


def paper_cells(paper: Reported) -> list[str]:
    return [f"{paper.name}, {paper.paper}", *(number(paper.column(column)) for column in COLUMNS), "", "", ""]


HEADER = ("", *TITLES.values(), "95 % interval of All", "seeds", "n")


def lines_of(rows: Sequence[Row], papers: Sequence[Reported]) -> list[tuple[list[str], bool]]:
    """The lines of a table, each with whether it is a paper's; papers stand below the row of the same name."""
    lines = []
    for row in rows:
        lines.append((own_cells(row), False))
        lines += [(paper_cells(paper), True) for paper in papers if paper.name == row.result.name]
    ours = {row.result.name for row in rows}
    return lines + [(paper_cells(paper), True) for paper in papers if paper.name not in ours]


# ---------------------------------------------------------------------------------------------------------- formats


def markdown(rows: Sequence[Row], papers: Sequence[Reported] = ()) -> list[str]:
    """The lines of a markdown table; the papers' rows in italics."""
    lines = [
        [f"*{cell}*" if cell and paper else cell for cell in cells] if paper else cells
        for cells, paper in lines_of(rows, papers)
    ]
    return markdown_table(HEADER, lines)


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """The lines of a markdown table; the first ``left`` columns stand to the left, the others to the right."""
    rule = [*["---"] * left, *["---:"] * (len(header) - left)]
    return [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (header, rule, *lines)]


def as_json(rows: Sequence[Row], papers: Sequence[Reported] = ()) -> list[dict[str, Any]]:
    """``{name, accuracy: {close, ..., all, macro}, interval, seeds, n}`` for each row.

    accuracy in percent, mean over seeds; interval: the two bounds of the 95 % interval of All in percent; seeds: the
    seeds; n: records of the test. A paper's row also has paper, table and row, and no interval.
    """
    ours = [
        {
            "name": row.result.name,
            "accuracy": row.result.accuracy,
            "interval": row.result.interval["all"],
            "seeds": row.result.seeds,
            "n": row.result.n,
        }
        for row in rows
    ]
    theirs: list[dict[str, Any]] = [
        {
            "name": paper.name,
            "accuracy": {column: _rounded(paper.column(column)) for column in COLUMNS},
            "interval": None,
            "seeds": [],
            "n": None,
            "paper": paper.paper,
            "table": paper.table,
            "row": paper.row,
        }
        for paper in papers
    ]
    return ours + theirs


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def as_csv(rows: Sequence[Row], papers: Sequence[Reported] = ()) -> str:
    """One line for each row; percent with four digits; for every column accuracy, spread over seeds, low, high."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = [f"{column}{part}" for column in COLUMNS for part in ("", "_spread", "_low", "_high")]
    writer.writerow(["name", "paper", *columns, "seeds", "n", "stale"])
    for row in rows:
        result, spread = row.result, row.result.spread()
        values: list[float | None] = []
        for column in COLUMNS:
            values += [result.accuracy[column], spread[column], *(result.interval[column] or (None, None))]
        cells = ["" if value is None else f"{value:.4f}" for value in values]
        seeds = " ".join(map(str, result.seeds))
        writer.writerow([result.name, "", *cells, seeds, result.n, "; ".join(row.stale)])
    for paper in papers:
        found = [paper.column(column) for column in COLUMNS]
        cells = [cell for value in found for cell in ("" if value is None else f"{value:.4f}", "", "", "")]
        writer.writerow([paper.name, paper.paper, *cells, "", "", ""])
    return stream.getvalue()


def as_text(rows: Sequence[Row], papers: Sequence[Reported] = ()) -> str:
    """For a terminal."""
    first = rows[0].result
    drawn = Table(title=f"{first.track}, budget {first.budget}: accuracy in %", title_justify="left")
    for position, title in enumerate(HEADER):
        drawn.add_column(title, justify="right" if position else "left", no_wrap=True)
    for cells, paper in lines_of(rows, papers):
        drawn.add_row(*cells, style="dim" if paper else None)
    return render(drawn) + "\n".join(notes(rows)) + "\n"


def render(drawn: Table) -> str:
    """A rich table as text, as wide as it needs; colours only where the terminal has them."""
    needed = Console(width=1000).measure(drawn).maximum
    console = Console(width=max(needed, Console().width))
    with console.capture() as capture:
        console.print(drawn)
    return capture.get()


def show(drawn: Table, footer: str = "") -> None:
    """Prints a table of one run, a hundred columns wide at least, and a line below it."""
    console = Console()
    console = console if console.width >= 100 else Console(width=100)
    console.print(drawn)
    if footer:
        console.print(footer, highlight=False)


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
    drawn.add_row("accuracy %", *(number(None if np.isnan(accuracy[c]) else accuracy[c]) for c in COLUMNS))
    drawn.add_row("95 % from", *(number(pair.low if pair else None) for pair in bounds.values()))
    drawn.add_row("to", *(number(pair.high if pair else None) for pair in bounds.values()))
    drawn.add_row("records", *(str(count.n) for count in counts), "")
    if scores.total.ties:
        drawn.add_row("ties (one half each)", *(str(count.ties) for count in counts), "")
    show(drawn)
