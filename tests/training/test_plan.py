"""The runner with a made-up fit: order, resuming, failures, what is written. The real fit is tested elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from spatialbench.config.experiment import Resolved
from spatialbench.evaluation.measures import Measures
from spatialbench.results.files import read_measures, read_outcomes, read_result
from spatialbench.results.run_folder import RunRecord, clear
from spatialbench.training.plan import Clock, run
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes


class FakeFit:
    """Writes a finished run folder; counts its calls; fails or is interrupted where told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, bool]] = []
        self.fail: dict[tuple[str, int], BaseException] = {}
        self.info: dict[int, dict[str, object]] = {}
        self.measures: dict[int, Measures] = {}

    def __call__(self, resolved: Resolved, force: bool) -> RunRecord:
        key = (resolved.page.name, resolved.seed)
        if (
            resolved.init_from is not None
            and not RunRecord.read(resolved.init_from.run_dir).finished
        ):
            raise SpatialbenchError(f"init_from: {resolved.init_from.page.name} is not finished")
        self.calls.append((*key, force))
        if key in self.fail:
            raise self.fail[key]
        outcomes = fakes.run_outcomes(10 * resolved.seed + len(resolved.page.name))
        clear(resolved.run_dir)
        return fakes.write_run(
            resolved, outcomes, self.measures.get(resolved.seed), **self.info.get(resolved.seed, {})
        )


