"""How fast a training was: images a second, peak memory and, on a GPU whose peak is known, MFU."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from spatialbench.utils import provenance
from spatialbench.utils.flops import Peak, StepFlops, peak

WARM_UP = 3
"""Steps of a start that are not timed: compilation, the choice of kernels, the first batches of the workers."""


class Speed(Callback):
    """Measures the training steps, with the wait for their data and without validation; prints one line at the end.

    A batch counts where it has ``pixels``. Of a training that went on after an interruption the last start is measured.
    FLOPs are those of the first step, counted (``flops.py``) where MFU can be told from them: on a CPU the count would
    cost more than it says.

    Args:
        flops: count them whatever the device, for a test.
    """

    def __init__(self, flops: bool = False) -> None:
        self._always, self._peak = flops, Peak(0.0, "")
        self._seen, self._images, self._seconds = 0, 0, 0.0
        self._per_image = 0.0  # FLOPs
        self._since: float | None = None
        self._flops = StepFlops()

    # ---------------------------------------------------------------------------------------- what is measured
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device, sixteen = trainer.strategy.root_device, "16" in str(trainer.precision)
        known = (
            peak(torch.cuda.get_device_name(device)) if device.type == "cuda" and sixteen else None
        )
        self._peak = known or Peak(0.0, "")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._seen == 0 and (self._peak.tflops or self._always):
            self._flops.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not isinstance(batch, Mapping) or "pixels" not in batch:
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
        self._pause(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._seen >= WARM_UP:
            self._go_on(trainer)

    def on_exception(self, *args: Any) -> None:
        self._flops.stop()

    def _go_on(self, trainer: Trainer) -> None:
        _finish_queue(trainer)
        self._since = perf_counter()

    def _pause(self, trainer: Trainer) -> None:
        if self._since is not None:
            _finish_queue(trainer)
            self._seconds += perf_counter() - self._since
            self._since = None

    # ---------------------------------------------------------------------------------------- what is said of it
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause(trainer)
        found = self.summary(trainer.world_size)
        if not found:
            return
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"speed/{name}": value for name, value in found.items()}, trainer.global_step - 1
            )
        if trainer.is_global_zero:
            print(self.line(found), file=sys.stderr, flush=True)

    def summary(self, world: int = 1) -> dict[str, float]:
        """images_per_second of all ranks; peak memory in MB of this process and of its GPU; where FLOPs were counted
        tflop_per_image, and where the peak is known mfu in [0, 1]. Empty where no step was timed."""
        if not self._images or not self._seconds:
            return {}
        rate = self._images / self._seconds
        found = {"images_per_second": rate, "peak_memory_mb": provenance.peak_memory_mb()}
        if torch.cuda.is_available():
            found["peak_gpu_memory_mb"] = provenance.peak_gpu_memory_mb()
        if self._per_image:
            found["tflop_per_image"] = self._per_image / 1e12
        if self._per_image and self._peak.tflops:
            found["mfu"] = self._per_image * rate / world / (self._peak.tflops * 1e12)
        return {name: float(f"{value:.4g}") for name, value in found.items()}

    def line(self, found: Mapping[str, float]) -> str:
        """What ``summary`` found, for a person."""
        parts = [
            f"training: {found['images_per_second']:.4g} images/s",
            f"peak memory {found['peak_memory_mb'] / 1000:.2f} GB",
        ]
        if found.get("peak_gpu_memory_mb"):
            parts.append(f"of the GPU {found['peak_gpu_memory_mb'] / 1000:.2f} GB")
        if "mfu" in found:
            parts.append(
                f"MFU {100 * found['mfu']:.1f} % of {self._peak.tflops:.0f} TFLOP/s ({self._peak.source}; "
                f"{found['tflop_per_image']:.4g} TFLOP an image, nothing counted twice)"
            )
        return ", ".join(parts)


def _finish_queue(trainer: Trainer) -> None:
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)
