"""A stored row made again: what is said of code and page, of equal and other outcomes; and a real run, twice."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spatialbench.cli.commands import RUN
from spatialbench.evaluation.outcomes import RunOutcomes

from spatialbench.config.experiment import Resolved
from spatialbench.results.files import list_results, read_measures, read_outcomes, read_result
from spatialbench.results.run_folder import RunRecord
from spatialbench.training.plan import run
from spatialbench.utils import provenance
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.provenance import changed_since
from spatialbench.verify.repeat import Fit
from spatialbench.verify.reproduce import reproduce, stored_seed
from tests.support import fakes, tiny

ROW = Path("results/rooms/smoke/a.json")
NOW = "b" * 40


def fit(
    change: Callable[[RunOutcomes], RunOutcomes] = lambda found: found,
    level: float = 0.5,
    **info: object,
) -> Fit:
    """Makes runs whose outcomes and measures follow from the seed, and then are changed."""

    def make(resolved: Resolved, force: bool) -> RunRecord:
        outcomes = change(fakes.run_outcomes(resolved.seed))
        return fakes.write_run(resolved, outcomes, fakes.run_measures(resolved.seed, level), **info)

    return make


@pytest.fixture(autouse=True)
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The smoke row of a page ``a`` with the seeds 3 and 4, made by today's commit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "commit", lambda: (NOW, False))
    monkeypatch.setattr(provenance, "changed_since", lambda commit: [])
    fakes.benchmarks(Path("benchmarks"), "a")
    assert run(["benchmarks/a.yaml"], budget="smoke", seeds=[3, 4], fit=fit()) == 0
    return ROW


def test_it_came_out(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(stored, 4, fit=fit()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "results/rooms/smoke/a.json, seed 4: benchmarks/a.yaml on rooms, budget smoke"
    )
    assert (
        lines[1]
        == "code: the row's is commit aaaaaaaaaa, and no file of the package differs from it"
    )
    assert lines[2:4] == [
        "page, track and captions: as they were",
        "environment: the same machine and versions",
    ]
    all_of_seed = read_result(stored).runs[1].micro
    assert lines[4] == f"All: {all_of_seed:.2f} now, {all_of_seed:.2f} stored"
    assert lines[5:7] == ["records: all 120 margins are equal", "came out exactly"]
    path = Path("runs/reproduced/results/rooms/smoke/a.json")
    assert lines[7] == f"written to {path}"
    made, before = read_result(path), read_result(stored)
    assert (made.seeds, before.seeds) == ([4], [3, 4])
    assert np.array_equal(
        read_outcomes(path, made).margins[0], read_outcomes(stored, before).margins[1]
    )
    assert read_measures(path, made) is not None


def test_the_first_difference_and_how_many(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def flip(found: RunOutcomes) -> RunOutcomes:
        positive = found.positive.copy()
        positive[[7, 9, 100]] *= -1
        return replace(found, positive=positive)

    assert reproduce(stored, fit=fit(flip)) == 1
    text = capsys.readouterr().out
    margin = fakes.run_outcomes(3).margin.astype(np.float16)[7]
    assert "seed 3" in text
    assert (
        "records: 3 of 120 are answered differently, first rooms-test-00007 (far): "
        f"margin {-margin:+.3g}, stored {margin:+.3g}"
    ) in text
    assert (
        "did not come out: 3 records are answered differently (first: rooms-test-00007, far)"
        in text
    )
    assert "came out exactly" not in text


def test_small_drift_is_told_and_allowed(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        reproduce(
            stored,
            fit=fit(lambda found: replace(found, positive=found.positive * np.float32(1.005))),
        )
        == 0
    )
    text = capsys.readouterr().out
    assert "records: all 120 are answered alike; margins differ by 0.0" in text
    assert (
        "came out within the rule (same machine and versions, 0 records answered differently"
        in text
    )


def test_measures_of_that_seed_are_compared(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stored values are means over seeds; the seed's own are what must come out."""
    assert reproduce(stored, 3, fit=fit()) == 0
    assert reproduce(stored, 3, fit=fit(level=0.7)) == 1
    assert (
        "did not come out: the measures moved by more than 0.01 points (box_top1 +"
        in capsys.readouterr().out
    )
    values = stored_seed(stored, 4).result.measures
    assert values is not None
    assert values.value == pytest.approx(fakes.run_measures(4).values(), abs=1e-4)


