"""Region tokens and the distillation losses: the printed sums, what must be zero or invariant, wrong input."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.methods.parts.distillation import (
    crop_cosine,
    region_text,
    spatial_correlation,
    token_contrast,
)
from spatialbench.models.region_tokens import region_tokens
from spatialbench.utils.errors import SpatialbenchError


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(
        torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)),
        dim=-1,
    ).requires_grad_()


def test_the_whole_image_at_the_map_s_own_size_is_the_map() -> None:
    dense = unit(2, 4, 6, 5)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)
    tokens = region_tokens(dense[:, :, :4], boxes, torch.tensor([1, 0]), 4)
    torch.testing.assert_close(tokens, dense[[1, 0], :, :4].flatten(1, 2))


def test_a_box_of_one_token_is_that_token() -> None:
    dense = unit(1, 4, 4, 5)
    tokens = region_tokens(dense, torch.tensor([[0.5, 0.25, 0.75, 0.5]]), torch.tensor([0]), 1)
    torch.testing.assert_close(tokens[0, 0], dense[0, 1, 2])  # x is the second index of the map


@pytest.mark.parametrize(
    ("box", "what"),
    [
        ([0.2, 0.2, 0.2, 0.5], "is empty"),
        ([0.5, 0.2, 0.2, 0.5], "is empty"),
        ([0.0, 0.0, 1.2, 0.5], "out of the image"),
        ([0.0, float("nan"), 1.0, 1.0], "is not finite"),
    ],
)
def test_bad_boxes_are_named(box: list[float], what: str) -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], box])
    with pytest.raises(SpatialbenchError, match=rf"region 1, .*{what}"):
        region_tokens(unit(1, 4, 4, 5), boxes, torch.tensor([0, 0]), 2)


def test_no_box_is_an_error_and_not_a_nan() -> None:
    with pytest.raises(SpatialbenchError, match="no region"):
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
        count = len(tokens)
        a = [float(tokens[j] @ tokens[k]) for k in range(count) if diagonal or k != j]
        if minmax:
            a = [(v - min(a)) / (max(a) - min(a)) for v in a]
        weights = [math.exp(v / tau) for v in a]
        return [w / sum(weights) for w in weights]

    total, (regions, tokens) = 0.0, student.shape[:2]
    for i in range(regions):
        for j in range(tokens):
            pairs = zip(row(teacher[i], j), row(student[i], j), strict=True)
            total -= sum(t * math.log(s) for t, s in pairs)
    return total / (regions * tokens)


@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("normaliser", ["minmax", "none"])
def test_spatial_correlation_is_the_printed_equation(normaliser: str, diagonal: bool) -> None:
    student, teacher = unit(2, 6, 5), unit(2, 6, 9, seed=1)  # another width
    found = spatial_correlation(student, teacher, 0.3, normaliser, True, diagonal)  # type: ignore[arg-type]
    wanted = printed_correlation(student, teacher, 0.3, normaliser == "minmax", diagonal)
    assert found.loss.item() == pytest.approx(wanted, rel=1e-12)
    floor = printed_correlation(teacher, teacher, 0.3, normaliser == "minmax", diagonal)
    assert found.divergence.item() == pytest.approx(wanted - floor, rel=1e-9)


@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("normaliser", ["minmax", "none"])
def test_a_student_like_its_teacher_learns_nothing(normaliser: str, stop_gradient: bool) -> None:
    student = unit(2, 6, 5)
    found = spatial_correlation(
        student, student, normaliser=normaliser, stop_gradient=stop_gradient
    )  # type: ignore[arg-type]
    found.loss.backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-14
    assert found.divergence.item() == pytest.approx(0, abs=1e-14)


def test_a_common_rotation_of_the_channels_changes_nothing() -> None:
    student, teacher = unit(2, 6, 5), unit(2, 6, 5, seed=1)
    rotation = torch.linalg.qr(unit(5, 5, seed=2)).Q
    plain, turned = (
        spatial_correlation(student, teacher),
        spatial_correlation(student @ rotation, teacher),
    )
    torch.testing.assert_close(plain.loss, turned.loss)
    cosines = [
        crop_cosine(tokens[0], teacher[0]).item() for tokens in (student, student @ rotation)
    ]
    assert cosines[0] != pytest.approx(cosines[1])


def test_the_stop_gradient_is_a_choice() -> None:
    grads = []
    for stop in (True, False):
        student = unit(1, 5, 4)
        spatial_correlation(
            student, unit(1, 5, 4, seed=1), normaliser="none", stop_gradient=stop
        ).loss.backward()
        assert student.grad is not None
        grads.append(student.grad.clone())
    assert not torch.allclose(*grads)


def test_no_gradient_goes_to_the_teacher() -> None:
    student, teacher = unit(1, 5, 4), unit(1, 5, 4, seed=1)
    (spatial_correlation(student, teacher).loss + token_contrast(student, teacher)).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_a_region_of_one_colour_gives_a_finite_loss_and_gradient() -> None:
    one = unit(1, 1, 4).expand(1, 5, 4).detach()
    assert spatial_correlation(one, one).loss.item() == pytest.approx(math.log(5))
    student = F.normalize(one + 1e-6 * unit(1, 5, 4, seed=1).detach(), dim=-1).requires_grad_()
    spatial_correlation(student, unit(1, 5, 4, seed=2)).loss.backward()
    assert student.grad is not None
    assert student.grad.norm() < 100  # not one over the width of the row


def test_half_precision_and_autocast_compare_in_single() -> None:
    student, teacher = unit(1, 5, 4).detach().bfloat16(), unit(1, 5, 4, seed=1).detach().bfloat16()
    losses = (
        lambda s, t: spatial_correlation(s, t).loss,
        token_contrast,
        lambda s, t: crop_cosine(s[0], t[0]),
        lambda s, t: region_text(s[0], t[0], torch.arange(5), 7.0),
        lambda s, t: region_tokens(
            s[None], torch.tensor([[0.1, 0.0, 1.0, 1.0]]), torch.tensor([0]), 2
        ).sum(),
    )
    for loss in losses:
        wanted = loss(student.float(), teacher.float())
        with torch.autocast("cpu", torch.bfloat16):
            found = loss(student, teacher)
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted)


def test_token_contrast_is_the_printed_equation() -> None:
    refined, local = unit(2, 4, 5), unit(2, 4, 5, seed=1)
    total = 0.0
    for i in range(2):
        for j in range(4):
            similar = [float(refined[i, j] @ local[i, k]) / 0.2 for k in range(4)]
            total += -similar[j] + 0.3 * math.log(sum(math.exp(v) for v in similar))
    assert token_contrast(refined, local, temperature=0.2, uniformity=0.3).item() == pytest.approx(
        total / 8, rel=1e-12
    )


def test_token_contrast_with_other_places_is_the_printed_equation() -> None:
    refined, local = unit(2, 4, 5), unit(2, 7, 5, seed=1)
    place = torch.tensor([[6, 0, 0, 3], [1, 2, 5, 4]])
    total = 0.0
    for i in range(2):
        for j in range(4):
            similar = [float(refined[i, j] @ local[i, k]) / 0.2 for k in range(7)]
            total += -similar[int(place[i, j])] + math.log(sum(math.exp(v) for v in similar))
    assert token_contrast(refined, local, place).item() == pytest.approx(total / 8, rel=1e-12)
    own = torch.arange(4).expand(2, 4)
    assert (
        token_contrast(refined, local[:, :4], own).item()
        == token_contrast(refined, local[:, :4]).item()
    )


def test_regions_of_rows_and_columns_run_row_by_row() -> None:
    dense = unit(1, 2, 3, 5)
    tokens = region_tokens(dense, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([0]), (2, 3))
    torch.testing.assert_close(tokens[0], dense[0].flatten(0, 1))


@pytest.mark.parametrize(
    ("shape", "temperature"), [((2, 6, 5), 0.0), ((2, 1, 5), 0.2), ((2, 5, 5), 0.2)]
)
def test_wrong_arguments(shape: tuple[int, ...], temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature|tokens"):
        spatial_correlation(unit(*shape), unit(2, 1 if shape[1] == 1 else 6, 5), temperature)
