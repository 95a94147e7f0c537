"""Speed of a training: images a second, and peak memory."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from spatialbench.utils import provenance
from spatialbench.utils.say import say

WARM_UP = 3
"""Steps that are not timed: compilation, choice of kernels, first batches of the workers."""


class Speed(Callback):
    """Times the training steps with the wait for their data, without validation.

    A batch counts if it has ``pixels``. After a resume only the last start is timed.
    """

    def __init__(self) -> None:
        self._seen, self._images, self._seconds = 0, 0, 0.0
        self._since: float | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images of the steps after the warm-up."""
        if not isinstance(batch, Mapping) or "pixels" not in batch:
            return
        self._seen += 1
        if self._seen == WARM_UP:
            self._go_on(trainer)
        elif self._seen > WARM_UP:
            self._images += len(batch["pixels"]) * trainer.world_size

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._pause(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        if self._seen >= WARM_UP:
            self._go_on(trainer)

    def _go_on(self, trainer: Trainer) -> None:
        _finish_queue(trainer)
        self._since = perf_counter()

    def _pause(self, trainer: Trainer) -> None:
        if self._since is not None:
            _finish_queue(trainer)
            self._seconds += perf_counter() - self._since
            self._since = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the summary, and print it in one line."""
        self._pause(trainer)
        summary = self.summary()
        if summary:
            metrics = {f"speed/{name}": value for name, value in summary.items()}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, trainer.global_step - 1)
            say(self.line(summary))

    def summary(self) -> dict[str, float]:
        """Return the measured numbers; empty if no step was timed.

        images_per_second of all ranks; peak_memory_mb of this process and peak_gpu_memory_mb of its
        GPU.
        """
        if not self._images or not self._seconds:
            return {}
        rate = self._images / self._seconds
        summary = {"images_per_second": rate, "peak_memory_mb": provenance.peak_memory_mb()}
        if torch.cuda.is_available():
            summary["peak_gpu_memory_mb"] = provenance.peak_gpu_memory_mb()
        return {name: float(f"{value:.4g}") for name, value in summary.items()}

    def line(self, summary: Mapping[str, float]) -> str:
        """Write a summary as text."""
        parts = [
            f"training: {summary['images_per_second']:.4g} images/s",
            f"peak memory {summary['peak_memory_mb'] / 1000:.2f} GB",
        ]
        if summary.get("peak_gpu_memory_mb"):
            parts.append(f"of the GPU {summary['peak_gpu_memory_mb'] / 1000:.2f} GB")
        return ", ".join(parts)


def _finish_queue(trainer: Trainer) -> None:
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)
