"""How good a dense map is, beside the pair table: which object a token belongs to, and which class a region has.

Letters: T tokens, h w of a map, D width, N regions, K classes, S pixels a side. Areas in percent.

Source: regions as wusize/CLIPSelf @ 1c7fe9c, src/training/zero_shot.py. The area under the curve of same or other
segment, and k-means with Hungarian matching, stand in for CAUSE (ByungKwanLee/Causal-Unsupervised-Segmentation).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

FITTED = 20_000
"""k-means places its centres by so many tokens at most."""
STARTS = 4
"""Of k-means."""
MAJORITY = 0.5
"""A token lies in a segment that fills at least this share of its cell."""


def mask_tokens(dense: Tensor, masks: Tensor) -> Tensor:
    """The mean token of each mask, every token weighted by the share of its cell that the mask fills.

    CLIPSelf scales the mask to the grid and takes every cell that it touches; weights keep small objects apart from
    what surrounds them, and no mask is ever empty.

    Args:
        dense: [h, w, D]. masks: bool [N, S, S], none empty.

    Returns:
        [N, D], unit norm.
    """
    share = cell_shares(masks, dense.shape[:2]).to(dense)
    return F.normalize(torch.einsum("nhw,hwd->nd", share, dense), dim=-1)


def cell_shares(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """Share of each cell that a mask fills: bool [N, S, S] -> float32 [N, h, w] in [0, 1]."""
    return F.adaptive_avg_pool2d(masks[:, None].float(), (grid[0], grid[1]))[:, 0]


def token_segments(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """The segment of each token: int64 [h, w], row of ``masks`` bool [N, S, S] plus 1; 0 where none has a majority."""
    if not len(masks):
        return torch.zeros(tuple(grid), dtype=torch.int64, device=masks.device)
    share, segment = cell_shares(masks, grid).max(0)
    return torch.where(share >= MAJORITY, segment + 1, 0)


def inside(extent: tuple[float, float], grid: Sequence[int]) -> Tensor:
    """Tokens whose centre lies in the picture and not in its padding: bool [h, w].

    Args:
        extent: width and height of the picture in [0, 1] of the square.
    """
    y, x = ((torch.arange(count) + 0.5) / count for count in grid)
    return (y < extent[1])[:, None] & (x < extent[0])[None]


def hits(scores: Tensor, label: Tensor, top: int) -> Tensor:
    """Whether the class of a region is among the first ``top``: bool [N], of scores [N, K] and label int64 [N]."""
    first = scores.topk(min(top, scores.shape[1]), dim=1).indices
    return (first == label[:, None]).any(1)


def same_segment_area(tokens: Tensor, segment: Tensor) -> float:
    """Area under the ROC curve of the cosine of two tokens as a sign that they lie in one segment; 50 is chance.

    Args:
        tokens: [T, D] of one image, unit norm.
        segment: int64 [T].

    Returns:
        percent; NaN where all pairs are alike (one segment, or every token a segment of its own).
    """
    first, second = torch.triu_indices(len(tokens), len(tokens), 1, device=tokens.device)
    same = segment[first] == segment[second]
    if same.all() or not same.any():
        return float("nan")
    return 100 * float(binary_auroc((tokens @ tokens.T)[first, second], same.long()))


def cluster_classes(tokens: Tensor, label: Tensor, clusters: int, seed: int = 0) -> np.ndarray:
    """The class that k-means gives each token: clusters are matched to classes one to one, for the largest sum of
    intersections over unions.

    Args:
        tokens: [T, D] of all images, unit norm. At most ``FITTED`` of them, drawn at random, place the centres.
        label: int64 [T], the class of each token.
        clusters: k; at least the number of classes, so that each can have one.
        seed: of the draw and of k-means++, which 50 rounds follow.

    Returns:
        int64 [T], a class or -1 (a cluster without one).

    Raises:
        ValueError: fewer clusters than classes, or fewer tokens than clusters.
    """
    classes, own = np.unique(label.cpu().numpy(), return_inverse=True)
    if not len(classes) <= clusters <= len(tokens):
        raise ValueError(f"{clusters} clusters for {len(classes)} classes and {len(tokens)} tokens")
    rng = np.random.default_rng(seed)
    tokens = tokens.detach().float()
    drawn = (
        tokens
        if len(tokens) <= FITTED
        else tokens[torch.from_numpy(rng.permutation(len(tokens))[:FITTED])]
    )
    centres, _ = kmeans2(drawn.cpu().numpy(), clusters, iter=50, minit="++", rng=rng)
    middle = torch.from_numpy(centres).to(tokens)
    found = (
        torch.cat([torch.cdist(part, middle).argmin(1) for part in tokens.split(FITTED)])
        .cpu()
        .numpy()
    )
    both = np.zeros((clusters, len(classes)))
    np.add.at(both, (found, own), 1)
    union = both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both
    rows, columns = linear_sum_assignment(both / np.maximum(union, 1), maximize=True)
    class_of = np.full(clusters, -1, dtype=np.int64)
    class_of[rows] = classes[columns]
    return class_of[found]


def overlap(found: np.ndarray, label: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Intersections and unions by class, float64 [K] each, of the classes ``found`` (-1: none) and the true ones."""
    both = np.bincount(label[found == label], minlength=classes)
    either = (
        np.bincount(found[found >= 0], minlength=classes)
        + np.bincount(label, minlength=classes)
        - both
    )
    return both.astype(np.float64), either.astype(np.float64)


def cluster_overlap(tokens: Tensor, label: Tensor, clusters: int, seed: int = 0) -> float:
    """Mean intersection over union of ``cluster_classes`` over the classes that occur, in percent; counts are added up
    over ``STARTS`` starts of k-means, whose choice moves a single one by a point or more.
    """
    own, present = label.cpu().numpy(), label.unique().cpu().numpy()
    both, either = np.zeros(int(own.max()) + 1), np.zeros(int(own.max()) + 1)
    for start in range(STARTS):
        counts = overlap(cluster_classes(tokens, label, clusters, seed + start), own, len(both))
        both, either = both + counts[0], either + counts[1]
    return 100 * float((both[present] / either[present]).mean())
