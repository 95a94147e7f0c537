"""Checkpoint last.ckpt, written after whole optimizer steps, so no gradient is lost."""

import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from spatialbench.training.callbacks import Interrupted, Interruptions


class StepCheckpoint(ModelCheckpoint):
    """Lightning's, written after whole steps and after the validation that is due.

    After a resume, Lightning's own would also write between accumulated gradients, and lose them.
    A checkpoint written before a validation says that it was made, so a resume would skip it.
    """

    _step, _due = 0, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step at which training starts."""
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after a whole step, unless a validation comes first."""
        if trainer.global_step == self._step:
            return
        self._step, self._due = trainer.global_step, _validates_now(trainer)
        if not self._due:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what waited for the validation."""
        super().on_validation_end(trainer, pl_module)
        if self._due:
            self._due = False
            super().on_train_batch_end(trainer, pl_module, None, None, 0)


def _validates_now(trainer: Trainer) -> bool:
    """Return whether a validation follows this batch, where they have a fixed distance."""
    every = trainer.val_check_batch
    if not trainer.enable_validation or trainer.check_val_every_n_epoch is not None:
        return False
    return isinstance(every, int) and (trainer.fit_loop.total_batch_idx + 1) % every == 0


class StopAfterStep(Callback):
    """Saves last.ckpt and stops after the optimizer step during which a signal came."""

    def __init__(self, interruptions: Interruptions, checkpoint: Path) -> None:
        self.interruptions = interruptions
        self.checkpoint = checkpoint
        self._step, self._whole = 0, True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Defer signals."""
        self.interruptions.deferred = True
        self._step, self._whole = trainer.global_step, True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Stop after a whole step."""
        self._whole = trainer.global_step != self._step  # else gradients are being accumulated
        self._step = trainer.global_step
        if self._whole:
            self._leave(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after a validation within the training."""
        if self.interruptions.deferred and self._whole:
            self._leave(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, or raise later signals at once."""
        self.interruptions.deferred = False
        self._leave(trainer)

    def on_exception(self, *args: Any) -> None:
        """Raise later signals at once."""
        self.interruptions.deferred = False

    def _leave(self, trainer: Trainer) -> None:
        pending = self.interruptions.pending
        if trainer.world_size > 1:  # every rank stops at the same step
            stop = trainer.strategy.reduce_boolean_decision(pending is not None, all=False)
        else:
            stop = pending is not None
        if stop:
            trainer.save_checkpoint(self.checkpoint)
            raise Interrupted(pending or signal.SIGTERM, trainer.global_step)
