"""Every format of one table: the same cells in each, read back by another reader; nothing in them is markup."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from spatialbench.report.markup import escaped
from spatialbench.report.table_model import FORMATS, Cell, Line, Sheet, as_csv, write
from spatialbench.utils.errors import SpatialbenchError

NASTY = r"a_b & 100 % <i> \x {y} #1 $2 ~^ |"
SHEET = Sheet(
    title="made_up & small",
    header=["", "All", "difference"],
    lines=[
        Line(["row_one", Cell("66.7 ± 0.4", bold=True), "-1.2 (-3.0 to +0.6)"]),
        Line([NASTY, "–", "<0.001"]),
        Line(["row_one, Someone 2024", "65.1", ""], paper=True),
    ],
    notes=["first_note: 5 %", "", "second & last"],
    data=[{"name": "row_one", "all": 66.7}],
    rows=[["name", "all", "spread"], ["row_one", 66.66666, None]],
)


def test_markdown() -> None:
    assert write(SHEET, "md").splitlines() == [
        "| | All | difference |",
        "| --- | ---: | ---: |",
        "| row_one | **66.7 ± 0.4** | -1.2 (-3.0 to +0.6) |",
        f"| {NASTY} | – | <0.001 |",
        "| *row_one, Someone 2024* | *65.1* | |",
        "",
        "first_note: 5 %",
        "",
        "second & last",
    ]


def test_text_marks_what_is_bold_where_there_are_no_colours() -> None:
    text = write(SHEET, "text")
    assert "│ 66.7 ± 0.4 * │" in text
    assert text.startswith("made_up & small")
    assert text.endswith("first_note: 5 %\n\nsecond & last\n")


def unescaped(text: str) -> str:
    """LaTeX back to plain text, by its own rules: a command word, or one escaped sign."""
    words = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^"}
    text = re.sub(
        r"\\(text(?:backslash|asciitilde|asciicircum))\{\}",
        lambda m: f"\0{ord(words[m[1]])}\0",
        text,
    )
    text = text.replace("--", "–").replace(r"$\pm$", "±").replace(r"$\times$", "×")
    text = re.sub(r"(?<!\\)\$([-<>|])\$", r"\1", text)
    text = re.sub(r"\\([&%$#_{}])", r"\1", text)
    return re.sub("\0(\\d+)\0", lambda m: chr(int(m[1])), text)


def test_latex_says_the_same() -> None:
    lines = write(SHEET, "latex").splitlines()
    assert lines[:4] == [
        "% made_up & small; needs \\usepackage{booktabs}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"& All & difference \\",
    ]
    assert lines[4] == r"\midrule"
    assert lines[5] == r"row\_one & \textbf{66.7 $\pm$ 0.4} & $-$1.2 ($-$3.0 to +0.6) \\"
    assert lines[7] == r"\textit{row\_one, Someone 2024} & \textit{65.1} &  \\"
    assert lines[8:10] == [r"\bottomrule", r"\end{tabular}"]
    assert lines[10:] == [
        r"\par\smallskip{\footnotesize first\_note: 5 \%\par}",
        r"\par\smallskip{\footnotesize second \& last\par}",
    ]
    cells = re.split(r"(?<!\\)&", lines[6].removesuffix(r" \\"))
    assert [unescaped(cell.strip()) for cell in cells] == [NASTY, "–", "<0.001"]


@pytest.mark.parametrize("text", [NASTY, "R-SC-RLA", "10-20", "(-0.3 to -0.1)", "-5", "p -1"])
def test_nothing_in_a_cell_is_a_command(text: str) -> None:
    plain = escaped(text)
    assert unescaped(plain) == text
    assert not re.search(r"(?<!\\)[&%#_]", plain)


def test_a_hyphen_is_no_minus() -> None:
    assert escaped("R-SC-RLA, ViT-L/14, 10-20") == "R-SC-RLA, ViT-L/14, 10-20"
    assert escaped("-1.0 to -0.5") == "$-$1.0 to $-$0.5"


def test_json_and_csv_hold_the_numbers_and_leave_the_notes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert json.loads(write(SHEET, "json")) == SHEET.data
    assert capsys.readouterr().err == "first_note: 5 %\nsecond & last\n"
    (line,) = csv.DictReader(io.StringIO(write(SHEET, "csv")))
    assert line == {"name": "row_one", "all": "66.6667", "spread": ""}
    assert as_csv([["a,b", 1]]) == '"a,b",1\n'


def test_an_unknown_format_is_one_line() -> None:
    with pytest.raises(
        SpatialbenchError, match="unknown format 'xml': one of text, md, csv, latex, json"
    ):
        write(SHEET, "xml")
    assert all(write(SHEET, format) == write(SHEET, format) for format in FORMATS)
