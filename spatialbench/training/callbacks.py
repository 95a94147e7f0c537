"""What happens around a training: the clock, the progress bar, the metrics file, what Ctrl-C is turned into."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from spatialbench.config.experiment import Resolved
from spatialbench.results.run_folder import BEST, STAMP, scores_best
from spatialbench.utils.distributed import is_first_rank
from spatialbench.utils.errors import write_atomic
from spatialbench.utils.progress import progress


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not an Exception, so that no library takes it for an error of its own.

    Attributes:
        signum: the signal.
        step: optimizer steps that are safe in last.ckpt; None when it came outside of the training.
    """

    def __init__(self, signum: int, step: int | None = None) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.step = step


class Interruptions(AbstractContextManager["Interruptions"]):
    """Turns SIGINT and SIGTERM into :class:`Interrupted`.

    While ``deferred`` the first signal only sets ``pending``, and the training stops after the running step with a
    complete checkpoint; everywhere else, and at a second signal, it is raised at once.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.pending: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Interruptions:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._old[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if not self.deferred or self.pending is not None:
            raise Interrupted(signum)
        self.pending = signum


class Stamp(Callback):
    """Notes in every checkpoint whose weights it holds."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[STAMP] = self.values


class PairCounter(Callback):
    """Counts the records presented in training, repeats included; goes on counting after a resume."""

    def __init__(self) -> None:
        self.pairs = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if isinstance(batch, dict) and "record" in batch:
            self.pairs += len(batch["record"]) * trainer.world_size

    def state_dict(self) -> dict[str, Any]:
        return {"pairs": self.pairs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.pairs = state_dict["pairs"]


class StageClock(Callback):
    """Gives every second of a run to one stage.

    Stages: ``prepare`` (rendering, reading), ``cache`` (model set-up, tokens of the frozen VFM), ``train``,
    ``validate``, ``test`` (inside the steps: the model), ``wait`` (for the loader), ``other`` (checkpoints, logging,
    the loop itself). ``start`` (the imports, the making of the objects) and ``measure`` (what is measured beside the
    pairs) are the caller's.
    """

    MODEL_OR_RENDERING = ("prepare", "cache", "train", "validate", "test", "measure")

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Gives the time since the last call to ``stage``."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def summary(self, before: dict[str, float] | None = None) -> dict[str, float]:
        """Seconds by stage and ``total``, those of earlier starts of the same run (``before``) added."""
        stages = {key: value for key, value in (before or {}).items() if key != "total"}
        for stage, value in self.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + value
        rounded = {stage: round(value, 2) for stage, value in stages.items()}
        return {**rounded, "total": round(sum(stages.values()), 2)}

    @classmethod
    def overhead(cls, summary: dict[str, float]) -> float:
        """Share of the time in [0, 1] that is neither model nor rendering."""
        useful = sum(summary.get(stage, 0.0) for stage in cls.MODEL_OR_RENDERING)
        return round(1 - useful / summary["total"], 4) if summary["total"] else 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.lap("prepare")  # Lightning prepares the datamodule before it calls this

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.lap("cache")

    def on_train_batch_start(self, *args: Any) -> None:
        self.lap("wait")

    def on_train_batch_end(self, *args: Any) -> None:
        self.lap("train")

    def on_train_end(self, *args: Any) -> None:
        self.lap("other")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.lap("other" if trainer.training or trainer.state.fn == "fit" else "cache")

    def on_validation_batch_start(self, *args: Any) -> None:
        self.lap("wait")

    def on_validation_batch_end(self, *args: Any) -> None:
        self.lap("validate")

    def on_validation_end(self, *args: Any) -> None:
        self.lap("other")

    def on_test_start(self, *args: Any) -> None:
        self.lap("cache")

    def on_test_batch_start(self, *args: Any) -> None:
        self.lap("wait")

    def on_test_batch_end(self, *args: Any) -> None:
        self.lap("test")

    def on_test_end(self, *args: Any) -> None:
        self.lap("other")


class StepProgress(Callback):
    """One bar with rate and ETA for the whole training, and one for a test, whatever the number of epochs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stack = ExitStack()
        self._advance: Callable[[float], None] = lambda count: None
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step
        total = trainer.estimated_stepping_batches - self._step
        self._open(trainer, f"training {self.name}", total, "steps")

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self._advance(trainer.global_step - self._step)
        self._step = trainer.global_step

    def on_train_end(self, *args: Any) -> None:
        self._close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._open(trainer, f"testing {self.name}", sum(trainer.num_test_batches), "batches")

    def on_test_batch_end(self, *args: Any) -> None:
        self._advance(1)

    def on_test_end(self, *args: Any) -> None:
        self._close()

    def on_exception(self, *args: Any) -> None:
        self._close()

    def _open(self, trainer: Trainer, text: str, total: float, unit: str) -> None:
        if trainer.is_global_zero:
            self._advance = self._stack.enter_context(progress(text, total, unit))

    def _close(self) -> None:
        self._stack.close()
        self._advance = lambda count: None


def keep_best(resolved: Resolved) -> list[Callback]:
    """Writes the checkpoint that was best on the validation set, where ``finetuning.scored`` says so."""
    if not scores_best(resolved):
        return []
    when: dict[str, Any] = {"monitor": "val/all", "mode": "max", "save_on_train_epoch_end": False}
    return [
        ModelCheckpoint(resolved.run_dir, Path(BEST).stem, enable_version_counter=False, **when)
    ]


class MetricsFile(Logger):
    """Appends everything that is logged to metrics.jsonl, one JSON object a line: step, epoch, name: value.

    Args:
        path: the file.
        step: lines of later steps are dropped: they belong to a run that was stopped and goes on from ``step``.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        super().__init__()
        self.path = path
        if path.is_file() and is_first_rank():
            lines = [
                line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) < step
            ]
            write_atomic(path, "".join(line + "\n" for line in lines))

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run folder's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = {name: float(f"{value:.6g}") for name, value in metrics.items()}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\n")


def _step(line: str) -> float:
    """The step of a line; a line cut short by a kill counts as later than every step."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
