"""The published numbers of OpenAI's CLIP: their file, and where they stand beside a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from spatialbench.cli.evaluation import FOLDERS
from spatialbench.report.stored_rows import read_reported

from spatialbench.report.published import read_published, sources
from spatialbench.utils.errors import SpatialbenchError
from tests.support import RESULTS

ITEM = """\
- benchmark: whatsup
  measure: a_four
  paper: Someone 2024
  table: Table 1
  row: CLIP
  clip: {B/32: 30.6}
"""


def test_the_repositorys_numbers_are_those_of_the_sources() -> None:
    """Exact ones of individual_results.csv (ytaek-oh/vl_compo @ 43e2eae), to the digit that is printed."""
    exact = {
        ("whatsup", "a_four"): (30.582524, 26.941748, 26.456311),
        ("whatsup", "b_four"): (30.882353, 30.392157, 25.245098),
        ("cocoqa", "two_pair"): (50.681818, 46.136364, 49.772727),
        ("vgqa", "one_pair"): (46.293103, 48.448276, 45.517241),
        ("aro", "relation_macro"): (59.896019, 59.409595, 61.521721),
        ("aro", "attribution_macro"): (63.196757, 62.553738, 61.859788),
        ("sugarcrepe", "swap_obj"): (61.224490, 60.000000, 60.408163),
        ("sugarcrepe", "replace_rel"): (69.203414, 66.642959, 65.149360),
    }
    for (benchmark, measure), numbers in exact.items():
        found = read_published(RESULTS, benchmark)[measure].clip
        assert list(found) == ["B/32", "B/16", "L/14"]
        assert list(found.values()) == pytest.approx(numbers, abs=0.0501), (benchmark, measure)


def test_they_are_of_benchmarks_that_are_there_and_no_rows_of_a_table() -> None:
    found = {name: read_published(RESULTS, name) for name in FOLDERS}
    assert sum(map(len, found.values())) == (RESULTS / "reported.yaml").read_text().count(
        "\n- benchmark:"
    )
    assert not any(row.name in FOLDERS for row in read_reported(RESULTS / "reported.yaml"))
    assert all(row.note for row in found["cvbench"].values())


def test_sources_and_notes_of_what_is_shown() -> None:
    found = read_published(RESULTS, "cvbench")
    assert sources(found, ["relation", "depth", "relation_sources"]) == [
        "Published: OpenAI CLIP, which a run of its weights must reproduce, but for what differs (*).",
        "MIEB (arXiv 2504.10471), embeddings-benchmark/results",
        "* relation, depth: there picture and question are one query, here two captions are compared",
    ]
    assert sources(read_published(RESULTS, "whatsup"), ["b_four"])[0].endswith("must reproduce.")


def test_no_file_is_no_numbers(tmp_path: Path) -> None:
    assert read_published(tmp_path, "whatsup") == {}


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
    with pytest.raises(SpatialbenchError, match=message) as error:
        read_published(tmp_path, "whatsup")
    assert "\n" not in str(error.value)
