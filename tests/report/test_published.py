"""The published numbers of OpenAI's CLIP: their file, and the columns of a run's table."""

from pathlib import Path

import pytest

from spatialbench.config.evaluations import PUBLISHED
from spatialbench.report.published import published_columns, read_published
from spatialbench.report.rows import read_papers
from tests.support import RESULTS
from tests.support.checks import refused

ITEM = """\
- benchmark: whatsup
  measure: a_four
  paper: Someone 2024
  table: Table 1
  row: CLIP
  clip: {B/32: 30.6}
"""


def test_the_repositorys_numbers_are_those_of_the_sources() -> None:
    """individual_results.csv of ytaek-oh/vl_compo @ 43e2eae has them exactly."""
    exact = {
        ("whatsup", "a_four"): (30.582524, 26.941748, 26.456311),
        ("whatsup", "b_four"): (30.882353, 30.392157, 25.245098),
        ("cocoqa", "two_pair"): (50.681818, 46.136364, 49.772727),
        ("aro", "relation_macro"): (59.896019, 59.409595, 61.521721),
        ("sugarcrepe", "replace_rel"): (69.203414, 66.642959, 65.149360),
    }
    for (benchmark, measure), numbers in exact.items():
        found = read_published(RESULTS, benchmark)[measure].clip
        assert list(found) == ["B/32", "B/16", "L/14"]
        assert list(found.values()) == pytest.approx(numbers, abs=0.0501), (benchmark, measure)


def test_they_are_of_known_benchmarks_and_no_rows_of_a_table() -> None:
    found = {name: read_published(RESULTS, name) for name in PUBLISHED}
    items = (RESULTS / "reported.yaml").read_text().count("\n- benchmark:")
    assert sum(map(len, found.values())) == items
    assert not any(row.name in PUBLISHED for row in read_papers(RESULTS))
    assert all(row.note for row in found["cvbench"].values())


def test_columns_and_sources(tmp_path: Path) -> None:
    columns, footer = published_columns(read_published(RESULTS, "cvbench"))
    assert all(text.endswith("*") for column in columns.values() for text in column.values())
    lines = footer.splitlines()
    assert lines[0].endswith("must reproduce, except for what differs (*).")
    assert "MIEB (arXiv 2504.10471), embeddings-benchmark/results" in lines
    columns, footer = published_columns(read_published(RESULTS, "whatsup"))
    assert columns["B/32"]["a_four"] == "30.6"
    assert footer.splitlines()[0].endswith("must reproduce.")
    assert published_columns(read_published(tmp_path, "whatsup")) == ({}, "")  # no such file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ITEM.replace("B/32", "B/31"), "unknown backbone 'B/31' of whatsup a_four"),
        (ITEM.replace("30.6", "130.6"), "B/32 of whatsup a_four is 130.6, not a percentage"),
        (ITEM.replace("  table: Table 1\n", ""), r"field 'benchmarks\[0\]\.table': missing"),
        (ITEM + ITEM, "whatsup a_four stands there twice"),
    ],
)
def test_a_wrong_item_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "reported.yaml").write_text(text)
    with refused(message):
        read_published(tmp_path, "whatsup")
