"""Looks through a file in EmbSpatial's schema: what is in it, what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spatialbench.data.embspatial.reader import read
from spatialbench.data.image_cache import ImageTable
from spatialbench.data.problems import BAD, FILTERS, FLAGS, KINDS, CheckReport
from spatialbench.data.records import ELEVATION_TAGS
from spatialbench.data.relations import RELATIONS


def check_file(path: str | Path, strict: bool = False) -> CheckReport:
    """Reads a JSON or parquet file in EmbSpatial's schema, decodes every distinct image, keeps nothing.

    Raises:
        SpatialbenchError: the file cannot be read; with ``strict``, the first damaged record.
    """
    return read(Path(path), ImageTable(), strict)[1]


def print_report(report: CheckReport, console: Console | None = None) -> None:
    """Prints a report as tables: counts per relation, every filter with its count, the elevation shortcut."""
    console = console or Console()
    console.print(Text(str(report.path)), soft_wrap=True)
    relations = Table()
    for column in ("relation", "questions", "pairs"):
        relations.add_column(column, justify="left" if column == "relation" else "right")
    for relation in RELATIONS:
        relations.add_row(relation, str(report.relations[relation]), str(report.pairs[relation]))
    relations.add_section()
    relations.add_row("kept", f"{report.kept} of {report.questions}", str(report.pairs.total()))
    console.print(relations)
    console.print(_filters(report))
    console.print(Text(f"{report.images} distinct images"))
    if report.elevation.total():
        tags = ", ".join(f"{tag} {report.elevation[tag]}" for tag in ELEVATION_TAGS)
        baseline = report.elevation_baseline
        line = (
            ""
            if baseline is None
            else f'; "higher in the picture = farther" is right on {100 * baseline:.1f} %'
        )
        console.print(Text(f"elevation of the close and far pairs: {tags}{line}"), soft_wrap=True)
    if report.first_bad:
        console.print(Text(f"first bad record: {report.first_bad}"), soft_wrap=True)


def _filters(report: CheckReport) -> Table:
    table = Table()
    for column in ("filter", "questions", "pairs", "meaning"):
        table.add_column(column, justify="right" if column in ("questions", "pairs") else "left")
    for group in (BAD, FILTERS, FLAGS):
        for kind in group:
            count = report.counts[kind]
            table.add_row(
                kind,
                str(count.questions),
                str(count.pairs),
                KINDS[kind],
                style=None if count.first else "dim",
            )
        table.add_section()
    return table
