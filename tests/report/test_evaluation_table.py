"""The tables of stored rows, of any evaluation: cells, order, stale rows, refusals."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from spatialbench.config.pages import load_track
from spatialbench.evaluation.pairs import COLUMNS
from spatialbench.evaluation.selection import ImageSelection
from spatialbench.report.differences import Differences
from spatialbench.report.evaluation_table import table
from spatialbench.report.rows import read_papers, read_rows
from spatialbench.report.run_table import print_evidence
from spatialbench.report.table_notes import beside_papers
from spatialbench.results.files import read_result, read_row
from spatialbench.utils.errors import SpatialbenchError
from tests.support import ROOT, fakes

Folders = tuple[Path, Path]
REPORTED = """\
- name: b
  paper: Someone 2024
  table: Table 1
  row: B
  accuracy: {close: 50.0, far: 60.0, left: 70.0, right: 80.0, above: 90.0, under: 40.0, all: 66.0}
- name: z
  paper: Someone 2024
  table: Table 1
  row: Z
  accuracy: {all: 51.2}
  trainable: 428
"""


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Rows a (near chance), b (better), cc (one seed); the papers put b first.

    Rows a and b have regions and image selection, too.
    """
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a", "b", "cc")
    results = tmp_path / "results"
    for name, shift in (("a", 0.0), ("b", 2.0)):
        more = {key: fakes.seeds_of(key, name) for key in ("regions", "selection")}
        fakes.store(results, name, benchmarks, shift=shift, **more)
    fakes.store(results, "cc", benchmarks, seeds=(0,))
    (results / "reported.yaml").write_text(REPORTED)
    return results, benchmarks


def records(folders: Folders, **options: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table(*folders, format="csv", **options))))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_json_and_csv_are_the_stored_numbers(folders: Folders) -> None:
    rows = json.loads(table(*folders, format="json"))
    assert [row["name"] for row in rows] == ["b", "a", "cc"]  # the papers' order, then by name
    stored = read_row(folders[0] / "rooms/b.json")
    for column in COLUMNS:
        assert rows[0][column] == stored.result.pairs.value[column]
        low, high = stored.result.pairs.interval[column] or (0, 0)
        assert (rows[0][f"{column}_low"], rows[0][f"{column}_high"]) == (low, high)
        assert rows[0][f"{column}_spread"] == stored.pairs.spread(column)
    assert (rows[0]["seeds"], rows[0]["n"], rows[2]["left_spread"]) == ([0, 1, 2], 120, None)
    same = records(folders)
    assert float(same[0]["left"]) == pytest.approx(rows[0]["left"], abs=1e-4)
    assert (same[0]["seeds"], same[2]["left_spread"]) == ("0 1 2", "")


def test_markdown_cells(folders: Folders) -> None:
    lines = table(*folders, format="md").splitlines()
    header = "| | Close | Far | Left | Right | Above | Under | All | macro | 95 % interval of All |"
    assert lines[0] == f"{header} seeds | n |"
    first = read_row(folders[0] / "rooms/b.json")
    left, spread = first.result.pairs.value["left"], first.pairs.spread("left")
    shown = cells(lines[2])
    assert shown[0] == "b"
    assert shown[3] == f"**{left:.1f} ± {spread:.1f}**"  # told from the second
    assert shown[9] == "{:.1f} to {:.1f}".format(*first.result.pairs.interval["all"] or ())
    assert shown[10:] == ["3", "120"]
    assert "±" not in cells(lines[4])[3]  # one seed has no spread


def test_the_best_is_marked_only_where_it_can_be_told_from_the_second(folders: Folders) -> None:
    """b, far above the others, in every format; with a second row as good, none."""
    differences = Differences(read_rows(*folders, "rooms"))
    best = [column for column in COLUMNS if differences.verdict("b", "cc", column) == "better"]
    assert {"left", "all", "macro"} < set(best)
    assert "close" not in best  # the interval excludes 0, the corrected p of 20 records does not
    line = next(x for x in table(*folders, format="md").splitlines() if x.startswith("| b |"))
    bold = [cell.startswith("**") for cell in cells(line)[1:9]]
    assert [column for column, is_bold in zip(COLUMNS, bold, strict=True) if is_bold] == best
    assert "Emphasis (a star in a terminal): the best of its column" in table(*folders, format="md")
    assert table(*folders, format="text").count(" * ") == len(best)
    assert table(*folders, format="latex").count(r"\textbf{") == len(best)
    assert [row["best"] for row in records(folders)] == [" ".join(best), "", ""]
    (folders[1] / "bb.yaml").write_text(fakes.page_text())
    fakes.store(folders[0], "bb", folders[1], shift=2.0)
    text = table(*folders, format="md")
    assert "**" not in text
    assert "Emphasis" not in text


