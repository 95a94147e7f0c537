"""Where it is lost: the points of a row, which rows are drawn, and the section of them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.evidence import Evidence
from spatialbench.report import where_lost
from spatialbench.report.html import figures
from spatialbench.report.html.inputs import ReportInputs
from spatialbench.report.rows import read_rows
from spatialbench.results.files import Row
from tests.support import fakes

Folders = tuple[Path, Path]


def located(seed: int) -> Evidence:
    """Answers of the patches and of the probe, the patches far better."""
    made, better = fakes.pairs(seed, 0.0), fakes.pairs(seed + 1, 3.0)
    assert made.margins is not None
    values = {"patches": better.answers(), "embedding": made.answers()}
    return replace(made, margins=made.margins._replace(values=values))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Rows a (cosine alone), b (evaluated), and c (evaluated, of the readouts)."""
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a", "b", "c")
    (benchmarks / "c.yaml").write_text(fakes.page_text("family: readouts\n"))
    for name in "abc":
        more = {} if name == "a" else {"located": [located(seed) for seed in (0, 1, 2)]}
        fakes.store(tmp_path / "results", name, benchmarks, shift=1.0, **more)
    return tmp_path / "results", benchmarks


def rows(folders: Folders) -> dict[str, Row]:
    return {row.name: row for row in read_rows(*folders, "rooms")}


def test_the_points_are_the_stored_numbers_from_the_patches_to_the_score(folders: Folders) -> None:
    row = rows(folders)["b"]
    stages = where_lost.points(row, "left")
    assert [point.stage for point in stages] == ["patches", "embedding", "cosine"]
    stored = row.result.evaluations["located"]
    assert stages[0][1:] == (
        stored.value["patches: left"],
        *(stored.interval["patches: left"] or ()),
    )
    assert stages[2].value == row.result.pairs.value["left"]
    assert stages[0].value > 90 > stages[2].value > stages[1].value
    (cosine,) = where_lost.points(rows(folders)["a"], "left")
    assert cosine.stage == "cosine"
    said = where_lost.words(row, "left")
    assert said.startswith(f"b: patches {stages[0].value:.1f} (")


def test_the_rows_of_the_front_table_are_drawn_if_one_is_evaluated(folders: Folders) -> None:
    known = rows(folders)
    every = [*known.values()]
    assert [row.name for row in where_lost.chosen(every, [])] == ["a", "b"]
    assert [row.name for row in where_lost.chosen(every, ["b", "c"])] == ["b"]
    assert where_lost.chosen(every, ["a"]) == []


def test_the_report_has_a_figure_of_each_relation(folders: Folders) -> None:
    inputs = ReportInputs.read(*folders, "rooms")
    drawn = figures.lost(inputs)
    assert [drawing.title.lower() for drawing in drawn] == [*RELATIONS]
    assert [re.split(":", line)[0] for line in drawn[0].numbers] == ["a", "b"]
    track = folders[1] / "tracks/rooms.yaml"
    track.write_text(f"{track.read_text()}front: [a]\n")
    assert figures.lost(ReportInputs.read(*folders, "rooms")) == []
