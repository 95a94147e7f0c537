"""A table: records, columns that print them, and a writer for each format.

A table is made once. Text, Markdown and LaTeX print its cells; CSV and JSON hold its records, the
numbers behind the cells. Nothing depends on the clock, the locale or the machine: the same table
gives the same bytes.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from spatialbench.utils.errors import SpatialbenchError

FORMATS = ("text", "md", "csv", "latex", "json")
Record = Mapping[str, Any]
"""Name -> number, text or list; what a program reads."""
Escape = Callable[[str], str]


class Cell(NamedTuple):
    """A printed cell; ``bold`` where it stands out."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Column:
    """A heading, how a record is printed below it, and the key of the number behind that."""

    heading: str
    cell: Callable[[Record], Cell | str]
    key: str = ""


@dataclass(frozen=True)
class Table:
    """A table and the notes below it.

    A record is a line; one with ``paper`` holds a paper's numbers and is set in italics. Where the
    records have several values of ``section``, each stands as a heading above its lines.
    """

    title: str  # above the table in a terminal
    columns: Sequence[Column]
    records: Sequence[Record]
    notes: Sequence[str] = ()  # paragraphs, separated by empty ones
    left: int = 1  # number of left-aligned columns
    stacked: bool = False  # break headings at spaces in a terminal
    section: Callable[[Record], str] = lambda _: ""

    @property
    def header(self) -> list[str]:
        """Headings of the columns."""
        return [column.heading for column in self.columns]

    @property
    def headings(self) -> dict[int, str]:
        """Place of a record -> the heading above it."""
        return starts([self.section(record) for record in self.records])

    def lines(self, bold: str = "{}", italic: str = "{}", plain: Escape = str) -> list[list[str]]:
        """Return the printed cells, line by line, marked and escaped as a format needs it."""
        lines = []
        for record in self.records:
            given = (column.cell(record) for column in self.columns)
            cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in given]
            texts = [(bold if c.bold and c.text else "{}").format(plain(c.text)) for c in cells]
            mark = italic if record.get("paper") else "{}"
            lines.append([text and mark.format(text) for text in texts])
        return lines

    def markdown(self) -> list[str]:
        """Lines of a Markdown table."""
        lines = self.lines("**{}**", "*{}*")
        return markdown_table(self.header, lines, self.left, [*map(self.section, self.records)])

    def write(self, format: str) -> str:
        """Write the table in one of ``FORMATS``; CSV and JSON send the notes to standard error."""
        if format not in FORMATS:
            raise SpatialbenchError(f"unknown format {format!r}: one of {', '.join(FORMATS)}")
        if format == "text":
            return self._text()
        if format == "md":
            return "\n".join([*self.markdown(), "", *self.notes]) + "\n"
        if format == "latex":
            return self._latex()
        print("\n".join(note for note in self.notes if note), file=sys.stderr)
        if format == "json":
            return json.dumps([dict(record) for record in self.records], indent=2) + "\n"
        return as_csv(self.records)

    def _text(self) -> str:
        """Return text as wide as needed; bold has a star, since not every terminal has bold."""
        drawn = RichTable(title=self.title, title_justify="left")
        for place, title in enumerate(self.header):
            shown = title.replace(" ", "\n") if self.stacked else title
            side: Any = "left" if place < self.left else "right"
            drawn.add_column(shown, justify=side, no_wrap=True)
        for place, (record, cells) in enumerate(zip(self.records, self.lines("{} *"), strict=True)):
            if place in self.headings:
                drawn.add_section()
                drawn.add_row(Text(self.headings[place], style="bold"))
            texts = [Text(text, style="bold" if text.endswith(" *") else "") for text in cells]
            drawn.add_row(*texts, style="dim" if record.get("paper") else None)
        needed = Console(width=1000).measure(drawn).maximum
        console = Console(width=max(needed, Console().width))
        with console.capture() as capture:
            console.print(drawn)
        return capture.get() + "".join(f"{note}\n" for note in self.notes)

    def _latex(self) -> str:
        sides = "l" * self.left + "r" * (len(self.columns) - self.left)
        cells = self.lines("\\textbf{{{}}}", "\\textit{{{}}}", tex)
        head, *lines = (" & ".join(line).strip() for line in ([*map(tex, self.header)], *cells))
        span = f"\\multicolumn{{{len(self.columns)}}}{{l}}"
        for place, title in reversed(self.headings.items()):
            lines.insert(place, f"{span}{{\\emph{{{tex(title)}}}}}")
        return "\n".join(
            [
                f"% {self.title}; needs \\usepackage{{booktabs}}",
                f"\\begin{{tabular}}{{{sides}}}",
                "\\toprule",
                f"{head} \\\\",
                "\\midrule",
                *(f"{line} \\\\" for line in lines),
                "\\bottomrule",
                "\\end{tabular}",
                *(f"\\par\\smallskip{{\\footnotesize {tex(n)}\\par}}" for n in self.notes if n),
                "",
            ]
        )


def number(value: float | None, digits: int = 1) -> str:
    """Format with fixed digits and a point, whatever the locale; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def accuracy_cell(mean: float | None, spread: float | None) -> str:
    """Mean and standard deviation over seeds: ``66.7 ± 0.4``."""
    return number(mean) if spread is None else f"{number(mean)} ± {number(spread)}"


def p_cell(p: float) -> str:
    """P-value with three digits, never 0."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def interval_cell(bounds: Sequence[float] | None) -> str:
    """Bounds of an interval: ``65.9 to 67.5``."""
    return "–" if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}"


def text_column(heading: str, key: str) -> Column:
    """Column of a text, or of an integer, which is a dash where it is None."""
    return Column(heading, lambda record: "–" if record[key] is None else str(record[key]), key)


def number_column(heading: str, key: str, digits: int = 1) -> Column:
    """Column of a number; a dash where a record has none."""
    return Column(heading, lambda record: number(record.get(key), digits), key)


def markdown_table(
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    left: int = 1,
    sections: Sequence[str] = (),
) -> list[str]:
    """Lines of a Markdown table; the first ``left`` columns are left-aligned.

    ``sections``: the heading above each line, repeated for every line below it.
    """
    rule, width = [*["---"] * left, *["---:"] * (len(header) - left)], len(header)
    shown = [*lines]
    for place, title in reversed(starts(sections).items()):
        shown.insert(place, [f"**{title}**", *[""] * (width - 1)])
    texts = ("".join(f" {cell} |" if cell else " |" for cell in line) for line in shown)
    heads = (f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (header, rule))
    return [*heads, *(f"|{text}" for text in texts)]


def starts(sections: Sequence[str]) -> dict[int, str]:
    """Place of the first line of each section -> its heading; none where there is one section."""
    first = {k: name for k, name in enumerate(sections) if k == 0 or sections[k - 1] != name}
    return first if len(first) > 1 else {}


def as_csv(records: Sequence[Record]) -> str:
    """Comma-separated records; a number has four digits, a list its items separated by spaces."""
    stream = io.StringIO()
    keys = list(dict.fromkeys(key for record in records for key in record))
    writer = csv.DictWriter(stream, keys, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in record.items()} for record in records)
    return stream.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else value


_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
}
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")
"""A hyphen that is a sign: before a digit, and not within a word."""


def tex(text: str) -> str:
    """Plain text for LaTeX, in which nothing is a command."""
    signed = _MINUS.sub("\0", text)
    return "".join(_SPECIAL.get(sign, sign) for sign in signed).replace("\0", "$-$")
