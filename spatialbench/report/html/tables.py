"""The tables of the report as plain values for the templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from spatialbench.evaluation.agreement import agreement
from spatialbench.evaluation.paired import TESTED
from spatialbench.evaluation.pairs import TITLES
from spatialbench.report.compare import SAME, p_cell
from spatialbench.report.html.inputs import COLUMNS, PAIRS, ReportInputs, Row, Value
from spatialbench.report.table_model import accuracy_cell, interval_cell, number
from spatialbench.utils.progress import progress

SHADES = 10
"""Shades of the matrix of agreement; see ``report.css``."""
SIGNS = {"better": "▲", "worse": "▼", SAME: ""}
OPPOSITE = {"better": "worse", "worse": "better", SAME: SAME}
INTERVALS = ("with-extra", "95 % intervals")
NUMBERS = ("value", "interval", "by_seed", "groups", "seed")
"""Fields of a result file that the tables show."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        shown: the text.
        value: the number it is sorted by; None is last.
        tip: shown on hover.
        extra: shown below the text where the reader asks for it.
        kind: a class of ``report.css``.
    """

    shown: object
    value: float | None = None
    tip: str | None = None
    extra: str | None = None
    kind: str = ""


@dataclass(frozen=True)
class Line:
    """One line; the first cell is its heading. A ``paper`` stays below the line before it."""

    cells: Sequence[Cell]
    paper: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        name: the id.
        caption: stands above.
        header: headings, and what is said on hover; ``text`` first ones are of words, not numbers.
        options: (class, label) of the boxes that switch a class of the table.
        notes: paragraphs below.
        sortable: whether there are a filter and buttons that sort.
    """

    name: str
    caption: str
    header: Sequence[str | tuple[str, str]]
    lines: Sequence[Line]
    text: int = 1
    options: Sequence[tuple[str, str]] = (INTERVALS,)
    notes: Sequence[str] = field(default=())
    sortable: bool = True


def _name(row: Row) -> Cell:
    stale = f"stale: {', '.join(row.stale)}" if row.stale else None
    return Cell(row.name, tip=stale, kind="stale-row" if row.stale else "")


def _value(row: Row, value: Value | None, best: str | None) -> Cell:
    """Mean and deviation over seeds, and the interval."""
    if value is None or value.mean is None:
        return Cell("–")
    interval, seeds = interval_cell(value.interval), len(row.result.seeds)
    tip = f"{number(value.mean, 2)} %, 95 % interval {interval}, {seeds} seed{'s' * (seeds > 1)}"
    shown, won = accuracy_cell(value.mean, value.deviation), best == row.name
    return Cell(shown, value.mean, tip + ", the best" * won, interval, "best" if won else "")


def pairs_table(inputs: ReportInputs) -> Grid:
    """Make the table of ``spatialbench table``; the papers' numbers are hidden at first."""
    best = {column: inputs.best(column) for column in COLUMNS}
    papers: dict[str, list[Line]] = {}
    for paper in inputs.papers:
        tip = f"as printed in {paper.paper}, {paper.table}, {paper.row}: other data, other models"
        values = [paper.column(column) for column in COLUMNS]
        cells = [Cell(number(value), value) for value in values]
        heading = Cell(f"{paper.name}, {paper.paper}", tip=tip)
        line = Line([heading, *cells, Cell(""), Cell("")], paper=True)
        papers.setdefault(paper.name, []).append(line)
    lines = []
    for row in inputs.rows:
        seeds, n = len(row.result.seeds), row.result.pairs.units
        cells = [_value(row, inputs.value(row, column), best[column]) for column in COLUMNS]
        lines.append(Line([_name(row), *cells, Cell(seeds, seeds), Cell(n, n)]))
        lines += papers.pop(row.name, [])
    none_best = "In no column can the best row be told from the second: none is green."
    return Grid(
        "pairs",
        f"Accuracy on the pairs of {inputs.track} in percent: mean ± deviation over seeds",
        ["row", *(TITLES[column] for column in COLUMNS), "seeds", ("n", "records of the test")],
        [*lines, *(line for others in papers.values() for line in others)],
        options=[INTERVALS, *([("with-papers", "the papers’ own numbers")] * bool(inputs.papers))],
        notes=[*inputs.notes(), *([] if any(best.values()) else [none_best])],
    )


