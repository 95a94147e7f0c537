"""The stored controls of a track, as a block below its table."""

from collections.abc import Sequence
from pathlib import Path

from spatialbench.evaluation.controls import checks
from spatialbench.evaluation.controls.suite import ABOUT, OF_MODEL, Controls
from spatialbench.evaluation.pairs import COLUMNS, TITLES
from spatialbench.report import table_model as model
from spatialbench.report.evaluation_table import shown_name
from spatialbench.report.rows import read_rows
from spatialbench.report.table_model import Record, Table
from spatialbench.results.files import STORED_BUDGET, Row
from spatialbench.utils.errors import SpatialbenchError

NAME = Controls.name


def controls_table(results: str | Path, benchmarks: str | Path, track: str, format: str) -> str:
    """Write the controls of a track alone.

    Raises:
        BrokenControl: an exact control does not hold.
        SpatialbenchError: there are none, or a file is damaged.
    """
    rows = _stored(Path(results), Path(benchmarks), track)
    if not rows:
        raise SpatialbenchError(
            f"no controls of track {track} in {results}: spatialbench controls --write"
        )
    return table_of_controls(rows).write(format)


def below_table(
    results: str | Path, benchmarks: str | Path, track: str, budget: str, format: str
) -> str:
    """Return the block of controls, where there are any and the format has room for it."""
    rows = _stored(Path(results), Path(benchmarks), track) if budget == STORED_BUDGET else []
    if not rows or format not in ("text", "md"):
        return ""
    return "\n" + table_of_controls(rows).write(format)


def section(results: Path, benchmarks: Path, track: str) -> list[str]:
    """Lines of results/README.md; none without stored controls."""
    rows = _stored(results, benchmarks, track)
    if not rows:
        return []
    table, text = table_of_controls(rows), Controls.explanation.splitlines()
    return [f"### {Controls.title}", "", *text, "", *table.markdown(), "", *table.notes]


def _stored(results: Path, benchmarks: Path, track: str) -> list[Row]:
    rows = read_rows(results, benchmarks, track, NAME)
    for row in rows:
        checks.check(row.evidence[NAME], f"{results / track / NAME / row.name}.json: ")
    return rows


def table_of_controls(rows: Sequence[Row]) -> Table:
    """Make the table: scorers without a model once, then those of each page."""
    first = rows[0]
    free = [name for name in ABOUT if name not in OF_MODEL]
    scorers = [(first, name, "") for name in free]
    scorers += [(row, name, row.name) for row in rows for name in OF_MODEL]
    records = [
        _record(row, name, page)
        for row, name, page in scorers
        if f"{name}: all" in row.evidence[NAME].ratios
    ]
    columns = [
        model.Column("", _name),
        model.text_column("verdict", "verdict"),
        *(model.number_column(TITLES[column], column) for column in COLUMNS),
        model.Column("95 % interval of All", lambda r: model.interval_cell((r["low"], r["high"]))),
        model.text_column("ties", "ties"),
    ]
    title = f"{first.result.track}, budget {first.result.budget}: controls, accuracy in %"
    return Table(title, columns, records, _notes(rows), left=2)


def _record(row: Row, scorer: str, page: str) -> Record:
    evidence, stored = row.evidence[NAME], row.result.evaluations[NAME]
    low, high = stored.interval[f"{scorer}: all"] or (None, None)
    return {
        "name": scorer,
        "page": page,
        "about": ABOUT[scorer],
        "verdict": checks.verdict(evidence, scorer),
        "exact": scorer in checks.exact(evidence),
        **{column: stored.value[f"{scorer}: {column}"] for column in COLUMNS},
        "low": low,
        "high": high,
        "ties": sum(seed.ties for seed in checks.counts(evidence, scorer).values()),
        "stale": "; ".join(row.stale) if page else "",
    }


def _name(record: Record) -> str:
    name = f"{record['page']}, {record['name']}" if record["page"] else record["name"]
    return shown_name(name, record["stale"])


def _notes(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        evidence = row.evidence[NAME]
        where = f"--config {row.result.page} --track {row.result.track}"
        again = f"spatialbench controls {where} --write"
        lines += [f"The controls of {row.name} are stale: {why}; {again}" for why in row.stale]
        lines += [
            f"{row.name}, mirrored: {what}: {gain:+.1f} points ({low:+.1f} to {high:+.1f})."
            for what, (gain, low, high) in checks.differences(evidence).items()
        ]
        missing = checks.absent(evidence).items()
        lines += [f"Not of these records: {name}, {reason}." for name, reason in missing]
    first = rows[0].result.evaluations[NAME]
    pages = "; ".join(
        f"{row.name} seed {row.result.seeds[0]}, commit {row.result.made[0][0][:10] or 'none'}"
        for row in rows
    )
    data = f"Data {first.data}, captions {rows[0].result.grammar}; {first.units} records"
    chance = f"chance is {checks.CHANCE:.0f}. Pages: {pages}."
    return [*dict.fromkeys(lines), "", f"{data}, {chance}"]
