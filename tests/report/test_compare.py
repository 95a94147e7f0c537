"""Two rows beside one another: the numbers against the stored outcomes, the verdicts, what is refused."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from spatialbench.cli.commands import RUN
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.paired import TESTED, holm, sign_flip
from spatialbench.evaluation.statistics import correctness
from spatialbench.report.compare import compare, compare_all
from spatialbench.report.differences import Differences
from spatialbench.report.readme import readme
from spatialbench.report.stored_rows import read_rows
from spatialbench.report.table_model import FORMATS
from spatialbench.results.files import (
    ResultOutcomes,
    make_result,
    read_outcomes,
    read_result,
    write_result,
)
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Rows a and like (near chance, other draws), b (much better), short (one seed)."""
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a", "like", "b", "short")
    results = tmp_path / "results"
    fakes.store(results, "a", benchmarks, shift=0.0)
    fakes.store(results, "like", benchmarks, shift=0.0)
    fakes.store(results, "b", benchmarks, shift=1.5)
    fakes.store(results, "short", benchmarks, seeds=(0,))
    return results, benchmarks


def outcomes(folders: tuple[Path, Path], name: str) -> ResultOutcomes:
    path = folders[0] / f"rooms/{name}.json"
    return read_outcomes(path, read_result(path))


def found(folders: tuple[Path, Path], a: str, b: str) -> dict[str, dict]:
    return json.loads(compare(a, b, *folders, format="json"))["columns"]


def test_the_numbers_are_those_of_the_outcomes(folders: tuple[Path, Path]) -> None:
    a, b = outcomes(folders, "b"), outcomes(folders, "a")
    columns = found(folders, "b", "a")
    assert list(columns) == list(TESTED)
    for column, line in columns.items():
        chosen = np.ones(120, bool) if column == "all" else a.relation == column
        lead = correctness(a.margins[:, chosen]) - correctness(b.margins[:, chosen])
        assert line["n"] == chosen.sum()
        assert line["a"] - line["b"] == pytest.approx(line["difference"], abs=1e-3)
        assert line["difference"] == pytest.approx(100 * lead.mean(), abs=1e-3)
        assert line["won"] == pytest.approx(100 * (lead > 0).mean(), abs=1e-3)
        assert line["lost"] == pytest.approx(100 * (lead < 0).mean(), abs=1e-3)
        for seed, one in enumerate(line["mcnemar"]):
            table = [[0, (lead[seed] > 0).sum()], [(lead[seed] < 0).sum(), 0]]
            assert one["p"] == pytest.approx(
                statsmodels_mcnemar(table, exact=True).pvalue, rel=1e-4
            )
    family = [columns[relation]["p"] for relation in RELATIONS]
    assert [columns[relation]["p_holm"] for relation in RELATIONS] == pytest.approx(
        holm(family), rel=1e-4
    )
    everything = sign_flip(a.margins, b.margins, a.cluster)
    assert columns["all"]["p"] == columns["all"]["p_holm"] == pytest.approx(everything, rel=1e-4)


def test_verdicts_and_their_reversal(folders: tuple[Path, Path]) -> None:
    forth, back = found(folders, "b", "a"), found(folders, "a", "b")
    assert forth["all"]["verdict"] == "better"
    assert back["all"]["verdict"] == "worse"
    for column in TESTED:
        assert back[column]["difference"] == -forth[column]["difference"]
        assert back[column]["interval"] == [-bound for bound in forth[column]["interval"][::-1]]
        assert (back[column]["won"], back[column]["p"]) == (
            forth[column]["lost"],
            forth[column]["p"],
        )
    same = found(folders, "a", "like")
    assert {line["verdict"] for line in same.values()} == {"not distinguishable"}