def evaluation_tables(inputs: ReportInputs) -> dict[str, Grid]:
    """Make the table of each evaluation beside the pairs, by its name."""
    made = {}
    for name, headings in inputs.others.items():
        make = _by_group if inputs.classes[name].by_group else _by_measure
        made[name] = make(inputs, name, headings)
    return made


def _by_measure(inputs: ReportInputs, name: str, headings: dict[str, str]) -> Grid:
    best = {measure: inputs.best(measure, name) for measure in headings}
    lines = []
    for row in inputs.rows:
        values = [_value(row, inputs.value(row, m, name), best[m]) for m in headings]
        lines.append(Line([_name(row), *values]))
    caption = f"{inputs.classes[name].title} in percent: mean ± deviation over seeds"
    header = ["row", *headings.values()]
    return Grid(name, caption, header, lines, notes=_data(inputs, name))


def _by_group(inputs: ReportInputs, name: str, headings: dict[str, str]) -> Grid:
    best = {measure: inputs.best(measure, name) for measure in headings}
    labels = next(row.evidence[name].labels for row in inputs.rows if name in row.evidence)
    lines = []
    for row in inputs.rows:
        stored = row.result.evaluations.get(name)
        for measure in stored.value if stored else ():
            groups = [stored.groups[measure][label] for label in labels] if stored else []
            cells = [Cell(number(value), value) for value in groups]
            cells.append(_value(row, inputs.value(row, measure, name), best[measure]))
            lines.append(Line([_name(row), Cell(headings[measure]), *cells]))
    title = inputs.classes[name].title
    caption = f"{title} in percent: mean over seeds, in the last column ± their deviation"
    header = ["row", "measure", *labels, "mean"]
    return Grid(name, caption, header, lines, text=2, notes=_data(inputs, name))


def _data(inputs: ReportInputs, name: str) -> list[str]:
    stored = [row.result.evaluations[name] for row in inputs.rows if name in row.evidence]
    without = [row.name for row in inputs.rows if name not in row.evidence]
    unit = inputs.classes[name].unit
    notes = [f"Evaluated on data {stored[0].data}, {stored[0].units} {unit}."]
    return notes + ([f"Not evaluated: {', '.join(without)}."] if without else [])


def _matrix(
    inputs: ReportInputs, name: str, corner: str, caption: str, cell: Callable[[str, str], Cell]
) -> Grid:
    """Make a table of ``cell(row, other)``, whose columns are the rows by number."""
    columns = [(str(place), row) for row, place in inputs.numbers.items()]
    lines = [
        Line([Cell(f"{place} {row}"), *(cell(row, other) for other in inputs.names)])
        for row, place in inputs.numbers.items()
    ]
    return Grid(name, caption, [corner, *columns], lines, options=(), sortable=False)


def agreement_matrix(inputs: ReportInputs) -> Grid:
    """Make the matrix of the records answered alike; kappa where the reader asks for it."""
    margins = {n: found.answers() for n, found in inputs.differences.evidence[PAIRS].items()}

    def cell(row: str, other: str) -> Cell:
        alike = agreement(margins[row], None if row == other else margins[other])
        if alike is None:
            return Cell("–", tip=f"{row}: one seed has no other to agree with")
        kappa = "–" if alike.kappa is None else f"{alike.kappa:.2f}"
        shade = min(SHADES - 1, max(0, int(SHADES * (alike.kappa or 0))))
        pair = f"{row}, between seeds" if row == other else f"{row} and {other}"
        tip = f"{pair}: {alike.alike:.1f} % alike, kappa {kappa}"
        return Cell(f"{alike.alike:.0f}", alike.alike, tip, kappa, f"heat{shade}")

    caption = "Percent of the records answered alike; columns are the rows by number"
    return _matrix(inputs, "agreement", "row", caption, cell)


