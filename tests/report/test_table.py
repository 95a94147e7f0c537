"""The table: the exact JSON form, order, stale rows, refusals, the same bytes every time."""

from __future__ import annotations

import csv
import io
import json
import locale
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatialbench.data.relations import RELATIONS
from spatialbench.report.differences import Differences
from spatialbench.report.readme import readme, write_readme
from spatialbench.report.stored_rows import read_reported, read_rows
from spatialbench.report.table import print_run, table
from spatialbench.report.table_model import FORMATS
from spatialbench.results.files import read_result
from spatialbench.utils.errors import SpatialbenchError
from tests.support import ROOT, fakes

COLUMNS = [*RELATIONS, "all", "macro"]
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
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Rows a (near chance), b (better), cc; the papers put b first."""
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a", "b", "cc")
    results = tmp_path / "results"
    fakes.store(results, "a", benchmarks, shift=0.0)
    fakes.store(results, "b", benchmarks, shift=2.0)
    fakes.store(results, "cc", benchmarks, seeds=(0,))
    (results / "reported.yaml").write_text(REPORTED)
    return results, benchmarks


def test_json_has_the_exact_form(folders: tuple[Path, Path]) -> None:
    rows = json.loads(table(*folders, format="json"))
    assert [row["name"] for row in rows] == [
        "b",
        "a",
        "cc",
    ]  # the papers' order first, then by name
    for row in rows:
        assert list(row) == ["name", "accuracy", "interval", "seeds", "n"]
        assert list(row["accuracy"]) == COLUMNS
        low, high = row["interval"]
        assert low <= row["accuracy"]["all"] <= high
        assert row["n"] == 120
    assert rows[0]["seeds"] == [0, 1, 2]
    result = read_result(folders[0] / "rooms/b.json")
    assert rows[0]["accuracy"] == result.accuracy
    assert rows[0]["accuracy"]["all"] > 90


def test_markdown_cells(folders: tuple[Path, Path]) -> None:
    lines = table(*folders, format="md").splitlines()
    assert lines[0] == (
        "| | Close | Far | Left | Right | Above | Under | All | macro | 95 % interval of All | seeds | n |"
    )
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    result = read_result(folders[0] / "rooms/b.json")
    assert cells[0] == "b"
    assert (
        cells[3] == f"**{result.accuracy['left']:.1f} ± {result.spread()['left']:.1f}**"
    )  # told from the second
    assert cells[9] == "{:.1f} to {:.1f}".format(*(result.interval["all"] or ()))
    assert cells[10:] == ["3", "120"]
    single = [cell.strip() for cell in lines[4].split("|")[1:-1]]
    assert "±" not in single[3]  # one seed has no spread
    assert all(line.count("|") == lines[0].count("|") for line in lines[:5])


def test_the_line_of_what_the_rows_share_and_what_they_can_show(folders: tuple[Path, Path]) -> None:
    text = table(*folders, format="md")
    result = read_result(folders[0] / "rooms/a.json")
    assert f"data {'f' * 16}, captions {result.grammar}; 120 records" in text
    assert "points on All; " in text
    assert "points on a relation of 20." in text
    assert text.endswith(".\n")


def test_csv_reads_back(folders: tuple[Path, Path]) -> None:
    rows = list(csv.DictReader(io.StringIO(table(*folders, format="csv", reported=True))))
    result = read_result(folders[0] / "rooms/b.json")
    assert [row["name"] for row in rows] == ["b", "a", "cc", "b", "z"]
    assert float(rows[0]["left"]) == result.accuracy["left"]
    assert float(rows[0]["left_high"]) == pytest.approx(
        (result.interval["left"] or [0, 0])[1], abs=1e-4
    )
    assert rows[0]["seeds"] == "0 1 2"
    assert rows[2]["left_spread"] == ""
    assert (rows[4]["paper"], rows[4]["all"], rows[4]["left"]) == ("Someone 2024", "51.2000", "")


def test_text_for_a_terminal(folders: tuple[Path, Path]) -> None:
    text = table(*folders, reported=True)
    assert "rooms, budget full" in text
    assert "b, Someone 2024" in text
    assert "Smallest paired gain" in text


def test_the_best_is_marked_only_where_it_can_be_told_from_the_second(
    folders: tuple[Path, Path],
) -> None:
    """b, far above the others, in every format; with a second row as good, none."""
    differences = Differences(read_rows(*folders, "rooms"))
    best = [column for column in COLUMNS if differences.verdict("b", "cc", column) == "better"]
    assert {"left", "all", "macro"} < set(best)
    assert (
        "close" not in best
    )  # 20 records of a single seed beside it: the interval excludes 0, the corrected p does not
    (line,) = [
        line for line in table(*folders, format="md").splitlines() if line.startswith("| b |")
    ]
    cells = [cell.strip() for cell in line.split("|")[2:10]]
    assert [
        column for column, cell in zip(COLUMNS, cells, strict=True) if cell.startswith("**")
    ] == best
    assert "Emphasis (a star in a terminal): the best of its column" in table(*folders, format="md")
    assert table(*folders, format="text").count(" * ") == len(best)
    assert table(*folders, format="latex").count(r"\textbf{") == len(best)
    rows = list(csv.DictReader(io.StringIO(table(*folders, format="csv"))))
    assert [row["best"] for row in rows] == [" ".join(best), "", ""]
    (folders[1] / "bb.yaml").write_text(fakes.page_text())
    fakes.store(folders[0], "bb", folders[1], shift=2.0)
    text = table(*folders, format="md")
    assert "**" not in text
    assert "Emphasis" not in text
    assert not any(
        row["best"] for row in csv.DictReader(io.StringIO(table(*folders, format="csv")))
    )


def test_what_stands_below_and_beside_is_there_in_every_format(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The data, what the benchmark can resolve, and the papers' numbers; JSON and CSV tell the notes on stderr."""
    for format in FORMATS:
        capsys.readouterr()
        text = table(*folders, format=format, reported=True)
        notes = capsys.readouterr().err if format in ("json", "csv") else text
        assert f"data {'f' * 16}, captions" in notes
        assert "Smallest paired gain that one seed can show" in notes
        assert "51.2" in text
        assert "Someone 2024" in text