@pytest.fixture
def families(folders: Folders) -> Folders:
    """Rows b and bb trained on pairs, a and cc enhanced, where a is at chance and cc is not."""
    fakes.store(folders[0], "cc", folders[1], shift=1.5)
    (folders[1] / "bb.yaml").write_text(fakes.page_text())
    fakes.store(folders[0], "bb", folders[1], shift=0.5)
    for name in ("a", "cc"):
        (folders[1] / f"{name}.yaml").write_text(fakes.page_text("family: enhanced\n"))
    return folders


def test_families_are_never_one_list(families: Folders) -> None:
    """A heading above each, in every format; a family in no hash, so that no row is stale."""
    lines = table(*families, format="md").splitlines()[2:8]
    assert [cells(line)[0] for line in lines] == [
        *("**Trained on pairs**", "b", "bb", "**Enhanced without pairs**", "a", "cc"),
    ]
    assert [row["family"] for row in records(families)] == ["pairs"] * 2 + ["enhanced"] * 2
    assert [row["stale"] for row in records(families)] == [""] * 4
    text = table(*families, format="text")
    assert text.index("Trained on pairs") < text.index(" bb ") < text.index("Enhanced without")
    latex = table(*families, format="latex").splitlines()
    place = latex.index(r"\multicolumn{12}{l}{\emph{Enhanced without pairs}} \\")
    assert latex[place + 1].startswith("a & ")
    listed = table(*families, format="md", reported=True).splitlines()
    assert cells(listed[9]) == ["**Of the papers alone**", *[""] * 11]


def test_a_row_is_the_best_of_its_family(families: Folders) -> None:
    best = {row["name"]: row["best"].split() for row in records(families)}
    assert "all" in best["b"]
    assert "all" in best["cc"]
    assert best["a"] == best["bb"] == []


def test_seeds_that_are_all_alike_are_one_run(folders: Folders) -> None:
    """Zero-shot: no spread and one run, and a line says so."""
    once = fakes.seeds_of("pairs", "a", (0,)) * 3
    fakes.store(folders[0], "a", folders[1], pairs=once)
    lines = table(*folders, format="md").splitlines()
    a, b = cells(lines[3]), cells(lines[2])
    assert (a[0], a[-2], b[-2]) == ("a", "1", "3")
    assert "±" not in "".join(a)
    assert "±" in b[7]
    assert "One run, since every seed gives the same: a." in lines
    first = records(folders)[1]
    assert (first["seeds"], first["runs"], first["all_spread"]) == ("0 1 2", "1", "")


def test_the_papers_numbers_stand_below_ours_and_notes_below_all(folders: Folders) -> None:
    text = table(*folders, format="md", reported=True)
    assert f"data {'f' * 16}, captions" in text
    assert "Smallest paired gain that one seed can show" in text
    assert "points on a relation of 20." in text
    lines = text.splitlines()
    names = [cells(line)[0] for line in lines[2:9]]
    assert names == [
        *("**Trained on pairs**", "b", "*b, Someone 2024*", "a", "cc"),
        *("**Of the papers alone**", "*z, Someone 2024*"),
    ]
    printed = "| *50.0* | *60.0* | *70.0* | *80.0* | *90.0* | *40.0* | *66.0* | *65.0* |"
    assert printed in lines[4]  # macro is the mean of the relations
    last = json.loads(table(*folders, format="json", reported=True))[-1]
    assert (last["paper"], last["all"], last["left"]) == ("Someone 2024", 51.2, None)
    assert "Someone" not in table(*folders, format="md")


