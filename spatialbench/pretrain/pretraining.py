"""The base of the small foundation models' trainings: optimiser, validation scores, export."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors.torch import save_file
from torch import Tensor

from spatialbench.methods.parts.finetuning import (
    FineTuning,
    half_cosine,
    parameter_groups,
    scheduled,
)
from spatialbench.utils.errors import atomic_path, write_atomic


class Pretraining(L.LightningModule, ABC):
    """A training that ends with weights and scores on disk.

    A subclass has the hyper-parameters ``lr``, ``warmup`` (steps) and ``export`` (where ``write``
    writes), and calls ``keep`` in ``validation_step``.

    Attributes:
        weight_decay: on matrices, not on norms, biases and scales.
        scores: of the last validation.
    """

    weight_decay = 0.01
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.scores: dict[str, float] = {}

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Register ``mean`` and ``std`` [3, 1, 1] in units of [0, 255], given in [0, 1]."""
        for name, value in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1) * 255, persistent=False)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._kept: list[dict[str, Tensor]] = []

    def keep(self, **rows: Tensor) -> None:
        """Keep rows of a validation batch, by name."""
        self._kept.append(rows)

    @abstractmethod
    def summary(self, rows: dict[str, Tensor]) -> dict[str, float]:
        """Return the scores of all rows that were kept."""

    def on_validation_epoch_end(self) -> None:
        """Compute and log the scores."""
        names = self._kept[0]
        rows = {name: torch.cat([kept[name] for kept in self._kept]) for name in names}
        self.scores = self.summary(rows)
        self.log_dict({f"val/{name}": value for name, value in self.scores.items()}, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return AdamW with linear warm-up and a cosine to zero over the trainer's steps."""
        lr, warmup = self.hparams["lr"], self.hparams["warmup"]
        settings = FineTuning(lr=lr, weight_decay=self.weight_decay)
        groups = parameter_groups(self.named_parameters(), settings, pretrained=("",))
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
        total = int(self.trainer.estimated_stepping_batches)
        return scheduled(
            optimizer,
            lambda step: (step + 1) / warmup if step < warmup else half_cosine(step, warmup, total),
        )

    def finish(self) -> dict[str, float]:
        """Write weights and scores, when the page's training is done; return the scores."""
        self.write(Path(self.hparams["export"]))
        return self.scores

    @abstractmethod
    def write(self, target: Path) -> None:
        """Write weights and scores to a file, or to a folder of diffusers' layout."""


def write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write the floating-point tensors of a state as float16 safetensors, atomically."""
    half = {k: v.half().contiguous() for k, v in state.items() if v.is_floating_point()}
    with atomic_path(path) as temporary:
        save_file(half, temporary)


def write_scores(path: Path, scores: Mapping[str, float]) -> None:
    """Write scores as JSON with four decimals, atomically.

    Raises:
        SpatialbenchError: the file cannot be written.
    """
    assert all(math.isfinite(value) for value in scores.values()), scores
    rounded = {name: round(value, 4) for name, value in scores.items()}
    write_atomic(path, json.dumps(rounded, indent=2) + "\n")
