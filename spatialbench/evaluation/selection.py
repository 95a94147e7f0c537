"""Image selection: which of two almost equal images does a caption mean? The metric of MMVP-VLM.

For a pair (I_1, I_2) with captions (c_1, c_2), and unit-norm embeddings v of images, u of captions,

    (1)  s_jk = <u(c_j), v(I_k)>
    (2)  correct  iff  s_11 > s_12  and  s_22 >= s_21    a caption picks its own image; ties: I_2
    (3)  value = mean over patterns of 100 (correct pairs) / (pairs)     formula (1) of ``ratio.py``

with two scorers: ``select_cls``, the embedding itself, and ``select_local``, which adds the
patches, as DIVA evaluates OpenAI's CLIP, but all patches instead of 76 random ones:

    (4)  v = cls / |cls|
    (5)  v = x / |x|,  x = cls + mean_l local_l        neither normalised before

A gain from (4) to (5) is due to the scorer, a gain within either is due to the weights.

Letters: B images, M pairs, P patterns, L patches, D joint width.

Source: Tong et al. 2024 (arXiv 2401.06209), tsb0601/MMVP @ 7635005, scripts/evaluate_vlm.py;
baaivision/DIVA @ d53c668; docs/selection.md.
"""

import numpy as np
import torch

from spatialbench.data.selection_sets import SelectionSet, fingerprint
from spatialbench.evaluation.base import Evaluation, Model
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.prompts import caption_embeddings
from spatialbench.models.token_selection import Scorer, score_vector
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

SCORERS: dict[str, Scorer] = {"select_cls": "cls", "select_local": "cls_local"}
"""Measure -> scorer: (4) and (5)."""
_BATCH = 32  # pairs


class ImageSelection(Evaluation):
    """Image selection on pairs of images, by both scorers."""

    name = "selection"
    title = "Image selection"
    explanation = """\
Two images that differ in one thing, and a caption of each: a pair is right when both captions pick
their own image (MMVP-VLM's metric; independent guessing gives 25, an image that wins both captions
0). In percent, by what the images differ in. Scorer *cls*: the embedding of the image;
*cls + local*: the mean of its patches added, as DIVA evaluates. A difference between the scorers of
one row is due to the scorer, one between rows in the same scorer to the weights."""
    columns = {"select_cls": "Selection, cls", "select_local": "Selection, cls + local"}  # noqa: RUF012
    unit = "pairs"
    by_group = True

    def __init__(self, source: SelectionSet) -> None:
        self.source = source

    @torch.no_grad()
    def run(self, model: Model) -> Evidence:
        """Evaluate pair by pair and pattern by pattern; see :meth:`Evaluation.run`."""
        pairs = self.source.pairs(model.image_size, model.resize_mode)
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
            name: (groups * np.concatenate(parts)[:, None], groups) for name, parts in right.items()
        }
        data = fingerprint(self.version, pairs.data)
        return Evidence.of(list(pairs.scenes), ratios, data, labels=pairs.patterns)


def both_right(scores: np.ndarray) -> np.ndarray:
    """(2) of scores, caption by image: float [M, 2, 2] -> bool [M]."""
    return (scores[:, 0, 0] > scores[:, 0, 1]) & (scores[:, 1, 1] >= scores[:, 1, 0])
