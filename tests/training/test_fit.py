"""Fit, stop, resume, finish: the run folder and its content."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.evaluation.evidence import Evidence
from spatialbench.methods.clip import Clip
from spatialbench.results.run_folder import RunRecord, clear, newest, read_checkpoint
from spatialbench.training.build import build
from spatialbench.training.callbacks import Interrupted, MetricsFile, StageClock
from spatialbench.training.fit import _start_from, fit
from spatialbench.training.predict import predict
from spatialbench.training.score import test as score
from spatialbench.utils import provenance
from spatialbench.utils.checkpoints import AtomicCheckpoints
from tests.support import tiny
from tests.support.checks import refused

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("place")]
ONLY_SCORED = "trainer: {max_steps: 0}\n"


def tiny_run(page: Path, **overrides: dict) -> Resolved:
    return resolve(page, "tiny", "quick", 0, overrides)


def test_fit_writes_the_run_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_run(folder / "clip.yaml")
    record = fit(run)
    info = record.info
    assert record.finished
    assert run.run_dir == Path("runs/tiny/quick/clip") / run.config_hash[:8] / "seed0"
    named = {"page": "clip", "track": "tiny", "budget": "quick", "seed": 0}
    hashes = {"page_hash": run.page.hash, "track_hash": run.track.hash}
    assert info.items() >= {**named, **hashes, "train_steps": 6, "train_pairs": 6 * 6 * 2}.items()
    assert info["trainable_parameters"] == info["total_parameters"] - 1  # the logit scale is frozen
    inside = {"prepare", "cache", "train", "validate", "test", "wait", "other", "total"}
    assert inside < info["wall_seconds"].keys()
    assert 0 <= info["overhead_share"] <= 1
    assert info["peak_memory_mb"] > 50
    evidence = Evidence.load(record.evidence("pairs"))
    assert (evidence.units, len(evidence.commits)) == (24, 1)
    assert info["scores"]["all"] == pytest.approx(evidence.values()["all"], abs=1e-3)
    assert yaml.safe_load((run.run_dir / "config.yaml").read_text())["trainer"]["max_steps"] == 6
    assert list(tiny.logged(run, "val/all")) == [2, 5]
    speed = tiny.logged(run, "speed/images_per_second")
    assert speed == {5: info["speed"]["images_per_second"]}
    assert speed[5] > 0
    assert not tiny.logged(run, "speed/mfu"), "no peak is known of a CPU"
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
    note = f"was made at commit {first['commit'][:8]}, the code is now at bbbbbbbb"
    assert note in capsys.readouterr().err
    again = fit(run, force=True).info
    assert again["started_at"] >= first["started_at"]
    assert again["scores"] == first["scores"]
    assert (run.run_dir / "last.ckpt").stat().st_mtime_ns > before


def test_ctrl_c_leaves_a_checkpoint_and_the_second_start_ends_where_one_run_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6 steps = 5 steps, Ctrl-C in the middle of the third epoch, 1 step: bit for bit."""
    page = tiny.page(folder, "stopping", "tests.support.tiny.Stopping")
    whole, run = resolve(page, "tiny", "quick", 0, runs="whole"), tiny_run(page)
    fit(whole)
    monkeypatch.setattr(tiny.Stopping, "seen", 0)
    monkeypatch.setattr(tiny.Stopping, "stop_at", 5)
    with pytest.raises(Interrupted) as stopped:
        fit(run)
    assert (stopped.value.signum, stopped.value.step) == (signal.SIGINT, 5)
    unfinished = RunRecord.read(run.run_dir)
    assert not unfinished.finished
    assert not unfinished.has_pairs
    assert unfinished.info["wall_seconds"]["total"] > 0
    assert newest(run, Path("runs")) == run.run_dir / "last.ckpt"
    record = fit(run)
    assert tiny.Stopping.seen == 6, "the second start must train the last step only"
    assert record.info["train_pairs"] == 6 * 6 * 2
    assert record.info["wall_seconds"]["total"] > unfinished.info["wall_seconds"]["total"]
    assert tiny.same(whole, run)
    assert record.info["scores"] == RunRecord.read(whole.run_dir).info["scores"]
    texts = [(each.run_dir / "metrics.jsonl").read_text().splitlines() for each in (whole, run)]
    metrics = [[line for line in lines if "speed/" not in line] for lines in texts]
    assert metrics[0] == metrics[1]
    assert len(metrics[0]) > 1


def test_a_page_without_training_only_scores(folder: Path) -> None:
    record = fit(tiny_run(tiny.page(folder, "zeroshot", rest=ONLY_SCORED)))
    assert (record.finished, record.has_pairs, record.info["train_steps"]) == (True, True, 0)
    assert not record.checkpoint.exists()


