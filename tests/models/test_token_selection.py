"""Selected tokens: the same under one seed, others under another; nothing random in scoring."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.models.token_selection import TokenSelector, score_vector
from spatialbench.models.towers import Tokens
from tests.support.checks import refused

GRID = (4, 5)


def tokens(images: int = 3) -> Tokens:
    """Tokens whose embedding is -1; patch l of image b is 1000 b + l in both channels."""
    local = (1000 * torch.arange(images)[:, None] + torch.arange(GRID[0] * GRID[1])).float()
    return Tokens(-torch.ones(images, 2), local[..., None].expand(-1, -1, 2).contiguous(), GRID)


def drawn(selector: TokenSelector, seed: int = 0, images: int = 3) -> Tensor:
    """Draw patches [B, n]; the embedding must come first."""
    selected = selector(tokens(images), torch.Generator().manual_seed(seed))
    assert selected.shape == (images, selector.length(GRID), 2)
    assert selected[:, 0].eq(-1).all()
    return selected[:, 1:, 0]


@pytest.mark.parametrize("replacement", [True, False])
def test_random_patches_are_of_their_own_image_and_of_the_seed(replacement: bool) -> None:
    selector = TokenSelector("random", count=12, replacement=replacement)
    first = drawn(selector)
    assert torch.equal(first // 1000, torch.arange(3.0)[:, None].expand(-1, 12))
    assert torch.equal(first, drawn(selector))
    assert not torch.equal(first, drawn(selector, seed=1))
    assert not torch.equal(first[0], first[1] % 1000)  # every image has its own
    assert all((len(row.unique()) == 12) != replacement for row in first)
    selector = TokenSelector("random", count=5, replacement=replacement)
    counts = (drawn(selector, images=4000) % 1000).long().flatten().bincount(minlength=20)
    assert (counts - 1000).abs().max() < 150  # uniform within 5 standard deviations


def test_counts_and_ratios_as_diva_has_them() -> None:
    assert TokenSelector("random", ratio=0.5).length((27, 27)) == 365  # DFN at 378 pixels
    assert TokenSelector("random", count=76).length((16, 16)) == 77  # OpenAI: the prompt's 77
    assert TokenSelector("random", ratio=0.01).length((4, 4)) == 2
    assert TokenSelector("avgpool1d", window=6).length((16, 16)) == 43  # SigLIP at 224 pixels
    assert TokenSelector("avgpool1d", window=10).length((27, 27)) == 73  # at 384


def test_no_patches_all_and_means_along_the_raster() -> None:
    assert drawn(TokenSelector("cls")).shape == (3, 0)
    assert torch.equal(drawn(TokenSelector("all")), tokens().local[..., 0])
    line = drawn(TokenSelector("avgpool1d", window=3))[0]
    assert line.tolist() == [1, 4, 7, 10, 13, 16]  # 18 and 19 are left out, rows are of 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "some"}, r"tokens\.mode is 'some'; one of cls, all, random, avgpool1d"),
        ({"mode": "random"}, r"random needs one of tokens\.count and tokens\.ratio; found none"),
        ({"mode": "random", "count": 3, "ratio": 0.5}, "found count, ratio"),
        ({"mode": "all", "count": 3}, "all takes no number; found count"),
        ({"mode": "random", "count": 0}, r"tokens\.count is 0"),
        ({"mode": "random", "ratio": 1.5}, r"tokens\.ratio is 1\.5; it must be in \(0, 1\]"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with refused(message):
        TokenSelector(**arguments)


def test_more_than_there_is() -> None:
    with refused(r"tokens\.count is 30, without replacement, .* has 20 patches"):
        TokenSelector("random", count=30, replacement=False).length(GRID)
    with refused(r"tokens\.window 30 is larger than the 4 x 5 patches"):
        TokenSelector("avgpool1d", window=30)(tokens())


def test_scoring_draws_nothing() -> None:
    cls, local = torch.randn(3, 8), torch.randn(3, 20, 8)
    before, given = torch.get_rng_state(), Tokens(cls, local, GRID)
    torch.testing.assert_close(score_vector(given), F.normalize(cls, dim=-1))
    both = torch.stack([cls[b] + sum(local[b]) / 20 for b in range(3)])
    wanted = both / both.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(score_vector(given, "cls_local"), wanted)
    assert torch.equal(before, torch.get_rng_state())
    with refused("the scorer is 'mean'; one of cls, cls_local"):
        score_vector(given, "mean")  # type: ignore[arg-type]
