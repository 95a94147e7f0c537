"""How alike two rows answer: the share of records that both have right or both wrong, and what of it chance explains.

Letters: S seeds, N records.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spatialbench.evaluation.statistics import correctness


class Agreement(NamedTuple):
    """``alike``: percent of the records answered alike. ``kappa``: Cohen's, in [-1, 1]; None where both rows answer
    every record the same way, of which chance explains all.
    """

    alike: float
    kappa: float | None


def agreement(a: np.ndarray, b: np.ndarray | None = None) -> Agreement | None:
    r"""Of row a beside row b, a mean over every seed of one beside every seed of the other.

    With :math:`x, y \in [0, 1]` the correctness of a record (a tie one half) under the two and the bar for means:

    .. math:: p_o = \overline{x y + (1 - x)(1 - y)}, \quad p_e = \bar x \bar y + (1 - \bar x)(1 - \bar y), \quad
              \kappa = \frac{p_o - p_e}{1 - p_e}

    p_o and p_e are averaged over the pairs of seeds, then divided.

    Args:
        a: float [S, N], margins.
        b: float [S', N], of the same records in the same order; None: a beside itself, seeds beside other seeds.

    Returns:
        None for one seed beside itself.

    Source: Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    x, y = correctness(a), correctness(a if b is None else b)
    n = x.shape[1]
    observed = (x @ y.T + (1 - x) @ (1 - y).T) / n  # [S, S']
    mine, theirs = x.mean(1)[:, None], y.mean(1)[None]
    expected = mine * theirs + (1 - mine) * (1 - theirs)
    pairs = ~np.eye(len(x), dtype=bool) if b is None else np.ones(observed.shape, dtype=bool)
    if not pairs.any():
        return None
    o, e = float(observed[pairs].mean()), float(expected[pairs].mean())
    return Agreement(100 * o, None if 1 - e < 1e-12 else (o - e) / (1 - e))
