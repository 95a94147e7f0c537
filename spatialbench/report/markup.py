r"""A table in LaTeX, to be read by ``\input`` where booktabs is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

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


def latex(sheet: Any) -> str:
    """Write a ``table_model.Sheet`` as a booktabs tabular, with its notes below in small print."""
    columns = "l" * sheet.left + "r" * (len(sheet.header) - sheet.left)
    lines = [
        f"% {sheet.title}; needs \\usepackage{{booktabs}}",
        f"\\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row(map(escaped, sheet.header)),
        r"\midrule",
        *(_row(_cell(cell.text, cell.bold, line.paper) for cell in line) for line in sheet.lines),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    notes = [escaped(note) for note in sheet.notes if note]
    lines += [f"\\par\\smallskip{{\\footnotesize {note}\\par}}" for note in notes]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Escape plain text for LaTeX: nothing in it is a command."""
    signed = _MINUS.sub("\0", text)
    return "".join(_SPECIAL.get(sign, sign) for sign in signed).replace("\0", "$-$")


def _row(cells: Iterable[str]) -> str:
    return f"{' & '.join(cells)} \\\\".lstrip()


def _cell(text: str, bold: bool, italic: bool) -> str:
    text = escaped(text)
    text = f"\\textbf{{{text}}}" if bold and text else text
    return f"\\textit{{{text}}}" if italic and text else text
