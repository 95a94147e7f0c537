"""The flow is the printed equations, its signs are diffusers', and a true prediction leads from noise to the latent."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling
from torch import Tensor

from spatialbench.methods.parts.flow import between, flow_loss, times


def noise(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_times_are_logit_normal(scale: float) -> None:
    found = times(500, scale, torch.Generator().manual_seed(0))
    drawn = torch.randn(500, generator=torch.Generator().manual_seed(0)).tolist()
    wanted = [1 / (1 + math.exp(-scale * n)) for n in drawn]  # (1)
    torch.testing.assert_close(found, torch.tensor(wanted))
    torch.manual_seed(0)
    torch.testing.assert_close(
        found, compute_density_for_timestep_sampling("logit_normal", 500, 0.0, scale)
    )


def test_path_and_loss_are_the_printed_equations() -> None:
    z, eps, u = (noise(seed) for seed in range(3))
    t = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    found, losses = between(z, eps, t), flow_loss(u, z, eps)
    for b in range(3):
        total = 0.0
        for place in torch.cartesian_prod(*(torch.arange(side) for side in z.shape[1:])).tolist():
            at = (b, *place)
            x = (1 - t[b].item()) * z[at].item() + t[b].item() * eps[at].item()  # (2)
            assert found[at].item() == pytest.approx(x, rel=1e-12)
            total += (u[at].item() - (eps[at].item() - z[at].item())) ** 2  # (3), (4)
        assert losses[b].item() == pytest.approx(total / (2 * 4 * 6), rel=1e-12)


def test_time_zero_is_the_latent_and_time_one_the_noise() -> None:
    z, eps = noise(0), noise(1)
    assert torch.equal(between(z, eps, torch.zeros(3)), z)
    assert torch.equal(between(z, eps, torch.ones(3)), eps)
    assert torch.equal(flow_loss(eps - z, z, eps), torch.zeros(3, dtype=torch.float64))
    assert (flow_loss(z - eps, z, eps) > 1).all()


def test_the_path_is_that_of_diffusers() -> None:
    z, eps = noise(0, torch.float32), noise(1, torch.float32)
    scheduler = FlowMatchEulerDiscreteScheduler()
    time = scheduler.timesteps[300]
    t = torch.full((3,), float(time / 1000))
    torch.testing.assert_close(between(z, eps, t), scheduler.scale_noise(z, time[None], eps))


def test_the_loss_is_in_float32_at_least() -> None:
    z, eps = noise(0, torch.float32), noise(1, torch.float32)
    u = noise(2).bfloat16()
    found = flow_loss(u, z, eps)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, flow_loss(u.double(), z.double(), eps.double()).float())
