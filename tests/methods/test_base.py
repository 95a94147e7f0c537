"""The protocol that every method shares: step, optimiser, scoring, checkpoint."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader

import spatialbench
from spatialbench.data.batches import EvaluationPlans, TrainingPlans, loader
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.pairs import PairEvaluation
from spatialbench.methods.base import Method
from spatialbench.methods.clip import Clip
from spatialbench.methods.parts.finetuning import FineTuning, learning_rate_factor, parameter_groups
from spatialbench.methods.parts.objectives import negated_contrastive
from spatialbench.methods.residual_linear import ResidualLinear
from spatialbench.methods.spatial_attn import SpatialAttention
from spatialbench.models.open_clip_student import load_clip, transpose_projections
from tests.support import tiny
from tests.support.checks import refused
from tests.support.models import SAME, SIZE, batch, images, quiet, silent, student


class Data(L.LightningDataModule):
    """8 images of noise with 6 records each."""

    def __init__(self) -> None:
        super().__init__()
        self.train_set = self.val_set = self.test_set = tiny.record_set("noise", 8, 0)

    def train_dataloader(self) -> DataLoader:
        return loader(TrainingPlans(self.train_set, 4, 2, seed=0))

    def val_dataloader(self) -> DataLoader:
        return loader(EvaluationPlans(self.val_set, 3))

    test_dataloader = val_dataloader


def trainer(folder: Path, **arguments: Any) -> L.Trainer:
    fixed = {"default_root_dir": folder, "num_sanity_val_steps": 0, "max_steps": 2}
    return quiet(**{**fixed, **arguments})


def scored(folder: Path, method: Method, path: Path | None = None, **arguments: Any) -> Method:
    checkpoint = {} if path is None else {"ckpt_path": str(path), "weights_only": True}
    trainer(folder, **arguments).test(method, datamodule=Data(), verbose=False, **checkpoint)
    return method


def text_rows(method: Method, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of captions of each call of ``text``."""
    rows: list[int] = []
    text = method.text
    monkeypatch.setattr(method, "text", lambda tokens: rows.append(len(tokens)) or text(tokens))
    return rows


@pytest.mark.parametrize(
    "settings",
    [
        FineTuning(),
        FineTuning(negatives="none"),
        FineTuning(own_negation_weight=0.5),
        FineTuning(negatives="none", own_negation_weight=0.5),
    ],
)
def test_the_step_is_the_objective_on_cosines(settings: FineTuning) -> None:
    method, data = silent(Clip(student(), settings)), batch(4, 3)
    captions = sorted({*data["captions"], *data["negated"]})
    cosines = method.image(data["pixels"]) @ method.text(method.tokenize(captions)).T
    columns = [
        torch.tensor([captions.index(caption) for caption in data[part]])
        for part in ("captions", "negated")
    ]
    options = settings.own_negation_weight, settings.negatives
    expected = negated_contrastive(cosines / 0.07, data["image"], *columns, *options)
    torch.testing.assert_close(method.finetuning_loss(data), expected, rtol=1e-5, atol=1e-6)


def test_the_loss_is_float32_in_mixed_precision() -> None:
    method, data = silent(Clip(student(), FineTuning(negatives="none"))), batch(4, 3)
    images = method.image(data["pixels"])
    texts = {text: method.text(method.tokenize([text])) for text in data["captions"]}
    method.text = lambda tokens: torch.cat([*texts.values()])
    exact = method.finetuning_loss(data, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert method.finetuning_loss(data, images).equal(exact)


def test_the_temperature_learns_if_it_is_not_frozen() -> None:
    method = silent(Clip(student(), FineTuning(freeze_logit_scale=False)))
    method.finetuning_loss(batch(4, 3)).backward()
    assert method.student.logit_scale.grad.any()


def test_captions_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    method, data = silent(Clip(student())), batch(4, 6)
    rows = text_rows(method, monkeypatch)
    method.finetuning_loss(data)
    method.finetuning = FineTuning(negatives="none")
    method.finetuning_loss(data)
    assert rows == [len({*data["captions"], *data["negated"]}), len({*data["captions"]})]
    assert rows[1] < 24


def test_images_of_another_size_or_type_are_one_line() -> None:
    method = Clip(student())
    for wrong in (images(1, size=SIZE + 8), images(1).float(), images(1)[0]):
        with refused(f"set data.image_size to {SIZE}"):
            method.image(wrong)
    with refused(r"multiples of 8 and 8; got uint8 \[1, 3, 36, 36\]"):
        method.dense(images(1, size=36))


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    method = Clip(student())
    with refused(r"the loss is nan at step 0: lower .*lr"):
        method.on_before_backward(torch.tensor(float("nan")))
    method.on_before_backward(torch.tensor(1.0))


class Forgetful(Clip):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        super().training_step(batch, batch_idx)  # and no return


def test_a_step_without_a_loss_stops_the_training(tmp_path: Path) -> None:
    with refused("Forgetful.training_step returned None: return the loss"):
        trainer(tmp_path).fit(Forgetful(student()), datamodule=Data())


def test_learning_rates_and_weight_decay() -> None:
    settings = FineTuning(lr=1.0, connection_lr=2.0, weight_decay=0.3)
    method = ResidualLinear(student(), SAME, cache=False, finetuning=settings)
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    seen = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(method.named_parameters(), settings)
        for parameter in group["params"]
    }
    assert seen["student.visual.proj"] == (1.0, 0.3)
    assert seen["student.visual.ln_post.weight"] == (1.0, 0.0)
    assert seen["student.visual.class_embedding"] == (1.0, 0.0)
    assert seen["connections.query.0.weight"] == (2.0, 0.3)
    assert seen["connections.query.0.bias"] == (2.0, 0.0)
    trained = {name for name, p in method.named_parameters() if p.requires_grad}
    assert set(seen) == trained
    assert not any(name.startswith(("vfm.", "student.logit_scale")) for name in trained)
    free = Clip(student(), FineTuning(freeze_logit_scale=False))
    (scale,) = (
        group["weight_decay"]
        for group in parameter_groups(free.named_parameters(), free.finetuning)
        if any(parameter is free.student.logit_scale for parameter in group["params"])
    )
    assert scale == 0.0


