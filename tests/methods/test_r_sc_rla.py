"""R-SC-RLA: who learns from whom, one forward for both losses, and nothing of the teacher left at the end."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer

from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.region_batches import RegionBatch, RegionDataModule, RegionDataset, Sampling
from spatialbench.methods.base import Method
from spatialbench.methods.parts.distillation import crop_cosine, region_text, spatial_correlation
from spatialbench.methods.parts.teacher import Teacher, refiner_blocks
from spatialbench.methods.r_sc_rla import CorrelationSettings, RegionDistillation
from spatialbench.methods.refiner import Refiner
from spatialbench.models import towers
from spatialbench.models.region_tokens import region_tokens
from spatialbench.utils.errors import SpatialbenchError
from tests.data.test_region_batches import Made
from tests.support.models import SIZE as NATIVE
from tests.support.models import images, student


def batch(kind: str = "grid", rows: tuple[int, ...] = (3, 1), **sampling: object) -> RegionBatch:
    made = Made()
    sizes = {"crop_size": NATIVE, "wide": 2, **sampling}
    return RegionDataset(made, Sampling(kind, **sizes))[np.array(rows), (0, 0, 1)]  # type: ignore[arg-type]


def attached(**settings: object) -> Trainer:
    """A trainer whose datamodule is of regions."""
    trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.datamodule = RegionDataModule(**settings)  # type: ignore[attr-defined, arg-type]
    return trainer


def method(language: str = "image", stage: str = "fit", **scd: object) -> RegionDistillation:
    made = RegionDistillation(student(), language, CorrelationSettings(**{"size": 3, **scd}))  # type: ignore[arg-type]
    made.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    if stage:
        made.setup(stage)
    if language == "text":
        made.prepare(RegionDataset(Made(), Sampling("boxes")))
    return made


def shaken(made: RegionDistillation) -> RegionDistillation:
    """The student moved away from its teacher."""
    with torch.no_grad():
        for parameter in made.student.visual.transformer.resblocks.parameters():
            parameter.add_(
                0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            )
    return made


@pytest.mark.parametrize("language", ["image", "text", "none"])
@pytest.mark.parametrize("boxes", ["wide", "regions", "both"])
def test_the_loss_is_the_sum_of_its_parts(language: str, boxes: str) -> None:
    made = shaken(method(language, teacher="clip", weight=0.7, boxes=boxes))
    data = batch(
        "grid" if language != "text" else "boxes", crop_size=NATIVE if language == "image" else 0
    )
    dense = made.dense(data["pixels"])
    wanted = torch.zeros(())
    regions = region_tokens(dense, data["boxes"], data["image"], 1)[:, 0]
    if language == "image":
        wanted = crop_cosine(regions, made.teacher.crops(data["crops"]))
    if language == "text":
        wanted = region_text(regions, made._texts, data["label"], made.student.logit_scale.exp())
    chosen = {"wide": [("wide", "wide_image")], "regions": [("boxes", "image")]}
    total = 0.0
    sets = chosen["wide"] + chosen["regions"] if boxes == "both" else chosen[boxes]
    b, i = (torch.cat([data[name[k]] for name in sets]) for k in (0, 1))  # type: ignore[literal-required]
    total = spatial_correlation(
        region_tokens(dense, b, i, 3), region_tokens(made.teacher.dense(data["pixels"]), b, i, 3)
    ).loss
    torch.testing.assert_close(made.training_step(data, 0), wanted + 0.7 * total)


def test_who_learns_and_who_does_not() -> None:
    made = shaken(method(teacher="clip"))
    made.training_step(batch(), 0).backward()
    learned = {name for name, parameter in made.named_parameters() if parameter.grad is not None}
    blocks = "student.visual.transformer.resblocks."
    assert learned
    assert all(name.startswith(blocks) for name in learned)
    missing = {name for name, _ in made.named_parameters() if name.startswith(blocks)} - learned
    last = f"{blocks}2."  # the value path of the last block has no query and no key, but they share one matrix
    assert missing == set(), missing
    assert {name for name in learned if name.startswith(last)}
    assert all(p.grad is None for p in made.teacher.parameters())
    partly = RegionDistillation(student(), last_blocks=1)
    assert {n for n, p in partly.named_parameters() if p.requires_grad} == {
        n for n, _ in partly.named_parameters() if n.startswith(last)
    }


def test_a_student_like_its_teacher_has_no_gradient_of_the_correlation() -> None:
    made = method("none", teacher="clip").double()
    made.training_step(batch(), 0).backward()
    gradients = [p.grad for p in made.student.parameters() if p.grad is not None]
    assert gradients
    assert max(gradient.abs().max() for gradient in gradients) < 1e-6  # the maps are float32
    moved = shaken(method("none", teacher="clip"))
    moved.training_step(batch(), 0).backward()
    assert max(p.grad.abs().max() for p in moved.student.parameters() if p.grad is not None) > 1e-4


def test_one_forward_of_the_student_serves_both_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    made = method(teacher="clip")
    calls = []
    plain = RegionDistillation.dense
    monkeypatch.setattr(
        RegionDistillation, "dense", lambda self, x: calls.append(len(x)) or plain(self, x)
    )
    made.training_step(batch(), 0)
    assert calls == [2]


def test_the_teacher_is_the_refiner_where_it_is_asked_for() -> None:
    refiner = Refiner(student(), blocks=2)
    made = RegionDistillation(student(), "none", CorrelationSettings("refiner", size=3))
    with torch.no_grad():
        for parameter in refiner.refiner.parameters():
            parameter.add_(0.05)
    refiner.load_state_dict(dict(made.state_dict().items()), strict=False)
    made.start_from(refiner.state_dict(), "refiner")
    assert {name.split(".")[0] for name, _ in made.named_parameters()} == {
        "student"
    }  # weights, not a module
    made.setup("fit")
    torch.testing.assert_close(made.teacher.dense(images(2)), refiner.dense(images(2)))
    assert not torch.allclose(made.teacher.dense(images(2)), made.dense(images(2)))
    torch.testing.assert_close(
        made.dense(images(2)), refiner.plain(images(2))
    )  # the student is CLIP


def test_nothing_of_the_teacher_is_left() -> None:
    made = method(teacher="clip")
    whole = {"state_dict": made.state_dict()}
    assert any(name.startswith("teacher.") for name in whole["state_dict"])
    made.on_save_checkpoint(whole)
    assert {name.split(".")[0] for name in whole["state_dict"]} == {"student"}
    made.on_fit_end()
    assert {name.split(".")[0] for name, _ in made.named_parameters()} == {"student"}
    scored = method(stage="", teacher="clip")
    scored.setup("test")
    assert scored.teacher is None
    scored.on_load_checkpoint({**whole})  # fits without a teacher


def test_a_refiner_that_is_not_there_is_one_line() -> None:
    made = RegionDistillation(student(), "none", CorrelationSettings("refiner"))
    with pytest.raises(SpatialbenchError, match="needs init_from, a page that makes a Refiner"):
        made.setup("fit")
    with pytest.raises(SpatialbenchError, match="first has no Refiner"):
        made.start_from(RegionDistillation(student()).state_dict(), "first")


def test_crops_that_recur_are_embedded_once_and_found_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    made = method()
    regions = RegionDataset(Made(), Sampling("boxes", crop_size=NATIVE))
    made.prepare(regions)
    assert len(made._cache) == 1 + 1 + 2 + 3  # picture 0 is one region
    data = batch("boxes")
    cached = made._crops(data)
    monkeypatch.setattr(Teacher, "crops", lambda *_: pytest.fail("a crop was embedded again"))
    assert torch.equal(made._crops(data), cached)
    made.teacher.prepare(regions)  # nothing to do
    monkeypatch.undo()
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    made._cache = made.teacher.cache(NATIVE + 1)  # an empty one: they are made of the pictures
    torch.testing.assert_close(made._crops(data), cached, rtol=0, atol=4e-3)
    other = method()
    with torch.no_grad():
        other.teacher.model.visual.proj[0, 0] += 1
    assert len(other.teacher.cache(NATIVE)) == 0  # another weight, another folder


def test_federated_classes_are_those_of_the_batch_and_others() -> None:
    made = method("text")
    made.classes = 3
    found = [made._federated(torch.tensor([3, 1, 3]), (0, 0, step)) for step in range(20)]
    assert all(classes[:2].tolist() == [1, 3] and len(classes) == 3 for classes in found)
    assert {int(classes[2]) for classes in found} == {0, 2}
    assert torch.equal(found[4], made._federated(torch.tensor([1, 3]), (0, 0, 4)))
    made.classes = 1
    assert made._federated(torch.tensor([3, 1]), (0, 0, 0)).tolist() == [1, 3]


def test_a_batch_without_classes_teaches_nothing() -> None:
    made = method("text")
    loss = made.training_step(batch("grid", crop_size=0), 0)
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in made.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "made",
    [
        RegionDistillation(student(), "image", CorrelationSettings("clip")),
        Refiner(student(), blocks=1),
    ],
)
def test_what_a_datamodule_must_give_is_told(made: Method) -> None:
    made.trainer = attached()
    made.trainer.datamodule = PairDataModule()
    with pytest.raises(
        SpatialbenchError, match=r"the page needs data\.class_path .*RegionDataModule"
    ):
        made.on_fit_start()
    made.trainer = attached(wide=0)
    with pytest.raises(SpatialbenchError, match=r"data\.init_args\.wide is 0"):
        made.on_fit_start()


def test_pictures_of_one_colour_give_a_finite_loss() -> None:
    made = shaken(method(teacher="clip"))
    data = batch()
    data["pixels"] = torch.zeros_like(data["pixels"])
    loss = made.training_step(data, 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in made.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"language": "speech"}, "language is 'speech'; one of image, text, none"),
        ({"language": "none"}, "leave nothing to learn"),
        ({"classes": 0}, "classes is 0"),
        ({"last_blocks": 9}, "last_blocks is 9; the image tower has 3"),
        ({"scd": {"teacher": "dino"}}, r"scd\.teacher is 'dino'"),
        ({"scd": {"temperature": 0}}, r"scd\.temperature 0 more than 0"),
        ({"scd": {"size": 1}}, r"scd\.size 1 2 or more"),
    ],
)
def test_wrong_arguments(arguments: dict, what: str) -> None:
    with pytest.raises(SpatialbenchError, match=what):
        RegionDistillation(student(), **arguments)


def test_the_loss_that_is_no_number_stops_the_training() -> None:
    made = method()
    with pytest.raises(SpatialbenchError, match=r"the loss is nan at step 0: lower .*lr"):
        made.on_before_backward(torch.tensor(float("nan")))
    made.on_before_backward(torch.tensor(1.0))


def test_the_refiner_begins_as_clip() -> None:
    for blocks in (1, 2, 3):
        made = Refiner(student(), blocks=blocks)
        torch.testing.assert_close(
            made.dense(images(2, size=48)), made.plain(images(2, size=48)), rtol=0, atol=1e-5
        )
        assert sum(p.numel() for p in made.parameters() if p.requires_grad) == sum(
            p.numel() for p in made.student.visual.transformer.resblocks[-blocks:].parameters()
        )
    with pytest.raises(SpatialbenchError, match="a Refiner of 4 blocks on an image tower of 3"):
        refiner_blocks(made.student, 4)


def test_the_value_path_and_a_copy_share_nothing() -> None:
    made = Refiner(student(), blocks=1)
    before = copy.deepcopy(made.student.state_dict())
    with torch.no_grad():
        made.refiner[0].mlp.c_fc.weight.add_(1)
    assert all(
        torch.equal(value, before[name]) for name, value in made.student.state_dict().items()
    )
    dense = F.normalize(towers.encode_dense(made.student, made._patches(images(1))).float(), dim=-1)
    assert not torch.allclose(made.dense(images(1)), dense)
