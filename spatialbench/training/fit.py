"""One run: fit a resolved page, test its last checkpoint, and write the run folder.

The last checkpoint is tested: one chosen by its test score would have a better-looking number. A
track that repeats a paper's protocol may say ``finetuning.scored: best``.
"""

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from spatialbench.config.experiment import Resolved
from spatialbench.evaluation.evidence import Evidence
from spatialbench.methods.base import Method
from spatialbench.results import run_folder
from spatialbench.results.run_folder import STAMP, RunRecord, read_checkpoint
from spatialbench.results.schema import PAIRS
from spatialbench.training import callbacks, score
from spatialbench.training.build import Built, build, dump_config
from spatialbench.training.callbacks import Interruptions, StageClock
from spatialbench.training.saving import StepCheckpoint, StopAfterStep
from spatialbench.training.score import test
from spatialbench.training.speed import Speed
from spatialbench.utils import provenance
from spatialbench.utils.distributed import is_first_rank
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.say import say

CHECKPOINTS = 20
"""Number of times that a training writes last.ckpt."""


def fit(
    resolved: Resolved, force: bool = False, started: float | None = None, show: bool = True
) -> RunRecord:
    """Train, test the last checkpoint and write the run folder; a stopped run is resumed.

    Args:
        resolved: see :func:`spatialbench.config.experiment.resolve`.
        force: start from nothing even when the folder holds a finished or a stopped run.
        started: ``time.perf_counter()`` when the process began, so that the imports count too.
        show: print the table of a finished run.

    Raises:
        SpatialbenchError: something the user gave is wrong; one line.
        Interrupted: Ctrl-C or SIGTERM; the folder can be resumed.
    """
    if resolved.init_from is not None and _make_start(resolved, resolved.init_from, started):
        started = None
    provenance.reset_peak_memory()
    clock = StageClock()
    if started is not None:
        clock.seconds["start"] = time.perf_counter() - started
    if force:
        run_folder.clear(resolved.run_dir)
    record = RunRecord.read(resolved.run_dir)
    if record.finished:
        say(f"{resolved.label} is finished: {record.run_dir}; --force runs it again")
        _note_other_commit(record, resolved)
        if names := run_folder.outdated(resolved, record):
            score.evaluate_again(resolved, record, names)
    else:
        write_atomic(resolved.run_dir / "config.yaml", dump_config(resolved))
        with Interruptions() as interruptions, score.readable_errors(resolved):
            record = _run(resolved, record, clock, interruptions)
    if show:
        show_record(resolved, record)
    return record


def _make_start(resolved: Resolved, start: Resolved, started: float | None) -> bool:
    """Make the run that another starts from; return whether there was anything to do."""
    record = RunRecord.read(start.run_dir)
    if record.finished:
        _note_other_commit(record, start)
    else:
        say(f"{resolved.label} starts from {start.label}, which is made first")
        fit(start, started=started, show=False)
    return not record.finished


def _run(
    resolved: Resolved, before: RunRecord, clock: StageClock, interruptions: Interruptions
) -> RunRecord:
    """Train and test; write run.json however it ends."""
    if is_first_rank():
        run_folder.sweep(resolved.run_dir)
    last = before.checkpoint
    resume = read_checkpoint(last) if last.is_file() else None
    if resume is not None:
        run_folder.check_checkpoint(last, resume, resolved)
    built = build(resolved, _callbacks(resolved, clock, interruptions, last))
    clock.lap("start")
    step = resume["global_step"] if resume else 0
    metrics = callbacks.MetricsFile(resolved.run_dir / "metrics.jsonl", step)
    built.trainer.loggers = [*built.trainer.loggers, metrics]
    opened = score.open_evaluations(resolved) if isinstance(built.model, Method) else {}
    info = {**_origin(resolved), "started_at": before.info.get("started_at", _now())}
    earlier = before.info.get("wall_seconds") if resume else None

    def write(**rest: Any) -> RunRecord:
        clock.lap("other")
        record = RunRecord(resolved.run_dir, {**info, **_costs(built, clock, earlier), **rest})
        if built.trainer.is_global_zero:
            record.write()
        built.trainer.strategy.barrier()  # no rank starts from it before it is there
        return record

    try:
        if resolved.init_from is not None:  # also when resuming: no checkpoint holds what is frozen
            _start_from(built.model, resolved.init_from)
        if resolved.needs_training:
            _train(built, resolved, last, resume)
        result = _finish(built, resolved, last, opened, clock)
    except BaseException:
        with suppress(SpatialbenchError):  # the error under way is the one to show
            write(finished=False)
        raise
    return write(**result, finished_at=_now(), finished=True)


def _train(built: Built, resolved: Resolved, last: Path, resume: Mapping[str, Any] | None) -> None:
    total = resolved.config["trainer"].get("max_steps", -1)
    if resume is not None:
        done = resume["global_step"]
        of_total = f" of {total}" if total > 0 else ""
        say(f"{resolved.label}: going on from step {done}{of_total} ({last})")
        files = [resolved.run_dir / name for name in getattr(built.model, "leaves", ())]
        if 0 < total <= done and all(path.is_file() for path in files):
            return  # without them, the end of training that writes them is still to come
    checkpoint = None if resume is None else str(last)
    built.trainer.fit(built.model, datamodule=built.data, ckpt_path=checkpoint, weights_only=True)
    built.trainer.save_checkpoint(last)


