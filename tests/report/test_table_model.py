"""Every format of one table: the same cells in each, read back by another reader."""

import csv
import io
import json

import pytest

from spatialbench.report.table_model import FORMATS, Cell, Column, Table, number_column, tex
from spatialbench.utils.errors import SpatialbenchError

NASTY = r"a_b & 100 % <i> \x {y} #1 $2 ~^ |"
LATEX = (
    r"a\_b \& 100 \% $<$i$>$ \textbackslash{}x \{y\} \#1 \$2 "
    r"\textasciitilde{}\textasciicircum{} $|$"
)
"""The same for LaTeX."""
TABLE = Table(
    title="made_up & small",
    columns=[
        Column("", lambda record: record["name"]),
        Column("All", lambda record: Cell(record["shown"], record["bold"])),
        number_column("points", "points"),
    ],
    records=[
        {"name": "row_one", "shown": "66.7 ± 0.4", "bold": True, "points": -1.2, "seeds": [0, 1]},
        {"name": NASTY, "shown": "–", "bold": False, "points": None, "seeds": []},
        {"name": "row_one", "paper": "Someone", "shown": "65.1", "bold": False, "points": 2.0},
    ],
    notes=["first_note: 5 %", "", "second & last"],
)


def test_markdown() -> None:
    assert TABLE.write("md").splitlines() == [
        "| | All | points |",
        "| --- | ---: | ---: |",
        "| row_one | **66.7 ± 0.4** | -1.2 |",
        f"| {NASTY} | – | – |",
        "| *row_one* | *65.1* | *2.0* |",
        "",
        "first_note: 5 %",
        "",
        "second & last",
    ]


def test_text_marks_bold_with_a_star() -> None:
    text = TABLE.write("text")
    assert "│ 66.7 ± 0.4 * │" in text
    assert text.startswith("made_up & small")
    assert text.endswith("first_note: 5 %\n\nsecond & last\n")


def test_latex() -> None:
    lines = TABLE.write("latex").splitlines()
    assert lines[:5] == [
        "% made_up & small; needs \\usepackage{booktabs}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"& All & points \\",
        r"\midrule",
    ]
    assert lines[5] == r"row\_one & \textbf{66.7 $\pm$ 0.4} & $-$1.2 \\"
    assert lines[7] == r"\textit{row\_one} & \textit{65.1} & \textit{2.0} \\"
    assert lines[8:] == [
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip{\footnotesize first\_note: 5 \%\par}",
        r"\par\smallskip{\footnotesize second \& last\par}",
    ]
    assert lines[6] == rf"{LATEX} & – & – \\".replace("–", "--")


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("R-SC-RLA, 10-20", "R-SC-RLA, 10-20"),  # no signs
        ("(-0.3 to -0.1)", "($-$0.3 to $-$0.1)"),
        ("-5", "$-$5"),
        ("p -1 × 2", r"p $-$1 $\times$ 2"),
    ],
)
def test_nothing_in_a_cell_is_a_command(text: str, latex: str) -> None:
    assert tex(text) == latex


def test_json_and_csv_hold_the_records_and_leave_the_notes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert json.loads(TABLE.write("json")) == TABLE.records
    assert capsys.readouterr().err == "first_note: 5 %\nsecond & last\n"
    first, second, third = csv.DictReader(io.StringIO(TABLE.write("csv")))
    assert (first["points"], first["seeds"]) == ("-1.2000", "0 1")
    assert (second["name"], second["points"]) == (NASTY, "")
    assert third["paper"] == "Someone"


def test_an_unknown_format_is_one_line() -> None:
    with pytest.raises(SpatialbenchError, match=f"'xml': one of {', '.join(FORMATS)}"):
        TABLE.write("xml")
