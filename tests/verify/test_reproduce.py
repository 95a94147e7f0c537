"""A stored row made again: the report on code, page and evidence; and a real run."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spatialbench.config.experiment import Resolved
from spatialbench.results.files import read_result, read_row
from spatialbench.results.run_folder import RunRecord
from spatialbench.training.plan import run
from spatialbench.utils import provenance
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.provenance import changed_since
from spatialbench.verify.repeat import Fit
from spatialbench.verify.reproduce import reproduce, stored_seed
from tests.support import fakes

ROW = Path("results/rooms/smoke/a.json")
MADE = Path("runs/reproduced/results/rooms/smoke/a.json")
NOW = "b" * 40


def fit(
    change: Callable[[np.ndarray], np.ndarray] = lambda margins: margins,
    level: float = 0.5,
    data: str = "f" * 16,
    **info: object,
) -> Fit:
    """Make runs whose evidence follows from the seed, with changed margins."""

    def make(resolved: Resolved, force: bool) -> RunRecord:
        pairs = fakes.pairs(resolved.seed, data=data)
        answered = fakes.answered(pairs, change(pairs.answers()))
        evidence = {"pairs": answered, "regions": fakes.regions(resolved.seed, level)}
        return fakes.write_run(resolved, evidence, **info)

    return make


@pytest.fixture(autouse=True)
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store the smoke row of a page ``a`` with the seeds 3 and 4."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance, "commit", lambda: (NOW, False))
    monkeypatch.setattr(provenance, "changed_since", lambda commit: [])
    fakes.benchmarks(Path("benchmarks"), "a")
    assert run(["benchmarks/a.yaml"], budget="smoke", seeds=[3, 4], fit=fit()) == 0


def test_it_is_reproduced(capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(ROW, 4, fit=fit()) == 0
    score = f"{read_result(ROW).pairs.by_seed['all'][1]:.2f}"
    assert capsys.readouterr().out.splitlines() == [
        "results/rooms/smoke/a.json, seed 4: benchmarks/a.yaml on rooms, budget smoke",
        "code: the row's is commit aaaaaaaaaa, and no file of the package differs from it",
        "page, track and captions: as they were",
        "environment: the same machine and versions",
        f"All: {score} now, {score} stored",
        "records: all 120 margins are equal",
        "reproduced exactly",
        f"written to {MADE}",
    ]
    made, before = read_row(MADE), read_row(ROW)
    assert (made.result.seeds, before.result.seeds) == ([4], [3, 4])
    assert np.array_equal(made.pairs.answers()[0], before.pairs.answers()[1])
    assert list(made.evidence) == ["pairs", "regions"]


def test_the_first_difference_and_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    flip = np.ones(120, dtype=np.float32)
    flip[[7, 9, 100]] = -1
    assert reproduce(ROW, fit=fit(lambda margins: margins * flip)) == 1
    text = capsys.readouterr().out
    assert "records: 3 of 120 are answered differently; margins differ by 0.0" in text
    problem = "3 records are answered differently (first: rooms-test-00007, far)"
    assert f"not reproduced: {problem}" in text
    assert "reproduced exactly" not in text


def test_small_drift_is_told_and_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(ROW, fit=fit(lambda margins: margins * np.float32(1.005))) == 0
    text = capsys.readouterr().out
    assert "records: 0 of 120 are answered differently; margins differ by 0.0" in text
    rule = "same machine and versions, 0 records answered differently"
    assert f"reproduced within the rule ({rule}" in text


def test_other_evaluations_of_that_seed_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """The stored values are means over seeds; those of the seed must be reproduced."""
    assert reproduce(ROW, 3, fit=fit(level=0.7)) == 1
    moved = "not reproduced: regions moved by more than 0.01 points (box_top1 +"
    assert moved in capsys.readouterr().out
    values = stored_seed(ROW, 4).evidence["regions"].values()
    assert values == pytest.approx(fakes.regions(4).values(), abs=1e-4)


def test_other_data_machine_and_versions(capsys: pytest.CaptureFixture[str]) -> None:
    other = f"not reproduced: other data: {'e' * 16}, stored {'f' * 16}"
    assert reproduce(ROW, fit=fit(data="e" * 16)) == 1
    assert other in capsys.readouterr().out
    versions = {"python": "3.12.1", "torch": "2.15.0"}
    hardware = {"cpu": "Other", "instructions": "AVX2", "cores": 2, "threads": 2, "gpu": None}
    assert reproduce(ROW, fit=fit(versions=versions, hardware=hardware)) == 0
    printed = capsys.readouterr().out  # of what both noted
    assert "environment: cpu Other, was Test CPU; python 3.12.1, was 3.11.0" in printed
    assert "AVX2" not in printed


def test_other_code_and_another_page_are_said_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [f"{name}.py" for name in "abcd"]
    monkeypatch.setattr(provenance, "commit", lambda: (NOW, True))
    monkeypatch.setattr(provenance, "changed_since", lambda commit: files)
    Path("benchmarks/a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    reproduce(ROW, fit=fit())
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == (
        "code: the row's is commit aaaaaaaaaa; 4 files of the package differ in today's bbbbbbbbbb "
        "with changes (a.py, b.py, c.py, ...): git checkout aaaaaaaaaa has the row's own"
    )
    assert lines[2] == "page, track and captions: page a changed"
    monkeypatch.setattr(provenance, "changed_since", lambda commit: None)
    reproduce(ROW, fit=fit())
    assert "commit aaaaaaaaaa, which this checkout does not have" in capsys.readouterr().out


def test_git_says_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in its own repository: a file edited, one committed since, one outside of it."""
    package = tmp_path / "repository" / "package"
    package.mkdir(parents=True)
    monkeypatch.setattr(provenance, "PACKAGE", package)

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", *words]
        done = subprocess.run(command, cwd=package, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(**files: str) -> str:
        for name, text in files.items():
            (package / name).write_text(text)
        git("add", "-A", "..")
        git("commit", "-qm", "changes")
        return git("rev-parse", "HEAD")

    git("init", "-q", "..")
    first = commit(**{"b.py": "1", "../outside.md": "1"})
    assert changed_since(first) == []
    commit(**{"c.py": "1", "../outside.md": "2"})
    (package / "b.py").write_text("2")
    assert changed_since(first) == ["b.py", "c.py"]
    assert changed_since("d" * 40) is None


def test_a_finished_run_is_run_again_and_a_stopped_one_goes_on() -> None:
    seen: list[bool] = []

    def watch(resolved: Resolved, force: bool) -> RunRecord:
        seen.append((resolved.run_dir / "run.json").exists())
        return fit(commit=NOW)(resolved, force)

    for _ in range(2):
        assert reproduce(ROW, fit=watch) == 0
    (path,) = Path("runs/reproduced/runs").rglob("run.json")
    info = json.loads(path.read_text())
    for commit in (NOW, "c" * 40):  # stopped by today's code: resumed; by other code: from nothing
        path.write_text(json.dumps({**info, "finished": False, "commit": commit}))
        assert reproduce(ROW, fit=watch) == 0
    assert seen == [False, False, True, False]


def test_refusals() -> None:
    def refused(message: str, path: Path = ROW, seed: int | None = None) -> None:
        with pytest.raises(SpatialbenchError, match=message):
            reproduce(path, seed, fit=fit())

    refused(r"a\.json: has no seed 7, but 3, 4", seed=7)
    refused(r"no stored row .*b\.json: give its file", ROW.with_name("b.json"))
    Path("benchmarks/a.yaml").unlink()
    refused(r"page a is gone from benchmarks: git checkout aaaaaaaaaa has the row")
    ROW.write_text("{")
    refused("not valid JSON")
