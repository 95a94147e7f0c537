"""The first section: the table of the pairs, what is measured beside them, image selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spatialbench.evaluation.measures import SELECTION, Measures
from spatialbench.evaluation.measures import TITLES as MEASURES
from spatialbench.evaluation.statistics import COLUMNS, spread, verdict
from spatialbench.report.html.elements import Html, breakable, join, tag
from spatialbench.report.html.grid import Column, Entry, Record, grid
from spatialbench.report.html.inputs import Material
from spatialbench.report.measures import EXPLANATION
from spatialbench.report.selection import EXPLANATION as SELECTION_EXPLANATION
from spatialbench.report.selection import SCORERS
from spatialbench.report.stored_rows import Reported, Row
from spatialbench.report.table import TITLES, notes
from spatialbench.report.table_model import accuracy_cell, interval_cell, number
from spatialbench.results.schema import MeasuresFile

INTERVALS = ("with-extra", "95 % intervals")
NONE_BEST = "In no column can the best row be told from the second: none is green."


def name_entry(row: Row) -> Entry:
    """The name of a row, marked where it is stale."""
    mark = tag("span", "stale", class_="stale") if row.stale else None
    tip = f"stale: {', '.join(row.stale)}" if row.stale else None
    return Entry(join(breakable(row.result.name), " " if mark else None, mark), tip=tip)


def value_entry(
    mean: float | None,
    deviation: float | None,
    bounds: Sequence[float] | None,
    best: bool,
    seeds: int,
) -> Entry:
    """Mean and deviation over seeds, and the interval beside them."""
    if mean is None:
        return Entry("–")
    interval = interval_cell(bounds)
    tip = f"{number(mean, 2)} %, 95 % interval {interval}, {seeds} seed{'s' if seeds > 1 else ''}"
    shown = accuracy_cell(mean, deviation)
    return Entry(
        shown, mean, tip + (", the best" if best else ""), interval, "best" if best else None, best
    )


# --------------------------------------------------------------------------------------------------------- the pairs
def pairs_table(material: Material) -> Html:
    """The table of ``spatialbench table``, with the papers' numbers below ours where the reader wants them."""
    best = {column: material.differences.best(column) for column in COLUMNS}
    columns = [Column("row", text=True), *(Column(TITLES[column]) for column in COLUMNS)]
    columns += [Column("seeds"), Column("n", "records of the test")]
    records = []
    ours = set(material.names)
    for row in material.rows:
        records.append(_own(row, best))
        records += [_paper(paper) for paper in material.papers if paper.name == row.result.name]
    records += [_paper(paper) for paper in material.papers if paper.name not in ours]
    options = (
        [INTERVALS, ("with-papers", "the papers’ own numbers")] if material.papers else [INTERVALS]
    )
    caption = f"Accuracy on the pairs of {material.track}, in percent: mean ± standard deviation over seeds"
    below = [*notes(material.rows), *([] if any(best.values()) else [NONE_BEST])]
    return join(grid("pairs", caption, columns, records, options), paragraphs(below))


def paragraphs(lines: Sequence[str]) -> Html:
    """Notes below a table."""
    return join([tag("p", line, class_="note") for line in lines if line])


def _own(row: Row, best: Mapping[str, str | None]) -> Record:
    result, deviation = row.result, row.result.spread()
    seeds = len(result.seeds)
    cells = [
        value_entry(
            result.accuracy[column],
            deviation[column],
            result.interval[column],
            best[column] == result.name,
            seeds,
        )
        for column in COLUMNS
    ]
    return Record(
        [name_entry(row), *cells, Entry(str(seeds), seeds), Entry(str(result.n), result.n)]
    )


def _paper(paper: Reported) -> Record:
    values = [paper.column(column) for column in COLUMNS]
    place = f"{paper.paper}, {paper.table}, {paper.row}"
    title = Entry(
        f"{paper.name}, {paper.paper}", tip=f"as printed in {place}: other data, other models"
    )
    return Record(
        [title, *(Entry(number(value), value) for value in values), Entry(""), Entry("")], "paper"
    )


