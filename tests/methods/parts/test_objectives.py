"""The objective is the poster's equations (5)-(7), with what is known to be true left out of the negatives."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spatialbench.methods.parts.objectives import (
    image_to_text,
    negated_contrastive,
    own_negation,
    text_to_image,
)

Pairs = tuple[Tensor, Tensor, Tensor]

# 4 pairs over 3 images and 5 captions: image 0 has two pairs, caption 1 is true of images 0 and 2, the negation of the
# last pair is the caption of the first, and caption 4 is the negation of two pairs
IMAGE = torch.tensor([0, 0, 1, 2])
CAPTION = torch.tensor([0, 1, 2, 1])
NEGATED = torch.tensor([4, 3, 4, 0])


def logits(seed: int = 0, shape: tuple[int, int] = (3, 5)) -> Tensor:
    return 5 * torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def is_true(image: int, caption: int, pairs: Pairs) -> bool:
    return any(
        i == image and t == caption
        for i, t in zip(pairs[0].tolist(), pairs[1].tolist(), strict=True)
    )


def printed_image_loss(s: list[list[float]], pairs: Pairs, appended: bool) -> float:
    """(5), a sum over k for every i, in Python floats."""
    image, caption, negated = (part.tolist() for part in pairs)
    total = 0.0
    for i in range(len(image)):
        numerator = math.exp(s[image[i]][caption[i]])
        denominator = numerator
        for k in range(len(image)):
            if not is_true(image[i], caption[k], pairs):
                denominator += math.exp(s[image[i]][caption[k]])
            if appended and not is_true(image[i], negated[k], pairs):
                denominator += math.exp(s[image[i]][negated[k]])
        total -= math.log(numerator / denominator)
    return total / len(image)


def printed_text_loss(s: list[list[float]], pairs: Pairs) -> float:
    """(6), a sum over k for every i, in Python floats."""
    image, caption, _ = (part.tolist() for part in pairs)
    total = 0.0
    for i in range(len(image)):
        numerator = math.exp(s[image[i]][caption[i]])
        denominator = numerator
        for k in range(len(image)):
            if not is_true(image[k], caption[i], pairs):
                denominator += math.exp(s[image[k]][caption[i]])
        total -= math.log(numerator / denominator)
    return total / len(image)


def random_pairs(seed: int) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    image = torch.arange(3).repeat_interleave(3)
    caption, negated = (torch.randint(0, 5, (9,), generator=generator) for _ in range(2))
    return image, caption, negated


@pytest.mark.parametrize(
    "pairs", [(IMAGE, CAPTION, NEGATED), *(random_pairs(seed) for seed in range(5))]
)
@pytest.mark.parametrize("negatives", ["appended", "none"])
def test_the_loss_is_the_printed_equations(pairs: Pairs, negatives: str) -> None:
    s = logits(1)
    expected = (
        printed_image_loss(s.tolist(), pairs, negatives == "appended")
        + printed_text_loss(s.tolist(), pairs)
    ) / 2
    assert negated_contrastive(s, *pairs, negatives=negatives).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_without_repeats_it_is_cross_entropy() -> None:
    """Distinct images and captions: nothing is masked, and (5), (6) are torch's own cross entropies."""
    s = logits(2, (4, 8))
    rows = torch.arange(4)
    loss = negated_contrastive(s, rows, rows, rows + 4)
    images = torch.nn.functional.cross_entropy(s, rows)
    texts = torch.nn.functional.cross_entropy(s[:, :4].T, rows)
    assert loss.item() == pytest.approx(((images + texts) / 2).item(), rel=1e-12)


def test_by_hand() -> None:
    """Two pairs with logits 0 but for log 2 on the diagonal: 2 / (2 + 1 + 1 + 1) and 2 / (2 + 1)."""
    s = torch.tensor([[math.log(2), 0, 0, 0], [0, math.log(2), 0, 0]], dtype=torch.float64)
    image, caption, negated = torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([2, 3])
    assert image_to_text(s, image, caption, negated).item() == pytest.approx(math.log(5 / 2))
    assert image_to_text(s, image, caption, None).item() == pytest.approx(math.log(3 / 2))
    assert text_to_image(s, image, caption).item() == pytest.approx(math.log(3 / 2))
    assert own_negation(s, image, caption, negated).item() == pytest.approx(math.log(3 / 2))
    both = negated_contrastive(s, image, caption, negated, own_negation_weight=3.0)
    assert both.item() == pytest.approx(
        (math.log(5 / 2) + math.log(3 / 2)) / 2 + 3 * math.log(3 / 2)
    )


