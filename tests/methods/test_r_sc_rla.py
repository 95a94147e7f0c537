"""R-SC-RLA: who learns from whom, one forward for both losses, and no trace of the teacher."""

import numpy as np
import pytest
import torch
from lightning import Trainer

from spatialbench.data.boxes import crops
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.region_batches import RegionBatch, RegionDataModule, RegionDataset, Sampling
from spatialbench.methods.base import Method
from spatialbench.methods.parts.distillation import crop_cosine, region_text, spatial_correlation
from spatialbench.methods.parts.teacher import Teacher
from spatialbench.methods.r_sc_rla import CorrelationSettings, RegionDistillation
from spatialbench.methods.refiner import Refiner
from spatialbench.models.region_tokens import region_tokens
from tests.data.test_region_batches import Made
from tests.support.checks import refused
from tests.support.models import SIZE as NATIVE
from tests.support.models import images, shaken, silent, step, student

BLOCKS = "student.visual.transformer.resblocks."


def batch(kind: str = "grid", rows: tuple[int, ...] = (3, 1), **sampling: object) -> RegionBatch:
    sizes = {"crop_size": NATIVE, "wide": 2, **sampling}
    return RegionDataset(Made(), Sampling(kind, **sizes))[np.array(rows), (0, 0, 1)]


def method(language: str = "image", stage: str = "fit", **scd: object) -> RegionDistillation:
    made = RegionDistillation(student(), language, CorrelationSettings(**{"size": 3, **scd}))
    made.setup(stage)
    if language == "text":
        made.prepare(RegionDataset(Made(), Sampling("boxes")))
    return silent(made)


def moved(language: str = "image", **scd: object) -> RegionDistillation:
    """Move the student of a method away from its teacher."""
    made = method(language, **scd)
    shaken(made.student.visual.transformer.resblocks)
    return made


@pytest.mark.parametrize("language", ["image", "text", "none"])
@pytest.mark.parametrize("boxes", ["wide", "regions", "both"])
def test_the_loss_is_the_sum_of_its_parts(language: str, boxes: str) -> None:
    made = moved(language, teacher="clip", weight=0.7, boxes=boxes)
    kind, crop_size = ("boxes", 0) if language == "text" else ("grid", NATIVE)
    data = batch(kind, crop_size=crop_size if language == "image" else 0)
    dense, teachers, wanted = made.dense(data["pixels"]), made.teacher.dense(data["pixels"]), 0.0
    regions = region_tokens(dense, data["boxes"], data["image"], 1)[:, 0]
    if language == "image":
        wanted = crop_cosine(regions, made.teacher.crops(data["crops"]))
    if language == "text":
        wanted = region_text(regions, made._texts, data["label"], made.student.logit_scale.exp())
    sets = {"wide": ("wide", "wide_image"), "regions": ("boxes", "image")}
    chosen = [sets[name] for name in sets if boxes in (name, "both")]
    where = [torch.cat([data[names[k]] for names in chosen]) for k in (0, 1)]
    tokens = [region_tokens(tokens, *where, 3) for tokens in (dense, teachers)]
    wanted = wanted + 0.7 * spatial_correlation(*tokens).loss
    torch.testing.assert_close(made.training_step(data, 0), wanted)


def test_who_learns_and_who_does_not() -> None:
    made = moved(teacher="clip")
    learned = set(step(made, batch())[1])
    assert learned == {name for name, _ in made.named_parameters() if name.startswith(BLOCKS)}


def test_one_forward_of_the_student_serves_both_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    made, calls, plain = method(teacher="clip"), [], RegionDistillation.dense
    monkeypatch.setattr(
        RegionDistillation, "dense", lambda self, x: calls.append(len(x)) or plain(self, x)
    )
    made.training_step(batch(), 0)
    assert calls == [2]


def test_the_teacher_may_be_the_refiner() -> None:
    refiner, x = Refiner(student(), blocks=2), images(2)
    made = RegionDistillation(student(), "none", CorrelationSettings("refiner", size=3))
    with torch.no_grad():
        for parameter in refiner.refiner.parameters():
            parameter.add_(0.05)
    refiner.load_state_dict(made.state_dict(), strict=False)
    made.start_from(refiner.state_dict(), "refiner")
    names = {name.split(".")[0] for name, _ in made.named_parameters()}
    assert names == {"student"}, "weights, not a module"
    made.setup("fit")
    torch.testing.assert_close(made.teacher.dense(x), refiner.dense(x))
    assert not torch.allclose(made.teacher.dense(x), made.dense(x))
    torch.testing.assert_close(made.dense(x), refiner.plain(x))  # the student is CLIP


def test_no_trace_of_the_teacher_remains() -> None:
    made = method(teacher="clip")
    whole = {"state_dict": made.state_dict()}
    assert any(name.startswith("teacher.") for name in whole["state_dict"])
    made.on_save_checkpoint(whole)
    assert {name.split(".")[0] for name in whole["state_dict"]} == {"student"}
    made.on_fit_end()
    assert {name.split(".")[0] for name, _ in made.named_parameters()} == {"student"}
    scored = method(stage="test", teacher="clip")
    assert scored.teacher is None
    scored.on_load_checkpoint({**whole})  # fits without a teacher


