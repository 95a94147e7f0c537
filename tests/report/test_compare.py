"""Two rows compared: the numbers against the stored evidence, the verdicts, what is refused."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatialbench.cli.main import main
from spatialbench.cli.stored import compare as command
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.paired import TESTED, holm, paired_tests
from spatialbench.evaluation.ratio import correctness
from spatialbench.report.compare import compare, compare_all
from spatialbench.report.differences import Differences
from spatialbench.report.readme import readme
from spatialbench.report.rows import read_rows
from spatialbench.results.files import read_row
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes

Folders = tuple[Path, Path]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Rows a and like (near chance), b (much better, also in regions), short (one seed)."""
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a", "like", "b", "short")
    results = tmp_path / "results"
    for name, shift, level in (("a", 0.0, 0.5), ("like", 0.0, 0.5), ("b", 1.5, 0.8)):
        regions = fakes.seeds_of("regions", name, level=level)
        fakes.store(results, name, benchmarks, shift=shift, regions=regions)
    fakes.store(results, "short", benchmarks, seeds=(0,))
    return results, benchmarks


def evidence(folders: Folders, name: str) -> Evidence:
    return read_row(folders[0] / f"rooms/{name}.json").pairs


def compared(folders: Folders, a: str, b: str, **options: Any) -> dict[str, dict[str, Any]]:
    lines = json.loads(compare(a, b, *folders, format="json", **options))
    return {line.pop("column"): line for line in lines}


def test_the_numbers_are_those_of_the_evidence(folders: Folders) -> None:
    a, b = evidence(folders, "b"), evidence(folders, "a")
    tests = paired_tests(a.answers(), b.answers(), a.known_margins.group, a.clusters)
    columns = compared(folders, "b", "a")
    assert list(columns) == list(TESTED)
    for column, line in columns.items():
        test, lead = tests[column], a.values()[column] - b.values()[column]
        assert line["n"] == test.n
        assert line["a"] - line["b"] == pytest.approx(lead, abs=1e-3)
        found = [line[key] for key in ("difference", "won", "lost")]
        assert found == pytest.approx([lead, test.won, test.lost], abs=1e-3)
        found = [line["p"], line["p_holm"], *line["mcnemar_p"]]
        assert found == pytest.approx([test.p, test.holm, *(s.p for s in test.seeds)], rel=1e-4)


def test_verdicts_and_their_reversal(folders: Folders) -> None:
    forth, back = compared(folders, "b", "a"), compared(folders, "a", "b")
    assert (forth["all"]["verdict"], back["all"]["verdict"]) == ("better", "worse")
    for column in TESTED:
        one, other = back[column], forth[column]
        assert one["difference"] == -other["difference"]
        assert (one["low"], one["high"]) == (-other["high"], -other["low"])
        assert (one["won"], one["p"]) == (other["lost"], other["p"])
    same = compared(folders, "a", "like")
    assert {line["verdict"] for line in same.values()} == {"not distinguishable"}


def test_any_evaluation_is_compared(folders: Folders) -> None:
    found = compared(folders, "b", "a", evaluation="regions")
    assert list(found) == ["box_top1", "same_mask", "image_r1"]
    assert found["box_top1"]["verdict"] == "better"
    assert found["box_top1"]["p"] < 0.01
    gain = Differences(read_rows(*folders, "rooms")).between("b", "a", "box_top1")
    assert gain is not None
    assert found["box_top1"]["difference"] == pytest.approx(gain.points, abs=1e-4)
    assert found["image_r1"]["verdict"] == "not distinguishable"
    assert "Boxes top-1" in compare("b", "a", *folders, evaluation="regions")


def test_the_interval_is_the_one_of_the_report(folders: Folders) -> None:
    """Compare in whatever company a pair is printed."""
    line = compared(folders, "b", "a")["all"]
    bounds = [line["low"], line["high"]]
    gain = Differences(read_rows(*folders, "rooms")).between("b", "a", "all")
    assert gain is not None
    assert list(gain.interval) == pytest.approx(bounds, abs=1e-4)
    pairs = json.loads(compare_all(*folders, format="json"))
    (pair,) = [pair for pair in pairs if {pair["a"], pair["b"]} == {"a", "b"}]
    assert [-pair["high"], -pair["low"]] == pytest.approx(bounds)
    for path in (folders[0] / "rooms").glob("short.*"):
        path.unlink()
    assert f"| **{gain.text}** |" in readme(*folders)


def test_bold_is_what_compare_tells_apart(folders: Folders) -> None:
    """The same verdict in a difference of results/README.md as in ``compare``."""
    differences = Differences(read_rows(*folders, "rooms"))
    for a, b, evaluation in (("b", "a", "pairs"), ("like", "a", "pairs"), ("b", "a", "regions")):
        for column, line in compared(folders, a, b, evaluation=evaluation).items():
            bold = differences.cell(a, b, column, evaluation).startswith("**")
            assert bold == (line["verdict"] != "not distinguishable"), (a, b, column)
    assert differences.cell("like", "short", "box_top1", "regions") == "–"