def _finish(
    built: Built, resolved: Resolved, last: Path, opened: score.Opened, clock: StageClock
) -> dict[str, Any]:
    """Take the pair test and the track's evaluations, of the checkpoint ``last``.

    A module with a task of its own is validated, and its ``finish`` is called. A page that trains
    nothing but starts from another leaves its checkpoint here.
    """
    result: dict[str, Any] = {"train_steps": 0, "train_pairs": 0}
    trained = last if resolved.needs_training else None
    if trained is not None:
        checkpoint = read_checkpoint(trained)
        pairs = checkpoint["callbacks"].get("PairCounter", {}).get("pairs", 0)
        result = {"train_steps": checkpoint["global_step"], "train_pairs": pairs or None}
    if isinstance(built.model, Method):
        evidence = {PAIRS: test(built, trained and RunRecord(resolved.run_dir, {}).scored)}
        if built.trainer.is_global_zero:
            clock.lap("other")
            evidence |= score.evaluate_all(built, opened)
            clock.lap("measure")
            for name, found in evidence.items():
                found.save(RunRecord(resolved.run_dir, {}).evidence(name))
        if trained is None and resolved.init_from is not None:
            built.trainer.save_checkpoint(last)
        result["scores"] = score.scores_json(evidence[PAIRS])
    elif callable(finish := getattr(built.model, "finish", None)):
        score.validate(built, trained)
        result["scores"] = finish()
    return result


@rank_zero_only
def show_record(resolved: Resolved, record: RunRecord) -> None:
    """Print the numbers of a finished run, and where its time went."""
    if record.has_pairs:
        files = {
            name: record.evidence(name) for name in (PAIRS, *run_folder.run_evaluations(resolved))
        }
        evidence = {name: Evidence.load(path) for name, path in files.items() if path.is_file()}
        score.print_evaluations(resolved, evidence)
    else:
        for name, value in (record.info.get("scores") or {}).items():
            print(f"{name:<16} {value:.3f}" if isinstance(value, float) else f"{name:<16} {value}")
    seconds = record.info.get("wall_seconds", {})
    parts = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items() if value >= 0.5)
    share = 100 * record.info.get("overhead_share", 0)
    say(f"{record.run_dir}: {parts}; neither model nor rendering: {share:.0f} %")


def _callbacks(
    resolved: Resolved, clock: StageClock, interruptions: Interruptions, last: Path
) -> list[Callback]:
    trainer, note = resolved.config["trainer"], run_folder.stamp(resolved)
    steps = trainer.get("max_steps", -1)
    every = max(1, math.ceil(steps / CHECKPOINTS)) if steps > 0 else 100
    stamp = LambdaCallback(on_save_checkpoint=lambda *args: args[-1].update({STAMP: note}))
    kept = [clock, callbacks.PairCounter(), Speed(), stamp, StopAfterStep(interruptions, last)]
    if trainer.get("enable_progress_bar") is not False:
        kept.append(callbacks.StepProgress(resolved.page.name))
    if trainer.get("enable_checkpointing") is not False:
        kept += callbacks.keep_best(resolved)  # before last.ckpt, which then notes what was best
        kept.append(
            StepCheckpoint(
                last.parent, last.stem, every_n_train_steps=every, enable_version_counter=False
            )
        )
    return kept


def _start_from(model: LightningModule, start: Resolved) -> None:
    """Give ``model`` the student of a finished earlier stage."""
    record = RunRecord.read(start.run_dir)
    if not record.finished:
        what = f"init_from: {start.label} is not finished"
        raise SpatialbenchError(f"{what}; run it first: {start.command}")
    if not isinstance(model, Method):
        what = f"init_from: {type(model).__qualname__} is no method"
        raise SpatialbenchError(f"{what} and has no student to start with")
    model.start_from(read_checkpoint(record.checkpoint)["state_dict"], start.label)
    say(f"starting from the student of {start.label}")


def _origin(resolved: Resolved) -> dict[str, Any]:
    commit, dirty = provenance.commit()
    hashes = {"page_hash": resolved.page.hash, "track_hash": resolved.track.hash}
    code = {"commit": commit, "dirty": dirty, "versions": provenance.versions()}
    return {**run_folder.identity(resolved), **hashes, **code, "hardware": provenance.hardware()}


def _costs(built: Built, clock: StageClock, earlier: dict[str, float] | None) -> dict[str, Any]:
    seconds = clock.summary(earlier)
    parameters = list(built.model.parameters())
    (speed,) = (each for each in built.trainer.callbacks if isinstance(each, Speed))  # type: ignore[attr-defined]
    return {
        "wall_seconds": seconds,
        "speed": speed.summary(built.trainer.world_size),
        "overhead_share": clock.overhead(seconds),
        "peak_memory_mb": provenance.peak_memory_mb(),
        "peak_gpu_memory_mb": provenance.peak_gpu_memory_mb(),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "total_parameters": sum(p.numel() for p in parameters),
    }


def _note_other_commit(record: RunRecord, resolved: Resolved) -> None:
    """Say that a finished run was made at another commit: no hash covers the code."""
    trained, commit = record.info.get("commit"), provenance.commit()[0]
    if trained and commit and trained != commit:
        made = f"{resolved.label} was made at commit {trained[:8]}, the code is now at {commit[:8]}"
        say(f"note: {made}; {resolved.command} --force makes it again")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
