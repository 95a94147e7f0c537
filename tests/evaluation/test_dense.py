"""Dense quality and its parts, against counts by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spatialbench.evaluation import dense
from spatialbench.evaluation.dense import cluster_classes, overlap, same_segment_area


def test_a_hit_is_a_class_among_the_first() -> None:
    scores, label = torch.tensor([[3.0, 2.0, 1.0, 0.0]] * 3), torch.tensor([0, 1, 3])
    assert dense.hits(scores, label, 1).tolist() == [True, False, False]
    assert dense.hits(scores, label, 2).tolist() == [True, True, False]
    assert dense.hits(scores, label, 9).tolist() == [True, True, True]


def test_cells_masks_and_tokens_by_hand() -> None:
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, :2, :3] = True  # all of the first cell, half of the second
    masks[1, 3, 3] = True  # a quarter of the last cell
    assert dense.cell_shares(masks, (2, 2)).tolist() == [[[1, 0.5], [0, 0]], [[0, 0], [0, 0.25]]]
    assert dense.token_segments(masks, (2, 2)).tolist() == [[1, 1], [0, 0]]  # half is enough
    tokens = F.normalize(torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = dense.mask_tokens(tokens, masks)
    torch.testing.assert_close(found[0], F.normalize(tokens[0, 0] + tokens[0, 1] / 2, dim=0))
    torch.testing.assert_close(found[1], tokens[1, 1])  # small, and yet there
    assert dense.token_segments(masks[:0], (2, 3)).tolist() == [[0, 0, 0]] * 2


def test_padding_is_not_inside() -> None:
    assert dense.inside((1.0, 0.5), (4, 2)).tolist() == [[True] * 2] * 2 + [[False] * 2] * 2
    assert dense.inside((0.75, 1.0), (1, 4)).tolist() == [[True, True, True, False]]


def test_same_segment_area_by_hand() -> None:
    tokens = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), dim=-1)
    assert same_segment_area(tokens, torch.tensor([0, 0, 1, 1])) == pytest.approx(100)
    # pairs by cosine: 01 and 23 (equal), 13, 03 and 12 (equal), 02. Here the two pairs of one
    # segment are 02 and 13: 13 beats 2 of 4 others, 02 none.
    assert same_segment_area(tokens, torch.tensor([0, 1, 0, 1])) == pytest.approx(100 * (2 + 0) / 8)
    assert math.isnan(same_segment_area(tokens, torch.zeros(4, dtype=torch.long)))
    assert math.isnan(same_segment_area(tokens, torch.arange(4)))


def test_classes_of_clusters_by_hand() -> None:
    tokens = torch.tensor([[0.0, 1.0]] * 6 + [[1.0, 0.0]] * 4)
    for label in (torch.tensor([7] * 6 + [3] * 4), torch.tensor([7] * 5 + [3] * 5)):
        assert cluster_classes(tokens, label, 2).tolist() == [7] * 6 + [3] * 4
    with pytest.raises(ValueError, match="1 clusters for 2 classes"):
        cluster_classes(tokens, label, 1)
    tokens = F.normalize(torch.randn(60, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    first, again = (cluster_classes(tokens, torch.arange(60) % 4, 6, seed=1) for _ in range(2))
    assert first.tolist() == again.tolist()
    assert set(first.tolist()) == {-1, 0, 1, 2, 3}


def test_overlaps_by_hand_and_in_parts() -> None:
    label = np.array([0] * 5 + [1] * 5)
    both, either = overlap(np.array([0] * 6 + [1] * 4), label, 3)
    assert (both.tolist(), either.tolist()) == ([5, 4, 0], [6, 5, 0])
    generator = torch.Generator().manual_seed(0)
    guess, label = (torch.randint(low, 4, (50,), generator=generator).numpy() for low in (-1, 0))
    both, either = overlap(guess, label, 4)
    parts = [overlap(guess[part], label[part], 4) for part in (slice(0, 20), slice(20, 50))]
    assert np.array_equal((both, either), np.sum(parts, 0))
    assert both[2] == ((guess == 2) & (label == 2)).sum()
    assert either[2] == ((guess == 2) | (label == 2)).sum()


def test_k_means_places_its_centres_by_some_tokens_and_gives_all_a_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes, plain = [], dense.kmeans2

    def noting(points: np.ndarray, *args: object, **options: object) -> object:
        sizes.append(len(points))
        return plain(points, *args, **options)

    monkeypatch.setattr(dense, "kmeans2", noting)
    monkeypatch.setattr(dense, "FITTED", 20)
    tokens = torch.eye(2).repeat_interleave(25, dim=0)
    assert cluster_classes(tokens, torch.arange(50) // 25, 2).tolist() == [0] * 25 + [1] * 25
    assert cluster_classes(tokens[::5], torch.arange(50)[::5] // 25, 2).shape == (10,)
    assert sizes == [20, 10]
