"""The objective is the poster's equations (5)-(7), without negatives that are known to be true."""

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

# 4 pairs over 3 images and 5 captions: image 0 has two pairs, caption 1 is true of images 0 and 2,
# the negation of the last pair is the caption of the first, and caption 4 negates two pairs
IMAGE = torch.tensor([0, 0, 1, 2])
CAPTION = torch.tensor([0, 1, 2, 1])
NEGATED = torch.tensor([4, 3, 4, 0])


def logits(seed: int = 0, shape: tuple[int, int] = (3, 5)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 5 * torch.randn(shape, dtype=torch.float64, generator=generator)


def printed(s: list[list[float]], pairs: Pairs, appended: bool) -> tuple[float, float]:
    """Return (5) and (6), sums over k for every i, in Python floats."""
    image, caption, negated = (part.tolist() for part in pairs)
    true = set(zip(image, caption, strict=True))
    image_side = text_side = 0.0
    for i, t in zip(image, caption, strict=True):
        numerator = math.exp(s[i][t])
        columns = caption + negated if appended else caption
        against_texts = sum(math.exp(s[i][k]) for k in columns if (i, k) not in true)
        against_images = sum(math.exp(s[k][t]) for k in image if (k, t) not in true)
        image_side -= math.log(numerator / (numerator + against_texts)) / len(image)
        text_side -= math.log(numerator / (numerator + against_images)) / len(image)
    return image_side, text_side


def random_pairs(seed: int) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    caption, negated = (torch.randint(0, 5, (9,), generator=generator) for _ in range(2))
    return torch.arange(3).repeat_interleave(3), caption, negated


@pytest.mark.parametrize("pairs", [(IMAGE, CAPTION, NEGATED), *map(random_pairs, range(5))])
@pytest.mark.parametrize("negatives", ["appended", "none"])
def test_the_loss_is_the_printed_equations(pairs: Pairs, negatives: str) -> None:
    s = logits(1)
    expected = sum(printed(s.tolist(), pairs, negatives == "appended")) / 2
    loss = negated_contrastive(s, *pairs, negatives=negatives)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_without_repeats_it_is_cross_entropy() -> None:
    """Nothing is masked, and (5), (6) are torch's own cross entropies."""
    s, rows = logits(2, (4, 8)), torch.arange(4)
    loss = negated_contrastive(s, rows, rows, rows + 4)
    images = torch.nn.functional.cross_entropy(s, rows)
    texts = torch.nn.functional.cross_entropy(s[:, :4].T, rows)
    assert loss.item() == pytest.approx(((images + texts) / 2).item(), rel=1e-12)


def test_by_hand() -> None:
    """Logits are 0, and log 2 on the diagonal: 2 / (2 + 1 + 1 + 1) and 2 / (2 + 1)."""
    s = torch.tensor([[math.log(2), 0, 0, 0], [0, math.log(2), 0, 0]], dtype=torch.float64)
    image, caption, negated = torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([2, 3])
    five, three = pytest.approx(math.log(5 / 2)), pytest.approx(math.log(3 / 2))
    assert image_to_text(s, image, caption, negated).item() == five
    assert image_to_text(s, image, caption, None).item() == three
    assert text_to_image(s, image, caption).item() == three
    assert own_negation(s, image, caption, negated).item() == three
    both = negated_contrastive(s, image, caption, negated, own_negation_weight=3.0)
    expected = (math.log(5 / 2) + math.log(3 / 2)) / 2 + 3 * math.log(3 / 2)
    assert both.item() == pytest.approx(expected)


def gradient(loss: Callable[[Tensor], Tensor]) -> Tensor:
    s = logits().requires_grad_()
    loss(s).backward()
    return s.grad


def test_what_is_true_is_no_negative() -> None:
    """Both captions 0 and 1 are true of image 0; of image 2 only caption 1 is."""
    image = gradient(lambda s: image_to_text(s, IMAGE, CAPTION, NEGATED))
    assert (image[0, [0, 1]] < 0).all(), "both captions of image 0 are pulled"
    assert (image[0, [2, 4]] > 0).all()
    assert image[2, 0] > 0, "the caption of another image, and a negated caption"
    assert (image[:, 3:] >= 0).all(), "a negation is never a target"
    assert (gradient(lambda s: image_to_text(s, IMAGE, CAPTION, None))[:, 3:] == 0).all()
    text = gradient(lambda s: text_to_image(s, IMAGE, CAPTION))
    assert (text[[0, 2], 1] < 0).all()
    assert text[1, 1] > 0
    assert (text[:, 3:] == 0).all(), "negated captions reach the image side only"
    alone = gradient(lambda s: text_to_image(s, IMAGE[3:], CAPTION[3:]))
    assert (alone[:2] == 0).all()


def test_without_any_negative_the_loss_is_zero_and_its_gradient_too() -> None:
    s, zero = logits(0, (1, 2)).requires_grad_(), torch.tensor([0])
    loss = negated_contrastive(s, zero, zero, None, negatives="none")
    loss.backward()
    assert loss.item() == 0
    assert s.grad.abs().sum() == 0


def test_a_far_too_small_logit_does_not_overflow() -> None:
    s, rows = torch.tensor([[-100.0, 100.0], [100.0, -100.0]]), torch.tensor([0, 1])
    loss = negated_contrastive(s, rows, rows, rows.flip(0))
    assert loss.item() == pytest.approx(200 + math.log(2) / 2, rel=1e-5)
