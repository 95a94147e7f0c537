"""The fine-tuning objective: the poster's contrastive loss with negated captions, its (5)-(7).

The printed sums run over the N pairs of a batch, in which images and captions repeat. Here each
sum runs over the M distinct images or the K distinct captions, and counts how often each stands in
the batch.

Source: docs/spatial_attn.md.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def negated_contrastive(
    logits: Tensor,
    image: Tensor,
    caption: Tensor,
    negated: Tensor | None,
    own_negation_weight: float = 0.0,
    negatives: str = "appended",
) -> Tensor:
    r"""Symmetric InfoNCE over N pairs (I_i, T_i), with the negated captions U_i as hard negatives.

    .. math:: L = (L_I + L_T) / 2 + w L_{own} \qquad (7)

    The poster prints sums over i. The mean is taken, as in the authors' code, so that the step does
    not grow with the batch.

    Args:
        logits: [M, K], s / tau: cosine times inverse temperature.
        image: int64 [N], row of every pair's image in ``logits``.
        caption: int64 [N], column of every pair's caption.
        negated: int64 [N], column of every pair's negated caption; None where none is needed.
        own_negation_weight: w; 0 is the poster.
        negatives: ``appended`` is (5); ``none`` drops the sum over U, the poster's ablation.

    Returns:
        the loss, a scalar in the type of ``logits``.

    Source: poster of Yang and Jeon, "Contrastive learning with negative caption".
    """
    appended = negated if negatives == "appended" else None
    towards_text = image_to_text(logits, image, caption, appended)
    loss = (towards_text + text_to_image(logits, image, caption)) / 2  # (7)
    if own_negation_weight:
        assert negated is not None, "they are needed"
        loss = loss + own_negation_weight * own_negation(logits, image, caption, negated)
    return loss


def image_to_text(logits: Tensor, image: Tensor, caption: Tensor, negated: Tensor | None) -> Tensor:
    r"""Classify each image's caption among all captions and, if given, all negated captions.

    .. math:: L_I = -\frac1N \sum_i \log \frac{e^{s(I_i, T_i)/\tau}}
        {\sum_k e^{s(I_i, T_k)/\tau} + \sum_k e^{s(I_i, U_k)/\tau}} \qquad (5)

    Beside its own term, row i leaves out every column, of T or of U, whose caption is known to be
    true of the image: it stands in a pair with it. Arguments as in ``negated_contrastive``.
    """
    columns = caption if negated is None else torch.cat([caption, negated])
    count = torch.bincount(columns, minlength=logits.shape[1])  # [K]
    against = _weighted(logits, count, _known_true(logits, image, caption)).logsumexp(1)  # [M]
    return F.softplus(against[image] - logits[image, caption]).mean()  # (5)


def text_to_image(logits: Tensor, image: Tensor, caption: Tensor) -> Tensor:
    r"""Classify each caption's image among all images.

    .. math:: L_T = -\frac1N \sum_i \log \frac{e^{s(T_i, I_i)/\tau}}{\sum_k e^{s(T_i, I_k)/\tau}}
        \qquad (6)

    Beside its own term, row i leaves out every k with the same image, or with an image that T_i is
    known to be true of. Arguments as in ``negated_contrastive``.
    """
    count = torch.bincount(image, minlength=logits.shape[0])[:, None]  # [M, 1]
    against = _weighted(logits, count, _known_true(logits, image, caption)).logsumexp(0)  # [K]
    return F.softplus(against[caption] - logits[image, caption]).mean()  # (6)


def own_negation(logits: Tensor, image: Tensor, caption: Tensor, negated: Tensor) -> Tensor:
    r"""Classify each image's caption against that caption's own negation; not in the poster.

    .. math:: L_{own} = -\frac1N \sum_i
        \log \frac{e^{s(I_i, T_i)/\tau}}{e^{s(I_i, T_i)/\tau} + e^{s(I_i, U_i)/\tau}}

    Arguments as in ``negated_contrastive``.
    """
    return F.softplus(logits[image, negated] - logits[image, caption]).mean()


# With n the logsumexp of the negatives and p the positive, softplus(n - p) is
# -log(e^p / (e^p + e^n)): one logsumexp serves all pairs of an image, or of a caption.


def _known_true(logits: Tensor, image: Tensor, caption: Tensor) -> Tensor:
    """Mark the captions that stand in a pair with the image in this batch, bool [M, K]."""
    true = torch.zeros_like(logits, dtype=torch.bool)
    true[image, caption] = True
    return true


def _weighted(logits: Tensor, count: Tensor, masked: Tensor) -> Tensor:
    """Return logits that count ``count`` times in a logsumexp, or not at all where masked.

    The floor is finite: if all are masked, a logsumexp of -inf would send NaN gradients.
    """
    floor = torch.finfo(logits.dtype).min / 2
    weighted = logits + count.clamp(min=1).to(logits.dtype).log()
    return torch.where(masked | (count == 0), floor, weighted)
