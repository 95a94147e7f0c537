"""The fine-tuning objective, a pure function: the poster's contrastive loss with negated captions, its (5)-(7).

The printed sums run over the N pairs of a batch. A batch of this project holds several records of one image, and
captions from templates repeat, so the sums are computed over the M distinct images and the K distinct captions, every
one encoded once; how often a caption or an image stands in the batch enters as a count. Source: docs/spatial_attn.md.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEGATIVES = ("appended", "none")


def negated_contrastive(
    logits: Tensor,
    image: Tensor,
    caption: Tensor,
    negated: Tensor | None,
    own_negation_weight: float = 0.0,
    negatives: str = "appended",
) -> Tensor:
    r"""Symmetric InfoNCE over N pairs (I_i, T_i) whose negated captions U_i are further negatives of the images.

    .. math:: L = (L_I + L_T) / 2 + w L_{own} \qquad (7)

    The poster prints sums over i; the mean is taken, as in the authors' code, so that the step does not grow with the
    batch.

    Args:
        logits: [M, K], s / tau: cosine times inverse temperature, of M distinct images and K distinct captions.
        image: int64 [N], row of every pair's image in ``logits``.
        caption: int64 [N], column of every pair's caption.
        negated: int64 [N], column of every pair's negated caption; None where nothing asks for it.
        own_negation_weight: w; 0 is the poster.
        negatives: ``appended`` is (5); ``none`` drops the sum over U, the poster's ablation.

    Returns:
        the loss, a scalar in the type of ``logits``.

    Raises:
        ValueError: ``negatives`` is neither, or negated captions are needed and not given.

    Source: poster of Yang and Jeon, "Contrastive learning with negative caption"; docs/spatial_attn.md.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives is {negatives!r}; one of {', '.join(NEGATIVES)}")
    if negated is None and (negatives == "appended" or own_negation_weight):
        raise ValueError(
            "the negated captions are needed for negatives 'appended' and for an own_negation_weight"
        )
    appended = negated if negatives == "appended" else None
    loss = (
        image_to_text(logits, image, caption, appended) + text_to_image(logits, image, caption)
    ) / 2  # (7)
    if own_negation_weight and negated is not None:
        loss = loss + own_negation_weight * own_negation(logits, image, caption, negated)
    return loss


def image_to_text(logits: Tensor, image: Tensor, caption: Tensor, negated: Tensor | None) -> Tensor:
    r"""The image finds its caption among all captions and, where given, all negated captions.

    .. math:: L_I = -\frac1N \sum_i \log \frac{e^{s(I_i, T_i)/\tau}}
        {\sum_k e^{s(I_i, T_k)/\tau} + \sum_k e^{s(I_i, U_k)/\tau}} \qquad (5)

    Left out of row i, beside its own term: every column, of T or of U, whose caption is T_i or another caption that the
    batch holds as true of the same image. Arguments as in ``negated_contrastive``.
    """
    columns = caption if negated is None else torch.cat([caption, negated])
    count = torch.bincount(columns, minlength=logits.shape[1])  # [K]
    against = _weighted(logits, count, _known_true(logits, image, caption)).logsumexp(1)  # [M]
    return F.softplus(against[image] - logits[image, caption]).mean()  # (5)


def text_to_image(logits: Tensor, image: Tensor, caption: Tensor) -> Tensor:
    r"""The caption finds its image among all images.

    .. math:: L_T = -\frac1N \sum_i \log \frac{e^{s(T_i, I_i)/\tau}}{\sum_k e^{s(T_i, I_k)/\tau}} \qquad (6)

    Left out of row i, beside its own term: every k that shows the same image, or an image of which the batch holds
    T_i as true. Arguments as in ``negated_contrastive``.
    """
    count = torch.bincount(image, minlength=logits.shape[0])  # [M]
    against = _weighted(logits, count[:, None], _known_true(logits, image, caption)).logsumexp(
        0
    )  # [K]
    return F.softplus(against[caption] - logits[image, caption]).mean()  # (6)


def own_negation(logits: Tensor, image: Tensor, caption: Tensor, negated: Tensor) -> Tensor:
    r"""The image tells its caption from that caption's own negation; not in the poster.

    .. math:: L_{own} = -\frac1N \sum_i \log \frac{e^{s(I_i, T_i)/\tau}}{e^{s(I_i, T_i)/\tau} + e^{s(I_i, U_i)/\tau}}

    Arguments as in ``negated_contrastive``.
    """
    return F.softplus(logits[image, negated] - logits[image, caption]).mean()


# softplus(log of the sum of the negatives - p) is -log(e^p / (e^p + that sum)): one logsumexp serves all pairs of an
# image, or of a caption


def _known_true(logits: Tensor, image: Tensor, caption: Tensor) -> Tensor:
    """Bool [M, K]: the captions that stand in a pair with the image somewhere in the batch."""
    true = torch.zeros_like(logits, dtype=torch.bool)
    true[image, caption] = True
    return true


def _weighted(logits: Tensor, count: Tensor, masked: Tensor) -> Tensor:
    """Logits that count ``count`` times inside a logsumexp, and where masked not at all.

    The floor is finite: where everything is masked, a logsumexp of -inf would send NaN gradients.
    """
    floor = torch.finfo(logits.dtype).min / 2
    return torch.where(
        masked | (count == 0), floor, logits + count.clamp(min=1).to(logits.dtype).log()
    )
