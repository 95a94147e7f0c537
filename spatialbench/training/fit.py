"""One run: fit a resolved page, test its last checkpoint, and write the run folder.

The checkpoint that is tested is the last one: one chosen by its test score would have a better-looking number. A track
that repeats a paper's protocol may say ``finetuning.scored: best``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from spatialbench.config.experiment import Resolved
from spatialbench.data.region_sets import RegionSet
from spatialbench.data.selection_sets import SelectionSet
from spatialbench.evaluation.measures import Measures
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.methods.base import Method
from spatialbench.report.measures import HEADING, print_measures
from spatialbench.report.selection import print_selection
from spatialbench.report.table import print_run
from spatialbench.results.run_folder import (
    RunRecord,
    check_checkpoint,
    clear,
    measured,
    read_checkpoint,
    selected,
    stamp,
    sweep,
    to_score,
)
from spatialbench.training.build import Built, build, dump_config
from spatialbench.training.callbacks import (
    Interruptions,
    MetricsFile,
    PairCounter,
    StageClock,
    Stamp,
    StepProgress,
    keep_best,
)
from spatialbench.training.saving import StepCheckpoint, StopAfterStep
from spatialbench.training.score import (
    measure_again,
    measure_into,
    open_regions,
    open_selection,
    readable_errors,
    say,
    scores_json,
    select_into,
    tell,
    test,
    validate,
)
from spatialbench.training.speed import Speed
from spatialbench.utils import provenance
from spatialbench.utils.distributed import is_first_rank
from spatialbench.utils.errors import SpatialbenchError, write_atomic

CHECKPOINTS = 20
"""How many times a training writes last.ckpt."""


def fit(
    resolved: Resolved, force: bool = False, started: float | None = None, show: bool = True
) -> RunRecord:
    """Trains, tests the last checkpoint and writes the run folder; goes on where an earlier start was stopped.

    Args:
        resolved: see :func:`spatialbench.config.experiment.resolve`.
        force: begin from nothing even when the folder holds a finished or a stopped run.
        started: ``time.perf_counter()`` when the process began, so that the imports count too.
        show: print the table of a finished run.

    Raises:
        SpatialbenchError: something the user gave is wrong; one line.
        Interrupted: Ctrl-C or SIGTERM; the folder can be resumed.
    """
    start = resolved.init_from
    if start is not None and not RunRecord.read(start.run_dir).finished:
        say(f"{resolved.label} starts from {start.label}, which is made first")
        fit(start, started=started, show=False)
        started = None
    elif start is not None:
        _tell_of_other_commit(RunRecord.read(start.run_dir), start)
    provenance.reset_peak_memory()
    clock = StageClock()
    if started is not None:
        clock.seconds["start"] = time.perf_counter() - started
    folder = resolved.run_dir
    if force:
        clear(folder)
    record = RunRecord.read(folder)
    if record.finished:
        say(f"{resolved.label} is finished: {folder}; --force runs it again")
        _tell_of_other_commit(record, resolved)
        if not (measured(resolved, record) and selected(resolved, record)):
            measure_again(resolved, record)
        if show:
            show_record(resolved, record)
        return record
    write_atomic(folder / "config.yaml", dump_config(resolved))
    with Interruptions() as interruptions, readable_errors(resolved):
        record = _run(resolved, record, clock, interruptions)
    if show:
        show_record(resolved, record)
    return record


def _run(
    resolved: Resolved, before: RunRecord, clock: StageClock, interruptions: Interruptions
) -> RunRecord:
    """Training and test; writes run.json, whether it ends well or not."""
    if is_first_rank():
        sweep(resolved.run_dir)
    last = before.checkpoint
    resume = _resume_point(last, resolved)
    built = build(resolved, _callbacks(resolved, clock, interruptions, last))
    clock.lap("start")
    step = resume["global_step"] if resume else 0
    built.trainer.loggers = [
        *built.trainer.loggers,
        MetricsFile(resolved.run_dir / "metrics.jsonl", step),
    ]
    task = isinstance(built.model, Method)
    beside = (
        (open_regions(resolved), open_selection(resolved)) if task else (None, None)
    )  # what misses is told of now
    info = {**_origin(resolved), "started_at": before.info.get("started_at", _now())}
    earlier = before.info.get("wall_seconds") if resume else None
    try:
        if (
            resolved.init_from is not None
        ):  # after an interruption too: what is frozen is in no checkpoint
            _start_from(built.model, resolved.init_from)
        if resolved.needs_training:
            _train(built, resolved, last, resume)
        result = _finish(built, resolved, last, beside, clock)
    except BaseException:
        clock.lap("other")
        with suppress(SpatialbenchError):  # the error under way is the one to be seen
            _write(
                built,
                RunRecord(
                    resolved.run_dir, {**info, **_costs(built, clock, earlier), "finished": False}
                ),
            )
        raise
    clock.lap("other")
    record = RunRecord(
        resolved.run_dir,
        {
            **info,
            **_costs(built, clock, earlier),
            **result,
            "finished_at": _now(),
            "finished": True,
        },
    )
    _write(built, record)
    return record


def _write(built: Built, record: RunRecord) -> None:
    if built.trainer.is_global_zero:
        record.write()
    built.trainer.strategy.barrier()  # nobody starts from it before it is there


def _train(built: Built, resolved: Resolved, last: Path, resume: Mapping[str, Any] | None) -> None:
    total = resolved.config["trainer"].get("max_steps", -1)
    if resume is not None:
        done = resume["global_step"]
        say(
            f"{resolved.label}: going on from step {done}{f' of {total}' if total > 0 else ''} ({last})"
        )
        left = [resolved.run_dir / name for name in getattr(built.model, "leaves", ())]
        if 0 < total <= done and all(path.is_file() for path in left):
            return  # else it was stopped before the end of training wrote them: no step is left, but that
    checkpoint = None if resume is None else str(last)
    built.trainer.fit(built.model, datamodule=built.data, ckpt_path=checkpoint, weights_only=True)
    built.trainer.save_checkpoint(last)


def _finish(
    built: Built,
    resolved: Resolved,
    last: Path,
    beside: tuple[RegionSet | None, SelectionSet | None],
    clock: StageClock,
) -> dict[str, Any]:
    """The pair test and the measures of a method; of a module with a task of its own validation and its ``finish``.

    Args:
        last: the checkpoint that training left; a page that trains nothing, but starts from another, leaves one here.
    """
    result: dict[str, Any] = {"train_steps": 0, "train_pairs": 0}
    trained = last if resolved.needs_training else None
    if trained is not None:
        checkpoint = read_checkpoint(trained)
        pairs = checkpoint["callbacks"].get("PairCounter", {}).get("pairs", 0)
        result = {"train_steps": checkpoint["global_step"], "train_pairs": pairs or None}
    if isinstance(built.model, Method):
        outcomes, fingerprint = test(built, trained and to_score(resolved, trained))
        if built.trainer.is_global_zero:
            outcomes.save(resolved.run_dir / "outcomes.npz")
            clock.lap("other")
            record = RunRecord(resolved.run_dir, {})
            measure_into(record.measures, built, resolved, beside[0])
            select_into(record.selection, built, resolved, beside[1])
            clock.lap("measure")
        if trained is None and resolved.init_from is not None:
            built.trainer.save_checkpoint(last)
        return {**result, "data_fingerprint": fingerprint, "scores": scores_json(outcomes.scores())}
    finish = getattr(built.model, "finish", None)
    if callable(finish):
        validate(built, trained)
        result["scores"] = finish(resolved.run_dir)
    return result


@rank_zero_only
def show_record(resolved: Resolved, record: RunRecord) -> None:
    """The table of a finished run, and where its time went."""
    if record.outcomes.is_file():
        print_run(resolved.label, RunOutcomes.load(record.outcomes))
        if record.measures.is_file():
            print_measures(HEADING, Measures.load(record.measures))
        if record.selection.is_file():
            print_selection(Measures.load(record.selection))
    else:
        for name, value in (record.info.get("scores") or {}).items():
            print(f"{name:<16} {value:.3f}" if isinstance(value, float) else f"{name:<16} {value}")
    seconds = record.info.get("wall_seconds", {})
    parts = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items() if value >= 0.5)
    say(
        f"{record.run_dir}: {parts}; neither model nor rendering: {100 * record.info.get('overhead_share', 0):.0f} %"
    )


def _callbacks(
    resolved: Resolved, clock: StageClock, interruptions: Interruptions, last: Path
) -> list[Callback]:
    trainer = resolved.config["trainer"]
    steps = trainer.get("max_steps", -1)
    every = max(1, math.ceil(steps / CHECKPOINTS)) if steps > 0 else 100
    callbacks: list[Callback] = [
        *(clock, PairCounter(), Speed(), Stamp(stamp(resolved)), StopAfterStep(interruptions, last))
    ]
    if trainer.get("enable_progress_bar") is not False:
        callbacks.append(StepProgress(resolved.page.name))
    if trainer.get("enable_checkpointing") is not False:
        callbacks += keep_best(resolved)  # before last.ckpt, which knows then what was best
        callbacks.append(
            StepCheckpoint(
                last.parent, last.stem, every_n_train_steps=every, enable_version_counter=False
            )
        )
    return callbacks


def _resume_point(last: Path, resolved: Resolved) -> dict[str, Any] | None:
    if not last.is_file():
        return None
    checkpoint = read_checkpoint(last)
    check_checkpoint(last, checkpoint, resolved)
    return checkpoint


def _start_from(model: LightningModule, start: Resolved) -> None:
    """Gives ``model`` what an earlier stage finished."""
    record = RunRecord.read(start.run_dir)
    if not record.finished:
        raise SpatialbenchError(
            f"init_from: {start.label} is not finished; run it first: {start.command}"
        )
    if not isinstance(model, Method):
        raise SpatialbenchError(
            f"init_from: {type(model).__qualname__} is no method and has no student to start with"
        )
    model.start_from(read_checkpoint(record.checkpoint)["state_dict"], start.label)
    say(f"starting from the student of {start.label}")


def _origin(resolved: Resolved) -> dict[str, Any]:
    commit, dirty = provenance.commit()
    return {
        "page": resolved.page.name,
        "page_hash": resolved.page.hash,
        "track": resolved.track.name,
        "track_hash": resolved.track.hash,
        "budget": resolved.budget,
        "seed": resolved.seed,
        "config_hash": resolved.config_hash,
        "commit": commit,
        "dirty": dirty,
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
    }


def _costs(built: Built, clock: StageClock, earlier: dict[str, float] | None) -> dict[str, Any]:
    seconds = clock.summary(earlier)
    parameters = list(built.model.parameters())
    speeds = [each for each in built.trainer.callbacks if isinstance(each, Speed)]  # type: ignore[attr-defined]
    return {
        "wall_seconds": seconds,
        "speed": speeds[0].summary(built.trainer.world_size),
        "overhead_share": clock.overhead(seconds),
        "peak_memory_mb": provenance.peak_memory_mb(),
        "peak_gpu_memory_mb": provenance.peak_gpu_memory_mb(),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "total_parameters": sum(p.numel() for p in parameters),
    }


def _tell_of_other_commit(record: RunRecord, resolved: Resolved) -> None:
    """Say that a finished run was made at another commit: code is in no hash."""
    (trained, _), (commit, _) = record.made, provenance.commit()
    if trained and commit and trained != commit:
        tell(
            f"{resolved.label} was made at commit {trained[:8]}, the code is now at {commit[:8]}; "
            f"{resolved.command} --force makes it again"
        )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
