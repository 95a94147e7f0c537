"""The table of an evaluation: of the stored rows, and what stands below it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.pairs import COLUMNS
from spatialbench.evaluation.statistics import smallest_detectable_gain
from spatialbench.report.differences import Differences
from spatialbench.report.rows import Reported, evaluation_classes, read_papers, stored_rows
from spatialbench.report.table_model import (
    Cell,
    Column,
    Record,
    Table,
    accuracy_cell,
    check_format,
    interval_cell,
    number,
    number_column,
    text_column,
)
from spatialbench.results.files import STORED_BUDGET, Row
from spatialbench.results.schema import PAIRS, EvaluationResult
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

DISCORDANCES = (0.1, 0.2, 0.3)
BEST = (
    "Emphasis (a star in a terminal): the best of its column, where the paired test tells it from "
    "the second."
)


def table(
    results: str | Path = "results",
    benchmarks: str | Path = "benchmarks",
    track: str = "rooms",
    format: str = "text",
    reported: bool = False,
    budget: str = STORED_BUDGET,
    evaluation: str = PAIRS,
) -> str:
    """Write the table of a track.

    Args:
        results: folder of the result files and of reported.yaml.
        benchmarks: folder of the pages and tracks, by which stale rows are found.
        format: one of ``table_model.FORMATS``.
        reported: add the papers' own numbers.
        budget: ``full`` for the stored rows.
        evaluation: name of an evaluation.

    Raises:
        SpatialbenchError: no rows or none with this evaluation, a damaged row, rows of different
            data, an unknown format.
    """
    check_format(format)
    rows = stored_rows(Path(results), Path(benchmarks), track, budget)
    cls = evaluation_class(rows, Today.read(Path(benchmarks)), track, budget, evaluation)
    papers = read_papers(Path(results)) if reported else []
    return table_of(rows, evaluation, cls, Differences(rows), papers).write(format)


def evaluation_class(
    rows: Sequence[Row], today: Today, track: str, budget: str, evaluation: str
) -> type[Evaluation]:
    """Return the class of an evaluation that one of the rows has.

    Raises:
        SpatialbenchError: an unknown evaluation, or no row that has it.
    """
    classes = evaluation_classes(today.tracks.get(track), budget)
    if evaluation not in classes:
        raise SpatialbenchError(
            f"unknown evaluation {evaluation!r} of track {track}{did_you_mean(evaluation, classes)}"
        )
    if not any(evaluation in row.evidence for row in rows):
        raise SpatialbenchError(
            f"no row of track {track} at budget {budget} has {evaluation}: spatialbench run "
            f"benchmarks/*.yaml --track {track} --budget {budget} --force"
        )
    return classes[evaluation]


def table_of(
    rows: Sequence[Row],
    evaluation: str,
    cls: type[Evaluation],
    differences: Differences | None = None,
    papers: Sequence[Reported] = (),
) -> Table:
    """Make the table of an evaluation; a row without it has dashes.

    Args:
        differences: of these rows; None: made here.
        papers: the papers' numbers, set below the row of the same name.
    """
    first = rows[0].result
    make = _by_group if cls.by_group else _by_measure
    columns, records, left = make(rows, evaluation, cls, differences, papers)
    best = any(record.get("best") for record in records)
    return Table(
        title=f"{first.track}, budget {first.budget}: {cls.title.lower()} in %",
        columns=columns,
        records=records,
        notes=[*notes(rows, evaluation, cls), *(["", BEST] if best else [])],
        left=left,
        stacked=len(columns) > len(COLUMNS) + 4,
    )


_Parts = tuple[list[Column], list[Record], int]


def _by_measure(
    rows: Sequence[Row],
    evaluation: str,
    cls: type[Evaluation],
    differences: Differences | None,
    papers: Sequence[Reported],
) -> _Parts:
    """One line for each row, one column for each measure."""
    headings = headings_of(rows, evaluation, cls)
    best: dict[str, str | None] = {}
    if evaluation == PAIRS:
        differences = Differences(rows) if differences is None else differences
        best = {measure: differences.best(measure) for measure in headings}
    columns = [Column("", _name)]
    columns += [Column(title, partial(_value, measure=m)) for m, title in headings.items()]
    if evaluation == PAIRS:
        columns.append(Column("95 % interval of All", partial(_interval, measure="all")))
    columns += [Column("seeds", _seeds), text_column("n" if evaluation == PAIRS else cls.unit, "n")]
    records: list[Record] = []
    for row in rows:
        records.append(_record(row, evaluation, list(headings), best))
        records += [_paper(p, list(headings)) for p in papers if p.name == row.name]
    ours = {row.name for row in rows}
    records += [_paper(p, list(headings)) for p in papers if p.name not in ours]
    return columns, records, 1


def _record(
    row: Row, evaluation: str, measures: Sequence[str], best: dict[str, str | None]
) -> Record:
    """Return name; percent, spread over seeds and interval of each measure; and the rest."""
    record: dict[str, object] = {"name": row.name, "paper": ""}
    stored = row.result.evaluations.get(evaluation)
    for measure in measures:
        value = None if stored is None else stored.value.get(measure)
        spread = (
            None if stored is None or value is None else row.evidence[evaluation].spread(measure)
        )
        low, high = (stored and stored.interval.get(measure)) or (None, None)
        record |= {measure: value, f"{measure}_spread": spread}
        record |= {f"{measure}_low": low, f"{measure}_high": high}
    won = [measure for measure in measures if best.get(measure) == row.name]
    return record | {
        "seeds": row.result.seeds,
        "n": None if stored is None else stored.units,
        "stale": "; ".join(row.stale),
        "best": won,
    }


def _paper(paper: Reported, measures: Sequence[str]) -> Record:
    record: dict[str, object] = {"name": paper.name, "paper": paper.paper}
    for measure in measures:
        record |= {measure: paper.column(measure), f"{measure}_spread": None}
        record |= {f"{measure}_low": None, f"{measure}_high": None}
    return record | {"seeds": [], "n": "", "stale": "", "best": []}


def _by_group(
    rows: Sequence[Row],
    evaluation: str,
    cls: type[Evaluation],
    _differences: Differences | None,
    _papers: Sequence[Reported],
) -> _Parts:
    """One line for each row and measure, one column for each group."""
    headings = headings_of(rows, evaluation, cls)
    labels = next(row.evidence[evaluation].labels for row in rows if evaluation in row.evidence)
    columns = [
        Column("", _name),
        Column("measure", lambda record: headings.get(str(record["measure"]), "–")),
        *(number_column(label, label) for label in labels),
        Column("mean", partial(_value, measure="mean")),
        Column("95 % interval", partial(_interval, measure="mean")),
        Column("seeds", _seeds),
        text_column(cls.unit, "n"),
    ]
    records: list[Record] = []
    for row in rows:
        stored = row.result.evaluations.get(evaluation)
        for measure in [None] if stored is None else stored.value:
            records.append(_group_record(row, evaluation, stored, measure, labels))
    return columns, records, 2


def _group_record(
    row: Row,
    evaluation: str,
    stored: EvaluationResult | None,
    measure: str | None,
    labels: Sequence[str],
) -> Record:
    groups = stored.groups[measure] if stored and measure else dict.fromkeys(labels)
    spread = row.evidence[evaluation].spread(measure) if measure else None
    low, high = (stored and measure and stored.interval[measure]) or (None, None)
    return {
        "name": row.name,
        "measure": measure or "",
        **groups,
        "mean": stored.value[measure] if stored and measure else None,
        "mean_spread": spread,
        "mean_low": low,
        "mean_high": high,
        "seeds": row.result.seeds,
        "n": stored.units if stored else None,
        "stale": "; ".join(row.stale),
    }


def _name(record: Record) -> str:
    paper = record.get("paper")
    return f"{record['name']}, {paper}" if paper else shown_name(record["name"], record["stale"])


def _value(record: Record, measure: str) -> Cell:
    text = accuracy_cell(record[measure], record[f"{measure}_spread"])
    return Cell(text, measure in record.get("best", ()))


def _interval(record: Record, measure: str) -> str:
    if record.get("paper"):
        return ""
    low, high = record[f"{measure}_low"], record[f"{measure}_high"]
    return interval_cell(None if low is None else (low, high))


def _seeds(record: Record) -> str:
    if record["n"] is None:
        return "–"
    return str(len(record["seeds"])) if record["seeds"] else ""


def shown_name(name: str, stale: object) -> str:
    """Name of a row, marked where it is stale."""
    return f"{name} (stale)" if stale else name


def headings_of(rows: Sequence[Row], evaluation: str, cls: type[Evaluation]) -> dict[str, str]:
    """Measure -> heading, of the measures that one row has at least."""
    found = [row.evidence[evaluation] for row in rows if evaluation in row.evidence]
    measures = dict.fromkeys(name for evidence in found for name in evidence.ratios)
    return cls.headings(list(measures), found[0].notes if found else None)


def notes(rows: Sequence[Row], evaluation: str, cls: type[Evaluation]) -> list[str]:
    """Return the notes below a table: stale rows, the data, the resolution of the benchmark."""
    stale = stale_notes(rows)
    lines = [*stale, *([""] if stale else [])]
    if evaluation == PAIRS:
        return [*lines, fingerprint_line(rows), "", resolution_line(rows)]
    found = next(r.result.evaluations[evaluation] for r in rows if evaluation in r.evidence)
    return [*lines, f"Evaluated on data {found.data}, {found.units} {cls.unit}."]


def stale_notes(rows: Sequence[Row]) -> list[str]:
    """One line for each stale row."""
    return [
        f"{row.name} is stale: {', '.join(row.stale)}; {row.result.command}"
        for row in rows
        if row.stale
    ]


def fingerprint_line(rows: Sequence[Row]) -> str:
    """Track, budget, data and captions that the rows share."""
    first = rows[0].result
    tracks = ", ".join(sorted({row.result.track_hash for row in rows}))
    return (
        f"Track {first.track} ({tracks}), budget {first.budget}, data {first.pairs.data}, "
        f"captions {first.grammar}; {first.pairs.units} records, chance is 50."
    )


def resolution_line(rows: Sequence[Row]) -> str:
    """Smallest gain that this number of records can show."""
    margins = rows[0].pairs.margins
    assert margins is not None, "the pair test has margins"
    sizes = {"All": len(margins.units)}
    counts = {int((margins.group == column).sum()) for column in margins.columns}
    sizes |= {f"a relation of {size}": size for size in sorted(counts - {0})}
    parts = []
    for name, size in sizes.items():
        gains = [smallest_detectable_gain(size, discordance) for discordance in DISCORDANCES]
        parts.append(f"{' / '.join(number(gain) for gain in gains)} points on {name}")
    return (
        "Smallest paired gain that one seed can show (exact McNemar, 5 %, power 80 %; 10 / 20 / "
        f"30 % of the records answered differently): {'; '.join(parts)}."
    )
