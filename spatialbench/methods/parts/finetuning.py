"""The fine-tuning protocol, the same for every row of a table: settings, optimiser, schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from lightning import Trainer
from torch import nn

from spatialbench.methods.parts.objectives import NEGATIVES
from spatialbench.utils.errors import SpatialbenchError

SCHEDULES = ("cosine", "constant")
CHOICES = {"optimizer": ("adamw", "adam"), "decay": ("matrices", "all"), "scored": ("last", "best")}
CHUNKS = ("chunk_images", "chunk_captions")


@dataclass
class FineTuning:
    """The fine-tuning protocol.

    Args:
        lr: learning rate of the student. The authors' 2e-5 (train.py); a track sets its own.
        connection_lr: learning rate of what a method adds to the student. The authors' 2e-4.
        betas: of AdamW; the authors' Adam has the same.
        eps: of AdamW; the authors' 1e-5.
        weight_decay: decoupled, on matrices only: biases, norms and the logit scale have none. The authors add an L2
            term of 0.2 to the gradient of everything instead.
        warmup_steps: the learning rate rises linearly over so many steps.
        schedule: cosine falls to zero at the last step; constant stays.
        negatives: appended puts the negated captions into the image-to-text denominator, equation (5); none leaves
            them out, the poster's ablation.
        own_negation_weight: weight of the caption against its own negation beside the poster's loss; 0 is the poster.
        freeze_logit_scale: keep the temperature of the pre-trained student, as the authors' code does.
        chunk_images: activations of so many images are in memory at a time, whatever the batch that the loss sees; one
            more forward pass, the same gradient (chunks.py). 0: all at once.
        chunk_captions: likewise of captions.
        checkpointing: keep the inputs of the student's blocks only and compute the rest again in the backward pass:
            less memory, a third more time, the same numbers.
        compile: the image tower's blocks through ``torch.compile`` in training; scoring runs as written.
        optimizer: adamw decouples the weight decay from the gradient; adam adds it to the gradient (L2), as the
            authors' code does.
        decay: matrices have weight decay, or all parameters, as in the authors' code.
        scored: the last checkpoint is scored, or the one that was best on the validation set, for a legacy reading.
        fused: one kernel for all of AdamW. None: on CUDA, where the trainer does not clip gradients in mixed precision.

    Raises:
        SpatialbenchError: a value out of its range.

    Source: hy30n80/Mixed-Transformer @ 0b9ac26, train.py; docs/spatial_attn.md says what differs.
    """

    lr: float = 2e-5
    connection_lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-5
    weight_decay: float = 0.2
    warmup_steps: int = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    negatives: Literal["appended", "none"] = "appended"
    own_negation_weight: float = 0.0
    freeze_logit_scale: bool = True
    chunk_images: int = 0
    chunk_captions: int = 0
    checkpointing: bool = False
    compile: bool = False
    fused: bool | None = None
    optimizer: Literal["adamw", "adam"] = "adamw"
    decay: Literal["matrices", "all"] = "matrices"
    scored: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        self.betas = tuple(self.betas)  # type: ignore[assignment]  # a list, where they come from JSON
        for name in (
            "lr",
            "connection_lr",
            "eps",
            "weight_decay",
            "warmup_steps",
            "own_negation_weight",
            *CHUNKS,
        ):
            if not getattr(self, name) >= 0:
                raise SpatialbenchError(
                    f"finetuning.{name} is {getattr(self, name)}; it must be 0 or more"
                )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise SpatialbenchError(
                f"finetuning.betas is {self.betas}; it must be two numbers in [0, 1)"
            )
        for name, known in {"negatives": NEGATIVES, "schedule": SCHEDULES, **CHOICES}.items():
            if getattr(self, name) not in known:
                raise SpatialbenchError(
                    f"finetuning.{name} is {getattr(self, name)!r}; one of {', '.join(known)}"
                )

    @property
    def needs_negated(self) -> bool:
        """Whether the objective asks for the negated captions at all."""
        return self.negatives == "appended" or self.own_negation_weight > 0

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "betas": list(self.betas)}


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    settings: FineTuning,
    pretrained: tuple[str, ...] = ("student.",),
) -> list[dict[str, Any]]:
    """What is pre-trained (by its prefix) and what a method adds have a learning rate each; what decays is a field."""
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    groups = []
    for lr, begun in ((settings.lr, True), (settings.connection_lr, False)):
        rest = settings.weight_decay if settings.decay == "all" else 0.0
        for weight_decay, is_matrix in ((settings.weight_decay, True), (rest, False)):
            parameters = [
                parameter
                for name, parameter in trained
                if name.startswith(pretrained) == begun and (parameter.ndim > 1) == is_matrix
            ]
            if parameters:
                groups.append({"params": parameters, "lr": lr, "weight_decay": weight_decay})
    return groups


def learning_rate_factor(settings: FineTuning, total_steps: float) -> Callable[[int], float]:
    """Step, from 0 -> factor of the learning rate.

    Linear from 1 / (W + 1) over the W warm-up steps, then constant, or half a cosine that would reach zero at the step
    after the last.

    Args:
        total_steps: length of the training in optimiser steps; not used for a constant schedule.

    Raises:
        SpatialbenchError: a cosine over a training without end.
    """
    warmup = settings.warmup_steps
    if settings.schedule == "cosine" and math.isinf(total_steps):
        raise SpatialbenchError(
            "finetuning.schedule cosine needs an end: set trainer.max_steps or trainer.max_epochs"
        )

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if settings.schedule == "constant":
            return 1.0
        done = (step - warmup) / max(1, total_steps - warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


def adamw(
    named: Iterable[tuple[str, nn.Parameter]],
    settings: FineTuning,
    total_steps: float,
    pretrained: tuple[str, ...] = ("student.",),
    fused: bool | None = None,
) -> dict[str, Any]:
    """AdamW, or the settings' Adam, and its schedule, in the form that Lightning's ``configure_optimizers`` returns."""
    groups = parameter_groups(named, settings, pretrained)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    optimizer = kind(groups, betas=settings.betas, eps=settings.eps, fused=fused)
    return _scheduled(optimizer, settings, total_steps)


def fused(settings: FineTuning, trainer: Trainer) -> bool | None:
    """Whether AdamW is one kernel; None: torch's own choice.

    Lightning clips no gradients for an optimiser that unscales them itself, as a fused one would under a GradScaler.

    Raises:
        SpatialbenchError: it was asked for where Lightning would refuse it.
    """
    clips = bool(trainer.gradient_clip_val) and "mixed" in str(trainer.precision)
    if settings.fused and clips:
        raise SpatialbenchError(
            f"finetuning.fused does not go with trainer.gradient_clip_val {trainer.gradient_clip_val} in precision "
            f"{trainer.precision}: leave one of them out, or train in bf16-true"
        )
    if settings.fused is not None:
        return settings.fused
    return True if trainer.strategy.root_device.type == "cuda" and not clips else None


def sgd(
    named: Iterable[tuple[str, nn.Parameter]],
    settings: FineTuning,
    total_steps: float,
    pretrained: tuple[str, ...] = ("student.",),
    momentum: float = 0.9,
) -> dict[str, Any]:
    """SGD with momentum and without decay, and its schedule, in the same form."""
    groups = [
        {**group, "weight_decay": 0.0} for group in parameter_groups(named, settings, pretrained)
    ]
    return _scheduled(torch.optim.SGD(groups, momentum=momentum), settings, total_steps)


def _scheduled(
    optimizer: torch.optim.Optimizer, settings: FineTuning, total_steps: float
) -> dict[str, Any]:
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, learning_rate_factor(settings, total_steps)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
