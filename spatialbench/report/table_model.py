"""One way of writing a table: what stands in it, and the writer of every format.

A table is made once, as a :class:`Sheet`; ``write`` turns it into text for a terminal, Markdown, LaTeX, HTML, CSV or
JSON. The first four print the same cells; CSV and JSON have the numbers behind them, in a form of their own that a
program can rely on.

Nothing here depends on the clock, the locale or the machine: the same sheet gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spatialbench.utils.arguments import FORMATS
from spatialbench.utils.errors import SpatialbenchError


class Cell(NamedTuple):
    """What is printed at one place; ``bold`` where it stands out."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        cells: as many as the header has.
        paper: a paper's numbers, not ours: set in italics.
    """

    cells: Sequence[Cell | str]
    paper: bool = False

    def __iter__(self) -> Iterator[Cell]:
        """The cells, each as a :class:`Cell`."""
        return (cell if isinstance(cell, Cell) else Cell(cell) for cell in self.cells)


@dataclass(frozen=True)
class Sheet:
    """A table and what stands below it.

    Attributes:
        title: what it is; printed above it in a terminal, and as a caption.
        header, lines: the printed cells.
        notes: paragraphs below, one line each; an empty one separates them.
        data: the JSON form.
        rows: the CSV form, its header first.
        left: so many first columns stand to the left, the others to the right.
        stacked: a terminal breaks the headings at their spaces.
    """

    title: str
    header: Sequence[str]
    lines: Sequence[Line]
    notes: Sequence[str]
    data: Any
    rows: Sequence[Sequence[object]]
    left: int = 1
    stacked: bool = False


def check_format(format: str) -> None:
    """Raises SpatialbenchError unless it is one of ``FORMATS``."""
    if format not in FORMATS:
        raise SpatialbenchError(f"unknown format {format!r}: one of {', '.join(FORMATS)}")


def write(sheet: Sheet, format: str) -> str:
    """A table in one of ``FORMATS``. JSON and CSV have no place for notes: those go to the standard error.

    Raises:
        SpatialbenchError: an unknown format.
    """
    check_format(format)
    if format in ("json", "csv"):
        print("\n".join(note for note in sheet.notes if note), file=sys.stderr)
        return json.dumps(sheet.data, indent=2) + "\n" if format == "json" else as_csv(sheet.rows)
    if format == "md":
        return "\n".join([*markdown(sheet), "", *sheet.notes]) + "\n"
    if format == "text":
        return as_text(sheet)
    from spatialbench.report import markup

    return markup.latex(sheet)


# ----------------------------------------------------------------------------------------------------------- cells


def number(value: float | None, digits: int = 1) -> str:
    """Fixed digits with a point whatever the locale; a dash where there is nothing."""
    return "–" if value is None else f"{value:.{digits}f}"


def accuracy_cell(mean: float | None, spread: float | None) -> str:
    """``66.7 ± 0.4``: mean and standard deviation over seeds."""
    return number(mean) if spread is None else f"{number(mean)} ± {number(spread)}"


def interval_cell(bounds: Sequence[float] | None) -> str:
    return "–" if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}"


# ---------------------------------------------------------------------------------------------------------- formats


def markdown(sheet: Sheet) -> list[str]:
    """The lines of a Markdown table."""
    lines = []
    for line in sheet.lines:
        texts = [f"**{cell.text}**" if cell.bold else cell.text for cell in line]
        lines.append([f"*{text}*" if text and line.paper else text for text in texts])
    return markdown_table(sheet.header, lines, sheet.left)


def markdown_table(
    header: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1
) -> list[str]:
    """The lines of a Markdown table; the first ``left`` columns stand to the left, the others to the right."""
    rule = [*["---"] * left, *["---:"] * (len(header) - left)]
    return [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (header, rule, *lines)]


def as_csv(rows: Sequence[Sequence[object]]) -> str:
    """Comma-separated; a number with four digits, nothing for None."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([[_plain(value) for value in row] for row in rows])
    return stream.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else value


def as_text(sheet: Sheet) -> str:
    """For a terminal, as wide as it needs; colours only where the terminal has them, so that bold has a star, too."""
    drawn = Table(title=sheet.title, title_justify="left")
    for place, title in enumerate(sheet.header):
        shown = title.replace(" ", "\n") if sheet.stacked else title
        drawn.add_column(shown, justify="left" if place < sheet.left else "right", no_wrap=True)
    for line in sheet.lines:
        texts = [
            Text(f"{cell.text} *", style="bold") if cell.bold else Text(cell.text) for cell in line
        ]
        drawn.add_row(*texts, style="dim" if line.paper else None)
    needed = Console(width=1000).measure(drawn).maximum
    console = Console(width=max(needed, Console().width))
    with console.capture() as capture:
        console.print(drawn)
    return capture.get() + "\n".join(sheet.notes) + "\n"


def show(drawn: Table, footer: str = "") -> None:
    """Prints a table of one run, a hundred columns wide at least, and a line below it."""
    console = Console()
    console = console if console.width >= 100 else Console(width=100)
    console.print(drawn)
    if footer:
        console.print(footer, highlight=False)
