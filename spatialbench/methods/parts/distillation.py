"""Distillation into regions of a dense map: pure functions, each an equation of its paper.

    CLIPSelf             (1)  1 - mean_i <f_i, t_i>     f_i of the map's region, t_i of its crop
    region and text      (2)  mean_i sum_{c in C} BCE(s <f_i, T_c>, [c = y_i]), 1 / s temperature
    spatial correlation  (3)  A = Z Z^T, Z the L tokens of a region, unit norm
                         (4)  P = softmax_row(g(A) / tau)
                         (5)  - 1/(N L) sum_i sum_j sum_k Pt_i[j,k] log Ps_i[j,k]

All in float32 (float64 for float64 inputs), also under autocast: the differences are finer than
bfloat16.

Letters: N regions, L tokens of a region, D joint width, K classes.

Source: (1), (2) CLIPSelf and its RegionCLIP setting, wusize/CLIPSelf @ 1c7fe9c; (3)-(5) Qiu et al.,
"Refining CLIP's Spatial Awareness", ICLR 2025, arXiv 2504.02328, without released code: g, tau and
the stop-gradient are those of the same authors' CongpeiQiu/UniRefiner @ 38f4e71.
docs/r_sc_rla.md tags what is quoted and what is inferred.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.models.region_tokens import exact, single

Normaliser = Literal["minmax", "none"]
_NARROWEST = 1e-3
"""Narrower rows of cosines, as of a region of one colour, are not stretched to [0, 1]."""


def crop_cosine(regions: Tensor, crops: Tensor) -> Tensor:
    """Match each region of the map to the teacher's embedding of the crop: (1), CLIPSelf.

    Args:
        regions: [N, D], unit norm.
        crops: [N, D], unit norm.
    """
    with exact(regions):
        return 1 - (single(regions) * single(crops)).sum(-1).mean()


def region_text(regions: Tensor, texts: Tensor, label: Tensor, scale: Tensor | float) -> Tensor:
    """Classify each region against every class, as a multi-label problem: (2).

    Args:
        regions: [N, D], unit norm.
        texts: [K, D], unit norm, the classes C.
        label: int64 [N], in [0, K).
        scale: inverse temperature.
    """
    with exact(regions):
        logits = scale * single(regions) @ single(texts).T
        target = F.one_hot(label, len(texts)).to(logits)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(regions)


class Correlation(NamedTuple):
    """The scalar ``loss`` (5) and, for the log, ``divergence``: (5) minus the teacher's entropy."""

    loss: Tensor
    divergence: Tensor


def spatial_correlation(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 0.2,
    normaliser: Normaliser = "minmax",
    stop_gradient: bool = True,
    diagonal: bool = True,
) -> Correlation:
    """Match the similarities among the tokens of a region to the teacher's: (3)-(5).

    Only correlations are compared, so the two may differ in space and width.

    Args:
        student: [N, L, D], unit norm.
        teacher: [N, L, D'], unit norm; gets no gradient.
        temperature: tau, of both.
        normaliser: g; ``minmax`` stretches every row of A to [0, 1], as the cosines of CLIP's
            tokens lie in a narrow band; ``none`` leaves them.
        stop_gradient: of the second factor of the student's A.
        diagonal: keep a token's correlation with itself, which is always 1.
    """
    with exact(student):
        student, teacher = single(student), single(teacher.detach())
        own = student @ (student.detach() if stop_gradient else student).mT  # (3)
        log_student = _rows(own, temperature, normaliser, diagonal)  # (4)
        log_teacher = _rows(teacher @ teacher.mT, temperature, normaliser, diagonal)
    target = log_teacher.exp()
    rows = student.shape[0] * student.shape[1]
    loss = -(target * log_student).sum() / rows  # (5)
    return Correlation(loss, (target * (log_teacher - log_student.detach())).sum() / rows)


def _rows(
    correlations: Tensor, temperature: float, normaliser: Normaliser, diagonal: bool
) -> Tensor:
    """Return log P of (4); without the diagonal, a row has L - 1 entries."""
    if not diagonal:
        count = correlations.shape[-1]
        others = ~torch.eye(count, dtype=torch.bool, device=correlations.device)
        correlations = correlations[:, others].unflatten(1, (count, count - 1))
    if normaliser == "minmax":
        low, high = correlations.amin(-1, keepdim=True), correlations.amax(-1, keepdim=True)
        correlations = (correlations - low) / (high - low).clamp(min=_NARROWEST)
    return (correlations / temperature).log_softmax(-1)
