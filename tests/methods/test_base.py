"""The protocol that every method shares: step, optimiser, scoring, checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spatialbench.data.batches import TrainingPlans, evaluation_loader, training_loader
from spatialbench.data.records import Record, RecordSet
from spatialbench.data.relations import RELATIONS
from spatialbench.methods.base import Method
from spatialbench.methods.clip import Clip
from spatialbench.methods.parts.finetuning import FineTuning, learning_rate_factor, parameter_groups
from spatialbench.methods.parts.objectives import negated_contrastive
from spatialbench.methods.residual_linear import ResidualLinear
from spatialbench.methods.spatial_attn import SpatialAttention
from spatialbench.utils.errors import SpatialbenchError
from tests.support.models import SAME, SIZE, batch, images, student


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))


class Data(L.LightningDataModule):
    """8 images of noise with 6 records each."""

    def __init__(self) -> None:
        super().__init__()
        pictures = images(8).permute(0, 2, 3, 1).numpy()
        names = ("sofa", "lamp", "bed")
        records = [
            Record(f"{row}", row // 6, names[row % 3], RELATIONS[row % 6], names[(row + 1) % 3])
            for row in range(48)
        ]
        self.train_set = self.val_set = self.test_set = RecordSet(
            "noise", pictures, records, "noise"
        )

    def train_dataloader(self) -> DataLoader:
        return training_loader(TrainingPlans(self.train_set, 4, 2, seed=0))

    def val_dataloader(self) -> DataLoader:
        return evaluation_loader(self.val_set, 3)

    def test_dataloader(self) -> DataLoader:
        return evaluation_loader(self.test_set, 3)


def trainer(folder: Path, **arguments: Any) -> L.Trainer:
    silent: dict[str, Any] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        num_sanity_val_steps=0,
        **{**silent, "max_steps": 2, **arguments},
    )


def silent(method: Method) -> Method:
    method.log = lambda *_, **__: None
    return method


# ------------------------------------------------------------------------------------------------- step
@pytest.mark.parametrize(
    "settings", [FineTuning(), FineTuning(negatives="none"), FineTuning(own_negation_weight=0.5)]
)
def test_the_step_is_the_objective_on_cosines(settings: FineTuning) -> None:
    method = silent(Clip(student(), settings))
    data = batch(4, 3)
    captions = sorted({*data["captions"], *data["negated"]})
    cosines = method.image(data["pixels"]) @ method.text(method.tokenize(captions)).T
    columns = [
        torch.tensor([captions.index(caption) for caption in data[part]])
        for part in ("captions", "negated")
    ]
    expected = negated_contrastive(
        cosines / 0.07, data["image"], *columns, settings.own_negation_weight, settings.negatives
    )
    torch.testing.assert_close(method.finetuning_loss(data), expected, rtol=1e-5, atol=1e-6)


def test_images_and_captions_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    method = silent(Clip(student()))
    rows: list[int] = []
    text = method.text
    monkeypatch.setattr(method, "text", lambda tokens: rows.append(len(tokens)) or text(tokens))
    data = batch(4, 6)
    method.finetuning_loss(data)
    method.finetuning = FineTuning(negatives="none")
    method.finetuning_loss(data)
    assert rows == [len({*data["captions"], *data["negated"]}), len({*data["captions"]})]
    assert rows[1] < 24


def test_images_of_another_size_or_type_are_one_line() -> None:
    method = Clip(student())
    for wrong in (images(1, size=SIZE + 8), images(1).float(), images(1)[0]):
        with pytest.raises(SpatialbenchError, match=f"set data.image_size to {SIZE}") as error:
            method.image(wrong)
        assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------- optimiser
def test_learning_rates_and_weight_decay() -> None:
    settings = FineTuning(lr=1.0, connection_lr=2.0, weight_decay=0.3)
    method = ResidualLinear(student(), SAME, cache=False, finetuning=settings)
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    seen = {}
    for group in parameter_groups(method.named_parameters(), settings):
        seen |= {
            names[id(parameter)]: (group["lr"], group["weight_decay"])
            for parameter in group["params"]
        }
    assert seen["student.visual.proj"] == (1.0, 0.3)
    assert seen["student.visual.ln_post.weight"] == (1.0, 0.0)
    assert seen["student.visual.class_embedding"] == (1.0, 0.0)
    assert seen["connections.query.0.weight"] == (2.0, 0.3)
    assert seen["connections.query.0.bias"] == (2.0, 0.0)
    assert "student.logit_scale" not in seen
    assert not any(name.startswith("vfm.") for name in seen)
    assert len(seen) == sum(parameter.requires_grad for parameter in method.parameters())
    free = Clip(student(), FineTuning(freeze_logit_scale=False))
    (scale,) = [
        group["weight_decay"]
        for group in parameter_groups(free.named_parameters(), free.finetuning)
        if any(parameter is free.student.logit_scale for parameter in group["params"])
    ]
    assert scale == 0.0


def test_the_schedule_by_hand() -> None:
    factor = learning_rate_factor(FineTuning(warmup_steps=3), 7)
    assert [factor(step) for step in range(3)] == [0.25, 0.5, 0.75]
    assert [factor(step) for step in range(3, 8)] == pytest.approx(
        [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)]
    )
    assert factor(100) == 0
    constant = learning_rate_factor(FineTuning(warmup_steps=1, schedule="constant"), math.inf)
    assert [constant(step) for step in range(3)] == [0.5, 1, 1]
    with pytest.raises(SpatialbenchError, match="needs an end"):
        learning_rate_factor(FineTuning(), math.inf)


def test_the_schedule_runs_over_the_trainers_steps(tmp_path: Path) -> None:
    seen = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    method = Clip(student(), FineTuning(lr=1e-3, warmup_steps=1))
    trainer(
        tmp_path,
        max_steps=5,
        max_epochs=-1,
        callbacks=[Watch()],
        limit_val_batches=0,
        enable_checkpointing=False,
    ).fit(method, datamodule=Data())
    expected = [
        1e-3 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)
    ]  # after step 1, 2, ...
    assert seen == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "finetuning.lr is -1.0"),
        ({"betas": (0.9, 1.0)}, "finetuning.betas"),
        ({"negatives": "few"}, "one of appended, none"),
        ({"schedule": "linear"}, "one of cosine, constant"),
        ({"warmup_steps": float("nan")}, "finetuning.warmup_steps is nan"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpatialbenchError, match=message):
        FineTuning(**settings)


def test_the_arguments_are_flags(tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Method, "model")
    init = {
        "student": student(),
        "vfm": SAME,
        "finetuning": {"lr": 0.5, "negatives": "none", "betas": [0.8, 0.9]},
    }
    page = {"class_path": "spatialbench.methods.spatial_attn.SpatialAttention", "init_args": init}
    method = parser.instantiate(parser.parse_object({"model": page})).model
    assert isinstance(method, SpatialAttention)
    assert method.finetuning == FineTuning(lr=0.5, negatives="none", betas=(0.8, 0.9))
    assert json.loads(json.dumps(dict(method.hparams))) == dict(method.hparams), "plain JSON types"
    own = {"value_connection", "vfm_normalisation", "projections"}
    assert {"student", "vfm", "cache", "finetuning", *own} == set(method.hparams)


# ------------------------------------------------------------------------------------------------- scoring
def test_scores_are_cosines_of_every_record_once(tmp_path: Path) -> None:
    method, data = Clip(student()), Data()
    trainer(tmp_path, precision="bf16-mixed").test(method, datamodule=data, verbose=False)
    assert method.test_outcomes is not None
    assert method.test_outcomes.record.tolist() == list(range(48))
    method.eval()
    with torch.no_grad():
        for row, record in enumerate(data.test_set.records):
            x = torch.from_numpy(
                data.test_set.images[record.image : record.image + 1].transpose(0, 3, 1, 2).copy()
            )
            texts = method.text(
                method.tokenize([record.statement.caption, record.statement.negated.caption])
            )
            expected = (method.image(x) @ texts.T)[0]
            found = [method.test_outcomes.positive[row], method.test_outcomes.negative[row]]
            assert found == pytest.approx(expected.tolist(), abs=1e-5), (
                "float32, also in mixed precision"
            )


def test_a_caption_is_encoded_once_per_evaluation_and_anew_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, data = Clip(student()), Data()
    rows: list[int] = []
    text = method.text
    monkeypatch.setattr(method, "text", lambda tokens: rows.append(len(tokens)) or text(tokens))
    distinct = {
        caption for pair in data.test_set.pairs() for caption in (pair.caption, pair.negated)
    }
    for count in (1, 2):
        trainer(tmp_path).test(method, datamodule=data, verbose=False)
        assert sum(rows) == count * len(distinct)


def test_metrics_are_logged_by_relation(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    (metrics,) = run.validate(Clip(student()), datamodule=Data(), verbose=False)
    assert set(metrics) == {f"val/{column}" for column in (*RELATIONS, "all", "macro")}
    assert metrics["val/all"] == pytest.approx(
        np.mean([metrics[f"val/{relation}"] for relation in RELATIONS]), abs=1e-4
    )
    method = Clip(student())
    run.test(method, datamodule=Data(), verbose=False)
    assert len(method.test_outcomes.record) == 48


def test_predictions(tmp_path: Path) -> None:
    method = Clip(student())
    parts = trainer(tmp_path).predict(method, Data().test_dataloader())
    assert parts is not None
    record = torch.cat([part["record"] for part in parts])
    assert record.tolist() == list(range(48))


# ------------------------------------------------------------------------------------------------- fit
class SameWords(Clip):
    """A student to whom every caption is the same."""

    def tokenize(self, captions: Any) -> Tensor:
        return super().tokenize(["The sofa."]).expand(len(captions), -1)


def test_a_constant_scorer_gets_exactly_one_half(tmp_path: Path) -> None:
    method = SameWords(student())
    trainer(tmp_path).test(method, datamodule=Data(), verbose=False)
    assert method.test_scores["all"] == 50
    assert (method.test_outcomes.margin == 0).all()


def test_no_steps_is_no_training(tmp_path: Path) -> None:
    """A page with ``trainer.max_steps: 0`` is the zero-shot row of its class."""
    method = SpatialAttention(student(), SAME)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    run = trainer(tmp_path, max_steps=0, enable_checkpointing=False)
    run.fit(method, datamodule=Data())
    assert len(method.vfm._cache) == 0, "nor is anything prepared for it"
    run.test(method, datamodule=Data(), verbose=False)
    assert all(value.equal(before[name]) for name, value in method.state_dict().items())


def test_fit_prepares_the_tokens_of_its_images(tmp_path: Path) -> None:
    method = SpatialAttention(student(), SAME)
    trainer(tmp_path, max_steps=1, enable_checkpointing=False).fit(method, datamodule=Data())
    assert len(method.vfm._cache) == 8


# ------------------------------------------------------------------------------------------------- checkpoint
def saved(folder: Path, method: Method, steps: int = 1) -> Path:
    run = trainer(folder, max_steps=steps, enable_checkpointing=False)
    run.fit(method, datamodule=Data())
    run.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def test_a_checkpoint_holds_the_student_and_no_vfm(tmp_path: Path) -> None:
    method = SpatialAttention(student(), SAME, value_connection=True)
    path = saved(tmp_path, method)
    checkpoint = torch.load(path, weights_only=True)
    assert {name.partition(".")[0] for name in checkpoint["state_dict"]} == {
        "student",
        "value_connection",
    }
    again = SpatialAttention(student(), SAME, value_connection=True)
    again.vfm.load_state_dict(method.vfm.state_dict())
    trainer(tmp_path).test(
        again, datamodule=Data(), ckpt_path=str(path), weights_only=True, verbose=False
    )
    trainer(tmp_path).test(method, datamodule=Data(), verbose=False)
    assert again.test_outcomes is not None
    assert method.test_outcomes is not None
    assert np.array_equal(again.test_outcomes.positive, method.test_outcomes.positive)


def test_a_method_is_built_from_its_checkpoint(tmp_path: Path) -> None:
    method = Clip(student(), FineTuning(lr=0.1, negatives="none"))
    again = Clip.load_from_checkpoint(saved(tmp_path, method), weights_only=True)
    assert again.finetuning == method.finetuning
    assert again.image(images(2)).equal(method.image(images(2)))


def test_a_resumed_training_is_the_same(tmp_path: Path) -> None:
    """The optimiser, the schedule and the order of the data go on where a checkpoint in the middle of an epoch was."""
    settings = FineTuning(lr=1e-2, warmup_steps=1)
    whole = Clip(student(), settings)
    keep = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
    trainer(tmp_path, max_steps=4, callbacks=[keep]).fit(whole, datamodule=Data())
    rest = Clip(student(), settings)
    trainer(tmp_path, max_steps=4, enable_checkpointing=False).fit(
        rest, datamodule=Data(), ckpt_path=str(tmp_path / "step=1.ckpt"), weights_only=True
    )
    for name, value in rest.state_dict().items():
        assert value.equal(whole.state_dict()[name]), name


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: Clip(student()),
            "is of spatialbench.methods.spatial_attn.SpatialAttention, this page is of",
        ),
        (lambda: SpatialAttention(student(), SAME), "trained with another VFM"),
        (
            lambda: SpatialAttention(student(), SAME, value_connection=True),
            r"another architecture .* is missing there",
        ),
        (
            lambda: SpatialAttention(student("short", text='{"layers": 1}'), SAME),
            "another architecture .*missing here",
        ),
        (
            lambda: SpatialAttention(student("narrow", text='{"width": 16}'), SAME),
            r"\(20, 32\) there and \(20, 16\) here",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit(tmp_path: Path, other: Any, message: str) -> None:
    path = saved(tmp_path, SpatialAttention(student(), SAME))
    with pytest.raises(SpatialbenchError, match=message) as error:
        trainer(tmp_path).test(
            other(), datamodule=Data(), ckpt_path=str(path), weights_only=True, verbose=False
        )
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(SpatialbenchError, match="something other than a spatialbench method"):
        Clip(student()).on_load_checkpoint({"state_dict": nn.Linear(1, 1).state_dict()})