def test_negated_captions_reach_the_image_side_only() -> None:
    s = logits()
    changed = s.clone()
    changed[:, 3:] += 1  # columns that are nothing but negations
    assert text_to_image(changed, IMAGE, CAPTION).equal(text_to_image(s, IMAGE, CAPTION))
    assert image_to_text(changed, IMAGE, CAPTION, None).equal(
        image_to_text(s, IMAGE, CAPTION, None)
    )
    assert image_to_text(changed, IMAGE, CAPTION, NEGATED) > image_to_text(
        s, IMAGE, CAPTION, NEGATED
    )


def gradient(loss: Callable[[Tensor], Tensor]) -> Tensor:
    s = logits().requires_grad_()
    loss(s).backward()
    assert s.grad is not None
    return s.grad


def test_what_is_true_is_no_negative() -> None:
    """Caption 1 is true of image 2 but caption 0 is only a negation there; both are true of image 0."""
    alone = torch.tensor([3])
    side = gradient(lambda s: image_to_text(s, IMAGE, CAPTION, NEGATED))
    assert (side[0, [0, 1]] < 0).all(), "both captions of image 0 are pulled"
    assert side[0, 2] > 0
    assert side[0, 4] > 0
    assert side[2, 0] > 0, (
        "the caption of another image is a negative here, and a negated caption besides"
    )
    assert (side[:, 3:] >= 0).all(), "a negation is never a target"
    text = gradient(lambda s: text_to_image(s, IMAGE, CAPTION))
    assert text[2, 1] < 0
    assert text[0, 1] < 0
    assert text[1, 1] > 0
    assert (text[:, 3:] == 0).all()
    assert (gradient(lambda s: text_to_image(s, IMAGE[alone], CAPTION[alone]))[:2] == 0).all()


def test_a_second_record_of_the_image_changes_no_other_pair() -> None:
    """The pair (0, 1) adds its caption and its negation as negatives of other images, not of its own."""
    s = logits()
    one = image_to_text(s[:1], IMAGE[:1], CAPTION[:1], NEGATED[:1])
    two = image_to_text(s[:1], IMAGE[:1].repeat(2), CAPTION[:1].repeat(2), NEGATED[:1].repeat(2))
    numerator, negative = s[0, 0].exp(), s[0, 4].exp()
    assert one.item() == pytest.approx(-math.log(numerator / (numerator + negative)))
    assert two.item() == pytest.approx(-math.log(numerator / (numerator + 2 * negative))), (
        "as often as it stands there"
    )


def test_without_any_negative_the_loss_is_zero_and_its_gradient_too() -> None:
    s = logits(0, (1, 2)).requires_grad_()
    zero = torch.tensor([0])
    loss = negated_contrastive(s, zero, zero, None, negatives="none")
    loss.backward()
    assert loss.item() == 0
    assert s.grad is not None
    assert s.grad.abs().sum() == 0


def test_a_far_too_small_logit_does_not_overflow() -> None:
    s = torch.tensor([[-100.0, 100.0], [100.0, -100.0]])
    rows = torch.tensor([0, 1])
    assert negated_contrastive(s, rows, rows, rows.flip(0)).item() == pytest.approx(
        200 + math.log(2) / 2, rel=1e-5
    )


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="one of appended, none"):
        negated_contrastive(logits(), IMAGE, CAPTION, NEGATED, negatives="some")
    with pytest.raises(ValueError, match="needed"):
        negated_contrastive(logits(), IMAGE, CAPTION, None)
    with pytest.raises(ValueError, match="needed"):
        negated_contrastive(
            logits(), IMAGE, CAPTION, None, own_negation_weight=1.0, negatives="none"
        )