def verdict_matrices(inputs: ReportInputs) -> dict[str, Grid]:
    """Make a matrix for each column, row minus column in points, as ``compare --all`` judges it."""
    matrices = {}
    with progress("comparing every pair of rows", len(TESTED), "columns") as advance:
        for column in sorted(TESTED, key=lambda name: name != "all"):
            cells = {(name, name): Cell("·") for name in inputs.names}
            for pair in inputs.pairs(column):
                say = partial(_verdict, column=column, p=p_cell(pair.holm))
                points, (low, high), judged = pair.gain.points, pair.gain.interval, pair.verdict
                cells[pair.a, pair.b] = say(pair.a, pair.b, (points, low, high), judged)
                back = -points, -high, -low
                cells[pair.b, pair.a] = say(pair.b, pair.a, back, OPPOSITE[judged])
            caption = f"{TITLES[column]}: row minus column, in percentage points"
            name, corner = f"verdicts-{column}", "row minus column"

            def cell(row: str, other: str, cells: dict[tuple[str, str], Cell] = cells) -> Cell:
                return cells.get((row, other), Cell("–"))

            if len(cells) > len(inputs.rows):
                matrices[column] = _matrix(inputs, name, corner, caption, cell)
            advance(1)
    return matrices


def _verdict(
    a: str, b: str, gain: tuple[float, float, float], judged: str, column: str, p: str
) -> Cell:
    points, low, high = (value + 0.0 for value in gain)  # no -0.0
    interval = f"{points:+.1f} ({low:+.1f} to {high:+.1f})"
    tip = f"{a} against {b}, {TITLES[column]}: {interval}, p {p}: {judged}"
    kind = "same" if judged == SAME else judged
    return Cell(f"{SIGNS[judged]}{points:+.1f}", points, tip, kind=kind)


def claims_table(inputs: ReportInputs) -> Grid | None:
    """Make the table of the claims of ``results/claims.yaml``; None where this track has none."""
    lines = []
    for verdict in inputs.judged_claims():
        claim, gain, state = verdict.claim, verdict.gain, verdict.state
        kind = "" if gain is None else "worse" if state.startswith("not ") else "better"
        compared = f"{claim.row} − {claim.than}, {inputs.headings[claim.column]}"
        cells = [Cell(claim.claim, kind="prose"), Cell(claim.paper), Cell(compared, kind="prose")]
        cells += [Cell(claim.expected), Cell(state, kind=kind)]
        cells.append(Cell("–") if gain is None else Cell(gain.text, gain.points))
        lines.append(Line(cells))
    header = ["claim", "paper", "comparison", "expected", "verdict", "difference"]
    grid = Grid("claims", "Claims of the papers", header, lines, text=5, options=())
    return grid if lines else None


def provenance(row: Row) -> dict[str, str]:
    """Say what a row was made from: the fields of its result file, each once where seeds agree."""
    result = asdict(row.result)
    runs = {run["seed"]: run for run in result.pop("runs")}
    facts = {"command": row.result.command, "stale": ", ".join(row.stale)}
    facts |= {name: _fact(value) for name, value in result.items()}
    for name in next(iter(runs.values())):
        texts = {seed: _fact(run[name]) for seed, run in runs.items()}
        same = len(set(texts.values())) == 1
        each = "; ".join(f"seed {seed}: {text}" for seed, text in texts.items())
        facts[name] = next(iter(texts.values())) if same else each
    return {n.replace("_", " "): text for n, text in facts.items() if text and n not in NUMBERS}


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        facts = {name: _fact(part) for name, part in value.items() if name not in NUMBERS}
        return ", ".join(f"{name} {text}" for name, text in facts.items() if text)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_fact, value))
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