def test_a_missing_refiner_is_one_line() -> None:
    made = RegionDistillation(student(), "none", CorrelationSettings("refiner"))
    with refused("needs init_from, a page that makes a Refiner"):
        made.setup("fit")
    with refused("first has no Refiner"):
        made.start_from(RegionDistillation(student()).state_dict(), "first")


def test_crops_that_recur_are_embedded_once_and_found_by_content() -> None:
    made, data = method(), batch("boxes")
    regions = RegionDataset(Made(), Sampling("boxes", crop_size=NATIVE))
    made.prepare(regions)
    assert len(made._cache) == 1 + 1 + 2 + 3  # image 0 is one region
    cached = made._crops(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Teacher, "crops", lambda *_: pytest.fail("a crop was embedded again"))
        assert torch.equal(made._crops(data), cached)
        made.teacher.prepare(regions)  # nothing to do
    made._cache = made.teacher.cache(NATIVE + 1)  # an empty one: they are cut from the images
    torch.testing.assert_close(made._crops(data), cached, rtol=0, atol=4e-3)
    other = method()
    with torch.no_grad():
        other.teacher.model.visual.proj[0, 0] += 1
    assert len(other.teacher.cache(NATIVE)) == 0  # another weight, another folder


def test_federated_classes_are_those_of_the_batch_and_others() -> None:
    made = method("text")
    made.classes = 3
    drawn = [made._federated(torch.tensor([3, 1, 3]), (0, 0, number)) for number in range(20)]
    assert all(classes[:2].tolist() == [1, 3] and len(classes) == 3 for classes in drawn)
    assert {int(classes[2]) for classes in drawn} == {0, 2}
    assert torch.equal(drawn[4], made._federated(torch.tensor([1, 3]), (0, 0, 4)))
    made.classes = 1
    assert made._federated(torch.tensor([3, 1]), (0, 0, 0)).tolist() == [1, 3]


def test_a_batch_without_classes_teaches_nothing() -> None:
    loss, gradients = step(method("text"), batch("grid", crop_size=0))
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("kind", ["grid", "boxes"])
def test_labels_of_the_teacher_are_its_own_answers_to_the_crops(kind: str) -> None:
    """The data's labels are not read; the student that learns does not label."""
    made = RegionDistillation(student(), "text", labels="teacher")
    made.setup("fit")
    made.prepare(RegionDataset(Made(), Sampling(kind, crop_size=NATIVE)))
    shaken(silent(made).student.visual.transformer.resblocks)
    data = batch(kind)
    data["label"].fill_(-1)
    views = batch(kind)["crop_boxes"]
    answers = []
    for view, row in zip(views, data["image"], strict=True):
        one = torch.zeros(1, dtype=torch.int64)
        seen = made.teacher.crops(crops(data["pixels"][row][None], view[None], one, NATIVE))[0]
        answers.append(max(range(4), key=lambda c: float(seen @ made._texts[c])))
    regions = region_tokens(made.dense(data["pixels"]), data["boxes"], data["image"], 1)[:, 0]
    scale = made.student.logit_scale.exp()
    wanted = region_text(regions, made._texts, torch.tensor(answers), scale)
    torch.testing.assert_close(made.training_step(data, 0), wanted)


def test_labels_of_the_teacher_need_crops() -> None:
    made = RegionDistillation(student(), "text", labels="teacher")
    made.setup("fit")
    made.prepare(RegionDataset(Made(), Sampling("grid")))
    with refused("labels teacher read crops of the regions: set data.init_args.crops true"):
        silent(made).training_step(batch("grid", crop_size=0), 0)


@pytest.mark.parametrize(
    "made",
    [RegionDistillation(student(), "image", CorrelationSettings("clip")), Refiner(student())],
)
def test_what_a_datamodule_must_give_is_told(made: Method) -> None:
    made.trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    made.trainer.datamodule = PairDataModule()
    with refused(r"needs data\.class_path .*RegionDataModule"):
        made.on_fit_start()
    made.trainer.datamodule = RegionDataModule(wide=0)
    with refused(r"data\.init_args\.wide is 0"):
        made.on_fit_start()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"language": "speech"}, "language is 'speech'; one of image, text, none"),
        ({"language": "none"}, "leave nothing to learn"),
        ({"classes": 0}, "classes is 0"),
        ({"labels": "mine"}, "labels is 'mine'; one of given, teacher"),
        ({"scd": {"teacher": "dino"}}, r"scd\.teacher is 'dino'"),
        ({"scd": {"temperature": 0}}, r"scd\.temperature 0 more than 0"),
        ({"scd": {"size": 1}}, r"scd\.size 1 2 or more"),
    ],
)
def test_wrong_arguments(arguments: dict, what: str) -> None:
    with refused(what):
        RegionDistillation(student(), **arguments)
