"""Linear read-outs from moments, against ridge regression written out."""

import pytest
import torch
from torch import Tensor

from spatialbench.evaluation.ridge import FOLDS, PENALTIES, Moments, r_squared


def moments(x: Tensor, y: Tensor, fold: Tensor) -> Moments:
    made = Moments(x.shape[1], y.shape[1])
    for row in range(len(x)):
        made.add(x[row : row + 1], y[row : row + 1], int(fold[row]))
    return made


def data(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Correlated features, one constant; a target that depends on them, and one that does not."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    x[:, 1] += 2 * x[:, 0] + 5
    x[:, 3] = 7
    free = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    y = torch.stack([x[:, 0] - x[:, 2] + free[:, 0] + 3, free[:, 1]], 1)
    return x, y, torch.arange(count) % FOLDS


def written_out(sets: list[tuple[Tensor, Tensor, Tensor]], target: int) -> float:
    """(1) to (3) with the samples at hand: ridge by augmented least squares, df by its trace."""
    error = variance = 0.0
    for held_out in range(FOLDS):
        rows = []
        for x, y, fold in sets:
            train = fold != held_out
            z = (x - x[train].mean(0))[:, :3] / x[train].std(0, correction=0)[:3]
            centred = y[:, target] - y[train, target].mean()
            rows.append((z[train], centred[train], z[~train], centred[~train]))
        tried = []
        for penalty in PENALTIES.tolist():
            criterion = wrong = 0.0
            for z, y_train, z_test, y_test in rows:
                n = len(z)
                inverse = torch.linalg.inv(z.T @ z + n * penalty * torch.eye(3))
                weight = inverse @ z.T @ y_train
                df = 1 + float(torch.trace(z @ inverse @ z.T))
                rss = float((y_train - z @ weight).square().sum())
                criterion += n * n * rss / (n - df) ** 2
                wrong += float((y_test - z_test @ weight).square().sum())
            tried.append((criterion, wrong))
        error += min(tried)[1]
        variance += sum(float(row[3].square().sum()) for row in rows)
    return 1 - error / variance


def test_one_regression_is_the_printed_equations() -> None:
    sets = [data(40, seed=0)]
    found = r_squared([moments(*sets[0])])
    assert found == pytest.approx([written_out(sets, target) for target in (0, 1)], abs=1e-9)


def test_small_parts_share_their_penalty() -> None:
    sets = [data(15, seed=1), data(25, seed=2)]
    found = r_squared(moments(*each) for each in sets)
    assert found == pytest.approx([written_out(sets, target) for target in (0, 1)], abs=1e-9)
