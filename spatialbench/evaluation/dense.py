"""Quality of a dense map: the object of each token, and the class of each region.

Letters: T tokens, h w of a map, D width, N regions, K classes, S pixels a side. Areas in percent.

Source: regions as wusize/CLIPSelf @ 1c7fe9c, src/training/zero_shot.py. The area under the curve of
same or other segment, and k-means with Hungarian matching, stand in for CAUSE
(ByungKwanLee/Causal-Unsupervised-Segmentation).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

FITTED = 20_000
"""Largest number of tokens that place the centres of k-means."""
STARTS = 4
"""Starts of k-means."""
MAJORITY = 0.5
"""Share of a token's cell that a segment must fill to contain the token."""


def mask_tokens(dense: Tensor, masks: Tensor) -> Tensor:
    """Mean token of each mask of a map [h, w, D], weighted by the share of each cell that it fills.

    CLIPSelf scales the mask to the grid and takes every cell that it touches; the weights keep
    small objects apart from their surroundings. Masks bool [N, S, S], none empty -> unit norm
    [N, D].
    """
    share = cell_shares(masks, dense.shape[:2]).to(dense)
    return F.normalize(torch.einsum("nhw,hwd->nd", share, dense), dim=-1)


def cell_shares(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """Share of each cell that a mask fills: bool [N, S, S] -> float32 [N, h, w] in [0, 1]."""
    return F.adaptive_avg_pool2d(masks[:, None].float(), (grid[0], grid[1]))[:, 0]


def token_segments(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """Segment of each token, int64 [h, w]: row of ``masks`` [N, S, S] plus 1; 0 for none."""
    if not len(masks):
        return torch.zeros(tuple(grid), dtype=torch.int64, device=masks.device)
    share, segment = cell_shares(masks, grid).max(0)
    return torch.where(share >= MAJORITY, segment + 1, 0)


def inside(extent: tuple[float, float], grid: Sequence[int]) -> Tensor:
    """Tokens whose centre lies in the image and not in its padding, bool [h, w].

    ``extent``: width and height of the image in [0, 1] of the square.
    """
    y, x = ((torch.arange(count) + 0.5) / count for count in grid)
    return (y < extent[1])[:, None] & (x < extent[0])[None]


def hits(scores: Tensor, label: Tensor, top: int) -> Tensor:
    """Return whether the label [N] is among the ``top`` best classes of scores [N, K]; bool [N]."""
    first = scores.topk(min(top, scores.shape[1]), dim=1).indices
    return (first == label[:, None]).any(1)


def same_segment_area(tokens: Tensor, segment: Tensor) -> float:
    """Area under the ROC curve of the cosine of two tokens as a sign of one segment; chance is 50.

    NaN if all pairs are alike (one segment, or each token a segment of its own).

    Args:
        tokens: [T, D] of one image, unit norm.
        segment: int64 [T].
    """
    first, second = torch.triu_indices(len(tokens), len(tokens), 1, device=tokens.device)
    same = segment[first] == segment[second]
    if same.all() or not same.any():
        return float("nan")
    return 100 * float(binary_auroc((tokens @ tokens.T)[first, second], same.long()))


def cluster_classes(tokens: Tensor, label: Tensor, clusters: int, seed: int = 0) -> np.ndarray:
    """Class that k-means gives each token, int64 [T]; -1 for a cluster without a class.

    Clusters are matched to classes one to one, for the largest sum of intersections over unions.

    Args:
        tokens: [T, D] of all images, unit norm. At most ``FITTED`` random ones place the centres.
        label: class of each token, int64 [T].
        clusters: k, at least the number of classes.
        seed: of the random tokens and of k-means++, which is followed by 50 rounds.

    Raises:
        ValueError: fewer clusters than classes, or fewer tokens than clusters.
    """
    classes, own = np.unique(label.cpu().numpy(), return_inverse=True)
    if not len(classes) <= clusters <= len(tokens):
        raise ValueError(f"{clusters} clusters for {len(classes)} classes and {len(tokens)} tokens")
    rng = np.random.default_rng(seed)
    tokens = drawn = tokens.detach().float()
    if len(tokens) > FITTED:
        drawn = tokens[torch.from_numpy(rng.permutation(len(tokens))[:FITTED])]
    centres, _ = kmeans2(drawn.cpu().numpy(), clusters, iter=50, minit="++", rng=rng)
    middle = torch.from_numpy(centres).to(tokens)
    nearest = [torch.cdist(part, middle).argmin(1) for part in tokens.split(FITTED)]
    cluster = torch.cat(nearest).cpu().numpy()
    both = np.zeros((clusters, len(classes)))
    np.add.at(both, (cluster, own), 1)
    union = both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both
    rows, columns = linear_sum_assignment(both / np.maximum(union, 1), maximize=True)
    class_of = np.full(clusters, -1, dtype=np.int64)
    class_of[rows] = classes[columns]
    return class_of[cluster]


def overlap(guess: np.ndarray, label: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Intersections and unions of guessed (-1: none) and true classes [T], float64 [K] each."""
    both = np.bincount(label[guess == label], minlength=classes)
    guessed = np.bincount(guess[guess >= 0], minlength=classes)
    either = guessed + np.bincount(label, minlength=classes) - both
    return both.astype(np.float64), either.astype(np.float64)
