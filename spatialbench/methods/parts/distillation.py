"""Regions of a dense map, and what is distilled into them: pure functions, each an equation of its paper.

    CLIPSelf              (1)  1 - mean_i <f_i, t_i>                     f_i the region of the map, t_i of its crop
    region and text       (2)  mean_i sum_{c in C} BCE(s <f_i, T_c>, [c = y_i])      s the inverse temperature
    spatial correlation   (3)  A = Z Z^T, Z the L tokens of a region, unit norm
                          (4)  P = softmax_row(g(A) / tau)
                          (5)  - 1/(N L) sum_i sum_j sum_k Pt_i[j,k] log Ps_i[j,k]
    refiner               (6)  mean_j ( - <g_j, t_{p(j)}> / tau + u log sum_k e^{<g_j, t_k> / tau} ), p(j) j's place

All in float32 (float64 where that comes in), also under autocast: what is compared is finer than bfloat16.

Letters: B images, N regions, h w tokens of a map, L = r r tokens of a region, D joint width, K classes.

Source: (1), (2) CLIPSelf and its RegionCLIP setting, wusize/CLIPSelf @ 1c7fe9c; (3)-(5) Qiu et al., "Refining CLIP's
Spatial Awareness", ICLR 2025, arXiv 2504.02328, which released no code: g, tau and the stop-gradient are those of the
same authors' CongpeiQiu/UniRefiner @ 38f4e71, as is (6). docs/r_sc_rla.md says what is quoted, what inferred.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.models.region_tokens import exact, single

Normaliser = Literal["minmax", "none"]
_NARROWEST = (
    1e-3  # a row of cosines closer than this is not stretched to [0, 1]: a region of one colour
)


def crop_cosine(regions: Tensor, crops: Tensor) -> Tensor:
    """(1), CLIPSelf: a region of the map is to be what the teacher says of the region cut out.

    Args:
        regions, crops: [N, D], unit norm.
    """
    with exact(regions):
        return 1 - (single(regions) * single(crops)).sum(-1).mean()


def region_text(regions: Tensor, texts: Tensor, label: Tensor, scale: Tensor | float) -> Tensor:
    """(2): every region against every class, as in a multi-label problem.

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
    """loss: (5), a scalar. divergence: (5) less the teacher's entropy, that is KL(Pt || Ps), for the log."""

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
    """(3)-(5): the tokens of a region are to be as alike one another as the teacher's are.

    Only correlations are compared: the two need not live in one space, nor have one width.

    Args:
        student: [N, L, D], unit norm.
        teacher: [N, L, D'], unit norm; no gradient goes there.
        temperature: tau, of both.
        normaliser: g; ``minmax`` stretches every row of A to [0, 1], since the cosines of CLIP's tokens lie in a narrow
            band; ``none`` leaves them.
        stop_gradient: of the second factor of the student's A.
        diagonal: keep a token's correlation with itself, which is 1 whatever the token.

    Raises:
        ValueError: other than L >= 2 tokens on both sides, or a temperature of 0 or less.
    """
    if student.shape[:2] != teacher.shape[:2] or student.shape[1] < 2:
        raise ValueError(
            f"tokens {list(student.shape)} and {list(teacher.shape)}: [N, L, ...] with the same L >= 2"
        )
    if temperature <= 0:
        raise ValueError(f"the temperature is {temperature}; it must be more than 0")
    with exact(student):
        student, teacher = single(student), single(teacher.detach())
        own = student @ (student.detach() if stop_gradient else student).mT  # (3)
        log_student = _rows(own, temperature, normaliser, diagonal)  # (4)
        log_teacher = _rows(teacher @ teacher.mT, temperature, normaliser, diagonal)
    target = log_teacher.exp()
    rows = student.shape[0] * student.shape[1]
    return Correlation(
        loss=-(target * log_student).sum() / rows,  # (5)
        divergence=(target * (log_teacher - log_student.detach())).sum() / rows,
    )


def _rows(
    correlations: Tensor, temperature: float, normaliser: Normaliser, diagonal: bool
) -> Tensor:
    """Log P of (4). Where the diagonal is left out, a row has L - 1 entries."""
    if not diagonal:
        count = correlations.shape[-1]
        others = ~torch.eye(count, dtype=torch.bool, device=correlations.device)
        correlations = correlations[:, others].unflatten(1, (count, count - 1))
    if normaliser == "minmax":
        low, high = correlations.amin(-1, keepdim=True), correlations.amax(-1, keepdim=True)
        correlations = (correlations - low) / (high - low).clamp(min=_NARROWEST)
    return (correlations / temperature).log_softmax(-1)


def token_contrast(
    refined: Tensor,
    local: Tensor,
    place: Tensor | None = None,
    temperature: float = 0.2,
    uniformity: float = 1.0,
) -> Tensor:
    """(6): a token of the whole image is to be one token of the frozen model, and no other.

    Args:
        refined: [N, L, D], unit norm, g.
        local: [N, M, D], unit norm, t; no gradient goes there.
        place: p, int64 [N, L] in [0, M); None: j itself, where M = L.
        temperature: tau.
        uniformity: u; 1 is InfoNCE.
    """
    with exact(refined):
        logits = single(refined) @ single(local.detach()).mT / temperature  # [N, L, M]
        own = torch.arange(logits.shape[1], device=logits.device) if place is None else place
        positive = logits.gather(-1, own.expand(logits.shape[:2])[..., None])[..., 0]
        return (uniformity * logits.logsumexp(-1) - positive).mean()
