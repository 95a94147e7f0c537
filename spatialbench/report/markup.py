"""A table in LaTeX, to be read by ``\\input`` where booktabs is loaded, and in HTML, as a fragment of a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from spatialbench.report.table_model import Cell, Line, Sheet

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
PAPER = '<tr class="paper">'
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")
"""A hyphen that is a sign: before a digit, and not within a word."""


def latex(sheet: Sheet) -> str:
    """A booktabs tabular, the title above it as a comment, the notes below in small print."""
    columns = "l" * sheet.left + "r" * (len(sheet.header) - sheet.left)
    lines = [
        f"% {sheet.title}; needs \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row([escaped(title) for title in sheet.header]),
        r"\midrule",
        *(_row([_latex_cell(cell, line) for cell in line]) for line in sheet.lines),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    lines += [
        f"\\par\\smallskip{{\\footnotesize {escaped(note)}\\par}}" for note in sheet.notes if note
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Plain text for LaTeX: nothing in it is a command."""
    signed = _MINUS.sub("\0", text)
    return "".join(_SPECIAL.get(sign, sign) for sign in signed).replace("\0", "$-$")


def _row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\".lstrip()


def _latex_cell(cell: Cell, line: Line) -> str:
    text = escaped(cell.text)
    text = f"\\textbf{{{text}}}" if cell.bold and text else text
    return f"\\textit{{{text}}}" if line.paper and text else text


def html(sheet: Sheet) -> str:
    """A plain table with its caption, and a paragraph for each note; no style sheet, no script, well-formed XML."""
    heads = [
        f'<th scope="col" style="text-align:{_side(place, sheet)}">{escape(title)}</th>'
        for place, title in enumerate(sheet.header)
    ]
    lines = [
        '<table class="spatialbench">',
        f"<caption>{escape(sheet.title)}</caption>",
        f"<thead><tr>{''.join(heads)}</tr></thead>",
        "<tbody>",
    ]
    for line in sheet.lines:
        cells = [
            f'<td style="text-align:{_side(place, sheet)}">{_html_cell(cell, line)}</td>'
            for place, cell in enumerate(line)
        ]
        lines.append((PAPER if line.paper else "<tr>") + "".join(cells) + "</tr>")
    lines += ["</tbody>", "</table>", *(f"<p>{escape(note)}</p>" for note in sheet.notes if note)]
    return "\n".join(lines) + "\n"


def _side(place: int, sheet: Sheet) -> str:
    return "left" if place < sheet.left else "right"


def _html_cell(cell: Cell, line: Line) -> str:
    text = escape(cell.text)
    text = f"<strong>{text}</strong>" if cell.bold and text else text
    return f"<em>{text}</em>" if line.paper and text else text
