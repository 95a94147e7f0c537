"""How good a dense map is, beside the pair table: which object a token belongs to, and which class a region has.

Letters: T tokens, D width, N regions, K classes. Accuracies and areas in percent.

Source: specs/r_sc_rla.md 7.1 and 7.3: class-mean accuracy as wusize/CLIPSelf @ 1c7fe9c, src/training/zero_shot.py; the
area under the curve of same or other segment, and k-means with Hungarian matching, stand in for CAUSE.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy


def class_mean_accuracy(scores: Tensor, label: Tensor, top: int = 1) -> float:
    """Share of regions whose class is among the first ``top``, a mean over the classes that occur.

    Args:
        scores: [N, K]. label: int64 [N].
    """
    each = multiclass_accuracy(
        scores, label, num_classes=scores.shape[1], top_k=min(top, scores.shape[1]), average="none"
    )
    return 100 * float(each[label.unique()].mean())


def same_segment_area(tokens: Tensor, segment: Tensor) -> float:
    """Area under the ROC curve of the cosine of two tokens as a sign that they lie in one segment; 50 is chance.

    Args:
        tokens: [T, D] of one image, unit norm.
        segment: int64 [T].

    Returns:
        percent; NaN where all pairs are alike (one segment, or every token a segment of its own).
    """
    first, second = torch.triu_indices(len(tokens), len(tokens), 1)
    same = segment[first] == segment[second]
    if same.all() or not same.any():
        return float("nan")
    return 100 * float(binary_auroc((tokens @ tokens.T)[first, second], same.long()))


def cluster_overlap(tokens: Tensor, label: Tensor, clusters: int, seed: int = 0) -> float:
    """Mean intersection over union of k-means clusters and classes, matched one to one for the largest sum.

    Args:
        tokens: [T, D] of all images, unit norm.
        label: int64 [T], the class of each token.
        clusters: k; at least the number of classes, so that each can have one.
        seed: of k-means++, which 50 rounds follow.

    Raises:
        ValueError: fewer clusters than classes, or fewer tokens than clusters.
    """
    classes, label_index = label.unique(return_inverse=True)
    if not len(classes) <= clusters <= len(tokens):
        raise ValueError(f"{clusters} clusters for {len(classes)} classes and {len(tokens)} tokens")
    points = tokens.detach().double().cpu().numpy()
    _, found = kmeans2(points, clusters, iter=50, minit="++", rng=np.random.default_rng(seed))
    both = np.zeros((clusters, len(classes)))
    np.add.at(both, (found, label_index.cpu().numpy()), 1)
    union = both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both
    overlap = both / union
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    return 100 * float(overlap[rows, columns].sum() / len(classes))
