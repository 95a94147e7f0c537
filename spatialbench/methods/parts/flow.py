r"""Rectified flow between a latent and noise, as pure functions.

Letters: B images, C channels, H W rows and columns of a latent.

    (1)  t = sigmoid(s n),  n ~ N(0, 1)     logit-normal; s spreads the times towards 0 and 1
    (2)  x_t = (1 - t) z + t eps            t = 0 is the latent, t = 1 the noise
    (3)  v = eps - z                        the target: d x_t / d t
    (4)  l = mean over C, H, W of (u - v)^2     of a prediction u, per image, at least in float32

Source: mashijie1028/GenHancer @ d716ba2; docs/genhancer.md. Signs as in diffusers' flow matching.
"""

from __future__ import annotations

import torch
from torch import Tensor


def times(count: int, scale: float, generator: torch.Generator) -> Tensor:
    """Draw (1) with s = ``scale``, float32 [count] in (0, 1), on the generator's device."""
    return torch.sigmoid(scale * torch.randn(count, generator=generator, device=generator.device))


def between(z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Return (2), [B, C, H, W], at the times t [B]."""
    t = t.to(z.dtype)[:, None, None, None]
    return (1 - t) * z + t * eps


def flow_loss(u: Tensor, z: Tensor, eps: Tensor) -> Tensor:
    """Return (4), [B], of predictions u, latents z and noise eps, each [B, C, H, W]."""
    exact = torch.promote_types(u.dtype, torch.float32)
    target = eps.to(exact) - z.to(exact)  # (3)
    return (u.to(exact) - target).square().mean(dim=(1, 2, 3))  # (4)
