"""The flow is the printed equations, and its signs are diffusers'."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling
from torch import Tensor

from spatialbench.methods.genhancer import between, flow_loss, times


def noise(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_times_are_logit_normal(scale: float) -> None:
    drawn = times(500, scale, torch.Generator().manual_seed(0))
    n = torch.randn(500, generator=torch.Generator().manual_seed(0)).tolist()
    torch.testing.assert_close(drawn, torch.tensor([1 / (1 + math.exp(-scale * x)) for x in n]))
    torch.manual_seed(0)
    theirs = compute_density_for_timestep_sampling("logit_normal", 500, 0.0, scale)
    torch.testing.assert_close(drawn, theirs)


def test_path_and_loss_are_the_printed_equations() -> None:
    z, eps, u = (noise(seed) for seed in range(3))
    t = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    path, losses = between(z, eps, t), flow_loss(u, z, eps)
    for b in range(3):
        total = 0.0
        for place in torch.cartesian_prod(*(torch.arange(side) for side in z.shape[1:])).tolist():
            at = (b, *place)
            x = (1 - t[b].item()) * z[at].item() + t[b].item() * eps[at].item()  # (2)
            assert path[at].item() == pytest.approx(x, rel=1e-12)
            total += (u[at].item() - (eps[at].item() - z[at].item())) ** 2  # (3), (4)
        assert losses[b].item() == pytest.approx(total / (2 * 4 * 6), rel=1e-12)
    assert torch.equal(between(z, eps, torch.zeros(3)), z)
    assert torch.equal(between(z, eps, torch.ones(3)), eps)


def test_the_path_is_that_of_diffusers() -> None:
    z, eps = noise(0, torch.float32), noise(1, torch.float32)
    scheduler = FlowMatchEulerDiscreteScheduler()
    time = scheduler.timesteps[300]
    t = torch.full((3,), float(time / 1000))
    torch.testing.assert_close(between(z, eps, t), scheduler.scale_noise(z, time[None], eps))


def test_the_loss_is_in_float32_at_least() -> None:
    z, eps, u = noise(0, torch.float32), noise(1, torch.float32), noise(2).bfloat16()
    loss = flow_loss(u, z, eps)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, flow_loss(u.double(), z.double(), eps.double()).float())