def test_stale_rows_are_marked_with_the_reason(folders: Folders) -> None:
    benchmarks = folders[1]
    (benchmarks / "a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    (benchmarks / "cc.yaml").unlink()
    text = table(*folders, format="md")
    assert "| a (stale) |" in text
    again = "spatialbench run benchmarks/a.yaml --track rooms --budget full --seeds 0,1,2 --force"
    assert f"a is stale: page a changed; {again}" in text
    assert "cc is stale: page cc is gone" in text
    assert "b (stale)" not in text
    assert "page a changed" in records(folders)[1]["stale"]


def test_rows_of_different_data_are_not_merged(folders: Folders) -> None:
    other = fakes.seeds_of("pairs", "a", data="e" * 16)
    fakes.store(folders[0], "a", folders[1], pairs=other)
    with pytest.raises(SpatialbenchError, match=r"rows of different data of pairs cannot share"):
        table(*folders)
    fakes.store(folders[0], "a", folders[1], regions=fakes.seeds_of("regions", "a", images=58))
    with pytest.raises(SpatialbenchError, match=r"regions of b and a .* not the same units"):
        table(*folders)


def test_no_rows_says_how_to_make_them(folders: Folders) -> None:
    results = folders[0]
    with pytest.raises(SpatialbenchError, match=r"no rows of track embspatial .*; known: rooms$"):
        table(*folders, track="embspatial")
    with pytest.raises(SpatialbenchError, match=r"budget quick in .*, but at full: --budget full$"):
        table(*folders, budget="quick")
    (results / "empty").mkdir()
    command = r"empty: spatialbench run benchmarks/\*.yaml --track rooms --budget full$"
    with pytest.raises(SpatialbenchError, match=command):
        table(results / "empty", folders[1])


def test_an_evaluation_has_a_column_for_each_measure(folders: Folders) -> None:
    lines = table(*folders, format="md", evaluation="regions").splitlines()
    assert lines[0] == "| | Boxes top-1 | Same-mask AUC | Image R@1 | seeds | images |"
    stored = read_row(folders[0] / "rooms/b.json")
    value = stored.result.evaluations["regions"].value["box_top1"]
    spread = stored.evidence["regions"].spread("box_top1")
    assert cells(lines[2]) == ["b", f"{value:.1f} ± {spread:.1f}", *cells(lines[2])[2:4], "3", "60"]
    assert cells(lines[4]) == ["cc", *["–"] * 5]  # a row without the evaluation
    assert f"Evaluated on data {'d' * 16}, 60 images." in lines


def test_an_evaluation_by_group_has_a_line_for_each_measure(folders: Folders) -> None:
    lines = table(*folders, format="md", evaluation="selection").splitlines()
    groups = "left | colour | presence"
    assert lines[0] == f"| | measure | {groups} | mean | 95 % interval | seeds | pairs |"
    stored = read_result(folders[0] / "rooms/b.json").evaluations["selection"]
    shown = cells(lines[2])
    assert shown[:2] == ["b", "Selection, cls"]
    assert shown[2:5] == [f"{value:.1f}" for value in stored.groups["select_cls"].values()]
    assert shown[6] == "{:.1f} to {:.1f}".format(*stored.interval["select_cls"] or ())
    assert cells(lines[3])[1] == "Selection, cls + local"
    found = records(folders, evaluation="selection")
    assert float(found[0]["colour"]) == pytest.approx(stored.groups["select_cls"]["colour"])


def test_an_evaluation_that_no_row_has_is_one_line(folders: Folders) -> None:
    with pytest.raises(SpatialbenchError, match=r"'region' of track rooms: did you mean 'regions'"):
        table(*folders, evaluation="region")
    for name in "ab":
        (folders[0] / f"rooms/{name}.json").unlink()
    with pytest.raises(SpatialbenchError, match="no row of track rooms at budget full has regions"):
        table(*folders, evaluation="regions")


def test_a_run_prints_values_intervals_groups_and_further_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evidence = fakes.selection(0)
    more = {"B/16": {"select_cls": "19.1*"}}
    print_evidence("selection", evidence, ImageSelection, more, "* other images")
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if "19.1*" in line)
    numbers = evidence.values()["select_cls"], *(evidence.interval("select_cls") or ())
    assert all(f"{value:.1f}" in line for value in numbers)
    assert f"{evidence.group_values('select_cls')['colour']:.1f}" in text
    assert "60 pairs of 30 scenes or images" in text
    assert "* other images" in text


@pytest.mark.parametrize(("track", "weight"), [("rooms", 4), ("embspatial", 0), ("coco", None)])
def test_beside_the_papers_it_is_said_that_our_loss_is_not_theirs(
    track: str, weight: float | None
) -> None:
    found = load_track(ROOT / "benchmarks" / "tracks" / f"{track}.yaml")
    given = found.config["model"].get("finetuning", {}).get("own_negation_weight")
    assert given == weight
    note = "have own_negation_weight 4, the poster's 0."
    assert (note in beside_papers(found)) == (weight == 4)
    assert "own_negation" not in beside_papers(None)


def test_the_repositorys_reported_numbers() -> None:
    """Every row of the poster, by the numbers it prints; the fine-tuned macro is 60.8."""
    rows = {row.name: row for row in read_papers(ROOT / "results")}
    names = "clip_zeroshot", "clip_finetune", "residual_linear", "spatial_attn"
    names = *names, "spatial_attn_no_negatives", "spatial_attn_value"
    numbers = dict(zip(names, (51.2, 65.1, 68.2, 73.3, 72.4, 74.1), strict=True))
    assert {name: row.accuracy["all"] for name, row in rows.items()} == numbers
    assert rows["clip_finetune"].column("macro") == pytest.approx(60.8, abs=0.05)
