r"""The mean of two CLIPs' weights: one that an earlier stage trained, and the one it began with.

Paper  Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv 2109.01903
       (WiSE-FT); CLIPSelf (Wu et al., ICLR 2024) saves and evaluates such a mean.
Code   wusize/CLIPSelf @ 1c7fe9c, ``student_teacher_ensemble`` (nothing is copied); alpha 0.7 for
       ViT-B, 0.95 for ViT-L.

    (1)  w = alpha w_trained + (1 - alpha) w_begun

It has a page of its own, which trains nothing and begins with ``init_from``; the page it begins
with is the row without (1). The mean by itself restores spatial structure, and would hide the
effect of distilling correlations.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from spatialbench.methods.base import DEFAULTS, FineTuning, Method
from spatialbench.utils.errors import SpatialbenchError


class WeightEnsemble(Method):
    """A mean of weights, on a page with ``trainer.max_steps: 0``.

    Args:
        student: the CLIP that the earlier stage began with, ``<model>[:<weights>]``.
        alpha: weight of the trained student, in [0, 1]; 0 is the one that it began with.
        finetuning: not used.
    """

    def __init__(
        self, student: str = "rooms-student", alpha: float = 0.7, finetuning: FineTuning = DEFAULTS
    ) -> None:
        super().__init__(student, finetuning)
        self.save_arguments(locals())
        if not 0 <= alpha <= 1:
            raise SpatialbenchError(f"alpha is {alpha}; it must be in [0, 1]")
        self.alpha = alpha

    def start_from(self, weights: Mapping[str, Tensor], label: str) -> None:
        """Take (1), where ``weights`` are of a trained student."""
        begun = {name: value.clone() for name, value in self.student.state_dict().items()}
        super().start_from(weights, label)
        with torch.no_grad():
            for name, value in self.student.state_dict().items():
                if value.is_floating_point():
                    value.copy_(self.alpha * value + (1 - self.alpha) * begun[name])  # (1)

    def training_step(self, batch: object, batch_idx: int) -> Tensor:
        """Refuse to train."""
        raise SpatialbenchError("a weight ensemble trains nothing: set trainer.max_steps to 0")
