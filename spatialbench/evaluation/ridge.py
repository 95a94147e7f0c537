r"""Linear read-outs of features, judged on held-out images, from sums that never keep a feature.

Ridge regression of K targets y from D features x, standardised by the training part:

    (1)  \hat y = \bar y + w^T z,  z = (x - \bar x) / s,  w = (C_zz + \lambda)^{-1} C_zy
    (2)  \lambda minimises  n RSS / (n - df)^2 over a grid, df = 1 + \sum_i e_i / (e_i + \lambda)
    (3)  R^2 = 1 - \sum (y - \hat y)^2 / \sum (y - \bar y)^2   over the held-out images

e_i are the eigenvalues of C_zz, RSS the squared error on the training part. Every image is held out
once, in one of ``FOLDS`` parts. (2) is generalised cross-validation (Golub, Heath and Wahba,
Technometrics 21, 1979). R^2 is 0 for a feature that says nothing, and below 0 for a misleading one.

Letters: N samples, D features, K targets, G values of lambda.
"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

FOLDS = 5
"""Parts of the images, each of which is held out once."""
PENALTIES = torch.logspace(-6, 3, 28, dtype=torch.float64)
"""Values of lambda, in units of a standardised feature's variance."""


class Moments:
    """First and second moments of [x, y] by fold; features of a whole data set fit in no memory."""

    def __init__(self, features: int, targets: int, device: torch.device | None = None) -> None:
        width = features + targets
        self.features = features
        double = partial(torch.zeros, dtype=torch.float64, device=device)
        self.count = double(FOLDS)
        self.sum = double(FOLDS, width)
        self.square = double(FOLDS, width, width)

    def add(self, x: Tensor, y: Tensor, fold: int) -> None:
        """Add samples x [N, D] and y [N, K] of one fold."""
        both = torch.cat([x.double(), y.to(x.device).double()], dim=1)
        self.count[fold] += len(both)
        self.sum[fold] += both.sum(0)
        self.square[fold] += both.T @ both


def r_squared(parts: Iterable[Moments]) -> list[float]:
    """Return (3) of each target, pooled over ``parts``, which have a regression each.

    Lambda is one for all regressions of a target and fold, as some parts are small: it minimises
    the sum of n times (2). A target that does not vary has NaN.
    """
    criterion, error, variance = (torch.zeros(()) for _ in range(3))
    for part in parts:
        fits = [_fit(part, fold) for fold in range(FOLDS)]
        each = [torch.stack(values) for values in zip(*fits, strict=True)]  # [FOLDS, ...]
        criterion, error, variance = criterion + each[0], error + each[1], variance + each[2]
    best = criterion.argmin(1, keepdim=True)  # [FOLDS, 1, K]
    return (1 - error.gather(1, best).sum((0, 1)) / variance.sum(0)).tolist()


def _fit(part: Moments, fold: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fit the other folds: (2) and the held-out squared error [G, K], and that of the mean [K]."""
    d, test = part.features, part.count[fold]
    count = part.count.sum() - test
    mean = (part.sum.sum(0) - part.sum[fold]) / count
    spread = (part.square.sum(0) - part.square[fold]) / count - mean.outer(mean)
    scale = spread.diagonal()[:d].clamp(min=0).sqrt()
    flat = scale <= 1e-9 * (1 + mean[:d].abs())  # constant features say nothing
    scale = torch.where(flat, torch.inf, scale)

    def about_mean(total: Tensor, square: Tensor, n: Tensor) -> Tensor:
        crossed = mean.outer(total)
        return square - crossed - crossed.T + n * mean.outer(mean)

    held_out = about_mean(part.sum[fold], part.square[fold], test)
    values, basis = torch.linalg.eigh(spread[:d, :d] / scale.outer(scale))
    values, basis = values.clamp(min=0), basis / scale[:, None]
    projected = basis.T @ spread[:d, d:]  # [D, K]
    penalties = PENALTIES.to(values)[:, None]
    w = projected / (values + penalties)[..., None]  # (1): [G, D, K]
    squared = spread[d:, d:].diagonal() - 2 * (w * projected).sum(1)
    squared = (squared + (values[:, None] * w.square()).sum(1)).clamp(min=0)
    freedom = count - 1 - (values / (values + penalties)).sum(1, keepdim=True)  # n - df
    criterion = count * (count**2 * squared / freedom.square())  # (2), of n samples
    criterion = criterion.masked_fill(freedom <= 1, torch.inf)
    total = held_out[d:, d:].diagonal()
    crossed, inner = basis.T @ held_out[:d, d:], basis.T @ held_out[:d, :d] @ basis
    error = total - 2 * (w * crossed).sum(1) + (w * (inner @ w)).sum(1)
    return criterion, error, total