def test_the_interval_is_the_one_of_the_report(folders: tuple[Path, Path]) -> None:
    """In whatever company a pair is printed."""
    interval = found(folders, "b", "a")["all"]["interval"]
    gain = Differences(read_rows(*folders, "rooms")).between("b", "a", "all")
    assert gain is not None
    assert list(gain.interval) == pytest.approx(interval, abs=1e-4)
    pairs = json.loads(compare_all(*folders, format="json"))
    (pair,) = [one for one in pairs if {one["a"], one["b"]} == {"a", "b"}]
    assert sorted(map(abs, pair["interval"])) == sorted(map(abs, interval))
    (folders[0] / "rooms/short.json").unlink()
    (folders[0] / "rooms/short.outcomes.npz").unlink()
    assert f"| {gain.cell} |" in readme(*folders)
    assert found(folders, "b", "a")["all"]["interval"] == interval


def test_every_format(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--results", str(folders[0]), "--benchmarks", str(folders[1])]
    for format in FORMATS:
        assert RUN["compare"](["b", "a", "--format", format, *where]) == 0
        text = capsys.readouterr().out
        assert text == compare("b", "a", *folders, format=format), "the same bytes every time"
        assert "better" in text
    lines = compare("b", "a", *folders, format="md").splitlines()
    assert lines[0].startswith(
        "| | n | b | a | difference (95 % interval) | won | lost | p | p, Holm |"
    )
    assert lines[8].startswith("| All | 120 |")
    assert lines[8].endswith("| **better** |")
    assert any(line.startswith("Track rooms (") for line in lines)
    rows = list(csv.DictReader(io.StringIO(compare("b", "a", *folders, format="csv"))))
    assert [row["column"] for row in rows] == list(TESTED)
    columns = found(folders, "b", "a")
    assert float(rows[0]["mcnemar_p_seed2"]) == columns["close"]["mcnemar"][2]["p"]
    assert float(rows[6]["low"]) == columns["all"]["interval"][0]


def test_stale_rows_are_told(folders: tuple[Path, Path]) -> None:
    (folders[1] / "a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    text = compare("b", "a", *folders, format="md")
    assert "| a (stale) |" in text
    assert "a is stale: page a changed" in text


# ------------------------------------------------------------------------------------------------------------ refused


def test_the_same_or_unknown_rows(folders: tuple[Path, Path]) -> None:
    with pytest.raises(SpatialbenchError, match="a twice: give two rows"):
        compare("a", "a", *folders)
    for name, options, end in (
        ("lik", {}, "did you mean 'like'?"),
        ("benchmarks/like.yaml", {}, "did you mean 'like'?"),
        ("b", {"track": "room"}, "did you mean 'rooms'?"),
        ("b", {"budget": "ful"}, "did you mean 'full'?"),
        ("b", {"budget": "smoke"}, "but at full: --budget full"),
    ):
        with pytest.raises(
            SpatialbenchError, match=re.escape(f"no row {name!r} of track ") + ".*" + re.escape(end)
        ):
            compare(name, "a", *folders, **options)
    with pytest.raises(SpatialbenchError, match="no pages in nowhere, which is no folder"):
        compare("b", "a", folders[0], "nowhere")
    for wrong in ([], ["a"], ["a", "b", "like"], ["a", "b", "--all"], ["a", "--all"]):
        with pytest.raises(SpatialbenchError, match="give two rows"):
            RUN["compare"](wrong)
    with pytest.raises(SpatialbenchError, match="--column belongs to --all"):
        RUN["compare"](["a", "b", "--column", "left"])


def test_other_seeds(folders: tuple[Path, Path]) -> None:
    message = (
        r"a has the seeds \[0, 1, 2\], short \[0\]: rows are compared seed by seed; spatialbench run benchmarks/a.yaml "
        r"benchmarks/short.yaml --track rooms --budget full --seeds 0,1,2"
    )
    with pytest.raises(SpatialbenchError, match=message):
        compare("a", "short", *folders)


@pytest.mark.parametrize(("field", "what"), [("data_fingerprint", "data"), ("grammar", "captions")])
def test_other_data_or_captions(folders: tuple[Path, Path], field: str, what: str) -> None:
    path = folders[0] / "rooms/b.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, field: "e" * 16}))
    with pytest.raises(
        SpatialbenchError, match=f"rows of different {what} cannot share a table .*e{{16}}: b"
    ):
        compare("a", "b", *folders)
    assert found(folders, "a", "like"), "the others are compared all the same"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda o: replace(o, record_ids=np.char.add(o.record_ids, "x")),
            "rows of different records",
        ),
        (lambda o: replace(o, cluster=np.roll(o.cluster, 1)), "same records in different scenes"),
        (
            lambda o: replace(o, record_ids=np.roll(o.record_ids, 1)),
            "same records in different relations",
        ),
    ],
)
def test_other_records(folders: tuple[Path, Path], change: object, message: str) -> None:
    path = folders[0] / "rooms/b.json"
    result = read_result(path)
    changed = change(read_outcomes(path, result))  # type: ignore[operator]
    runs = [
        replace(run, relations=dict(scores.relations), micro=scores.micro, macro=scores.macro)
        for run, scores in zip(result.runs, changed.scores(), strict=True)
    ]
    identity = {name: getattr(result, name) for name in IDENTITY}
    write_result(path, make_result(runs, changed, **identity), changed)
    with pytest.raises(SpatialbenchError, match=message):
        compare("a", "b", *folders)


