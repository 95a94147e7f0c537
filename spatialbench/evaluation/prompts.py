"""Captions and classes in the joint space; each distinct caption is encoded once.

Letters: C captions, K classes, D joint width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.data.relations import with_articles
from spatialbench.evaluation.base import Model
from spatialbench.utils.progress import progress

_AT_ONCE = 512


def caption_embeddings(model: Model, captions: Sequence[str]) -> Tensor:
    """Encode captions, each distinct one once: unit norm [C, D]."""
    rows = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    distinct = list(rows)
    parts = []
    with progress("encoding captions", len(distinct), "captions") as advance:
        for start in range(0, len(distinct), _AT_ONCE):
            parts.append(model.text(model.tokenize(distinct[start : start + _AT_ONCE])))
            advance(len(parts[-1]))
    texts = torch.cat(parts)
    return texts[torch.tensor([rows[caption] for caption in captions], device=texts.device)]


def class_embeddings(model: Model, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Mean embedding of each class's prompts, unit norm [K, D]; "a {}" becomes "an {}" as needed.

    Source: the prompt ensemble of CLIP (Radford et al. 2021, section 3.1.4).
    """
    prompts = [with_articles(template.format(name)) for name in classes for template in templates]
    embedded = caption_embeddings(model, prompts).unflatten(0, (len(classes), len(templates)))
    return F.normalize(embedded.mean(1), dim=-1)
