"""Region tokens and the distillation losses: the printed sums, invariances, wrong input."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.methods.parts.distillation import crop_cosine, region_text, spatial_correlation
from spatialbench.methods.refiner import token_contrast
from spatialbench.models.region_tokens import region_tokens
from tests.support.checks import refused

WHOLE = [0.0, 0.0, 1.0, 1.0]


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shape, dtype=torch.float64, generator=generator)
    return F.normalize(noise, dim=-1).requires_grad_()


def tokens(dense: Tensor, box: list[float], size: int | tuple[int, int]) -> Tensor:
    return region_tokens(dense, torch.tensor([box]), torch.tensor([0]), size)[0]


def test_the_whole_image_at_the_map_s_own_size_is_the_map() -> None:
    dense = unit(2, 4, 4, 5)
    both = region_tokens(dense, torch.tensor([WHOLE] * 2), torch.tensor([1, 0]), 4)
    torch.testing.assert_close(both, dense[[1, 0]].flatten(1, 2))
    wide = unit(1, 2, 3, 5)
    torch.testing.assert_close(tokens(wide, WHOLE, (2, 3)), wide[0].flatten(0, 1))


def test_a_box_of_one_token_is_that_token() -> None:
    dense = unit(1, 4, 4, 5)
    one = tokens(dense, [0.5, 0.25, 0.75, 0.5], 1)
    torch.testing.assert_close(one[0], dense[0, 1, 2])  # x is the second index of the map


def test_no_box_is_an_error_and_not_a_nan() -> None:
    with refused("no region"):
        region_tokens(unit(1, 4, 4, 5), torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 2)


def test_crop_cosine_is_the_printed_equation() -> None:
    regions, crops = unit(3, 5), unit(3, 5, seed=1)
    wanted = 1 - sum((regions[i] @ crops[i]).item() for i in range(3)) / 3
    assert crop_cosine(regions, crops).item() == pytest.approx(wanted, rel=1e-12)
    assert crop_cosine(regions, regions).item() == pytest.approx(0, abs=1e-12)


def test_region_text_is_the_printed_equation() -> None:
    regions, texts, label = unit(3, 5), unit(4, 5, seed=1), torch.tensor([2, 0, 2])
    total = 0.0
    for i in range(3):
        for c in range(4):
            p = 1 / (1 + math.exp(-7 * float(regions[i] @ texts[c])))
            total -= math.log(p if c == label[i] else 1 - p)
    assert region_text(regions, texts, label, 7.0).item() == pytest.approx(total / 3, rel=1e-12)


def printed_correlation(
    student: Tensor, teacher: Tensor, tau: float, minmax: bool, diagonal: bool
) -> float:
    def row(tokens: Tensor, j: int) -> list[float]:
        a = [float(tokens[j] @ tokens[k]) for k in range(len(tokens)) if diagonal or k != j]
        if minmax:
            a = [(v - min(a)) / (max(a) - min(a)) for v in a]
        weights = [math.exp(v / tau) for v in a]
        return [w / sum(weights) for w in weights]

    total, (regions, count) = 0.0, student.shape[:2]
    for i in range(regions):
        for j in range(count):
            pairs = zip(row(teacher[i], j), row(student[i], j), strict=True)
            total -= sum(t * math.log(s) for t, s in pairs)
    return total / (regions * count)


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("normaliser", ["minmax", "none"])
def test_spatial_correlation_is_the_printed_equation(normaliser: str, diagonal: bool) -> None:
    student, teacher = unit(2, 6, 5), unit(2, 6, 9, seed=1)  # another width
    both = spatial_correlation(student, teacher, 0.3, normaliser, True, diagonal)
    wanted, floor = (
        printed_correlation(tokens, teacher, 0.3, normaliser == "minmax", diagonal)
        for tokens in (student, teacher)
    )
    assert both.loss.item() == pytest.approx(wanted, rel=1e-12)
    assert both.divergence.item() == pytest.approx(wanted - floor, rel=1e-9)


@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("normaliser", ["minmax", "none"])
def test_a_student_like_its_teacher_learns_nothing(normaliser: str, stop_gradient: bool) -> None:
    student = unit(2, 6, 5)
    both = spatial_correlation(student, student, 0.2, normaliser, stop_gradient)
    both.loss.backward()
    assert student.grad.abs().max() < 1e-14
    assert both.divergence.item() == pytest.approx(0, abs=1e-14)


def test_the_stop_gradient_is_a_choice_and_the_teacher_never_gets_one() -> None:
    gradients, teacher = [], unit(1, 5, 4, seed=1)
    for stop in (True, False):
        student = unit(1, 5, 4)
        loss = spatial_correlation(student, teacher, 0.2, "none", stop).loss
        (loss + token_contrast(student, teacher, None, 0.2, 1.0)).backward()
        gradients.append(student.grad)
    assert not torch.allclose(*gradients)
    assert teacher.grad is None


def test_a_region_of_one_colour_gives_a_finite_loss_and_gradient() -> None:
    one = unit(1, 1, 4).expand(1, 5, 4).detach()
    assert spatial_correlation(one, one).loss.item() == pytest.approx(math.log(5))
    student = F.normalize(one + 1e-6 * unit(1, 5, 4, seed=1).detach(), dim=-1).requires_grad_()
    spatial_correlation(student, unit(1, 5, 4, seed=2)).loss.backward()
    assert student.grad.norm() < 100  # not one over the width of the row


@pytest.mark.parametrize(
    "loss",
    [
        lambda s, t: spatial_correlation(s, t).loss,
        lambda s, t: token_contrast(s, t, None, 0.2, 1.0),
        lambda s, t: crop_cosine(s[0], t[0]),
        lambda s, t: region_text(s[0], t[0], torch.arange(5), 7.0),
        lambda s, t: tokens(s[None], [0.1, 0.0, 1.0, 1.0], 2).sum(),
    ],
)
def test_half_precision_and_autocast_compare_in_single(loss) -> None:  # type: ignore[no-untyped-def]
    student, teacher = unit(1, 5, 4).detach().bfloat16(), unit(1, 5, 4, seed=1).detach().bfloat16()
    wanted = loss(student.float(), teacher.float())
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, wanted)
