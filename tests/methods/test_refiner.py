"""The Refiner's step as loops: a token of the picture against the tokens of a crop, with and without the options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from torch import Tensor

from spatialbench.data.region_batches import RegionBatch, RegionDataset, Sampling
from spatialbench.methods.parts.finetuning import FineTuning
from spatialbench.methods.refiner import Refiner
from spatialbench.models.region_tokens import region_tokens
from spatialbench.utils.errors import SpatialbenchError
from tests.data.test_region_batches import Made
from tests.support.models import images, student


def batch(number: int = 0, wide: int = 2) -> RegionBatch:
    return RegionDataset(Made(), Sampling("grid", most=1, wide=wide))[
        np.array([3, 1]), (0, 0, number)
    ]


def method(**arguments: object) -> Refiner:
    made = Refiner(student(), blocks=2, **arguments)  # type: ignore[arg-type]
    made.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    with torch.no_grad():
        for parameter in made.refiner.parameters():
            parameter.add_(
                0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            )
    return made


def big(data: RegionBatch) -> RegionBatch:
    data["pixels"] = images(2, seed=5, size=48)
    return data


def info_nce(refined: Tensor, local: Tensor, place: list[int], uniformity: float) -> float:
    total = 0.0
    for j, token in enumerate(refined.detach()):
        logits = local @ token / 0.2
        total += float(uniformity * logits.logsumexp(0) - logits[place[j]])
    return total / len(refined)


@pytest.mark.parametrize("uniformity", [1.0, 0.3])
def test_the_loss_is_the_printed_one(uniformity: float) -> None:
    made, data = method(uniformity=uniformity), big(batch())
    crops, where = made.contexts(data)
    assert where == (0, 0, 4, 4)
    assert crops.shape == (4, 3, 32, 32)
    local = made.plain(crops).flatten(1, 2)
    refined = region_tokens(made.dense(data["pixels"]), data["wide"], data["wide_image"], (4, 4))
    wanted = np.mean(
        [info_nce(refined[p], local[p], list(range(16)), uniformity) for p in range(4)]
    )
    assert made.training_step(data, 0).item() == pytest.approx(float(wanted), rel=1e-4)


def test_a_crop_is_what_its_box_shows() -> None:
    made, data = method(), big(batch())
    data["wide"] = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.0, 0.5]])
    data["wide_image"] = torch.tensor([1, 0])
    data["pixels"][1] = torch.arange(48)[None, None] * 5  # a ramp from left to right, from 0 to 235
    found, _ = made.contexts(data)
    expected = F.interpolate(data["pixels"][1:].float(), size=32, mode="bilinear", antialias=True)
    assert (found[0].float() - expected[0]).abs().max() <= 2
    corner = data["pixels"][0, :, :24, 24:].float()
    enlarged = F.interpolate(corner[None], size=32, mode="bilinear")
    assert (found[1].float() - enlarged[0])[
        :, 2:-2, 2:-2
    ].abs().max() <= 1  # the border reads its neighbours


def test_a_strip_of_another_picture_takes_one_side() -> None:
    made = method(background=0.35)  # 1 of 4 tokens
    seen = set()
    for number in range(24):
        data = big(batch(number))
        data["pixels"][0], data["pixels"][1] = 50, 200
        crops, (top, left, rows, columns) = made.contexts(data)
        assert sorted((rows, columns)) == [3, 4]
        seen.add((top, left, rows, columns))
        own = torch.zeros(32, 32, dtype=torch.bool)
        own[8 * top : 8 * (top + rows), 8 * left : 8 * (left + columns)] = True
        for crop, picture in zip(crops, data["wide_image"], strict=True):
            value = (50, 200)[picture]
            assert (crop[:, own] == value).all()
            assert (crop[:, ~own] == 250 - value).all()
        assert torch.isfinite(made.training_step(data, 0))
    assert seen == {(0, 0, 3, 4), (1, 0, 3, 4), (0, 0, 4, 3), (0, 1, 4, 3)}


def test_matching_takes_the_most_alike_token_of_the_whole_picture() -> None:
    made, data = method(match_to_full=True), big(batch())
    crops, _ = made.contexts(data)
    local, whole = made.plain(crops).flatten(1, 2), made.plain(data["pixels"]).flatten(1, 2)
    refined = region_tokens(made.dense(data["pixels"]), data["wide"], data["wide_image"], (4, 4))
    total = 0.0
    for p, row in enumerate(data["wide_image"].tolist()):
        place = [int((whole[row] @ token).argmax()) for token in local[p]]
        total += info_nce(refined[p], whole[row], place, 1.0)
    assert made.training_step(data, 0).item() == pytest.approx(total / 4, rel=1e-4)


@pytest.mark.parametrize("background", [0.05, 0.95])
def test_a_strip_is_of_whole_tokens_and_leaves_some(background: float) -> None:
    with pytest.raises(SpatialbenchError, match=r"background .* of the 4 tokens a side"):
        method(background=background)


def test_a_strip_needs_another_picture() -> None:
    data = RegionDataset(Made(), Sampling("grid", most=1))[np.array([3]), (0, 0, 0)]
    with pytest.raises(SpatialbenchError, match="needs another picture in the batch"):
        method(background=0.35).contexts(data)


def test_only_the_refiner_learns() -> None:
    made = method()
    made.training_step(big(batch()), 0).backward()
    assert all(p.grad is None for p in made.student.parameters())
    assert {n.split(".")[0] for n, p in made.refiner.named_parameters() if p.grad is not None} == {
        "0",
        "1",
    }


def test_the_refiner_learns_at_the_student_s_rate() -> None:
    made = method(finetuning=FineTuning(lr=0.1, connection_lr=0.5, schedule="constant"))
    made.trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False)
    groups = made.configure_optimizers()["optimizer"].param_groups
    assert {group["lr"] for group in groups} == {0.1}
    assert sum(len(group["params"]) for group in groups) == len(list(made.refiner.parameters()))


def test_images_and_captions_are_clip_s() -> None:
    made = method()
    other = Refiner(student(), blocks=2)
    other.student.load_state_dict(made.student.state_dict())
    assert torch.equal(made.image(images(2)), other.image(images(2)))
    assert not torch.allclose(made.dense(images(2)), other.dense(images(2)))


@pytest.mark.parametrize(
    "arguments", [{"temperature": 0}, {"uniformity": -1}, {"background": 1.0}, {"background": -0.1}]
)
def test_wrong_arguments(arguments: dict) -> None:
    with pytest.raises(SpatialbenchError, match="must be more than 0, uniformity"):
        Refiner(student(), **arguments)
