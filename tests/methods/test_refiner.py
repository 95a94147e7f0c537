"""The Refiner's step as loops: a token of the image against the tokens of a crop, with options."""

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
from tests.data.test_region_batches import Made
from tests.support.checks import refused
from tests.support.models import images, shaken, silent, step, student


def batch(number: int = 0) -> RegionBatch:
    data = RegionDataset(Made(), Sampling("grid", most=1, wide=2))[np.array([3, 1]), (0, 0, number)]
    data["pixels"] = images(2, seed=5, size=48)
    return data


def method(**arguments: object) -> Refiner:
    made = silent(Refiner(student(), blocks=2, **arguments))
    shaken(made.refiner)
    return made


def refined(made: Refiner, data: RegionBatch) -> Tensor:
    return region_tokens(made.dense(data["pixels"]), data["wide"], data["wide_image"], (4, 4))


def info_nce(refined: Tensor, local: Tensor, place: list[int], uniformity: float = 1.0) -> float:
    total = 0.0
    for j, token in enumerate(refined.detach()):
        logits = local @ token / 0.2
        total += float(uniformity * logits.logsumexp(0) - logits[place[j]])
    return total / len(refined)


@pytest.mark.parametrize("uniformity", [1.0, 0.3])
def test_the_loss_is_the_printed_one(uniformity: float) -> None:
    made, data = method(uniformity=uniformity), batch()
    crops, box = made.contexts(data)
    assert box == (0, 0, 4, 4)
    assert crops.shape == (4, 3, 32, 32)
    pairs = zip(refined(made, data), made.plain(crops).flatten(1, 2), strict=True)
    wanted = np.mean([info_nce(*pair, [*range(16)], uniformity) for pair in pairs])
    assert made.training_step(data, 0).item() == pytest.approx(float(wanted), rel=1e-4)


def test_a_crop_is_what_its_box_shows() -> None:
    made, data = method(), batch()
    data["wide"] = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.0, 0.5]])
    data["wide_image"] = torch.tensor([1, 0])
    data["pixels"][1] = torch.arange(48)[None, None] * 5  # a ramp from left to right, from 0 to 235
    whole, enlarged = made.contexts(data)[0].float()
    ramp = F.interpolate(data["pixels"][1:].float(), size=32, mode="bilinear", antialias=True)
    assert (whole - ramp[0]).abs().max() <= 2
    corner = F.interpolate(data["pixels"][:1, :, :24, 24:].float(), size=32, mode="bilinear")[0]
    inner = (slice(None), slice(2, -2), slice(2, -2))  # the border reads its neighbours
    assert (enlarged - corner)[inner].abs().max() <= 1


def test_a_strip_of_another_image_takes_one_side() -> None:
    made = method(background=0.35)  # 1 of 4 tokens
    seen = set()
    for number in range(24):
        data = batch(number)
        data["pixels"][0], data["pixels"][1] = 50, 200
        crops, (top, left, rows, columns) = made.contexts(data)
        assert sorted((rows, columns)) == [3, 4]
        seen.add((top, left, rows, columns))
        own = torch.zeros(32, 32, dtype=torch.bool)
        own[8 * top : 8 * (top + rows), 8 * left : 8 * (left + columns)] = True
        for crop, image in zip(crops, data["wide_image"], strict=True):
            assert (crop[:, own] == (50, 200)[image]).all()
            assert (crop[:, ~own] == (200, 50)[image]).all()
        assert torch.isfinite(made.training_step(data, 0))
    assert seen == {(0, 0, 3, 4), (1, 0, 3, 4), (0, 0, 4, 3), (0, 1, 4, 3)}


def test_matching_takes_the_most_similar_token_of_the_whole_image() -> None:
    made, data = method(match_to_full=True), batch()
    local = made.plain(made.contexts(data)[0]).flatten(1, 2)
    whole, total = made.plain(data["pixels"]).flatten(1, 2), 0.0
    for row, own, tokens in zip(data["wide_image"], refined(made, data), local, strict=True):
        place = [int((whole[row] @ token).argmax()) for token in tokens]
        total += info_nce(own, whole[row], place)
    assert made.training_step(data, 0).item() == pytest.approx(total / 4, rel=1e-4)


def test_only_the_refiner_learns_at_the_student_s_rate() -> None:
    made = method(finetuning=FineTuning(lr=0.1, connection_lr=0.5, schedule="constant"))
    own = {name for name, _ in made.named_parameters() if name.startswith("refiner.")}
    assert {name.split(".")[1] for name in own} == {"0", "1"}
    assert set(step(made, batch())[1]) == own
    made.trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False)
    groups = made.configure_optimizers()["optimizer"].param_groups
    assert {group["lr"] for group in groups} == {0.1}
    assert sum(len(group["params"]) for group in groups) == len(own)


def test_it_begins_as_clip_and_changes_the_dense_map_alone() -> None:
    x = images(2, size=48)
    for blocks in (1, 2, 3):
        made = Refiner(student(), blocks=blocks)
        torch.testing.assert_close(made.dense(x), made.plain(x), rtol=0, atol=1e-5)
        copied = made.student.visual.transformer.resblocks[-blocks:].parameters()
        trained = (p for p in made.parameters() if p.requires_grad)
        assert sum(p.numel() for p in trained) == sum(p.numel() for p in copied)
    before = {name: value.clone() for name, value in made.student.state_dict().items()}
    image, plain = made.image(images(2)), made.plain(x)
    shaken(made.refiner)
    assert all(value.equal(before[name]) for name, value in made.student.state_dict().items())
    assert made.image(images(2)).equal(image)
    assert made.plain(x).equal(plain)
    assert not torch.allclose(made.dense(x), plain)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"temperature": 0}, "must be more than 0, uniformity"),
        ({"uniformity": -1}, "uniformity -1 0 or more"),
        ({"background": 1.0}, r"background 1\.0 in \[0, 1\)"),
        ({"background": 0.05}, r"background 0\.05 is 0 of the 4 tokens a side"),
        ({"background": 0.95}, r"background 0\.95 is 4 of the 4 tokens a side"),
        ({"blocks": 4}, "a Refiner of 4 blocks on an image tower of 3"),
    ],
)
def test_wrong_arguments(arguments: dict, what: str) -> None:
    with refused(what):
        Refiner(student(), **arguments)


def test_a_strip_needs_another_image() -> None:
    data = RegionDataset(Made(), Sampling("grid", most=1))[np.array([3]), (0, 0, 0)]
    with refused("needs another image in the batch"):
        method(background=0.35).contexts(data)
