"""AdamW is one kernel on CUDA, unless Lightning would refuse to clip."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spatialbench.methods.parts.finetuning import FineTuning, adamw, fused
from tests.support.checks import refused


def trainer(device: str = "cpu", precision: str = "32-true", clip: float | None = None) -> Any:
    strategy = SimpleNamespace(root_device=torch.device(device))
    options = {"precision": precision, "gradient_clip_val": clip}
    return SimpleNamespace(strategy=strategy, estimated_stepping_batches=10, **options)


@pytest.mark.parametrize(
    ("setting", "device", "precision", "clip", "expected"),
    [
        (None, "cpu", "bf16-mixed", None, None),
        (None, "cuda", "bf16-mixed", None, True),
        (None, "cuda", "bf16-mixed", 1.0, None),
        (None, "cuda", "16-mixed", 1.0, None),
        (None, "cuda", "bf16-true", 1.0, True),
        (None, "cuda", "32-true", 1.0, True),
        (True, "cpu", "32-true", 1.0, True),
        (False, "cuda", "32-true", None, False),
    ],
)
def test_one_kernel_on_cuda_where_clipping_permits_it(
    setting: bool | None, device: str, precision: str, clip: float | None, expected: bool | None
) -> None:
    assert fused(FineTuning(fused=setting), trainer(device, precision, clip)) is expected


def test_one_kernel_with_clipping_in_mixed_precision_is_refused() -> None:
    what = r"finetuning\.fused does not go with trainer\.gradient_clip_val 1\.0"
    with refused(what):
        fused(FineTuning(fused=True), trainer("cuda", "bf16-mixed", 1.0))


def test_it_is_the_same_step() -> None:
    layers = [torch.nn.Linear(3, 2) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    for layer, kernel in zip(layers, (None, True), strict=True):
        settings = FineTuning(lr=0.1, fused=kernel)
        optimizer = adamw(layer.named_parameters(), settings, trainer(), ("",))["optimizer"]
        assert optimizer.defaults["fused"] is kernel
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(layers[1].weight, layers[0].weight, rtol=1e-5, atol=1e-6)
