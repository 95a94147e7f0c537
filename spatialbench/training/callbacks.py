"""Callbacks of a training: signals, the clock, the progress bar and the metrics file."""

import json
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Self

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from spatialbench.config.experiment import Resolved
from spatialbench.results.run_folder import BEST, scores_best
from spatialbench.utils.distributed import is_first_rank
from spatialbench.utils.errors import write_atomic
from spatialbench.utils.progress import progress


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM; not an Exception, so that no library handles it as its own.

    ``step``: optimizer steps that last.ckpt holds; None outside of the training.
    """

    def __init__(self, signum: int, step: int | None = None) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum, self.step = signum, step


class Interruptions(AbstractContextManager["Interruptions"]):
    """Turns SIGINT and SIGTERM into :class:`Interrupted`.

    While ``deferred``, the first signal only sets ``pending``, and the training stops after the
    running step with a complete checkpoint. Otherwise, or at a second signal, it raises at once.
    """

    def __init__(self) -> None:
        self.deferred = False
        self.pending: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._old[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for signum, handler in self._old.items():
            signal.signal(signum, handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if not self.deferred or self.pending is not None:
            raise Interrupted(signum)
        self.pending = signum


class PairCounter(Callback):
    """Counts the records seen in training, repeats included, also over a resume."""

    def __init__(self) -> None:
        self.pairs = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the records of the batch on all ranks."""
        if isinstance(batch, dict) and "record" in batch:
            self.pairs += len(batch["record"]) * trainer.world_size

    def state_dict(self) -> dict[str, Any]:
        """Return the count, for the checkpoint."""
        return {"pairs": self.pairs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count."""
        self.pairs = state_dict["pairs"]


class StageClock(LambdaCallback):
    """Gives every second of a run to one stage.

    ``prepare``: rendering, reading; ``cache``: model set-up, tokens of the frozen VFM; ``train``,
    ``validate``, ``test``: inside the steps; ``wait``: for the loader; ``other``: checkpoints,
    logging, the loop itself. The caller gives time to ``start`` (imports, making the objects) and
    ``measure`` (evaluations other than the pair test).
    """

    MODEL_OR_RENDERING = ("prepare", "cache", "train", "validate", "test", "measure")
    ENDS: ClassVar[dict[str, str]] = {
        "setup": "prepare",  # Lightning prepares the datamodule before it calls this
        "on_train_start": "cache",
        "on_train_batch_start": "wait",
        "on_train_batch_end": "train",
        "on_train_end": "other",
        "on_validation_batch_start": "wait",
        "on_validation_batch_end": "validate",
        "on_validation_end": "other",
        "on_test_start": "cache",
        "on_test_batch_start": "wait",
        "on_test_batch_end": "test",
        "on_test_end": "other",
    }
    """Hook -> the stage that ends there."""

    def __init__(self) -> None:
        super().__init__(**{hook: partial(self.lap, stage) for hook, stage in self.ENDS.items()})
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the time to the training loop, or to the set-up of a validation by itself."""
        self.lap("other" if trainer.training or trainer.state.fn == "fit" else "cache")

    def lap(self, stage: str, /, *_: Any, **__: Any) -> None:
        """Give the time since the last call to ``stage``; other arguments of hooks are ignored."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def summary(self, before: dict[str, float] | None = None) -> dict[str, float]:
        """Return seconds by stage and ``total``; those of earlier starts (``before``) are added."""
        stages = {key: value for key, value in (before or {}).items() if key != "total"}
        for stage, value in self.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + value
        rounded = {stage: round(value, 2) for stage, value in stages.items()}
        return {**rounded, "total": round(sum(stages.values()), 2)}

    @classmethod
    def overhead(cls, summary: dict[str, float]) -> float:
        """Return the share of the time in [0, 1] that is neither model nor rendering."""
        useful = sum(summary.get(stage, 0.0) for stage in cls.MODEL_OR_RENDERING)
        return round(1 - useful / summary["total"], 4) if summary["total"] else 0.0


class StepProgress(LambdaCallback):
    """One bar for the whole training and one for a test, whatever the number of epochs."""

    def __init__(self, name: str) -> None:
        ends = ("on_train_end", "on_test_end", "on_exception")
        super().__init__(**dict.fromkeys(ends, self._close))
        self.name = name
        self._stack = ExitStack()
        self._advance: Callable[[float], None] = lambda count: None
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar of the remaining steps."""
        self._step = trainer.global_step
        total = trainer.estimated_stepping_batches - self._step
        self._open(trainer, f"training {self.name}", total, "steps")

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Advance by the optimizer steps of the batch."""
        self._advance(trainer.global_step - self._step)
        self._step = trainer.global_step

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar of the test's batches."""
        self._open(trainer, f"testing {self.name}", sum(trainer.num_test_batches), "batches")

    def on_test_batch_end(self, *args: Any) -> None:
        """Advance by a batch."""
        self._advance(1)

    def _open(self, trainer: Trainer, text: str, total: float, unit: str) -> None:
        if trainer.is_global_zero:
            self._advance = self._stack.enter_context(progress(text, total, unit))

    def _close(self, *args: Any) -> None:
        self._stack.close()
        self._advance = lambda count: None


def keep_best(resolved: Resolved) -> list[Callback]:
    """Return the callback that writes the best checkpoint, where ``finetuning.scored`` says so."""
    if not scores_best(resolved):
        return []
    best = ModelCheckpoint(
        resolved.run_dir,
        Path(BEST).stem,
        monitor="val/all",
        mode="max",
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    return [best]


class MetricsFile(Logger):
    """Appends everything that is logged to metrics.jsonl, a JSON object a line.

    ``step``: where the run is resumed; lines of this step and later ones are dropped.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        super().__init__()
        self.path = path
        if path.is_file() and is_first_rank():
            lines = path.read_text(encoding="utf-8").splitlines()
            write_atomic(path, "".join(line + "\n" for line in lines if _step(line) < step))

    @property
    def name(self) -> str:
        """Name of the logger, which Lightning asks for."""
        return "metrics"

    @property
    def version(self) -> str:
        """Version of the logger; there is none."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: config.yaml has the hyper-parameters."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a line."""
        values = {name: float(f"{value:.6g}") for name, value in metrics.items()}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\n")


def _step(line: str) -> float:
    """Step of a line; infinite for a line that a kill cut short."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")