def test_the_papers_numbers_stand_below_ours(folders: tuple[Path, Path]) -> None:
    lines = table(*folders, format="md", reported=True).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:7]] == [
        *("b", "*b, Someone 2024*", "a", "cc", "*z, Someone 2024*")
    ]
    assert (
        "| *50.0* | *60.0* | *70.0* | *80.0* | *90.0* | *40.0* | *66.0* | *65.0* |" in lines[3]
    )  # macro is the mean
    last = json.loads(table(*folders, format="json", reported=True))[-1]
    assert last["accuracy"] == {**dict.fromkeys(COLUMNS), "all": 51.2}
    assert (last["paper"], last["table"], last["row"]) == ("Someone 2024", "Table 1", "Z")
    assert "Someone" not in table(*folders, format="md")


def test_stale_rows_are_marked_with_the_reason(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    benchmarks = folders[1]
    (benchmarks / "a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    (benchmarks / "cc.yaml").unlink()
    text = table(*folders, format="md")
    assert "| a (stale) |" in text
    again = "spatialbench run benchmarks/a.yaml --track rooms --budget full --seeds 0,1,2 --force"
    assert f"a is stale: page a changed; {again}" in text
    assert "cc is stale: page cc is gone" in text
    assert "b (stale)" not in text
    track = benchmarks / "tracks/rooms.yaml"
    track.write_text(track.read_text().replace("image_size: 96", "image_size: 64"))
    assert "b is stale: track rooms changed" in table(*folders, format="md")
    assert "track rooms changed" in table(*folders, format="csv")
    assert len(json.loads(table(*folders, format="json"))) == 3
    assert "b is stale: track rooms changed" in capsys.readouterr().err


def test_other_captions_make_every_row_stale(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        __import__("spatialbench.data.relations").relations.PHRASE, "left", "to the left of"
    )
    assert "b is stale: the captions changed" in table(*folders, format="md")


def test_rows_of_different_data_are_not_merged(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "rooms/a.json"
    path.write_text(path.read_text().replace("f" * 16, "e" * 16))
    message = f"rows of different data cannot share a table .*{'f' * 16}: b, cc"
    with pytest.raises(SpatialbenchError, match=message.replace("b, cc", "b, cc")):
        table(*folders)


def test_a_damaged_row_is_refused(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "rooms/a.json"
    path.write_text(path.read_text()[:-100])
    with pytest.raises(SpatialbenchError, match=r"a\.json: not valid JSON"):
        table(*folders)


def test_no_rows_says_how_to_make_them(folders: tuple[Path, Path]) -> None:
    results = folders[0]
    with pytest.raises(SpatialbenchError, match=r"no rows of track embspatial .*; known: rooms$"):
        table(*folders, track="embspatial")
    with pytest.raises(SpatialbenchError, match=r"budget quick in .*, but at full: --budget full$"):
        table(*folders, budget="quick")
    with pytest.raises(SpatialbenchError, match=r"budget qick in .*: did you mean 'quick'\?$"):
        table(*folders, budget="qick")
    (results / "empty").mkdir()
    with pytest.raises(
        SpatialbenchError,
        match=r"empty: spatialbench run benchmarks/\*.yaml --track rooms --budget full$",
    ):
        table(results / "empty", folders[1])
    with pytest.raises(SpatialbenchError, match=r"no results in .*nowhere, which is no folder"):
        write_readme(results / "nowhere", folders[1])
    with pytest.raises(SpatialbenchError, match="unknown format 'xml'"):
        table(*folders, format="xml")


def test_readme_is_the_same_bytes_whatever_the_surroundings(folders: tuple[Path, Path]) -> None:
    path = write_readme(*folders)
    first = path.read_bytes()
    assert first.decode() == readme(*folders)
    code = (
        "import locale, sys, time; locale.setlocale(locale.LC_ALL, ''); from pathlib import Path;"
        "from spatialbench.report.readme import readme;"
        "sys.stdout.buffer.write(readme(Path(sys.argv[1]), Path(sys.argv[2])).encode())"
    )
    surroundings = {
        **os.environ,
        "LC_ALL": "C",
        "TZ": "Asia/Tokyo",
        "COLUMNS": "40",
        "PYTHONHASHSEED": "7",
    }
    again = subprocess.run(
        [sys.executable, "-c", code, *map(str, folders)],
        env=surroundings,
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert again.stdout == first
    assert locale.getlocale() is not None


def test_readme_sections(folders: tuple[Path, Path]) -> None:
    text = readme(*folders)
    for title in (
        "## rooms",
        "### 95 % intervals",
        "### Paired differences on All",
        "### Cost",
        "### Origin",
    ):
        assert title in text
    assert "| b | 1.50 | 2.00 | 100 | 51200 | 2.0 | 0.9 | 0.0 | 2 cores of Test CPU |" in text
    assert "aaaaaaaaaa" in text
    difference = next(line for line in text.splitlines() if line.startswith("| a | **-"))
    gain = (
        read_result(folders[0] / "rooms/a.json").accuracy,
        read_result(folders[0] / "rooms/b.json").accuracy,
    )
    assert f"**{(gain[0]['all'] or 0) - (gain[1]['all'] or 0):+.1f} (" in difference


def test_readme_without_rows(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    text = readme(tmp_path / "results", fakes.benchmarks(tmp_path / "benchmarks"))
    assert "No rows yet" in text


def test_readme_of_outcomes_without_result_files(folders: tuple[Path, Path]) -> None:
    for path in (folders[0] / "rooms").glob("*.json"):
        path.unlink()
    assert "No rows yet" in readme(*folders)


def test_print_run(capsys: pytest.CaptureFixture[str]) -> None:
    run = fakes.run_outcomes(0)
    tied = replace(run, positive=np.where(np.arange(120) == 3, 0, run.positive).astype(np.float32))
    print_run("a (rooms)", tied)
    text = capsys.readouterr().out
    scores = tied.scores().accuracy()
    assert f"{scores['all']:.1f}" in text
    assert "ties (one half each)" in text
    assert "95 % from" in text


def test_the_repositorys_reported_numbers() -> None:
    """Every row of the poster, by the numbers it prints; the fine-tuned macro is 60.8."""
    rows = {row.name: row for row in read_reported(ROOT / "results/reported.yaml")}
    assert list(rows) == [
        *("clip_zeroshot", "clip_finetune", "residual_linear"),
        *("spatial_attn", "spatial_attn_no_negatives", "spatial_attn_value"),
    ]
    assert [rows[name].accuracy["all"] for name in rows] == [51.2, 65.1, 68.2, 73.3, 72.4, 74.1]
    assert rows["clip_finetune"].column("macro") == pytest.approx(60.8, abs=0.05)
    assert list(rows["spatial_attn_value"].accuracy.values()) == [
        80.9,
        82.1,
        71.9,
        70.6,
        49.5,
        55.5,
        74.1,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {name: a}", r"field 'rows\[0\]\.paper': missing"),
        (REPORTED.replace("all: 66.0", "al: 66.0"), "unknown column 'al' of b"),
        (REPORTED.replace("51.2", "151.2"), "not a percentage"),
        ("- name: [", "cannot be read"),
        ("a: 1", r"field 'rows': expected a list"),
    ],
)
def test_a_wrong_reported_file_is_one_line(
    folders: tuple[Path, Path], text: str, message: str
) -> None:
    (folders[0] / "reported.yaml").write_text(text)
    with pytest.raises(SpatialbenchError, match=message) as error:
        table(*folders, reported=True)
    assert "reported.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_front_page_takes_the_table_of_its_marked_track(folders: tuple[Path, Path]) -> None:
    front = folders[0].absolute().parent / "README.md"
    front.write_text("# Title\n<!-- table: rooms -->\nold\n<!-- end of table -->\nrest\n")
    write_readme(*folders)
    text = front.read_text()
    assert text.startswith("# Title\n<!-- table: rooms -->\n|")
    assert "old" not in text
    assert text.endswith("<!-- end of table -->\nrest\n")
    write_readme(*folders)
    assert front.read_text() == text
