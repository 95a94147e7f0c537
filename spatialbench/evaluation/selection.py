"""Image selection: which of two almost equal pictures does a caption mean? The metric of MMVP-VLM.

Of a pair (I_1, I_2) with captions (c_1, c_2), v the embedding of a picture and u that of a caption, both unit norm,

    (1)  s_jk = <u(c_j), v(I_k)>
    (2)  right  iff  s_11 > s_12  and  s_22 >= s_21        either caption picks its own picture; I_2 where they tie
    (3)  value = mean over patterns of 100 (pairs that are right) / (pairs)         formula (1) of ``measures.py``

with two scorers: ``select_cls``, the embedding itself, and ``select_local``, where the patches have a say, as in DIVA's
evaluation of OpenAI's CLIP, but with all patches in the place of 76 random ones:

    (4)  v = cls / |cls|
    (5)  v = x / |x|,  x = cls + mean_l local_l        neither normalised before

A gain from (4) to (5) is the scorer's, a gain within either is the weights'.

Letters: B pictures, M pairs, P patterns, L patches, D joint width.

Source: Tong et al. 2024 (arXiv 2401.06209), tsb0601/MMVP @ 7635005, scripts/evaluate_vlm.py; baaivision/DIVA @ d53c668;
docs/selection.md.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.selection_sets import ImagePairs, fingerprint
from spatialbench.evaluation.measures import SELECTION_VERSION, Measures
from spatialbench.evaluation.prompts import TextEncoder, caption_embeddings
from spatialbench.models.token_selection import Scorer, score_vector
from spatialbench.models.visual_tokens import Tokens
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

_BATCH = 32  # pairs


class Encoder(TextEncoder, Protocol):
    """What is measured; a ``spatialbench.methods.base.Method`` is one."""

    image_size: int

    @property
    def device(self) -> torch.device: ...

    def visual_tokens(self, x: Tensor) -> Tokens:
        """uint8 [B, 3, s, s], s the ``image_size`` -> cls [B, D] and local [B, L, D], not normalised."""


@torch.no_grad()
def measure(model: Encoder, pairs: ImagePairs) -> Measures:
    """Both scorers, pair by pair and pattern by pattern. Always in float32.

    Args:
        model: in eval mode.
        pairs: at its ``image_size``.

    Returns:
        M pairs, P groups.

    Raises:
        SpatialbenchError: a score is not a finite number.
    """
    captions = [caption for pair in pairs.captions for caption in pair]
    right: dict[str, list[np.ndarray]] = {name: [] for name in SCORERS}
    with (
        torch.autocast(model.device.type, enabled=False),
        progress("image selection", len(pairs), "pairs") as advance,
    ):
        texts = caption_embeddings(model, captions).unflatten(0, (len(pairs), 2))
        for start in range(0, len(pairs), _BATCH):
            part = np.array(pairs.images[start : start + _BATCH])  # [b, 2, s, s, 3]
            pixels = torch.from_numpy(part).flatten(0, 1).permute(0, 3, 1, 2).to(model.device)
            tokens = model.visual_tokens(pixels)
            for name, scorer in SCORERS.items():
                images = score_vector(tokens, scorer).unflatten(0, (len(part), 2))  # (4), (5)
                scores = texts[start : start + _BATCH] @ images.mT  # (1), [b, 2, 2]
                if not scores.isfinite().all():
                    raise SpatialbenchError(
                        "image selection: a score is not a finite number; the training diverged"
                    )
                right[name].append(both_right(scores.cpu().numpy()))
            advance(len(part))
    groups = np.eye(len(pairs.patterns))[pairs.pattern]  # [M, P]
    ratios = {
        name: (groups * np.concatenate(found)[:, None], groups) for name, found in right.items()
    }
    data = fingerprint(SELECTION_VERSION, pairs.data)
    return Measures.of(list(pairs.scenes), ratios, data, labels=pairs.patterns)


def both_right(scores: np.ndarray) -> np.ndarray:
    """(2) of pairs.

    Args:
        scores: float [M, 2, 2], caption by picture.

    Returns:
        bool [M].
    """
    return (scores[:, 0, 0] > scores[:, 0, 1]) & (scores[:, 1, 1] >= scores[:, 1, 0])


SCORERS: dict[str, Scorer] = {"select_cls": "cls", "select_local": "cls_local"}
"""Measure -> scorer: (4) and (5)."""