@pytest.fixture
def fit() -> FakeFit:
    return FakeFit()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the pages a, b and c; c starts from a."""
    monkeypatch.chdir(tmp_path)
    folder = fakes.benchmarks(Path("benchmarks"), "a", "b")
    (folder / "c.yaml").write_text(fakes.page_text("init_from: a\n"))
    return tmp_path


def pages(*names: str) -> list[str]:
    return [f"benchmarks/{name}.yaml" for name in names]


def test_pages_by_seeds_make_rows(here: Path, fit: FakeFit) -> None:
    assert run(pages("b", "a"), seeds=[0, 1, 2], fit=fit) == 0
    assert fit.calls == [(page, seed, False) for page in "ba" for seed in range(3)]
    path = here / "results/rooms/b.json"
    result = read_result(path)
    outcomes = read_outcomes(path, result)
    assert result.seeds == [0, 1, 2]
    assert result.page == "benchmarks/b.yaml"
    assert result.data_fingerprint == "f" * 16
    assert (result.parameters.total, result.parameters.trainable) == (20, 10)
    assert result.runs[1].wall_seconds == {"train": 100.0, "total": 120.0}
    expected = fakes.run_outcomes(11).margin
    assert np.array_equal(np.sign(outcomes.margins[1]), np.sign(expected))
    assert result.runs[1].micro == pytest.approx(100 * (expected > 0).mean(), abs=1e-4)


def test_the_seeds_of_the_track_are_the_default(here: Path, fit: FakeFit) -> None:
    run(pages("a"), fit=fit)
    assert [seed for _, seed, _ in fit.calls] == [0, 1, 2]


def test_budgets_other_than_full_have_their_own_folder(here: Path, fit: FakeFit) -> None:
    run(pages("a"), budget="smoke", seeds=[0], fit=fit)
    assert (here / "results/rooms/smoke/a.json").exists()
    assert not (here / "results/rooms/a.json").exists()


def test_what_is_done_is_skipped_and_force_runs_it_again(
    here: Path, fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    run(pages("a"), seeds=[0, 1], fit=fit)
    before = (here / "results/rooms/a.json").read_bytes()
    fit.calls.clear()
    assert run(pages("a"), seeds=[0, 1], fit=fit) == 0
    assert run(pages("a"), seeds=[1], fit=fit) == 0  # fewer seeds do not make a poorer row
    assert fit.calls == []
    assert "a is current: results/rooms/a.json; --force makes it again" in capsys.readouterr().err
    assert (here / "results/rooms/a.json").read_bytes() == before
    run(pages("a"), seeds=[0, 1], fit=fit, force=True)
    assert fit.calls == [("a", 0, True), ("a", 1, True)]


def test_more_seeds_need_only_the_new_runs(here: Path, fit: FakeFit) -> None:
    run(pages("a"), seeds=[0, 1], fit=fit)
    fit.calls.clear()
    run(pages("a"), seeds=[0, 1, 2], fit=fit)
    assert fit.calls == [("a", 2, False)]
    assert read_result(here / "results/rooms/a.json").seeds == [0, 1, 2]


def test_a_lost_or_edited_row_is_written_again_from_its_run_folders(
    here: Path, fit: FakeFit
) -> None:
    run(pages("a"), seeds=[0, 1], fit=fit)
    fit.calls.clear()
    path = here / "results/rooms/a.json"
    before = path.read_bytes()
    for damage in (
        lambda: path.unlink(),
        lambda: path.write_text(path.read_text().replace('"ties": 0', '"ties": 1')),
    ):
        damage()
        assert run(pages("a"), seeds=[0, 1], fit=fit) == 0
        assert path.read_bytes() == before
    assert fit.calls == []


def test_a_row_keeps_the_curves_of_its_runs(
    here: Path, fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    def curve(resolved: Resolved, force: bool) -> RunRecord:
        record = fit(resolved, force)
        (record.run_dir / "metrics.jsonl").write_text(
            json.dumps({"step": 9, "val/all": 60.0 + resolved.seed})
        )
        return record

    kept = here / "results/rooms/a.curves.jsonl"
    run(pages("a"), seeds=[0, 1], fit=curve)
    written = kept.read_text()
    assert [json.loads(line)["points"] for line in written.splitlines()] == [[[9, 60]], [[9, 61]]]
    kept.unlink()
    capsys.readouterr()
    run(pages("a"), seeds=[0], fit=curve)  # not all of the row's runs
    assert not kept.exists()
    run(pages("a"), seeds=[0, 1], fit=curve)
    assert kept.read_text() == written
    assert "a: wrote results/rooms/a.curves.jsonl" in capsys.readouterr().err
    run(pages("a"), budget="smoke", seeds=[0], fit=curve)
    assert not (here / "results/rooms/smoke/a.curves.jsonl").exists()
    run(
        pages("a"), seeds=[0, 1], fit=fit, force=True
    )  # of new runs without any: those of the old ones go
    assert not kept.exists()


def test_a_changed_page_runs_again(here: Path, fit: FakeFit) -> None:
    run(pages("a"), seeds=[0], fit=fit)
    (here / "benchmarks/a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    fit.calls.clear()
    run(pages("a"), seeds=[0], fit=fit)
    assert fit.calls == [("a", 0, False)]


def test_comments_and_other_budgets_do_not_run_it_again(here: Path, fit: FakeFit) -> None:
    run(pages("a"), seeds=[0], fit=fit)
    fit.calls.clear()
    text = fakes.page_text("budgets: {smoke: {trainer: {max_steps: 1}}}\n")
    (here / "benchmarks/a.yaml").write_text("# Another word.\n" + text)
    track = here / "benchmarks/tracks/rooms.yaml"
    track.write_text(
        track.read_text().replace(
            "quick: {trainer: {max_steps: 10}}", "quick: {trainer: {max_steps: 12}}"
        )
    )
    run(pages("a"), seeds=[0], fit=fit)
    assert fit.calls == []
    track.write_text(
        track.read_text().replace(
            "full: {trainer: {max_steps: 100}}", "full: {trainer: {max_steps: 99}}"
        )
    )
    run(pages("a"), seeds=[0], fit=fit)
    assert fit.calls == [("a", 0, False)]


def test_starts_come_first_and_get_a_row_only_when_asked_for(here: Path, fit: FakeFit) -> None:
    run(pages("c"), seeds=[0], fit=fit)
    assert fit.calls == [("a", 0, False), ("c", 0, False)]
    assert not (here / "results/rooms/a.json").exists()
    assert list(read_result(here / "results/rooms/c.json").init_from) == ["a"]
    fit.calls.clear()
    run(pages("c", "a"), seeds=[0], fit=fit)  # c is current, a has its run but no row yet
    assert fit.calls == []
    assert (here / "results/rooms/a.json").exists()


def test_a_current_start_is_run_when_its_folder_is_gone(here: Path, fit: FakeFit) -> None:
    run(pages("a"), seeds=[0], fit=fit)
    shutil.rmtree(here / "runs")
    fit.calls.clear()
    run(pages("a", "c"), seeds=[0], fit=fit)
    assert fit.calls == [("a", 0, False), ("c", 0, False)]


def test_a_change_of_the_start_makes_the_row_stale(here: Path, fit: FakeFit) -> None:
    run(pages("c"), seeds=[0], fit=fit)
    (here / "benchmarks/a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    fit.calls.clear()
    run(pages("c"), seeds=[0], fit=fit)
    assert fit.calls == [("a", 0, False), ("c", 0, False)]


def test_a_circle_is_refused(here: Path, fit: FakeFit) -> None:
    (here / "benchmarks/a.yaml").write_text(fakes.page_text("init_from: c\n"))
    with pytest.raises(SpatialbenchError, match="goes in a circle"):
        run(pages("c", "b"), seeds=[0], fit=fit)
    assert fit.calls == []


@pytest.mark.parametrize("error", [SpatialbenchError("out of paper"), RuntimeError("a bug")])
def test_a_failure_does_not_lose_the_others(
    here: Path, fit: FakeFit, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    fit.fail[("a", 0)] = error
    assert run(pages("a", "c", "b"), seeds=[0, 1], fit=fit) == 1
    assert ("a", 1, False) not in fit.calls
    assert (here / "results/rooms/b.json").exists()
    said = capsys.readouterr().err
    assert "failed: a: " in said
    assert "failed: c: init_from: a is not finished" in said
    assert ("Traceback" in said) == isinstance(error, RuntimeError)
    fit.fail.clear()
    assert run(pages("a", "c", "b"), seeds=[0, 1], fit=fit) == 0


def test_what_is_wrong_from_the_start_is_told_before_anything_runs(
    here: Path, fit: FakeFit
) -> None:
    (here / "file").write_text("")
    (here / "benchmarks/b.yaml").write_text(fakes.page_text("  init_args: {widht: 2}\n"))
    for names, options, message in (
        (("a", "missing"), {}, "no such page: benchmarks/missing.yaml"),
        (("a", "b"), {}, "did you mean 'width'"),
        (("a",), {"budget": "ful"}, "unknown budget 'ful'.*: did you mean 'full'?"),
        (("a",), {"seeds": [-1]}, "0 or more, got -1"),
        (("a",), {"out": "file"}, "file is a file"),
        (("a",), {"runs": "file"}, "file is a file"),
    ):
        with pytest.raises(SpatialbenchError, match=message):
            run(pages(*names), fit=fit, **options)
    assert fit.calls == []


def test_an_interruption_keeps_what_is_done(
    here: Path, fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.fail[("b", 1)] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(pages("a", "b"), seeds=[0, 1], fit=fit)
    assert "stopped: 3 of 4 runs done" in capsys.readouterr().err
    assert (here / "results/rooms/a.json").exists()
    fit.fail.clear()
    fit.calls.clear()
    assert run(pages("a", "b"), seeds=[0, 1], fit=fit) == 0
    assert fit.calls == [("b", 1, False)]


def test_one_rank_writes_the_row(here: Path, fit: FakeFit, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    assert run(pages("a"), seeds=[0], fit=fit) == 0
    assert not (here / "results/rooms/a.json").exists()
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert run(pages("a"), seeds=[0], fit=fit) == 0
    assert (here / "results/rooms/a.json").exists()


def test_seeds_of_different_data_are_refused(
    here: Path, fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.info[1] = {"data_fingerprint": "e" * 16}
    assert run(pages("a"), seeds=[0, 1], fit=fit) == 1
    assert "the seeds differ in data_fingerprint" in capsys.readouterr().err


def test_measures_of_every_seed_go_into_the_row(here: Path, fit: FakeFit) -> None:
    fit.measures = {seed: fakes.run_measures(seed) for seed in range(2)}
    assert run(pages("a"), seeds=[0, 1], fit=fit) == 0
    path = here / "results/rooms/a.json"
    result = read_result(path)
    found = read_measures(path, result)
    assert found is not None
    assert found.digest == Measures.join([fakes.run_measures(0), fakes.run_measures(1)]).digest
    assert result.measures is not None
    one, two = (fakes.run_measures(seed).values()["box_top1"] for seed in range(2))
    assert result.measures.value["box_top1"] == pytest.approx((one + two) / 2, abs=1e-4)


def test_measures_of_some_seeds_only_are_refused(
    here: Path, fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.measures = {seed: fakes.run_measures(seed) for seed in (0, 2)}
    assert run(pages("a"), seeds=[0, 1, 2], fit=fit) == 1
    said = capsys.readouterr().err
    assert (
        "page a: measures.npz is there for seed 0, 2 but not for seed 1; run them again with --force"
        in said
    )
    assert not (here / "results/rooms/a.json").exists()
    fit.measures = {}
    assert (
        run(pages("a"), seeds=[0, 1, 2], fit=fit, force=True) == 0
    )  # --force clears what an earlier run measured
    assert read_result(here / "results/rooms/a.json").measures is None


def test_measures_on_different_data_or_damaged_are_refused(
    here: Path, fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.measures = {0: fakes.run_measures(0), 1: fakes.run_measures(1, data="e" * 16)}
    assert run(pages("a"), seeds=[0, 1], fit=fit) == 1
    assert (
        "the seeds were measured on different data; run them again with --force"
        in capsys.readouterr().err
    )
    fit.measures[1] = fakes.run_measures(1)
    assert run(pages("a"), seeds=[0, 1], fit=fit, force=True) == 0
    file = next(here.glob("runs/rooms/full/a/*/seed1/measures.npz"))
    file.write_bytes(file.read_bytes()[:100])
    (here / "results/rooms/a.json").unlink()
    assert run(pages("a"), seeds=[0, 1], fit=fit) == 1
    assert "seed1/measures.npz: damaged" in capsys.readouterr().err


def test_seeds_of_different_commits_are_told(
    here: Path, fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.info[1] = {"commit": "b" * 40, "dirty": True}
    assert run(pages("a"), seeds=[0, 1], fit=fit) == 0
    assert "come from aaaaaaaa, bbbbbbbb (dirty)" in capsys.readouterr().err


def test_a_run_record_of_the_wrong_form_is_one_line(
    here: Path, fit: FakeFit, capsys: pytest.CaptureFixture[str]
) -> None:
    fit.info[0] = {"wall_seconds": {"train": "long"}}
    assert run(pages("a"), seeds=[0], fit=fit) == 1
    assert (
        "run.json: field 'wall_seconds.train': expected float, found 'long'"
        in capsys.readouterr().err
    )


def test_wrong_calls(here: Path, fit: FakeFit) -> None:
    with pytest.raises(SpatialbenchError, match="no page given"):
        run([], fit=fit)
    with pytest.raises(SpatialbenchError, match="each once"):
        run(pages("a"), seeds=[0, 0], fit=fit)
    with pytest.raises(SpatialbenchError, match="unknown track"):
        run(pages("a"), track="rom", fit=fit)
    (here / "other").mkdir()
    shutil.copy("benchmarks/a.yaml", "other/a.yaml")
    with pytest.raises(SpatialbenchError, match="two pages have the name 'a'"):
        run([*pages("a"), "other/a.yaml"], seeds=[0], fit=fit)


def test_time_left_is_that_of_the_same_page_where_known(here: Path) -> None:
    from spatialbench.config.experiment import resolve

    a, b = (resolve(page, "rooms", "full", 0) for page in pages("a", "b"))
    clock = Clock(total=4)
    assert clock.left([a, b]) is None
    clock.seconds["a"] += [10.0, 20.0]
    assert clock.left([a, b]) == 15 + 15
    clock.seconds["b"] += [60.0]
    assert clock.left([a, b]) == 15 + 60
    assert clock.line(3, [a, b]).endswith("0:00:00 passed, about 0:01:15 left")
    assert clock.line(3, [a, b]).startswith("[3/4] a (rooms, budget full, seed 0)")