# -------------------------------------------------------------------------------------------------------- beside them
def measures_table(material: Material) -> Html | None:
    """Regions, dense quality and retrieval; None where no row has any."""
    names = [name for name in MEASURES if name not in SELECTION and _has(material.measures, name)]
    if not names:
        return None
    best = {name: best_measure(material, material.measures, name) for name in names}
    records = []
    for row in material.rows:
        cells = _measured(row, row.result.measures, material.measures, names, best)
        records.append(Record([name_entry(row), *cells]))
    columns = [Column("row", text=True), *(Column(MEASURES[name]) for name in names)]
    found = next(row.result.measures for row in material.rows if row.result.measures is not None)
    caption = "Regions, dense quality and retrieval, in percent: mean ± standard deviation over seeds; – not measured"
    below = f"Measured on data {found.data}, {found.pictures} pictures."
    return join(
        explained(EXPLANATION),
        grid("measures", caption, columns, records, [INTERVALS]),
        paragraphs([below]),
    )


def _has(measures: Mapping[str, Measures], name: str) -> bool:
    return any(name in found.ratios for found in measures.values())


def _measured(
    row: Row,
    stated: MeasuresFile | None,
    measures: Mapping[str, Measures],
    names: Sequence[str],
    best: Mapping[str, str | None],
) -> list[Entry]:
    if stated is None:
        return [Entry("–")] * len(names)
    found, seeds = measures[row.result.name], len(row.result.seeds)
    return [
        value_entry(
            stated.value[name],
            spread(found.seed_values(name).tolist()),
            stated.interval[name],
            best[name] == row.result.name,
            seeds,
        )
        if name in stated.value
        else Entry("–")
        for name in names
    ]


def best_measure(material: Material, measures: Mapping[str, Measures], name: str) -> str | None:
    """The row with the highest measure, where the paired interval tells it from the second; else None."""
    values = {row: found.values()[name] for row, found in measures.items() if name in found.ratios}
    first, *others = sorted(values, key=lambda row: -values[row])
    if not others:
        return None
    gain = material.differences.between(first, others[0], name)
    return first if gain is not None and verdict(gain.interval) == "better" else None


def selection_table(material: Material) -> Html | None:
    """Image selection by pattern, a line for each row and scorer; None where no row has any."""
    if not material.selection:
        return None
    patterns = next(iter(material.selection.values())).labels
    best = {name: best_measure(material, material.selection, name) for name in SELECTION}
    records = []
    for row in material.rows:
        stated = row.result.selection
        if stated is None:
            continue
        for measure in stated.value:
            values = [stated.patterns[measure][pattern] for pattern in patterns]
            (mean,) = _measured(row, stated, material.selection, [measure], best)
            cells = [
                Entry(SCORERS[measure]),
                *(Entry(number(value), value) for value in values),
                mean,
            ]
            records.append(Record([name_entry(row), *cells]))
    columns = [
        Column("row", text=True),
        Column("scorer", text=True),
        *map(Column, patterns),
        Column("mean"),
    ]
    without = [row.result.name for row in material.rows if row.result.selection is None]
    below = [f"Without image selection: {', '.join(without)}."] if without else []
    first = next(iter(material.selection.values()))
    below.insert(0, f"{first.pictures} pairs of pictures, data {first.data}.")
    caption = "Image selection, in percent: mean over seeds, of the last column ± their standard deviation"
    table = grid("selection", caption, columns, records, [INTERVALS])
    return join(explained(SELECTION_EXPLANATION), table, paragraphs(below))


def explained(markdown: str) -> Html:
    """A paragraph of the Markdown report; ``*x*`` is set in italics."""
    parts = " ".join(markdown.split()).split("*")
    return tag("p", [tag("em", part) if place % 2 else part for place, part in enumerate(parts)])