IDENTITY = (
    *(
        "name",
        "page",
        "page_hash",
        "track",
        "track_hash",
        "init_from",
        "budget",
        "grammar",
        "data_fingerprint",
    ),
    "parameters",
)


def test_a_damaged_row(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "rooms/b.outcomes.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SpatialbenchError, match=r"b\.outcomes\.npz: not a readable outcomes file"):
        compare("a", "b", *folders)


# --------------------------------------------------------------------------------------------------------- all pairs


def test_the_matrix(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    pairs = json.loads(compare_all(*folders, format="json"))
    assert [(one["a"], one["b"]) for one in pairs] == [("a", "b"), ("a", "like"), ("b", "like")]
    assert [one["verdict"] for one in pairs] == ["worse", "not distinguishable", "better"]
    assert [one["p_holm"] for one in pairs] == pytest.approx(
        holm([one["p"] for one in pairs]), rel=1e-4
    )
    assert "left out: a has the seeds [0, 1, 2], short [0]" in capsys.readouterr().err
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in compare_all(*folders, format="md").split("\n")
    ]
    assert lines[0] == ["", "1", "2", "3", "4"]
    assert [line[0] for line in lines[2:6]] == ["1 a", "2 b", "3 like", "4 short"]
    for i, j in itertools.product(range(4), repeat=2):
        one, other = (lines[2 + x][1 + y].strip("*") for x, y in ((i, j), (j, i)))
        assert (one == other == "–") if i == j or 3 in (i, j) else float(one) == -float(other)
    assert lines[2][2].startswith("**-")
    assert "corrected for 3 pairs" in compare_all(*folders, format="md")


def test_the_matrix_of_a_relation_and_the_command(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--results", str(folders[0]), "--benchmarks", str(folders[1])]
    for format in FORMATS:
        assert RUN["compare"](["--all", "--column", "left", "--format", format, *where]) == 0
        assert capsys.readouterr().out == compare_all(*folders, format=format, column="left")
    pairs = json.loads(compare_all(*folders, format="json", column="left"))
    assert pairs[0]["difference"] == found(folders, "a", "b")["left"]["difference"]
    assert pairs[0]["p"] == found(folders, "a", "b")["left"]["p"]
    with pytest.raises(SpatialbenchError, match="unknown column 'lefft': did you mean 'left'"):
        compare_all(*folders, column="lefft")
    for name in ("b", "like", "short"):
        (folders[0] / f"rooms/{name}.json").unlink()
    with pytest.raises(
        SpatialbenchError, match=r"one row of track rooms at budget full in .*: nothing to compare"
    ):
        compare_all(*folders)
