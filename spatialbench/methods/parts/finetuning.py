"""The fine-tuning protocol, the same for every row of a table: settings, optimiser, schedule."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

import torch
from lightning import Trainer
from torch import nn

from spatialbench.utils.argument_checks import check_choices
from spatialbench.utils.errors import SpatialbenchError

Named = Iterable[tuple[str, nn.Parameter]]


@dataclass
class FineTuning:
    """The fine-tuning protocol.

    Args:
        lr: learning rate of the student. The authors' 2e-5 (train.py); a track sets its own.
        connection_lr: learning rate of what a method adds to the student. The authors' 2e-4.
        betas: of AdamW, the same as of the authors' Adam.
        eps: of AdamW; the authors' 1e-5.
        weight_decay: decoupled, on matrices only: biases, norms and the logit scale have none. The
            authors add an L2 term of 0.2 to the gradient of everything instead.
        warmup_steps: steps over which the learning rate rises linearly.
        schedule: ``cosine`` falls to zero at the last step; ``constant`` stays.
        negatives: ``appended`` adds the negated captions to the image-to-text denominator, equation
            (5); ``none`` leaves them out, the poster's ablation.
        own_negation_weight: weight of a loss of each caption against its own negation, added to the
            poster's loss; 0 is the poster.
        freeze_logit_scale: keep the temperature of the pre-trained student, as the authors' code.
        chunk_images: images whose activations are in memory at a time; costs one more forward pass
            and keeps the gradient of the whole batch (chunks.py). 0: all at once.
        chunk_captions: the same for captions.
        checkpointing: keep only the inputs of the student's blocks and recompute the rest in the
            backward pass: less memory, a third more time, the same numbers.
        compile: run the image tower's blocks through ``torch.compile`` in training, not in scoring.
        fused: one kernel for all of AdamW. None: on CUDA, unless the trainer clips gradients in
            mixed precision.
        optimizer: ``adamw`` decouples the weight decay from the gradient; ``adam`` adds it to the
            gradient (L2), as the authors' code does.
        decay: ``matrices`` have weight decay, or ``all`` parameters, as in the authors' code.
        scored: the ``last`` checkpoint is scored, or the ``best`` one on the validation set.
        projections: of attention in the student's image tower: ``transposed`` starts from W^T in
            place of W, as the authors' code, which scrambles what the student has learned.

    Raises:
        SpatialbenchError: a value out of its range.

    Source: hy30n80/Mixed-Transformer @ 0b9ac26, train.py; docs/spatial_attn.md lists differences.
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
    projections: Literal["correct", "transposed"] = "correct"

    def __post_init__(self) -> None:
        self.betas = tuple(self.betas)  # type: ignore[assignment]  # JSON has lists
        for name, kind in get_type_hints(FineTuning).items():
            if kind in (float, int) and not getattr(self, name) >= 0:
                raise SpatialbenchError(
                    f"finetuning.{name} is {getattr(self, name)}; it must be 0 or more"
                )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise SpatialbenchError(
                f"finetuning.betas is {self.betas}; it must be two numbers in [0, 1)"
            )
        check_choices(self, "finetuning")

    @property
    def needs_negated(self) -> bool:
        """True if the objective reads the negated captions."""
        return self.negatives == "appended" or self.own_negation_weight > 0


def parameter_groups(
    named: Named, settings: FineTuning, pretrained: tuple[str, ...] = ("student.",)
) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay.

    Those with a prefix in ``pretrained`` learn at ``lr``, the others at ``connection_lr``.
    """
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


def half_cosine(step: int, start: int, end: float) -> float:
    """Return 1 at the step ``start`` and before, 0 at ``end`` and after, a half cosine between."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - start) / max(1, end - start))))


def learning_rate_factor(settings: FineTuning, total_steps: float) -> Callable[[int], float]:
    """Return the factor of the learning rate as a function of the step, from 0.

    It rises linearly from 1 / (W + 1) over the W warm-up steps, then stays 1, or follows half a
    cosine that would reach zero at the step after the last of ``total_steps``.

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
        return 1.0 if settings.schedule == "constant" else half_cosine(step, warmup, total_steps)

    return factor


def adamw(
    named: Named, settings: FineTuning, trainer: Trainer, pretrained: tuple[str, ...]
) -> dict[str, Any]:
    """Return AdamW (or the settings' Adam) and its schedule, for ``configure_optimizers``."""
    groups = parameter_groups(named, settings, pretrained)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    kernel = fused(settings, trainer)
    optimizer = kind(groups, betas=settings.betas, eps=settings.eps, fused=kernel)
    return over_training(optimizer, settings, trainer)


def over_training(
    optimizer: torch.optim.Optimizer, settings: FineTuning, trainer: Trainer
) -> dict[str, Any]:
    """Return an optimiser with the settings' schedule over the trainer's steps."""
    total = trainer.estimated_stepping_batches if settings.schedule == "cosine" else 0
    return scheduled(optimizer, learning_rate_factor(settings, total))


def scheduled(optimizer: torch.optim.Optimizer, factor: Callable[[int], float]) -> dict[str, Any]:
    """Return an optimiser and the schedule of its learning rate by step, in Lightning's form."""
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fused(settings: FineTuning, trainer: Trainer) -> bool | None:
    """Return whether AdamW runs as one kernel; None: torch chooses.

    Under a GradScaler a fused optimiser unscales the gradients itself, so Lightning cannot clip.

    Raises:
        SpatialbenchError: the settings ask for it where Lightning would refuse it.
    """
    clips = bool(trainer.gradient_clip_val) and "mixed" in str(trainer.precision)
    if settings.fused and clips:
        raise SpatialbenchError(
            "finetuning.fused does not go with trainer.gradient_clip_val "
            f"{trainer.gradient_clip_val} in precision {trainer.precision}: leave one of them out, "
            "or train in bf16-true"
        )
    if settings.fused is None and trainer.strategy.root_device.type == "cuda" and not clips:
        return True
    return settings.fused