def test_the_schedule_by_hand() -> None:
    factor = learning_rate_factor(FineTuning(warmup_steps=3), 7)
    half_cosine = [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)]
    assert [factor(step) for step in range(8)] == pytest.approx([0.25, 0.5, 0.75, *half_cosine])
    assert factor(100) == 0
    constant = learning_rate_factor(FineTuning(warmup_steps=1, schedule="constant"), math.inf)
    assert [constant(step) for step in range(3)] == [0.5, 1, 1]
    with refused("needs an end"):
        learning_rate_factor(FineTuning(), math.inf)


def test_the_schedule_runs_over_the_trainers_steps(tmp_path: Path) -> None:
    seen = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    run = {"max_steps": 5, "max_epochs": -1, "limit_val_batches": 0}
    method = Clip(student(), FineTuning(lr=1e-3, warmup_steps=1))
    trainer(tmp_path, callbacks=[Watch()], **run).fit(method, datamodule=Data())
    assert seen == pytest.approx([1e-3 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "finetuning.lr is -1.0"),
        ({"betas": (0.9, 1.0)}, "finetuning.betas"),
        ({"negatives": "few"}, "one of appended, none"),
        ({"schedule": "linear"}, "one of cosine, constant"),
        ({"warmup_steps": float("nan")}, "finetuning.warmup_steps is nan"),
        ({"chunk_images": -1}, "finetuning.chunk_images is -1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with refused(message):
        FineTuning(**settings)


def test_the_arguments_are_flags() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Method, "model")
    settings = {"lr": 0.5, "negatives": "none", "betas": [0.8, 0.9]}
    init = {"student": student(), "vfm": SAME, "finetuning": settings}
    page = {"class_path": "spatialbench.methods.spatial_attn.SpatialAttention", "init_args": init}
    method = parser.instantiate(parser.parse_object({"model": page})).model
    assert isinstance(method, SpatialAttention)
    assert method.finetuning == FineTuning(lr=0.5, negatives="none", betas=(0.8, 0.9))
    assert json.loads(json.dumps(dict(method.hparams))) == dict(method.hparams), "plain JSON types"
    own = {"value_connection", "vfm_normalisation"}
    assert {"student", "vfm", "cache", "finetuning", *own} == set(method.hparams)


def test_every_method_starts_from_scrambled_projections_once(tmp_path: Path) -> None:
    """Neither a checkpoint nor an earlier stage is transposed again."""
    plain, settings = load_clip(student()), FineTuning(lr=0.0, projections="transposed")
    save_file(plain.state_dict(), tmp_path / "weights.safetensors")
    spec = f"{student().removesuffix(':random')}:{tmp_path / 'weights.safetensors'}"
    transpose_projections(plain)

    def scrambled(method: Method) -> bool:
        state = method.student.state_dict()
        return all(value.equal(state[name]) for name, value in plain.state_dict().items())

    method = Clip(spec, settings)
    assert scrambled(method)
    assert scrambled(SpatialAttention(spec, SAME, finetuning=settings))
    assert not scrambled(Clip(spec))
    again = Clip.load_from_checkpoint(saved(tmp_path, method), weights_only=True)
    assert scrambled(again)
    again.start_from(method.state_dict(), "the earlier stage")
    assert scrambled(again)


def test_the_package_exports_what_a_user_imports() -> None:
    assert all(getattr(spatialbench, name) is not None for name in spatialbench.__all__)
    assert spatialbench.Method is Method
    with pytest.raises(AttributeError, match="has no attribute 'Clip'"):
        spatialbench.Clip  # noqa: B018


def test_scores_are_cosines_of_every_record_once(tmp_path: Path) -> None:
    """Use float32, also in mixed precision."""
    method, data = scored(tmp_path, Clip(student()), precision="bf16-mixed").eval(), Data().test_set
    assert method.test_outcomes.record.tolist() == list(range(48))
    pixels = torch.from_numpy(data.images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        for row, record in enumerate(data.records):
            captions = [record.statement.caption, record.statement.negated.caption]
            texts = method.text(method.tokenize(captions))
            expected = (method.image(pixels[record.image : record.image + 1]) @ texts.T)[0]
            scores = [method.test_outcomes.positive[row], method.test_outcomes.negative[row]]
            assert scores == pytest.approx(expected.tolist(), abs=1e-5)
    evidence = PairEvaluation(data, batch_images=2).run(method)
    assert evidence.answers()[0] == pytest.approx(method.test_outcomes.margin, abs=1e-5)
    assert evidence.data == data.fingerprint


def test_a_caption_is_encoded_once_per_evaluation_and_anew_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Clip(student())
    said = [record.statement for record in Data().test_set.records]
    rows = text_rows(method, monkeypatch)
    distinct = {each.caption for one in said for each in (one, one.negated)}
    for count in (1, 2):
        scored(tmp_path, method)
        assert sum(rows) == count * len(distinct)


def test_metrics_are_logged_by_relation(tmp_path: Path) -> None:
    method = Clip(student())
    (metrics,) = trainer(tmp_path).validate(method, datamodule=Data(), verbose=False)
    assert set(metrics) == {f"val/{column}" for column in (*RELATIONS, "all", "macro")}
    mean = np.mean([metrics[f"val/{relation}"] for relation in RELATIONS])
    assert metrics["val/all"] == pytest.approx(mean, abs=1e-4)
    assert len(scored(tmp_path, method).test_outcomes.record) == 48
    parts = trainer(tmp_path).predict(method, Data().test_dataloader())
    assert torch.cat([part["record"] for part in parts]).tolist() == list(range(48))


@pytest.mark.parametrize(("steps", "cached"), [(0, 0), (1, 8)])
def test_fit_prepares_its_images_and_no_steps_is_no_training(
    tmp_path: Path, steps: int, cached: int
) -> None:
    """A page with ``trainer.max_steps: 0`` is the zero-shot row of its class."""
    method = SpatialAttention(student(), SAME)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    run = trainer(tmp_path, max_steps=steps)
    run.fit(method, datamodule=Data())
    assert len(method.vfm._cache.cache) == cached
    run.test(method, datamodule=Data(), verbose=False)
    same = all(value.equal(before[name]) for name, value in method.state_dict().items())
    assert same == (steps == 0)


def saved(folder: Path, method: Method) -> Path:
    run = trainer(folder, max_steps=1)
    run.fit(method, datamodule=Data())
    run.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def test_a_checkpoint_holds_the_student_and_no_vfm(tmp_path: Path) -> None:
    method, again = (SpatialAttention(student(), SAME, value_connection=True) for _ in range(2))
    path = saved(tmp_path, method)
    state = torch.load(path, weights_only=True)["state_dict"]
    assert {name.partition(".")[0] for name in state} == {"student", "value_connection"}
    again.vfm.load_state_dict(method.vfm.state_dict())
    loaded, trained = scored(tmp_path, again, path), scored(tmp_path, method)
    assert np.array_equal(loaded.test_outcomes.positive, trained.test_outcomes.positive)


def test_a_method_is_built_from_its_checkpoint(tmp_path: Path) -> None:
    method = Clip(student(), FineTuning(lr=0.1, negatives="none"))
    again = Clip.load_from_checkpoint(saved(tmp_path, method), weights_only=True)
    assert again.finetuning == method.finetuning
    assert again.image(images(2)).equal(method.image(images(2)))


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        ((), None, "is of spatialbench.methods.spatial_attn.SpatialAttention, not of"),
        ((), {}, "trained with another VFM"),
        ((), {"value_connection": True}, r"another architecture .* is missing there"),
        (("short", '{"layers": 1}'), {}, "another architecture .*missing here"),
        (("narrow", '{"width": 16}'), {}, r"\(20, 32\) there and \(20, 16\) here"),
    ],
)
def test_a_checkpoint_that_does_not_fit(
    tmp_path: Path, spec: tuple[str, ...], arguments: dict[str, Any] | None, message: str
) -> None:
    path = saved(tmp_path, SpatialAttention(student(), SAME))
    name = student(spec[0], text=spec[1]) if spec else student()
    other = Clip(name) if arguments is None else SpatialAttention(name, SAME, **arguments)
    with refused(message):
        scored(tmp_path, other, path)


def test_a_checkpoint_of_something_else() -> None:
    with refused("something other than a spatialbench method"):
        Clip(student()).on_load_checkpoint({"state_dict": nn.Linear(1, 1).state_dict()})
