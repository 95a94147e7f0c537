"""Speed of a training: images a second, peak memory and, on a GPU with a known peak, MFU."""

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from spatialbench.utils import provenance
from spatialbench.utils.flops import Peak, StepFlops, peak
from spatialbench.utils.say import say

WARM_UP = 3
"""Steps that are not timed: compilation, choice of kernels, first batches of the workers."""


class Speed(Callback):
    """Times the training steps with the wait for their data, without validation.

    A batch counts where it has ``pixels``. After a resume only the last start is timed. FLOPs are
    counted in the first step (``flops.py``), and only where MFU follows from them.
    """

    def __init__(self) -> None:
        self._peak = Peak(0.0, "")
        self._seen, self._images, self._seconds = 0, 0, 0.0
        self._per_image = 0.0  # FLOPs
        self._since: float | None = None
        self._flops = StepFlops()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the GPU's peak at 16 bits."""
        device = trainer.strategy.root_device
        if device.type == "cuda" and "16" in str(trainer.precision):
            self._peak = peak(torch.cuda.get_device_name(device)) or self._peak

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the FLOPs of the first step."""
        if self._seen == 0 and _has_pixels(batch) and self._peak.tflops:
            self._flops.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images of the steps after the warm-up."""
        if not _has_pixels(batch):
            return
        if self._seen == 0:
            self._flops.stop()
            self._per_image = self._flops.once / len(batch["pixels"])
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

    def on_exception(self, *args: Any) -> None:
        """Stop counting FLOPs."""
        self._flops.stop()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the summary, and print it in one line."""
        self._pause(trainer)
        summary = self.summary(trainer.world_size)
        if summary:
            metrics = {f"speed/{name}": value for name, value in summary.items()}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, trainer.global_step - 1)
            say(self.line(summary))

    def _go_on(self, trainer: Trainer) -> None:
        _finish_queue(trainer)
        self._since = perf_counter()

    def _pause(self, trainer: Trainer) -> None:
        if self._since is not None:
            _finish_queue(trainer)
            self._seconds += perf_counter() - self._since
            self._since = None

    def summary(self, world: int = 1) -> dict[str, float]:
        """Return the measured numbers; empty where no step was timed.

        images_per_second of all ranks; peak_memory_mb of this process and peak_gpu_memory_mb of its
        GPU; tflop_per_image, and mfu in [0, 1], where the peak is known.
        """
        if not self._images or not self._seconds:
            return {}
        rate = self._images / self._seconds
        summary = {"images_per_second": rate, "peak_memory_mb": provenance.peak_memory_mb()}
        if torch.cuda.is_available():
            summary["peak_gpu_memory_mb"] = provenance.peak_gpu_memory_mb()
        if self._per_image:
            summary["tflop_per_image"] = self._per_image / 1e12
            summary["mfu"] = self._per_image * rate / world / (self._peak.tflops * 1e12)
        return {name: float(f"{value:.4g}") for name, value in summary.items()}

    def line(self, summary: Mapping[str, float]) -> str:
        """Write a summary as text."""
        parts = [
            f"training: {summary['images_per_second']:.4g} images/s",
            f"peak memory {summary['peak_memory_mb'] / 1000:.2f} GB",
        ]
        if summary.get("peak_gpu_memory_mb"):
            parts.append(f"of the GPU {summary['peak_gpu_memory_mb'] / 1000:.2f} GB")
        if "mfu" in summary:
            parts.append(
                f"MFU {100 * summary['mfu']:.1f} % of {self._peak.tflops:.0f} TFLOP/s "
                f"({self._peak.source}; {summary['tflop_per_image']:.4g} TFLOP an image)"
            )
        return ", ".join(parts)


def _finish_queue(trainer: Trainer) -> None:
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)


def _has_pixels(batch: Any) -> bool:
    return isinstance(batch, Mapping) and "pixels" in batch
