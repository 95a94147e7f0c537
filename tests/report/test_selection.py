"""The tables of image selection: both scorers, every pattern, and claims about them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from spatialbench.cli.commands import RUN
from spatialbench.evaluation.measures import MeasureResampler
from spatialbench.report.claims import Claim, judge
from spatialbench.report.differences import Differences, Gain, stream
from spatialbench.report.measures import measures_of
from spatialbench.report.readme import readme
from spatialbench.report.selection import print_selection, run_json, selection_table
from spatialbench.report.stored_rows import read_rows
from spatialbench.results.files import read_result
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes

PATTERNS = ["left", "colour", "presence"]
BY_NAME = (stream("b"), stream("a"))
"""How the rows b and a draw their seeds."""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Rows a and b, b better, a with measures, too; plain without image selection."""
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a", "b", "plain")
    results = tmp_path / "results"
    fakes.store(results, "a", benchmarks, fakes.measures_of("a"), fakes.selection_of("a"))
    fakes.store(results, "b", benchmarks, None, fakes.selection_of("b", level=0.9))
    fakes.store(results, "plain", benchmarks, fakes.measures_of("plain"))
    return results, benchmarks


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_markdown_has_a_line_for_each_row_and_scorer(folders: tuple[Path, Path]) -> None:
    lines = selection_table(*folders, format="md").splitlines()
    assert cells(lines[0]) == ["", "scorer", *PATTERNS, "mean", "95 % interval", "seeds", "pairs"]
    assert [cells(line)[:2] for line in lines[2:7]] == [
        ["a", "cls"],
        ["a", "cls + local"],
        ["b", "cls"],
        ["b", "cls + local"],
        ["plain", "–"],
    ]
    found = fakes.selection_of("b", level=0.9)
    right = found.ratios["select_local"].numerator.sum(1)  # [S, P] of 20 pairs each
    assert cells(lines[5])[2:5] == [f"{100 * value / 20:.1f}" for value in right.mean(0)]
    seeds = 100 * right.sum(1) / 60
    assert cells(lines[5])[5] == f"{seeds.mean():.1f} ± {seeds.std(ddof=1):.1f}"
    assert cells(lines[5])[-2:] == ["3", "60"]
    assert all(line.count("|") == lines[0].count("|") for line in lines[:7])
    assert lines[-1] == f"Selected on data {'s' * 16}, 60 pairs."


def test_json_and_csv_hold_what_the_rows_hold(folders: tuple[Path, Path]) -> None:
    rows = json.loads(selection_table(*folders, format="json"))
    stored = read_result(folders[0] / "rooms/a.json").selection
    assert stored is not None
    assert rows[0]["selection"]["select_local"] == {
        "value": stored.value["select_local"],
        "interval": stored.interval["select_local"],
        "patterns": stored.patterns["select_local"],
    }
    assert rows[2] == {"name": "plain", "selection": {}, "seeds": [0, 1, 2], "pairs": None}
    lines = list(csv.DictReader(io.StringIO(selection_table(*folders, format="csv"))))
    assert [(line["name"], line["measure"]) for line in lines][:2] == [
        ("a", "select_cls"),
        ("a", "select_local"),
    ]
    assert len(lines) == 4
    assert float(lines[1]["mean"]) == stored.value["select_local"]
    assert float(lines[1]["colour"]) == stored.patterns["select_local"]["colour"]
    assert float(lines[1]["high"]) == stored.interval["select_local"][1]


def test_text_and_the_command(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--results", str(folders[0]), "--benchmarks", str(folders[1])]
    assert RUN["table"](["--selection", *where]) == 0
    text = capsys.readouterr().out
    assert "image selection in %" in text
    assert "cls + local" in text
    for wrong in (["--measures"], ["--reported"]):
        with pytest.raises(SpatialbenchError, match="leave one out"):
            RUN["table"](["--selection", *wrong, *where])


def test_no_row_with_selection_is_one_line(tmp_path: Path) -> None:
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a")
    fakes.store(tmp_path / "results", "a", benchmarks)
    with pytest.raises(
        SpatialbenchError, match=r"no row of track rooms at budget full in .* has image selection"
    ):
        selection_table(tmp_path / "results", benchmarks)


def test_rows_of_other_pairs_cannot_share_a_table(folders: tuple[Path, Path]) -> None:
    fakes.store(folders[0], "b", folders[1], None, fakes.selection_of("b", data="t" * 16))
    with pytest.raises(SpatialbenchError, match="b measured on other data"):
        selection_table(*folders)


def test_claims_can_name_it_and_are_judged_paired(folders: tuple[Path, Path]) -> None:
    rows = read_rows(*folders, "rooms")
    beside = [measures_of(folders[0], rows, kind) for kind in ("measures", "selection")]
    differences = Differences(rows, *beside)
    claim = Claim("B selects better.", "Someone 2024", "rooms", "b", "a", "select_cls", "higher")
    verdict = judge(claim, rows, differences)
    assert verdict.state == "held"
    a, b = fakes.selection_of("a"), fakes.selection_of("b", level=0.9)
    expected = MeasureResampler(a.scenes).difference(
        b.ratios["select_cls"], a.ratios["select_cls"], BY_NAME
    )
    assert verdict.gain == Gain(*expected)
    assert differences.between("b", "a", "box_top1") is None  # b was not measured
    assert differences.between("plain", "a", "box_top1") is not None
    assert differences.between("plain", "a", "select_cls") is None


def test_the_readme_has_a_section_and_the_measures_keep_theirs(folders: tuple[Path, Path]) -> None:
    text = readme(*folders)
    assert "### Image selection" in text
    head = text[text.index("### Image selection") :]
    assert "| minus a | Selection, cls | Selection, cls + local |" in head
    assert "Selection" not in text[text.index("### Regions") : text.index("### Image selection")]
    (folders[0] / "claims.yaml").write_text(
        "- {claim: B selects better., paper: P, track: rooms, row: b, than: a, column: select_local, expect: higher}\n"
    )
    assert "b - a, Selection, cls + local | above 0 |" in readme(*folders)


def test_no_section_without(tmp_path: Path) -> None:
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a")
    fakes.store(tmp_path / "results", "a", benchmarks, fakes.measures_of("a"))
    assert "Image selection" not in readme(tmp_path / "results", benchmarks)


def test_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    found = fakes.run_selection(0)
    print_selection(found, "a run")
    text = capsys.readouterr().out
    assert all(
        word in text
        for word in ("a run", *PATTERNS, "cls %", "cls + local %", "95 % from", "60 pairs")
    )
    plain = run_json(found)
    right = found.ratios["select_cls"].numerator[0].sum(0)
    assert list(plain["selection"]["select_cls"]["patterns"].values()) == pytest.approx(
        (100 * right / 20).tolist()
    )
    assert plain["selection"]["select_cls"]["value"] == pytest.approx(
        float(np.mean(100 * right / 20))
    )
    assert plain["pairs"] == 60
