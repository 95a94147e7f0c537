"""The tables of the report as plain values for the templates."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from typing import Any

from spatialbench.config.pages import FAMILIES
from spatialbench.evaluation.bootstrap import Interval
from spatialbench.evaluation.paired import TESTED
from spatialbench.evaluation.pairs import TITLES
from spatialbench.evaluation.statistics import BETTER, SAME, WORSE, agreement
from spatialbench.report.claims import CONTRADICTED, RULE, SUPPORTED, corrected, judge, multiplicity
from spatialbench.report.differences import Gain
from spatialbench.report.evaluation_table import table_of
from spatialbench.report.html.inputs import ReportInputs
from spatialbench.report.table_model import Column, Record, interval_cell, number, p_cell
from spatialbench.results.files import Row
from spatialbench.results.schema import PAIRS
from spatialbench.utils.progress import progress

SHADES = 10
"""Shades of the matrix of agreement; see ``report.css``."""
SIGNS = {BETTER: "▲", WORSE: "▼", SAME: ""}
OPPOSITE = {BETTER: WORSE, WORSE: BETTER, SAME: SAME}
KINDS = {SUPPORTED: "better", CONTRADICTED: "worse"}
"""Verdict on a claim -> class of report.css."""
INTERVALS = ("with-extra", "95 % intervals")
NUMBERS = ("value", "interval", "by_seed", "groups", "seed")
"""Fields of a result file that the tables show."""


@dataclass(frozen=True)
class Cell:
    """One cell."""

    shown: object
    value: float | None = None  # the number it is sorted by; None is last
    tip: str | None = None  # shown on hover
    extra: str | None = None  # shown below the text where the reader asks for it
    kind: str = ""  # a class of report.css


@dataclass(frozen=True)
class Line:
    """One line; the first cell is its heading. A ``paper`` stays below the line before it."""

    cells: Sequence[Cell]
    paper: bool = False
    section: str = ""  # the heading above it, repeated for every line below


@dataclass(frozen=True)
class Grid:
    """A table."""

    name: str  # the id
    caption: str
    header: Sequence[str | tuple[str, str]]  # headings, or (heading, text on hover)
    lines: Sequence[Line]
    text: int = 1  # number of first columns that hold words
    options: Sequence[tuple[str, str]] = (INTERVALS,)  # (class, label) of boxes that switch it
    notes: Sequence[str] = ()
    sortable: bool = True  # has a filter and buttons that sort, each section by itself

    @property
    def sections(self) -> list[tuple[str, list[Line]]]:
        """Heading and lines of each section; no heading where there is one."""
        parts = [(name, [*lines]) for name, lines in groupby(self.lines, lambda x: x.section)]
        return parts if len(parts) > 1 else [("", [*self.lines])]


def evaluation_table(inputs: ReportInputs, name: str) -> Grid:
    """Make the table of ``spatialbench table --evaluation NAME``; papers are hidden at first."""
    papers = inputs.papers if name == PAIRS else ()
    table = table_of(inputs.rows, name, inputs.classes[name], inputs.differences, papers)
    lines = [
        Line(
            [_cell(column, record) for column in table.columns],
            bool(record.get("paper")),
            table.section(record),
        )
        for record in table.records
    ]
    options, notes = [INTERVALS], [note for note in table.notes if note]
    if papers:
        options.append(("with-papers", "the papers’ own numbers"))
        notes.append("Numbers of the papers are as printed there: other data, other models.")
    without = [row.name for row in inputs.rows if name not in row.evidence]
    notes += [f"Not evaluated: {', '.join(without)}."] if without else []
    return Grid(name, table.title, table.header, lines, table.left, options, notes)


def _cell(column: Column, record: Record) -> Cell:
    shown = column.cell(record)
    text, best = shown if isinstance(shown, tuple) else (shown, False)
    value, low = (record.get(key) for key in (column.key, f"{column.key}_low"))
    if not column.key:
        tip = None if column.heading else record["stale"] or None
        return Cell(text, int(text) if text.isdecimal() else None, tip)
    if low is None:  # a count, a group, or a number of a paper
        return Cell(text, None if value == "" else value)
    interval, seeds = interval_cell((low, record[f"{column.key}_high"])), record["runs"]
    tip = f"{number(value, 2)} %, 95 % interval {interval}, {seeds} seed{'s' * (seeds > 1)}"
    return Cell(text, value, tip + ", the best" * best, interval, "best" if best else "")


Cells = Mapping[tuple[str, str], Cell]
"""(row, other row) -> cell."""


def _matrix(inputs: ReportInputs, name: str, corner: str, caption: str, cells: Cells) -> Grid:
    """Make a square table, whose columns are the rows by number."""
    columns, lines = [(str(place), row) for row, place in inputs.numbers.items()], []
    for row in inputs.rows:
        line = [cells.get((row.name, other), Cell("–")) for other in inputs.names]
        heading = Cell(f"{inputs.numbers[row.name]} {row.name}")
        lines.append(Line([heading, *line], section=FAMILIES[row.family]))
    return Grid(name, caption, [corner, *columns], lines, options=(), sortable=False)


def agreement_matrix(inputs: ReportInputs) -> Grid:
    """Make the matrix of the records answered alike; kappa where the reader asks for it."""
    margins = {name: row.answers() for name, row in inputs.differences.evidence[PAIRS].items()}
    cells = {}
    for row, other in product(margins, repeat=2):
        alike = agreement(margins[row], None if row == other else margins[other])
        if alike is None:
            cells[row, other] = Cell("–", tip=f"{row}: one seed has no other to agree with")
            continue
        kappa = "–" if alike.kappa is None else f"{alike.kappa:.2f}"
        shade = min(SHADES - 1, max(0, int(SHADES * (alike.kappa or 0))))
        pair = f"{row}, between seeds" if row == other else f"{row} and {other}"
        tip = f"{pair}: {alike.alike:.1f} % alike, kappa {kappa}"
        cells[row, other] = Cell(f"{alike.alike:.0f}", alike.alike, tip, kappa, f"heat{shade}")
    caption = "Percent of the records answered alike; columns are the rows by number"
    return _matrix(inputs, "agreement", "row", caption, cells)


def verdict_matrices(inputs: ReportInputs) -> dict[str, Grid]:
    """Make a matrix for each column, row minus column in points, as ``compare --all`` judges it."""
    matrices = {}
    with progress("comparing every pair of rows", len(TESTED), "columns") as advance:
        for column in sorted(TESTED, key=lambda name: name != "all"):
            cells = {(name, name): Cell("·") for name in inputs.names}
            for a, b, gain, _, holm, judged in inputs.pairs(column):
                back = Gain(
                    0 - gain.points, Interval(*(0 - bound for bound in gain.interval[::-1]))
                )
                cells[a, b] = _verdict(a, b, column, gain, holm, judged)
                cells[b, a] = _verdict(b, a, column, back, holm, OPPOSITE[judged])
            caption = f"{TITLES[column]}: row minus column, in percentage points"
            if len(cells) > len(inputs.rows):
                name = f"verdicts-{column}"
                matrices[column] = _matrix(inputs, name, "row minus column", caption, cells)
            advance(1)
    return matrices


def _verdict(a: str, b: str, column: str, gain: Gain, p: float, judged: str) -> Cell:
    tip = f"{a} against {b}, {TITLES[column]}: {gain.text}, p {p_cell(p)}: {judged}"
    kind = "same" if judged == SAME else judged
    return Cell(f"{SIGNS[judged]}{gain.points:+.1f}", gain.points, tip, kind=kind)


def claims_table(inputs: ReportInputs) -> Grid | None:
    """Make the table of the claims of ``results/claims.yaml``; None where this track has none."""
    if not inputs.claims:
        return None
    verdicts, lines = [judge(c, inputs.rows, inputs.differences) for c in inputs.claims], []
    for found, p in zip(verdicts, corrected(verdicts), strict=True):
        claim, gain, smallest = found.claim, found.gain, found.smallest
        compared = f"{claim.row} − {claim.than}, {inputs.headings[claim.column]}"
        cells = [Cell(claim.claim, kind="prose"), Cell(claim.paper), Cell(compared, kind="prose")]
        cells += [Cell(claim.expected), Cell(found.shown, kind=KINDS.get(found.state, ""))]
        cells.append(Cell("–") if gain is None else Cell(gain.text, gain.points))
        cells += [Cell("–" if p is None else p_cell(p), p), Cell(number(smallest), smallest)]
        cells.append(Cell(claim.since or "–"))
        lines.append(Line(cells))
    header = ["claim", "paper", "comparison", "expected", "verdict", "difference"]
    header += ["p, Holm", "smallest effect", "first written"]
    notes = [" ".join(RULE.replace("*", "").replace("`", "").split()), multiplicity(verdicts)]
    return Grid("claims", "Claims", header, lines, text=5, options=(), notes=notes)


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
