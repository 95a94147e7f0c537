"""The block of controls below a track's table, and whether the stored ones are current."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spatialbench.evaluation.controls.row import CHANCE, ControlRow
from spatialbench.evaluation.statistics import COLUMNS
from spatialbench.evaluation.pairs import TITLES
from spatialbench.report.table_model import Line, Sheet, interval_cell, markdown, number, write
from spatialbench.results.controls_file import FOLDER, ControlsFile, read_controls
from spatialbench.results.files import STORED_BUDGET
from spatialbench.results.stale import Today, ancestors, grammar_hash, page_hash, track_hash
from spatialbench.utils.errors import SpatialbenchError

HEADING = "Controls"
EXPLANATION = """\
Scorers that know nothing, and changes of the test whose effect is known before: a number of the table is worth what
these are worth ([docs/controls.md](../docs/controls.md)). *exact* controls are asserted, and no table is made of a
test where one does not hold; of the others the verdict says what the 95 % interval says. *boxes* and *depth* are the
ceiling of the rooms; *elevation*, *bottom edge* and *box size* what a shortcut is worth on close and far. A relation
that a scorer says nothing of is a tie, 50."""
HEADER = ("", "verdict", *TITLES.values(), "95 % interval of All", "ties")


def stored_controls(results: Path, track: str) -> list[ControlsFile]:
    """The stored controls of a track, by page; of one test.

    Raises:
        BrokenControl: an exact control does not hold.
        SpatialbenchError: a file is damaged, or they are of different records or captions.
    """
    files = [read_controls(path) for path in sorted((results / track / FOLDER).glob("*.json"))]
    if len({(file.data_fingerprint, file.grammar, file.budget) for file in files}) > 1:
        raise SpatialbenchError(
            f"{results / track / FOLDER}: controls of different data or captions cannot share a table; make them "
            "again: spatialbench controls --write"
        )
    return files


def controls_table(results: str | Path, benchmarks: str | Path, track: str, format: str) -> str:
    """The controls of a track, alone.

    Raises:
        SpatialbenchError: there are none, or see ``stored_controls``.
    """
    files = stored_controls(Path(results), track)
    if not files:
        raise SpatialbenchError(
            f"no controls of track {track} in {results}: spatialbench controls --write"
        )
    return write(controls_sheet(files, Today.read(Path(benchmarks))), format)


def below_table(
    results: str | Path, benchmarks: str | Path, track: str, budget: str, format: str
) -> str:
    """What stands below the rows of a table: the block of controls; nothing where there are none, where they are of
    another budget, and in a format with room for one table only."""
    if (
        format not in ("text", "md")
        or budget != STORED_BUDGET
        or not stored_controls(Path(results), track)
    ):
        return ""
    return "\n" + controls_table(results, benchmarks, track, format)


def section(results: Path, track: str, today: Today) -> list[str]:
    """The lines of results/README.md; none without stored controls."""
    files = stored_controls(results, track)
    if not files:
        return []
    sheet = controls_sheet(files, today)
    return [f"### {HEADING}", "", *EXPLANATION.splitlines(), "", *markdown(sheet), "", *sheet.notes]


def problems(results: Path, today: Today) -> list[str]:
    """What is wrong with the stored controls of every track, one line each."""
    found = []
    for path in sorted(results.glob(f"*/{FOLDER}/*.json")):
        try:
            file = read_controls(path)
        except SpatialbenchError as error:
            found.append(str(error))
            continue
        found += [f"{path}: stale, {reason}; {_again(file)}" for reason in stale(file, today)]
    named = {
        path.with_name(f"{path.stem}.controls.npz") for path in results.glob(f"*/{FOLDER}/*.json")
    }
    strays = sorted(set(results.glob(f"*/{FOLDER}/*.npz")) - named)
    return found + [f"{path}: no file of controls names it; delete it" for path in strays]


def stale(file: ControlsFile, today: Today) -> list[str]:
    """Why controls are not what would be made today; empty when they are."""
    page, track = today.pages.get(file.name), today.tracks.get(file.track)
    if page is None or track is None:
        return [f"page {file.name} is gone" if page is None else f"track {file.track} is gone"]
    pairs = {
        f"page {file.name} changed": (file.page_hash, page_hash(page, file.budget)),
        f"track {file.track} changed": (file.track_hash, track_hash(track, file.budget, page)),
        "a page that it starts from changed": (file.init_from, ancestors(page, file.budget, track)),
        "the captions changed": (file.grammar, grammar_hash()),
    }
    return [reason for reason, (then, now) in pairs.items() if then != now]


def controls_sheet(files: Sequence[ControlsFile], today: Today | None = None) -> Sheet:
    """Scorers without a model once, then those of each page.

    Args:
        today: the pages and tracks as they stand, where stale controls are to be marked.
    """
    rows = [row for row in files[0].rows if not row.page] + [
        row for file in files for row in file.rows if row.page
    ]
    first = files[0]
    return Sheet(
        title=f"{first.track}, budget {first.budget}: controls, accuracy in %",
        header=HEADER,
        lines=[Line(_cells(row)) for row in rows],
        notes=_notes(files, today),
        data=[_json(row) for row in rows],
        rows=_csv(rows),
        left=2,
    )


def _cells(row: ControlRow) -> list[str]:
    ties = sum(count.ties for count in row.relations.values())
    values = [number(row.accuracy[column]) for column in COLUMNS]
    return [_name(row), row.verdict, *values, interval_cell(row.interval["all"]), str(ties)]


def _name(row: ControlRow) -> str:
    return f"{row.page}, {row.name}" if row.page else row.name


def _notes(files: Sequence[ControlsFile], today: Today | None) -> list[str]:
    notes = []
    for file in files:
        for reason in [] if today is None else stale(file, today):
            notes.append(f"The controls of {file.name} are stale: {reason}; {_again(file)}")
        notes += [
            f"{_name(row)}: {what}: {gain:+.1f} points ({low:+.1f} to {high:+.1f})."
            for row in file.rows
            for what, (gain, low, high) in row.differences.items()
        ]
        notes += [f"Not of these records: {name}, {why}." for name, why in file.absent.items()]
    first = files[0]
    pages = "; ".join(
        f"{file.name} seed {file.seed}, commit {file.commit[:10] or 'none'}" for file in files
    )
    return [
        *dict.fromkeys(notes),
        "",
        f"Data {first.data_fingerprint}, captions {first.grammar}; {first.outcomes.records} records, chance is "
        f"{CHANCE:.0f}. Pages: {pages}.",
    ]


def _again(file: ControlsFile) -> str:
    return f"spatialbench controls --config {file.page} --track {file.track} --write"


def _json(row: ControlRow) -> dict[str, Any]:
    """``{name, page, about, verdict, exact, accuracy, interval, differences, ties}``: percent; interval of All."""
    return {
        "name": row.name,
        "page": row.page or None,
        "about": row.about,
        "verdict": row.verdict,
        "exact": row.expected is not None,
        "accuracy": row.accuracy,
        "interval": row.interval["all"],
        "differences": row.differences,
        "ties": sum(count.ties for count in row.relations.values()),
    }


def _csv(rows: Sequence[ControlRow]) -> list[list[object]]:
    lines: list[list[object]] = [["name", "page", "verdict", *COLUMNS, "low", "high", "ties"]]
    for row in rows:
        values = [row.accuracy[column] for column in COLUMNS]
        ties = sum(count.ties for count in row.relations.values())
        lines.append(
            [row.name, row.page, row.verdict, *values, *(row.interval["all"] or (None, None)), ties]
        )
    return lines
