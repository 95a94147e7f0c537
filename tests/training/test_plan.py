"""Rows of pages with a made-up fit: order, resuming, failures, and what is written."""

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.evaluation.evidence import Evidence
from spatialbench.results.files import read_result, read_row
from spatialbench.results.run_folder import RunRecord, clear
from spatialbench.training.plan import Clock, run
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes
from tests.support.checks import refused

ROW = Path("results/rooms/a.json")


class FakeFit:
    """Writes a finished run folder; counts its calls; fails or is interrupted where told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, bool]] = []
        self.fail: dict[tuple[str, int], BaseException] = {}
        self.info: dict[int, dict[str, object]] = {}
        self.evidence: dict[int, dict[str, Evidence | None]] = {}

    def __call__(self, resolved: Resolved, force: bool) -> RunRecord:
        name, seed, start = resolved.page.name, resolved.seed, resolved.init_from
        if start is not None and not RunRecord.read(start.run_dir).finished:
            raise SpatialbenchError(f"init_from: {start.page.name} is not finished")
        self.calls.append((name, seed, force))
        if (name, seed) in self.fail:
            raise self.fail[name, seed]
        clear(resolved.run_dir)
        evidence = {kind: make(10 * seed + len(name)) for kind, make in fakes.MAKERS.items()}
        evidence |= self.evidence.get(seed, {})  # type: ignore[arg-type]
        kept = {kind: found for kind, found in evidence.items() if found is not None}
        return fakes.write_run(resolved, kept, **self.info.get(seed, {}))


@pytest.fixture
def fit() -> FakeFit:
    return FakeFit()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a working folder with the pages a, b and c; c starts from a."""
    monkeypatch.chdir(tmp_path)
    folder = fakes.benchmarks(Path("benchmarks"), "a", "b")
    (folder / "c.yaml").write_text(fakes.page_text("init_from: a\n"))


def pages(*names: str) -> list[str]:
    return [f"benchmarks/{name}.yaml" for name in names]


def test_pages_by_seeds_make_rows(fit: FakeFit) -> None:
    assert run(pages("b", "a"), seeds=[0, 1], fit=fit) == 0
    assert fit.calls == [(page, seed, False) for page in "ba" for seed in (0, 1)]
    row = read_row(Path("results/rooms/b.json"))
    result = row.result
    assert (result.seeds, result.page) == ([0, 1], "benchmarks/b.yaml")
    assert (result.parameters.total, result.parameters.trainable) == (20, 10)
    assert result.runs[1].wall_seconds == {"train": 100.0, "total": 120.0}
    assert list(row.evidence) == ["pairs", "regions", "selection"]
    for name, found in row.evidence.items():
        made = [fakes.MAKERS[name](10 * seed + 1) for seed in (0, 1)]
        for measure, value in result.evaluations[name].value.items():
            expected = [seed.values()[measure] for seed in made]
            assert found.seed_values(measure) == pytest.approx(expected)
            assert value == pytest.approx(np.mean(expected), abs=1e-4)


