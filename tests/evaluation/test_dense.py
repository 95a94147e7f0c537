"""Region classification and dense quality, against counts by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from spatialbench.evaluation.dense import class_mean_accuracy, cluster_overlap, same_segment_area


def test_class_mean_accuracy_is_the_mean_over_the_classes_that_occur() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0]] * 4)
    label = torch.tensor([0, 0, 0, 1])  # class 0 always right, class 1 never; 2 and 3 do not occur
    assert class_mean_accuracy(scores, label) == pytest.approx(50)
    assert class_mean_accuracy(scores, label, top=2) == pytest.approx(100)
    assert class_mean_accuracy(scores, label, top=9) == pytest.approx(100)


def test_same_segment_area_by_hand() -> None:
    tokens = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), dim=-1)
    assert same_segment_area(tokens, torch.tensor([0, 0, 1, 1])) == pytest.approx(100)
    # the pairs by cosine: 01 and 23 (alike), 13, 03 and 12 (alike), 02; with one other token's segment exchanged the
    # two pairs of one segment are 02 and 13: 13 beats 2 of 4 others, 02 none
    assert same_segment_area(tokens, torch.tensor([0, 1, 0, 1])) == pytest.approx(100 * (2 + 0) / 8)
    assert math.isnan(same_segment_area(tokens, torch.zeros(4, dtype=torch.long)))
    assert math.isnan(same_segment_area(tokens, torch.arange(4)))


def test_cluster_overlap_by_hand() -> None:
    tokens = torch.tensor([[0.0, 1.0]] * 6 + [[1.0, 0.0]] * 4)
    assert cluster_overlap(tokens, torch.tensor([7] * 6 + [3] * 4), 2) == pytest.approx(100)
    assert cluster_overlap(tokens, torch.tensor([7] * 5 + [3] * 5), 2) == pytest.approx(100 * (5 / 6 + 4 / 5) / 2)
    with pytest.raises(ValueError, match="1 clusters for 2 classes"):
        cluster_overlap(tokens, torch.tensor([7] * 5 + [3] * 5), 1)


def test_cluster_overlap_is_the_same_twice() -> None:
    tokens = F.normalize(torch.randn(60, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    label = torch.arange(60) % 4
    assert cluster_overlap(tokens, label, 6, seed=1) == cluster_overlap(tokens, label, 6, seed=1)
