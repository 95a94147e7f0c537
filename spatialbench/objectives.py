"""The fine-tuning objective, a pure function: the poster's contrastive loss with negated captions, its (5)-(7).

The printed sums run over the N pairs of a batch. A batch of this project holds several records of one image, and
captions from templates repeat, so the sums are computed over the M distinct images and the K distinct captions, every
one encoded once; how often a caption or an image stands in the batch enters as a count. Source: specs/poster.md 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEGATIVES = ("appended", "none")


def true_pairs(image: Tensor, caption: Tensor, images: int, captions: int) -> Tensor:
    """Which captions are known to be true of which images: those that stand in a pair of the batch.

    Args:
        image, caption: int64 [N], row of the image and of the caption of every pair.
        images, captions: M and K.

    Returns:
        bool [M, K].
    """
    true = torch.zeros(images, captions, dtype=torch.bool, device=image.device)
    true[image, caption] = True
    return true


def negated_contrastive(
    logits: Tensor,
    image: Tensor,
    caption: Tensor,
    negated: Tensor | None,
    own_negation_weight: float = 0.0,
    negatives: str = "appended",
) -> Tensor:
    r"""Symmetric InfoNCE over N pairs (I_i, T_i) whose negated captions U_i are further negatives of the images.

    .. math::
        L_I &= -\frac1N \sum_i \log \frac{e^{s(I_i, T_i)/\tau}}
            {\sum_k e^{s(I_i, T_k)/\tau} + \sum_k e^{s(I_i, U_k)/\tau}} \qquad (5) \\
        L_T &= -\frac1N \sum_i \log \frac{e^{s(T_i, I_i)/\tau}}{\sum_k e^{s(T_i, I_k)/\tau}} \qquad (6) \\
        L   &= (L_I + L_T) / 2 + w L_{own} \qquad (7) \\
        L_{own} &= -\frac1N \sum_i \log \frac{e^{s(I_i, T_i)/\tau}}{e^{s(I_i, T_i)/\tau} + e^{s(I_i, U_i)/\tau}}

    The poster prints sums over i; the mean is taken, as in the authors' code, so that the step does not grow with the
    batch. Left out of a row's denominator (beside its own term) is what is known not to be a negative: in (5) every
    column whose caption is T_i itself or another caption that the batch holds as true of the same image; in (6) every
    row k that shows the same image, or an image of which the caption T_i is true too. What is left counts as often as
    it stands in the batch, as in the printed sums.

    Args:
        logits: [M, K], s / tau: cosine times inverse temperature, of M distinct images and K distinct captions.
        image: int64 [N], row of every pair's image in ``logits``.
        caption: int64 [N], column of every pair's caption.
        negated: int64 [N], column of every pair's negated caption; None where nothing asks for it.
        own_negation_weight: w of (7); 0 is the poster.
        negatives: ``appended`` is (5); ``none`` drops the sum over U, the poster's ablation.

    Returns:
        the loss, a scalar in the type of ``logits``.

    Raises:
        ValueError: ``negatives`` is neither, or negated captions are needed and not given.

    Source: poster of Yang and Jeon, "Contrastive learning with negative caption"; specs/poster.md 3.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives is {negatives!r}; one of {', '.join(NEGATIVES)}")
    if negated is None and (negatives == "appended" or own_negation_weight):
        raise ValueError("the negated captions are needed for negatives 'appended' and for an own_negation_weight")
    images, captions = logits.shape
    true = true_pairs(image, caption, images, captions)
    positive = logits[image, caption]  # [N]

    columns = caption if negatives == "none" or negated is None else torch.cat([caption, negated])
    column_count = torch.bincount(columns, minlength=captions).to(logits.dtype)
    rows = torch.bincount(image, minlength=images).to(logits.dtype)

    # -log(e^p / (e^p + sum of the negatives)) = softplus(log of that sum - p)
    against_captions = _weighted(logits, column_count, true).logsumexp(1)  # [M]
    against_images = _weighted(logits, rows[:, None], true).logsumexp(0)  # [K]
    loss_image = F.softplus(against_captions[image] - positive).mean()  # (5)
    loss_text = F.softplus(against_images[caption] - positive).mean()  # (6)
    loss = (loss_image + loss_text) / 2  # (7)
    if own_negation_weight and negated is not None:
        loss = loss + own_negation_weight * F.softplus(logits[image, negated] - positive).mean()
    return loss


def _weighted(logits: Tensor, count: Tensor, masked: Tensor) -> Tensor:
    """Logits that count ``count`` times inside a logsumexp, and where masked not at all.

    The floor is finite: where everything is masked, a logsumexp of -inf would send NaN gradients.
    """
    floor = torch.finfo(logits.dtype).min / 2
    return torch.where(masked | (count == 0), floor, logits + count.clamp(min=1).log())