def test_what_is_done_is_skipped_and_force_runs_it_again(
    fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    run(pages("a"), seeds=[0, 1], fit=fit)
    before = ROW.read_bytes()
    for seeds in ([0, 1], [1]):  # fewer seeds do not make a poorer row
        assert run(pages("a"), seeds=seeds, fit=fit) == 0
    assert len(fit.calls) == 2
    assert "a is current: results/rooms/a.json; --force makes it again" in capsys.readouterr().err
    assert ROW.read_bytes() == before
    run(pages("a"), seeds=[0, 1, 2], fit=fit)
    assert fit.calls[2:] == [("a", 2, False)]
    assert read_result(ROW).seeds == [0, 1, 2]
    run(pages("a"), seeds=[0, 1], fit=fit, force=True)
    assert fit.calls[3:] == [("a", 0, True), ("a", 1, True)]


def test_a_lost_or_edited_row_is_written_again_from_its_run_folders(fit: FakeFit) -> None:
    run(pages("a"), seeds=[0, 1], fit=fit)
    before = ROW.read_bytes()
    edited = before.replace(b'"units": 120', b'"units": 121')
    for damage in (ROW.unlink, lambda: ROW.write_bytes(edited)):
        damage()
        assert run(pages("a"), seeds=[0, 1], fit=fit) == 0
        assert ROW.read_bytes() == before
    assert len(fit.calls) == 2


def test_a_row_keeps_the_curves_of_its_runs(fit: FakeFit) -> None:
    def curve(resolved: Resolved, force: bool) -> RunRecord:
        record = fit(resolved, force)
        line = json.dumps({"step": 9, "val/all": 60.0 + resolved.seed})
        (record.run_dir / "metrics.jsonl").write_text(line)
        return record

    kept = Path("results/rooms/a.curves.jsonl")
    run(pages("a"), seeds=[0, 1], fit=curve)
    written = kept.read_text()
    assert [json.loads(line)["points"] for line in written.splitlines()] == [[[9, 60]], [[9, 61]]]
    run(pages("a"), seeds=[0, 1], fit=fit, force=True)  # new runs have none: the old ones go
    assert not kept.exists()


def test_only_what_concerns_the_row_runs_it_again(fit: FakeFit) -> None:
    page, track = Path("benchmarks/a.yaml"), Path("benchmarks/tracks/rooms.yaml")
    own = "# Another word.\n" + fakes.page_text("budgets: {smoke: {trainer: {max_steps: 1}}}\n")
    wider = fakes.page_text("  init_args: {width: 2}\n")
    run(pages("a"), seeds=[0], fit=fit)
    for file, old, new, again in (
        (page, page.read_text(), own, False),
        (track, "max_steps: 10}", "max_steps: 12}", False),
        (track, "full: {trainer: {max_steps: 100}}", "full: {trainer: {max_steps: 99}}", True),
        (page, own, wider, True),
    ):
        fit.calls.clear()
        file.write_text(file.read_text().replace(old, new))
        run(pages("a"), seeds=[0], fit=fit)
        assert fit.calls == [("a", 0, False)] * again


def test_starts_come_first_and_get_a_row_only_when_asked_for(fit: FakeFit) -> None:
    run(pages("c"), seeds=[0], fit=fit)
    assert fit.calls == [("a", 0, False), ("c", 0, False)]
    assert not ROW.exists()
    assert list(read_result(Path("results/rooms/c.json")).init_from) == ["a"]
    run(pages("c", "a"), seeds=[0], fit=fit)  # c is current, a has its run but no row yet
    assert len(fit.calls) == 2
    assert ROW.exists()
    shutil.rmtree("runs")
    Path("results/rooms/c.json").unlink()
    run(pages("a", "c"), seeds=[0], fit=fit)  # the row of a is current, but its weights are gone
    assert fit.calls[2:] == [("a", 0, False), ("c", 0, False)]
    Path("benchmarks/a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    run(pages("c"), seeds=[0], fit=fit)
    assert fit.calls[4:] == [("a", 0, False), ("c", 0, False)]


@pytest.mark.parametrize("error", [SpatialbenchError("out of paper"), RuntimeError("a bug")])
def test_a_failure_does_not_lose_the_others(
    fit: FakeFit, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    fit.fail["a", 0] = error
    assert run(pages("a", "c", "b"), seeds=[0, 1], fit=fit) == 1
    assert ("a", 1, False) not in fit.calls
    assert Path("results/rooms/b.json").exists()
    said = capsys.readouterr().err
    assert "failed: a: " in said
    assert "failed: c: init_from: a is not finished" in said
    assert ("Traceback" in said) == isinstance(error, RuntimeError)
    fit.fail.clear()
    assert run(pages("a", "c", "b"), seeds=[0, 1], fit=fit) == 0


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ("", {}, "no page given"),
        (("a", "missing"), {}, "no such page: benchmarks/missing.yaml"),
        (("a", "wrong"), {}, "did you mean 'width'"),
        (("a", "circle"), {}, "goes in a circle"),
        ("a", {"track": "rom"}, "unknown track"),
        ("a", {"budget": "ful"}, "unknown budget 'ful'.*: did you mean 'full'?"),
        ("a", {"seeds": [-1]}, "0 or more, got -1"),
        ("a", {"seeds": [0, 0]}, "each once"),
        ("a", {"out": "file"}, "file is a file"),
        ("a", {"runs": "file"}, "file is a file"),
        (("a", "other/a"), {}, "two pages have the name 'a'"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    fit: FakeFit, names: tuple[str, ...], options: dict, message: str
) -> None:
    Path("file").write_text("")
    Path("benchmarks/wrong.yaml").write_text(fakes.page_text("  init_args: {widht: 2}\n"))
    Path("benchmarks/circle.yaml").write_text(fakes.page_text("init_from: around\n"))
    Path("benchmarks/around.yaml").write_text(fakes.page_text("init_from: circle\n"))
    Path("benchmarks/other").mkdir()
    shutil.copy("benchmarks/a.yaml", "benchmarks/other/a.yaml")
    with refused(message):
        run(pages(*names), fit=fit, **options)
    assert fit.calls == []


def test_an_interruption_keeps_what_is_done(
    fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.fail["b", 1] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(pages("a", "b"), seeds=[0, 1], fit=fit)
    assert "stopped: 3 of 4 runs done" in capsys.readouterr().err
    assert ROW.exists()
    fit.fail.clear()
    fit.calls.clear()
    assert run(pages("a", "b"), seeds=[0, 1], fit=fit) == 0
    assert fit.calls == [("b", 1, False)]


def test_one_rank_writes_the_row(fit: FakeFit, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, written in ((1, False), (0, True)):
        monkeypatch.setattr(rank_zero_only, "rank", rank, raising=False)
        assert run(pages("a"), seeds=[0], fit=fit) == 0
        assert ROW.exists() == written


AGAIN = "run (it|them) again with --force"


@pytest.mark.parametrize(
    ("info", "evidence", "message"),
    [
        ({"config_hash": "e"}, {}, "the seeds differ in config_hash"),
        ({"wall_seconds": {"train": "long"}}, {}, "run.json: field 'wall_seconds.train': expected"),
        ({}, {"regions": fakes.regions(1, data="e")}, f"evaluated on different data; {AGAIN}"),
        ({}, {"regions": None}, f"regions.npz is there for seed 0, 2 but not for seed 1; {AGAIN}"),
    ],
)
def test_seeds_that_do_not_belong_together_are_refused(
    fit: FakeFit, capsys: pytest.CaptureFixture[str], info: dict, evidence: dict, message: str
) -> None:
    fit.info[1], fit.evidence[1] = info, evidence
    assert run(pages("a"), seeds=[0, 1, 2], fit=fit) == 1
    assert not ROW.exists()
    said = capsys.readouterr().err
    assert any(re.search(message, line) for line in said.splitlines()), said


def test_a_page_without_pair_test_has_no_row(
    fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.evidence[0] = dict.fromkeys(fakes.MAKERS)
    assert run(pages("a"), seeds=[0], fit=fit) == 0
    assert "a has no pair test: no row is written" in capsys.readouterr().err
    assert not ROW.exists()


def test_an_evaluation_that_a_row_lacks_is_made_up_for_where_its_runs_are_there(
    fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.evidence = {seed: {"selection": None} for seed in (0, 1)}
    run(pages("a"), seeds=[0, 1], fit=fit)
    before = read_result(ROW)
    assert list(before.evaluations) == ["pairs", "regions"]
    for options in ({"seeds": [0]}, {"seeds": [0, 1], "runs": "elsewhere"}):
        run(pages("a"), fit=fit, **options)  # not the row's seeds, or no runs: it is left alone
        assert read_result(ROW) == before
    assert "a is current" in capsys.readouterr().err
    fit.evidence, fit.calls = {}, []
    run(pages("a"), seeds=[0, 1], fit=fit)
    assert fit.calls == [("a", 0, False), ("a", 1, False)]
    after = read_result(ROW)
    evaluations = {name: after.evaluations[name] for name in before.evaluations}
    assert replace(after, evaluations=evaluations) == before
    assert list(after.evaluations) == ["pairs", "regions", "selection"]


def test_seeds_of_different_commits_are_told(
    fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.info[1] = {"commit": "b" * 40, "dirty": True}
    assert run(pages("a"), seeds=[0, 1], fit=fit) == 0
    assert "come from aaaaaaaa, bbbbbbbb (dirty)" in capsys.readouterr().err


def test_the_remaining_time_follows_from_the_runs_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    a = resolve("benchmarks/a.yaml", "rooms", "full", 0)
    monkeypatch.setattr(time, "monotonic", lambda: 130.0)
    clock = Clock(total=4, started=100.0)
    assert clock.line([a] * 4) == "[1/4] a (rooms, budget full, seed 0), 0:00:30 passed"
    assert clock.line([a]).endswith("0:00:30 passed, about 0:00:10 left")
