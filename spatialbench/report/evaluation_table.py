"""The table of an evaluation: of stored rows, and the notes below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from spatialbench.config.pages import Track
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
from spatialbench.results.schema import PAIRS
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
        benchmarks: folder of the pages and tracks, by which stale rows are found.
        reported: add the papers' own numbers.

    Raises:
        SpatialbenchError: no rows or none with this evaluation, a damaged row, rows of different
            data, an unknown format.
    """
    check_format(format)
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
    best: dict[str, str | None] = {}
    if evaluation == PAIRS:
        differences = differences or Differences(rows)
        best = {measure: differences.best(measure) for measure in headings}
    if cls.by_group:
        columns, records = _by_group(rows, evaluation, headings)
    else:
        columns, records = _by_measure(rows, evaluation, headings, papers, best)
    columns += [Column("seeds", _seeds), text_column("n" if evaluation == PAIRS else cls.unit, "n")]
    return Table(
        title=f"{first.track}, budget {first.budget}: {cls.title.lower()} in %",
        columns=columns,
        records=records,
        notes=[*notes(rows, evaluation, cls), *(["", BEST] if any(best.values()) else [])],
        left=2 if cls.by_group else 1,
        stacked=len(columns) > len(COLUMNS) + 4,
    )


def _by_measure(
    rows: Sequence[Row],
    evaluation: str,
    headings: Mapping[str, str],
    papers: Sequence[Reported],
    best: Mapping[str, str | None],
) -> tuple[list[Column], list[Record]]:
    """One line for each row, one column for each measure."""
    columns = [Column("", _name)]
    columns += [Column(title, partial(_value, measure=m), m) for m, title in headings.items()]
    if evaluation == PAIRS:
        columns.append(Column("95 % interval of All", partial(_interval, measure="all")))
    records: list[Record] = []
    for row in rows:
        record: dict[str, object] = {"name": row.name, "paper": ""}
        for measure in headings:
            record |= _measured(row, evaluation, measure, measure)
        won = [measure for measure in headings if best.get(measure) == row.name]
        records.append({**record, **_ends(row, evaluation), "best": won})
        records += [_paper(paper, headings) for paper in papers if paper.name == row.name]
    ours = {row.name for row in rows}
    return columns, records + [
        _paper(paper, headings) for paper in papers if paper.name not in ours
    ]


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
            record = {"name": row.name, "measure": measure, **groups, **mean}
            records.append({**record, **_ends(row, evaluation)})
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
    return {"seeds": row.result.seeds, "n": units, "stale": "; ".join(row.stale)}


def _paper(paper: Reported, measures: Iterable[str]) -> Record:
    record: dict[str, object] = {"name": paper.name, "paper": paper.paper}
    for measure in measures:
        record |= {**dict.fromkeys(_keys(measure)), measure: paper.column(measure)}
    return record | {"seeds": [], "n": "", "stale": "", "best": []}


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
    """Measure -> heading, of the measures that at least one row has."""
    known = [row.evidence[evaluation] for row in rows if evaluation in row.evidence]
    measures = dict.fromkeys(name for evidence in known for name in evidence.ratios)
    return cls.headings(list(measures), known[0].notes if known else None)


def notes(rows: Sequence[Row], evaluation: str, cls: type[Evaluation]) -> list[str]:
    """Return the notes below a table: stale rows, the data, the resolution of the benchmark."""
    lines = stale_notes(rows)
    if evaluation == PAIRS:
        return [*lines, fingerprint_line(rows), "", resolution_line(rows)]
    stored = next(r.result.evaluations[evaluation] for r in rows if evaluation in r.evidence)
    return [*lines, f"Evaluated on data {stored.data}, {stored.units} {cls.unit}."]


def beside_papers(track: Track | None) -> str:
    """Say how the papers' numbers differ from ours, whose rows are of ``track``."""
    model = {} if track is None else track.config["model"]
    weight = model.get("finetuning", {}).get("own_negation_weight", 0)
    own = f" Rows trained on pairs here have own_negation_weight {weight:g}, the poster's 0."
    return (
        "The papers' numbers as printed there (other data, other models); their macro is the mean "
        f"of the printed relations.{own if weight else ''}"
    )


def stale_notes(rows: Sequence[Row]) -> list[str]:
    """One line for each stale row, and an empty one below them."""
    stale = [row for row in rows if row.stale]
    lines = [f"{row.name} is stale: {', '.join(row.stale)}; {row.result.command}" for row in stale]
    return [*lines, ""] if lines else []


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
    margins = rows[0].margins
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
