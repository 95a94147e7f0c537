"""The optimiser of the protocol, and the authors' own as fields."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spatialbench.errors import SpatialbenchError
from spatialbench.finetuning import FineTuning, adamw


def named() -> list[tuple[str, nn.Parameter]]:
    torch.manual_seed(0)
    values = {"student.w": torch.randn(2, 3), "student.b": torch.randn(3), "new.w": torch.randn(3, 3)}
    return [(name, nn.Parameter(value.double())) for name, value in values.items()]


def stepped(steps: int = 3, **arguments: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values before and after some steps with the gradient of sum(p^2) / 2, which is p."""
    settings = FineTuning(lr=0.1, connection_lr=0.2, weight_decay=0.2, schedule="constant", **arguments)
    parameters = named()
    before = {name: parameter.detach().clone() for name, parameter in parameters}
    made = adamw(parameters, settings, 0)
    for _ in range(steps):
        for _, parameter in parameters:
            parameter.grad = parameter.detach().clone()
        made["optimizer"].step()
    return before, {name: parameter.detach() for name, parameter in parameters}


def adam_with_l2(p: Tensor, lr: float, decay: float, steps: int = 3) -> Tensor:
    """Kingma and Ba's Adam, the L2 term in the gradient, with the protocol's betas and eps."""
    m = v = torch.zeros_like(p)
    for step in range(1, steps + 1):
        g = p + decay * p
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
        p = p - lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.98**step)).sqrt() + 1e-5)
    return p


def test_the_default_is_adamw_on_matrices_alone() -> None:
    before, after = stepped(1)
    for name, lr, decay in (("student.w", 0.1, 0.2), ("student.b", 0.1, 0.0), ("new.w", 0.2, 0.2)):
        p = before[name]
        expected = p * (1 - lr * decay) - lr * p / (p.abs() + 1e-5)
        torch.testing.assert_close(after[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("decay", "of_vectors"), [("matrices", 0.0), ("all", 0.2)])
def test_adam_adds_the_decay_to_the_gradient(decay: str, of_vectors: float) -> None:
    before, after = stepped(optimizer="adam", decay=decay)
    for name, lr, share in (("student.w", 0.1, 0.2), ("student.b", 0.1, of_vectors), ("new.w", 0.2, 0.2)):
        torch.testing.assert_close(after[name], adam_with_l2(before[name], lr, share), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["optimizer", "decay", "scored"])
def test_a_word_that_is_none_of_the_known(name: str) -> None:
    with pytest.raises(SpatialbenchError, match=f"finetuning.{name} is 'nothing'; one of "):
        FineTuning(**{name: "nothing"})  # type: ignore[arg-type]
