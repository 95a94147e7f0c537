"""The table of an evaluation: of stored rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from spatialbench.config.pages import FAMILIES
from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.pairs import COLUMNS
from spatialbench.report.differences import Differences
from spatialbench.report.rows import (
    Reported,
    by_family,
    evaluation_classes,
    read_papers,
    stored_rows,
)
from spatialbench.report.table_model import (
    Cell,
    Column,
    Record,
    Table,
    accuracy_cell,
    interval_cell,
    number_column,
    text_column,
)
from spatialbench.report.table_notes import beside_papers, notes
from spatialbench.results.files import STORED_BUDGET, Row
from spatialbench.results.schema import PAIRS
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

BEST = (
    "Emphasis (a star in a terminal): the best of its column and family, where it is told from the "
    "second as in `spatialbench compare`."
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
        benchmarks: folder of the pages and tracks, by which stale rows are found.
        reported: add the papers' own numbers.

    Raises:
        SpatialbenchError: no rows or none with this evaluation, a damaged row, rows of different
            data, an unknown format.
    """
    rows = stored_rows(Path(results), Path(benchmarks), track, budget)
    today = Today.read(Path(benchmarks))
    cls = evaluation_class(rows, today, track, budget, evaluation)
    papers = read_papers(Path(results)) if reported else []
    made = table_of(rows, evaluation, cls, Differences(rows), papers)
    beside = ["", beside_papers(today.tracks.get(track))] if papers else []
    return replace(made, notes=[*made.notes, *beside]).write(format)


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
    first, headings = rows[0].result, headings_of(rows, evaluation, cls)
    best: dict[str, set[str]] = {}
    if evaluation == PAIRS:
        differences = differences or Differences(rows)
        best = {measure: winners(rows, measure, differences) for measure in headings}
    if cls.by_group:
        columns, records = _by_group(rows, evaluation, headings)
    else:
        columns, records = _by_measure(rows, evaluation, headings, papers, best)
    columns += [
        text_column("seeds", "runs"),
        text_column("n" if evaluation == PAIRS else cls.unit, "n"),
    ]
    return Table(
        title=f"{first.track}, budget {first.budget}: {cls.title.lower()} in %",
        columns=columns,
        records=records,
        notes=[*notes(rows, evaluation, cls), *(["", BEST] if any(best.values()) else [])],
        left=2 if cls.by_group else 1,
        stacked=len(columns) > len(COLUMNS) + 4,
        section=lambda record: FAMILIES.get(record["family"], "Of the papers alone"),
    )


def winners(rows: Sequence[Row], column: str, differences: Differences) -> set[str]:
    """Return the best row of every family in a pair column, where it is told from the second."""
    found = (differences.best(column, names) for names in by_family(rows).values())
    return {name for name in found if name is not None}


def _by_measure(
    rows: Sequence[Row],
    evaluation: str,
    headings: Mapping[str, str],
    papers: Sequence[Reported],
    best: Mapping[str, set[str]],
) -> tuple[list[Column], list[Record]]:
    """One line for each row, one column for each measure."""
    columns = [Column("", _name)]
    columns += [Column(title, partial(_value, measure=m), m) for m, title in headings.items()]
    if evaluation == PAIRS:
        columns.append(Column("95 % interval of All", partial(_interval, measure="all")))
    records: list[Record] = []
    for row in rows:
        record: dict[str, object] = {"name": row.name, "paper": "", "family": row.family}
        for measure in headings:
            record |= _measured(row, evaluation, measure, measure)
        won = [measure for measure in headings if row.name in best.get(measure, ())]
        records.append({**record, **_ends(row, evaluation), "best": won})
        own = [paper for paper in papers if paper.name == row.name]
        records += [_paper(paper, headings, row.family) for paper in own]
    ours = {row.name for row in rows}
    others = [paper for paper in papers if paper.name not in ours]
    return columns, records + [_paper(paper, headings, "") for paper in others]


def _by_group(
    rows: Sequence[Row], evaluation: str, headings: Mapping[str, str]
) -> tuple[list[Column], list[Record]]:
    """One line for each row and measure, one column for each group."""
    labels = next(row.evidence[evaluation].labels for row in rows if evaluation in row.evidence)
    columns = [
        Column("", _name),
        Column("measure", lambda record: headings.get(str(record["measure"]), "–")),
        *(number_column(label, label) for label in labels),
        Column("mean", partial(_value, measure="mean"), "mean"),
        Column("95 % interval", partial(_interval, measure="mean")),
    ]
    records: list[Record] = []
    for row in rows:
        stored = row.result.evaluations.get(evaluation)
        for measure in [""] if stored is None else stored.value:
            groups = stored.groups[measure] if stored else dict.fromkeys(labels)
            mean = _measured(row, evaluation, measure, "mean")
            record: Record = {"name": row.name, "family": row.family, "measure": measure}
            records.append({**record, **groups, **mean, **_ends(row, evaluation)})
    return columns, records


def _measured(row: Row, evaluation: str, measure: str, key: str) -> dict[str, object]:
    """Percent, spread over seeds and interval of a measure; None where the row has none."""
    stored, keys = row.result.evaluations.get(evaluation), _keys(key)
    if stored is None or stored.value.get(measure) is None:
        return dict.fromkeys(keys)
    low, high = stored.interval[measure] or (None, None)
    spread = row.evidence[evaluation].spread(measure)
    return dict(zip(keys, (stored.value[measure], spread, low, high), strict=True))


def _keys(key: str) -> list[str]:
    return [key, f"{key}_spread", f"{key}_low", f"{key}_high"]


def _ends(row: Row, evaluation: str) -> dict[str, object]:
    stored = row.result.evaluations.get(evaluation)
    units = None if stored is None else stored.units
    runs = None if stored is None else row.evidence[evaluation].runs
    seeds = row.result.seeds
    return {"seeds": seeds, "runs": runs, "n": units, "stale": "; ".join(row.stale)}


def _paper(paper: Reported, measures: Iterable[str], family: str) -> Record:
    record: dict[str, object] = {"name": paper.name, "paper": paper.paper, "family": family}
    for measure in measures:
        record |= {**dict.fromkeys(_keys(measure)), measure: paper.column(measure)}
    return record | {"seeds": [], "runs": "", "n": "", "stale": "", "best": []}


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


def shown_name(name: str, stale: object) -> str:
    """Name of a row, marked where it is stale."""
    return f"{name} (stale)" if stale else name


def headings_of(rows: Sequence[Row], evaluation: str, cls: type[Evaluation]) -> dict[str, str]:
    """Measure -> heading, of the measures that at least one row has."""
    known = [row.evidence[evaluation] for row in rows if evaluation in row.evidence]
    measures = dict.fromkeys(name for evidence in known for name in evidence.ratios)
    return cls.headings(list(measures), known[0].notes if known else None)
