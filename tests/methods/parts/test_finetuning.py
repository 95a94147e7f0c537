"""Where AdamW is one kernel: on CUDA, and not where Lightning would refuse to clip."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spatialbench.methods.parts.finetuning import FineTuning, adamw, fused
from spatialbench.utils.errors import SpatialbenchError


def trainer(device: str, precision: str, clip: float | None) -> Any:
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(strategy=strategy, precision=precision, gradient_clip_val=clip)


@pytest.mark.parametrize(
    ("device", "precision", "clip", "found"),
    [
        ("cpu", "bf16-mixed", None, None),
        ("cpu", "32-true", None, None),
        ("cuda", "bf16-mixed", None, True),
        ("cuda", "bf16-mixed", 1.0, None),
        ("cuda", "16-mixed", 1.0, None),
        ("cuda", "bf16-true", 1.0, True),
        ("cuda", "32-true", 1.0, True),
    ],
)
def test_one_kernel_on_cuda_where_clipping_permits_it(
    device: str, precision: str, clip: float | None, found: bool | None
) -> None:
    assert fused(FineTuning(), trainer(device, precision, clip)) is found


def test_what_was_asked_for_is_done_or_refused_in_one_line() -> None:
    assert fused(FineTuning(fused=True), trainer("cpu", "32-true", 1.0)) is True
    assert fused(FineTuning(fused=False), trainer("cuda", "32-true", None)) is False
    with pytest.raises(
        SpatialbenchError,
        match=r"finetuning\.fused does not go with trainer\.gradient_clip_val 1\.0",
    ):
        fused(FineTuning(fused=True), trainer("cuda", "bf16-mixed", 1.0))


@pytest.mark.parametrize("choice", [None, True])
def test_it_is_the_same_step(choice: bool | None) -> None:
    layers = [torch.nn.Linear(3, 2) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    for layer, kernel in zip(layers, (None, choice), strict=True):
        optimizer = adamw(layer.named_parameters(), FineTuning(lr=0.1), 10, ("",), kernel)[
            "optimizer"
        ]
        assert optimizer.defaults["fused"] is kernel
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(layers[1].weight, layers[0].weight, rtol=1e-5, atol=1e-6)