def test_a_module_with_a_task_of_its_own_finishes_itself(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = "data:\n  class_path: tests.support.tiny.OtherData\n  init_args: {size: 6}\n"
    rest = "trainer: {max_steps: 4}\n" + data
    run = tiny_run(tiny.page(folder, "other", "tests.support.tiny.Other", rest))
    record = fit(run)
    assert (record.finished, record.has_pairs, record.info["train_steps"]) == (True, False, 4)
    weights = tiny.state(run)
    expected = (weights["layer.weight"].sum() + weights["layer.bias"][0]) ** 2
    assert record.info["scores"]["error"] == pytest.approx(float(expected), rel=1e-5)
    assert "error  " in capsys.readouterr().out


def test_a_stage_starts_from_the_student_of_the_stage_before(folder: Path) -> None:
    tiny.page(folder, "first")
    rest = ONLY_SCORED + "init_from: first\n"
    second = tiny_run(tiny.page(folder, "second", rest=rest))
    start = second.init_from
    assert start is not None
    message = r"first .* is not finished; run it first: spatialbench fit --config"
    with refused(message):
        _start_from(Clip(second.config["model"]["init_args"]["student"]), start)
    record = fit(second)  # makes the first
    assert record.info["scores"] == RunRecord.read(start.run_dir).info["scores"], "same weights"
    assert tiny.same(start, second)  # others may start from it
    message = "Other is no method and has no student to start with"
    with refused(message):
        _start_from(tiny.Other(), start)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("last.ckpt", b"", "damaged, truncated or not a plain checkpoint; if it is of a run"),
        ("last.ckpt", b"PK\x03\x04 cut short", "damaged, truncated or not a plain checkpoint"),
        ("run.json", b'{"finished": tr', "cannot be read .* --force runs it again"),
        ("run.json", b'{"schema": 1, "finished": true}', "not a run record of this version; --for"),
    ],
)
def test_a_damaged_file_of_a_run_is_one_line(
    folder: Path, file: str, content: bytes, message: str
) -> None:
    run = tiny_run(folder / "clip.yaml")
    run.run_dir.mkdir(parents=True)
    (run.run_dir / file).write_bytes(content)
    with refused(f"{file}: {message}"):
        fit(run)
    clear(run.run_dir)  # as --force does
    assert list(run.run_dir.iterdir()) == []


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with refused("not a plain checkpoint"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


def test_the_best_on_validation_is_tested_and_the_last_is_kept(folder: Path) -> None:
    """``finetuning.scored: best``."""
    track = (folder / "tracks/tiny.yaml").read_text()
    legacy = track.replace("warmup_steps: 1}", "warmup_steps: 1, scored: best}")
    legacy = legacy.replace("name: tiny", "name: legacy")
    legacy = legacy.replace("val_check_interval: 3", "val_check_interval: 1")
    (folder / "tracks/legacy.yaml").write_text(legacy)
    run = resolve(folder / "clip.yaml", "legacy", "quick", 0)
    record = fit(run, show=False)
    scores = tiny.logged(run, "val/all")
    assert len(scores) == 6
    paths = [run.run_dir / f"{name}.ckpt" for name in ("best", "last")]
    best, last = (read_checkpoint(path)["global_step"] for path in paths)
    assert last == record.info["train_steps"] == 6
    assert best < 6
    assert scores[best - 1] == max(scores.values())
    assert not any(value == scores[best - 1] for step, value in scores.items() if step < best - 1)
    stored = Evidence.load(record.evidence("pairs")).answers()
    same = [np.array_equal(stored, score(build(run), path).answers()) for path in paths]
    assert same == [True, False]
    assert record.scored == paths[0]
    clear(run.run_dir)
    assert not paths[0].exists()
    plain = resolve(folder / "clip.yaml", "tiny", "smoke", 0)
    fit(plain, show=False)
    assert not (plain.run_dir / "best.ckpt").exists()


def test_a_prediction_that_is_not_finite_is_no_verdict(folder: Path, tmp_path: Path) -> None:
    built = build(resolve(folder / "clip.yaml", "tiny", "smoke", 0))
    with torch.no_grad():
        next(iter(built.model.student.visual.parameters())).fill_(float("nan"))
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    with refused("finite"):
        predict(built, None, [str(tmp_path / "a.png")], ["The sofa is left of the lamp."])


@pytest.mark.parametrize("stop_at", [3, 4])
def test_a_signal_among_accumulated_gradients_waits_for_their_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """Ctrl-C in either batch of the second step stops after it, and nothing is lost."""
    page = tiny.page(folder, "stopping", "tests.support.tiny.Stopping")
    trainer = {"accumulate_grad_batches": 2, "max_steps": 3}
    changes = {"trainer": trainer, "data": {"batch_images": 2}}
    whole, run = (resolve(page, "tiny", "quick", 0, changes, runs) for runs in ("a", "b"))
    fit(whole, show=False)
    tiny.Stopping.seen, tiny.Stopping.stop_at = 0, stop_at
    with pytest.raises(Interrupted) as stopped:
        fit(run, show=False)
    assert (stopped.value.signum, stopped.value.step, tiny.Stopping.seen) == (signal.SIGINT, 2, 4)
    saved: list[tuple[int, int]] = []
    write = AtomicCheckpoints.save_checkpoint

    def watch(self: AtomicCheckpoints, checkpoint: dict, *args: object, **kwargs: object) -> None:
        saved.append((checkpoint["global_step"], tiny.Stopping.seen))
        write(self, checkpoint, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(AtomicCheckpoints, "save_checkpoint", watch)
    fit(run, show=False)
    assert tiny.Stopping.seen == 6
    assert set(saved) == {(3, 6)}, "nothing is written after the first of the two batches"
    assert tiny.same(whole, run)


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