def test_markdown(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    (folders[1] / "a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    text = compare("b", "a", *folders, format="md")
    lines = text.splitlines()
    header = "| | n | b | a (stale) | difference (95 % interval) | won | lost | p |"
    assert lines[0].startswith(header)
    assert lines[8].startswith("| All | 120 |")
    assert lines[8].endswith("| **better** |")
    assert "a is stale: page a changed" in text
    where = ["--results", str(folders[0]), "--benchmarks", str(folders[1])]
    assert main(["compare", "b", "a", "--format", "md", *where]) == 0
    assert capsys.readouterr().out == text, "the same bytes every time"


def test_rows_of_different_families_are_said_to_be(folders: Folders) -> None:
    line = "Different families, a difference and no ranking: trained on pairs: "
    assert line not in compare("b", "a", *folders, format="md")
    (folders[1] / "a.yaml").write_text(fakes.page_text("family: controls\n"))
    assert f"{line}b; controls: a." in compare("b", "a", *folders, format="md")
    text = compare_all(*folders, format="md")
    assert f"{line}b, like, short; controls: a." in text
    assert "| **Controls** | | | | |\n| 4 a |" in text


@pytest.mark.parametrize(
    ("name", "options", "end"),
    [
        ("lik", {}, "did you mean 'like'?"),
        ("benchmarks/like.yaml", {}, "did you mean 'like'?"),
        ("b", {"track": "room"}, "did you mean 'rooms'?"),
        ("b", {"budget": "smoke"}, "but at full: --budget full"),
    ],
)
def test_unknown_rows(folders: Folders, name: str, options: dict[str, str], end: str) -> None:
    message = re.escape(f"no row {name!r} of track ") + ".*" + re.escape(end)
    with pytest.raises(SpatialbenchError, match=message):
        compare(name, "a", *folders, **options)  # type: ignore[arg-type]


def test_wrong_commands(folders: Folders) -> None:
    with pytest.raises(SpatialbenchError, match="a twice: give two rows"):
        compare("a", "a", *folders)
    for wrong in ([], ["a"], ["a", "b", "like"], ["a", "b", "--all"], ["a", "--all"]):
        with pytest.raises(SpatialbenchError, match="give two rows"):
            command(wrong)
    with pytest.raises(SpatialbenchError, match="--column belongs to --all"):
        command(["a", "b", "--column", "left"])
    with pytest.raises(SpatialbenchError, match="--evaluation belongs to two rows"):
        command(["--all", "--evaluation", "regions"])


def test_other_seeds(folders: Folders) -> None:
    """Rows of three seeds and of one are compared, but for McNemar's test of each seed."""
    line = compared(folders, "a", "short")["all"]
    a, short = (evidence(folders, name) for name in ("a", "short"))
    lead = correctness(a.answers()).mean(0) - correctness(short.answers()).mean(0)
    assert line["difference"] == pytest.approx(100 * lead.mean(), abs=1e-3)
    assert line["mcnemar_p"] == []
    assert "(runs: 3 of a and 1 of short)" in compare("a", "short", *folders, format="md")


def test_other_captions(folders: Folders) -> None:
    path = folders[0] / "rooms/b.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "grammar": "e" * 16}))
    with pytest.raises(SpatialbenchError, match="rows of different captions cannot share"):
        compare("a", "b", *folders)
    assert compared(folders, "a", "like"), "the others are compared all the same"


def test_other_records(folders: Folders) -> None:
    seeds = [
        replace(own, margins=own.known_margins._replace(units=np.arange(120).astype(str)))
        for own in fakes.seeds_of("pairs", "b")
    ]
    fakes.store(folders[0], "b", folders[1], pairs=seeds)
    with pytest.raises(SpatialbenchError, match="rows of different records"):
        compare("a", "b", *folders)


def test_the_matrix(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = json.loads(compare_all(*folders, format="json"))
    found = {(pair["a"], pair["b"]): pair["verdict"] for pair in pairs}
    assert list(found) == list(itertools.combinations(["a", "b", "like", "short"], 2))
    assert (found["a", "b"], found["b", "like"]) == ("worse", "better")
    assert found["a", "like"] == "not distinguishable"
    corrected = [pair["p_holm"] for pair in pairs]
    assert corrected == pytest.approx(holm([pair["p"] for pair in pairs]), rel=1e-4)
    text = compare_all(*folders, format="md")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n")]
    assert lines[0] == ["", "1", "2", "3", "4"]
    assert [line[0] for line in lines[2:6]] == ["1 a", "2 b", "3 like", "4 short"]
    for i, j in itertools.product(range(4), repeat=2):
        cell, other = (lines[2 + x][1 + y].strip("*") for x, y in ((i, j), (j, i)))
        if i == j:
            assert cell == other == "–"
        else:
            assert float(cell) == -float(other)
    assert lines[2][2].startswith("**-")
    assert "corrected for 6 pairs" in text
