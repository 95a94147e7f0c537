"""Agreement of two rows: the share of records that both have right or wrong, and chance.

Letters: S seeds, N records.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spatialbench.evaluation.ratio import correctness


class Agreement(NamedTuple):
    """Percent of the records that both rows have right or both wrong, and Cohen's kappa."""

    alike: float
    kappa: float | None  # in [-1, 1]; None if chance explains all agreement


def agreement(a: np.ndarray, b: np.ndarray | None = None) -> Agreement | None:
    r"""Compare two rows, mean over all pairs of a seed of one and a seed of the other.

    With :math:`x, y \in [0, 1]` the correctness of a record (a tie one half) in the two rows,

    .. math:: p_o = \overline{x y + (1 - x)(1 - y)}, \quad
              p_e = \bar x \bar y + (1 - \bar x)(1 - \bar y), \quad
              \kappa = \frac{p_o - p_e}{1 - p_e}

    p_o and p_e are averaged over the pairs of seeds, then divided. Source: Cohen, "A coefficient of
    agreement for nominal scales", 1960.

    Args:
        a: margins, float [S, N].
        b: margins of the same records, float [S', N]; None: different seeds of ``a``, which has no
            agreement if it has one seed.
    """
    x, y = correctness(a), correctness(a if b is None else b)
    observed = (x @ y.T + (1 - x) @ (1 - y).T) / x.shape[1]  # [S, S']
    mine, theirs = x.mean(1)[:, None], y.mean(1)[None]
    expected = mine * theirs + (1 - mine) * (1 - theirs)
    pairs = ~np.eye(len(x), dtype=bool) if b is None else np.ones(observed.shape, dtype=bool)
    if not pairs.any():
        return None
    o, e = float(observed[pairs].mean()), float(expected[pairs].mean())
    return Agreement(100 * o, None if 1 - e < 1e-12 else (o - e) / (1 - e))
