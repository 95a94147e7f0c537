"""Fit, stop, go on, finish: the run folder and what is in it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
import yaml
from spatialbench.evaluation.outcomes import RunOutcomes

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.methods.clip import Clip
from spatialbench.results.run_folder import RunRecord, newest, read_checkpoint
from spatialbench.training.callbacks import Interrupted, MetricsFile, StageClock
from spatialbench.training.fit import _start_from, fit
from spatialbench.utils import provenance
from spatialbench.utils.errors import SpatialbenchError
from tests.support import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
    monkeypatch.setattr(tiny.Stopping, "stop_at", 0)
    monkeypatch.setattr(tiny.Stopping, "seen", 0)


def tiny_run(page: Path, **overrides: dict) -> Resolved:
    return resolve(page, "tiny", "quick", 0, overrides)


def weights(run: Resolved) -> dict[str, torch.Tensor]:
    return read_checkpoint(run.run_dir / "last.ckpt")["state_dict"]


def test_fit_writes_the_run_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_run(folder / "clip.yaml")
    record = fit(run)
    info = record.info
    assert record.finished
    assert run.run_dir.parts[:4] == ("runs", "tiny", "quick", "clip")
    assert run.run_dir.name == "seed0"
    assert run.run_dir.parent.name == run.config_hash[:8]
    assert (info["page"], info["track"], info["budget"], info["seed"]) == (
        "clip",
        "tiny",
        "quick",
        0,
    )
    assert (info["page_hash"], info["track_hash"]) == (run.page.hash, run.track.hash)
    assert info["train_steps"] == 6
    assert info["train_pairs"] == 6 * 6 * 2
    assert info["trainable_parameters"] == info["total_parameters"] - 1  # the logit scale is frozen
    stages = info["wall_seconds"]
    assert {
        "prepare",
        "cache",
        "train",
        "validate",
        "test",
        "wait",
        "other",
        "total",
    } <= stages.keys()
    assert stages["total"] == pytest.approx(
        sum(v for k, v in stages.items() if k != "total"), abs=0.1
    )
    assert 0 <= info["overhead_share"] <= 1
    assert info["peak_memory_mb"] > 50
    outcomes = RunOutcomes.load(record.outcomes)
    assert len(outcomes.record_ids) == 24
    assert info["scores"]["accuracy"]["all"] == pytest.approx(outcomes.scores().micro, abs=1e-3)
    assert yaml.safe_load((run.run_dir / "config.yaml").read_text())["trainer"]["max_steps"] == 6
    lines = [json.loads(line) for line in (run.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/all" in line] == [2, 5]
    (speed,) = [line for line in lines if "speed/images_per_second" in line]
    assert speed["step"] == 5
    assert speed["speed/images_per_second"] == info["speed"]["images_per_second"] > 0
    assert "speed/mfu" not in speed, "no peak is known of a CPU"
    assert "Close" in capsys.readouterr().out


def test_a_finished_run_is_not_repeated_but_forced_it_gives_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(folder / "clip.yaml")
    first = fit(run).info
    before = (run.run_dir / "last.ckpt").stat().st_mtime_ns
    assert fit(run).info.items() >= first.items()
    assert (run.run_dir / "last.ckpt").stat().st_mtime_ns == before
    said = capsys.readouterr().err
    assert "is finished" in said
    assert "note: " not in said
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "commit", lambda: ("b" * 40, False))
        fit(run)
    assert (
        f"was made at commit {first['commit'][:8]}, the code is now at bbbbbbbb"
        in capsys.readouterr().err
    )
    again = fit(run, force=True).info
    assert again["started_at"] >= first["started_at"]
    assert again["scores"] == first["scores"]
    assert (run.run_dir / "last.ckpt").stat().st_mtime_ns > before


def test_ctrl_c_leaves_a_checkpoint_and_the_second_start_ends_where_one_run_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 steps = 5 steps, Ctrl-C in the middle of the third epoch, 1 step: the same weights, bit for bit."""
    page = tiny.page(folder, "stopping", "tests.support.tiny.Stopping")
    whole = resolve(page, "tiny", "quick", 0, runs="whole")
    fit(whole)
    run = tiny_run(page)
    monkeypatch.setattr(tiny.Stopping, "seen", 0)
    monkeypatch.setattr(tiny.Stopping, "stop_at", 5)
    with pytest.raises(Interrupted) as stopped:
        fit(run)
    assert (stopped.value.signum, stopped.value.step) == (signal.SIGINT, 5)
    unfinished = RunRecord.read(run.run_dir)
    assert not unfinished.finished
    assert unfinished.info["wall_seconds"]["total"] > 0
    assert not unfinished.outcomes.exists()
    assert newest(run, Path("runs")) == run.run_dir / "last.ckpt"
    record = fit(run)
    assert tiny.Stopping.seen == 6, "the second start must train the last step only"
    assert record.info["train_pairs"] == 6 * 6 * 2
    assert record.info["wall_seconds"]["total"] > unfinished.info["wall_seconds"]["total"]
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(run)[name]), name
    assert record.info["scores"] == RunRecord.read(whole.run_dir).info["scores"]
    metrics = [(path.run_dir / "metrics.jsonl").read_text().splitlines() for path in (whole, run)]
    assert len(metrics[0]) > 2
    assert [line for line in metrics[0] if "speed/" not in line] == [
        line for line in metrics[1] if "speed/" not in line
    ]