def test_other_data_machine_and_versions(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(stored, fit=fit(data_fingerprint="e" * 16)) == 1
    assert (
        "did not come out: other data: eeeeeeeeeeeeeeee, stored ffffffffffffffff"
        in capsys.readouterr().out
    )
    renamed = fit(lambda found: replace(found, record_ids=np.char.add(found.record_ids, "x")))
    assert reproduce(stored, fit=renamed) == 1
    assert "did not come out: other data" in capsys.readouterr().out
    versions, hardware = (
        {"python": "3.12.1", "torch": "2.15.0"},
        {"cpu": "Other", "cores": 2, "threads": 2, "gpu": None},
    )
    assert reproduce(stored, fit=fit(versions=versions, hardware=hardware)) == 0
    assert (
        "environment: cpu Other, was Test CPU; python 3.12.1, was 3.11.0" in capsys.readouterr().out
    )


def test_other_code_and_another_page_are_said_first(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(provenance, "commit", lambda: (NOW, True))
    monkeypatch.setattr(
        provenance, "changed_since", lambda commit: ["a.py", "b.py", "c.py", "d.py"]
    )
    Path("benchmarks/a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    reproduce(stored, fit=fit())
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == (
        "code: the row's is commit aaaaaaaaaa; 4 files of the package differ in today's bbbbbbbbbb with changes "
        "(a.py, b.py, c.py, ...): git checkout aaaaaaaaaa has the row's own"
    )
    assert lines[2] == "page, track and captions: page a changed"
    monkeypatch.setattr(provenance, "changed_since", lambda commit: None)
    reproduce(stored, fit=fit())
    assert "commit aaaaaaaaaa, which this checkout does not have" in capsys.readouterr().out


def test_git_says_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in a repository of its own: a file edited, one committed since, one outside of it."""
    package = tmp_path / "repository" / "package"
    package.mkdir(parents=True)

    def git(*words: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", *who, *words], cwd=package, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q", "..")
    for name in ("provenance.py", "b.py", "../outside.md"):
        (package / name).write_text("1\n")
    git("add", "-A", "..")
    git("commit", "-qm", "one")
    first = git("rev-parse", "HEAD")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    assert changed_since(first) == []
    (package / "b.py").write_text("2\n")
    (package / "../outside.md").write_text("2\n")
    assert changed_since(first) == ["b.py"]
    (package / "c.py").write_text("1\n")
    git("add", "-A", "..")
    git("commit", "-qm", "two")
    assert changed_since(first) == ["b.py", "c.py"]
    assert changed_since("d" * 40) is None


def test_a_finished_run_is_run_again_and_a_stopped_one_goes_on(stored: Path) -> None:
    seen: list[bool] = []

    def watch(resolved: Resolved, force: bool) -> RunRecord:
        seen.append((resolved.run_dir / "run.json").exists())
        return fit(commit=NOW)(resolved, force)

    for _ in range(2):
        assert reproduce(stored, fit=watch) == 0
    (path,) = Path("runs/reproduced/runs").rglob("run.json")
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "finished": False}))
    assert reproduce(stored, fit=watch) == 0  # stopped, by today's code: the run goes on
    path.write_text(json.dumps({**info, "finished": False, "commit": "c" * 40}))
    assert reproduce(stored, fit=watch) == 0  # stopped by other code: from nothing
    assert seen == [False, False, True, False]


def test_refusals(stored: Path) -> None:
    with pytest.raises(SpatialbenchError, match=r"a\.json: has no seed 7, but 3, 4"):
        reproduce(stored, 7, fit=fit())
    with pytest.raises(SpatialbenchError, match=r"no stored row .*b\.json: give its file"):
        reproduce(stored.with_name("b.json"), fit=fit())
    Path("benchmarks/a.yaml").unlink()
    with pytest.raises(
        SpatialbenchError,
        match=r"page a is gone from benchmarks: git checkout aaaaaaaaaa has the row",
    ):
        reproduce(stored, fit=fit())
    stored.write_text("{")
    with pytest.raises(SpatialbenchError, match="not valid JSON"):
        reproduce(stored, fit=fit())


# --------------------------------------------------------------------------------------------------- the real thing


def test_a_real_smoke_row_comes_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two steps of training a small student, stored and made again: every margin the same. Then a row that says that
    another seed made it: it does not come out.
    """
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    benchmarks = tiny.benchmark(tmp_path / "small")
    assert run([benchmarks / "clip.yaml"], "tiny", "smoke", [0, 1]) == 0
    (path,) = list_results(Path("results"), "tiny", "smoke")
    where = [str(path), "--benchmarks", str(benchmarks), "--out", "scratch"]
    assert RUN["reproduce"]([*where, "--seed", "1"]) == 0
    text = capsys.readouterr().out
    assert "records: all 24 margins are equal" in text
    assert "came out exactly" in text
    assert read_result(Path("scratch/results/tiny/smoke/clip.json")).seeds == [1]
    data = json.loads(path.read_text())
    data["seeds"] = [5, 1]
    data["runs"][0]["seed"] = 5
    path.write_text(json.dumps(data))
    assert RUN["reproduce"]([*where, "--seed", "5"]) == 1
    assert "did not come out: the margins drifted by more than 0.01" in capsys.readouterr().out