def test_another_value_on_the_command_line_is_another_run(folder: Path) -> None:
    one = tiny_run(folder / "clip.yaml")
    other = tiny_run(folder / "clip.yaml", model={"init_args": {"finetuning": {"lr": 0.5}}})
    assert one.run_dir != other.run_dir
    assert resolve(folder / "clip.yaml", "tiny", "quick", 1).config_hash == one.config_hash


def test_a_page_without_training_only_scores(folder: Path) -> None:
    run = tiny_run(tiny.page(folder, "zeroshot", rest="trainer: {max_steps: 0}\n"))
    record = fit(run)
    assert record.info["train_steps"] == 0
    assert record.finished
    assert not record.checkpoint.exists()


def test_a_module_with_a_task_of_its_own_finishes_itself(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = "trainer: {max_steps: 4}\ndata:\n  class_path: tests.support.tiny.OtherData\n  init_args: {size: 6}\n"
    run = tiny_run(tiny.page(folder, "other", "tests.support.tiny.Other", rest))
    record = fit(run)
    assert record.finished
    assert not record.outcomes.exists()
    assert record.info["train_steps"] == 4
    expected = (weights(run)["layer.weight"].sum() + weights(run)["layer.bias"][0]) ** 2
    assert record.info["scores"]["error"] == pytest.approx(float(expected), rel=1e-5)
    assert "error  " in capsys.readouterr().out


def test_a_stage_starts_from_the_student_of_the_stage_before(folder: Path) -> None:
    tiny.page(folder, "first")
    second = tiny_run(
        tiny.page(folder, "second", rest="trainer: {max_steps: 0}\ninit_from: first\n")
    )
    found = fit(second)  # makes the first where it is not there
    assert second.init_from is not None
    first = RunRecord.read(second.init_from.run_dir)
    assert first.finished
    assert found.info["scores"] == first.info["scores"], "the same weights give the same scores"
    weights = [
        read_checkpoint(run.checkpoint)["state_dict"] for run in (first, found)
    ]  # others may start from it
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_stage_does_not_start_from_one_that_is_gone(folder: Path) -> None:
    tiny.page(folder, "first")
    second = tiny_run(
        tiny.page(folder, "second", rest="trainer: {max_steps: 0}\ninit_from: first\n")
    )
    assert second.init_from is not None
    with pytest.raises(
        SpatialbenchError,
        match=r"first .* is not finished; run it first: spatialbench fit --config",
    ):
        _start_from(Clip(second.config["model"]["init_args"]["student"]), second.init_from)
    fit(second.init_from)
    with pytest.raises(
        SpatialbenchError, match="Other is no method and has no student to start with"
    ):
        _start_from(tiny.Other(), second.init_from)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_one_line(folder: Path, content: bytes) -> None:
    run = tiny_run(folder / "clip.yaml")
    run.run_dir.mkdir(parents=True)
    (run.run_dir / "last.ckpt").write_bytes(content)
    with pytest.raises(
        SpatialbenchError,
        match=r"last\.ckpt: damaged, truncated or not a plain checkpoint; delete it",
    ):
        fit(run)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(SpatialbenchError, match="not a plain checkpoint"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_damaged_run_record_is_one_line(folder: Path) -> None:
    run = tiny_run(folder / "clip.yaml")
    run.run_dir.mkdir(parents=True)
    (run.run_dir / "run.json").write_text('{"finished": tr')
    with pytest.raises(SpatialbenchError, match=r"run\.json: cannot be read .* --force"):
        fit(run)
    assert fit(run, force=True).finished


def test_metrics_after_the_resumed_step_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 5, "a": 2}\n{"step": 9, "a": 3}\n{"step": 10, "')
    MetricsFile(path, step=9).log_metrics({"a": 4.0}, 9)
    assert [json.loads(line)["a"] for line in path.read_text().splitlines()] == [1, 2, 4.0]


def test_the_clock_gives_every_second_to_one_stage() -> None:
    clock = StageClock()
    clock.seconds.update(start=2.0, prepare=3.0, train=4.0, wait=1.0)
    summary = clock.summary({"prepare": 1.0, "total": 1.0})
    assert summary == {"prepare": 4.0, "start": 2.0, "train": 4.0, "wait": 1.0, "total": 11.0}
    assert clock.overhead(summary) == pytest.approx(3 / 11, abs=1e-4)
