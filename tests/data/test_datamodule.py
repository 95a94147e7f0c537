"""The datamodule: files and splits, and an order of batches that survives interruptions."""

import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from spatialbench.data.batches import Batch, EvaluationPlans, TrainingPlans, loader
from spatialbench.data.datamodule import PairDataModule, part
from spatialbench.data.user_image import predict_set
from tests.data.test_batches import check_batch, rows
from tests.support.checks import refused
from tests.support.records import depth, direction, jpeg, small_set, text, write

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def file(tmp_path: Path) -> str:
    """11 images: image i has a direction record and, for even i, a far record of three options."""
    raws = []
    for i in range(11):
        image = text(jpeg(i))
        raws.append(direction(f"d{i}", image=image))
        if i % 2 == 0:
            raws.append(depth(f"f{i}", names=("sofa", "bed", "window"), answer=0, image=image))
    return str(write(tmp_path / "file.json", raws))


def embspatial(stage: str | None = None, **arguments: Any) -> PairDataModule:
    data = PairDataModule("embspatial", **{"image_size": 16, "batch_images": 2, **arguments})
    if stage:
        data.setup(stage)
    return data


def test_workers_change_nothing_and_are_at_most_as_many_as_cores(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = embspatial("test", path=file, eval_batch_images=3)
    alone = list(data.test_dataloader())
    data.workers = 2
    for batch, other in zip(alone, data.test_dataloader(), strict=True):
        assert torch.equal(batch["pixels"], other["pixels"])
        assert torch.equal(batch["record"], other["record"])
        assert batch["captions"] == other["captions"]
    monkeypatch.setattr("spatialbench.data.datamodule.usable_cores", lambda: 3)
    assert [embspatial(path=file, workers=n).workers for n in (0, 2, 8)] == [0, 2, 3]


def test_a_file_is_tested_instead_of_the_tracks_test_set(file: str) -> None:
    data = PairDataModule("rooms", path=file, image_size=16, eval_batch_images=4, mirror=1.0)
    data.setup("test")
    assert len(data.test_set.records) == 11 + 6 * 2
    for batch in data.test_dataloader():
        check_batch(batch, data.test_set)  # never mirrored
    assert sorted(chain(*rows(data.test_dataloader()))) == list(range(23))
    data.setup("validate")
    assert data.val_set is data.test_set
    data.setup("predict")
    assert sorted(chain(*rows(data.predict_dataloader()))) == list(range(23))


def test_training_and_validation_share_no_image(file: str) -> None:
    data = embspatial("fit", train_path=file, train_images=6, val_images=3)
    assert (len(data.train_set.images), len(data.val_set.images)) == (6, 3)
    train = {image.tobytes() for image in data.train_set.images}
    assert not train & {image.tobytes() for image in data.val_set.images}
    names = {record.record_id for record in data.val_set.records}
    assert names == {"d8", "f8#1", "f8#2", "d9", "d10", "f10#1", "f10#2"}
    for batch in data.val_dataloader():
        check_batch(batch, data.val_set)
    for batch in data.train_dataloader():
        check_batch(batch, data.train_set)


def test_a_validation_file_leaves_the_training_file_whole(file: str) -> None:
    data = embspatial("fit", train_path=file, val_path=file, val_images=4)
    assert (len(data.train_set.images), len(data.val_set.images)) == (11, 4)


def test_files_that_share_images_are_reported(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raws = [direction("x", image=text(jpeg(4))), direction("y", image=text(jpeg(99)))]
    other = write(tmp_path / "other.json", raws)
    data = embspatial("fit", train_path=file, path=str(other), val_images=2)
    data.setup("test")
    assert f"{other} shares 1 of its 2 images with {file}" in capsys.readouterr().err


def test_dropped_records_are_reported_in_one_line_and_strict_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raws = [direction("good"), direction("bad") | {"relation": "on"}]
    path = str(write(tmp_path / "file.json", raws))
    embspatial("test", path=path)
    (line,) = capsys.readouterr().err.splitlines()
    assert "1 of 2 questions kept" in line
    assert "unknown_relation 1" in line
    assert "record 'bad'" in line
    assert f"spatialbench data check {path}" in line
    with refused("record 'bad': unknown relation 'on'"):
        embspatial("test", path=path, strict=True)


@pytest.mark.parametrize(
    ("arguments", "stage", "message"),
    [
        ({"batch_images": 12, "train_path": 0, "val_path": 0}, "fit", "11 images .* batch of 12"),
        ({"train_path": 0, "val_images": 11}, "fit", "all of them held out"),
        ({}, "fit", "data.train_path"),
        ({"train_path": 0}, "test", "data.path"),
    ],
)
def test_unusable_data_is_one_line(
    file: str, arguments: dict[str, Any], stage: str, message: str
) -> None:
    given = {name: value or file for name, value in arguments.items()}
    with refused(message):
        embspatial(stage, **given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "missing.json"}, r"data\.path: there is no file missing\.json"),
        ({"train_path": "missing.json"}, r"data\.train_path"),
        ({"batch_images": 0}, r"data\.batch_images is 0; it must be 1 or more"),
        ({"image_size": 4}, r"data\.image_size"),
        ({"workers": -1}, r"data\.workers"),
        ({"held_out": 0}, r"data\.held_out is 0; it must be between 0 and 1"),
        ({"held_out": 1}, r"data\.held_out is 1"),
        ({"unseen_pairs": -0.1}, r"data\.unseen_pairs is -0\.1; it must be 0 or more"),
        ({"unseen_pairs": 1.0}, r"data\.unseen_pairs is 1\.0; .* less than 1"),
        ({"mirror": 1.1}, r"data\.mirror is 1\.1; it must be between 0 and 1"),
    ],
)
def test_arguments_are_checked_before_anything_runs(
    arguments: dict[str, Any], message: str
) -> None:
    with refused(message):
        PairDataModule(**arguments)


def test_rooms_come_through_their_load(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(split: str, images: int | None, size: int) -> Any:
        calls.append((split, images, size))
        return SimpleNamespace(record_set=lambda: small_set(images or 9))

    monkeypatch.setitem(sys.modules, "spatialbench.data.rooms", SimpleNamespace(load=load))
    data = PairDataModule("rooms", image_size=16, train_images=7, val_images=5, batch_images=2)
    data.prepare_data()
    data.setup()
    assert calls == [("train", 7, 16), ("val", 5, 16), ("test", None, 16)]
    sets = (data.train_set, data.val_set, data.test_set)
    assert [len(record_set.images) for record_set in sets] == [7, 5, 9]


def test_a_part_has_its_own_fingerprint_and_rows() -> None:
    whole = small_set(7)
    tail = part(whole, 4, 7)
    assert [record.image for record in tail.records] == [0, 0, 1, 1, 1, 2]
    assert np.array_equal(tail.images[1], whole.images[5])
    assert len({whole.fingerprint, tail.fingerprint, part(whole, 3, 7).fingerprint}) == 3
    assert part(whole, 0, 9) is whole


class Listener(lightning.LightningModule):
    """Learns nothing and notes the records it is shown."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.stop_after = stop_after
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: Batch) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch["record"].tolist()))
        if self.stop_after == self.global_step + 1:
            self.trainer.should_stop = True
        return self.weight.sum()

    def validation_step(self, batch: Batch) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    tmp_path: Path, file: str, module: Listener, steps: int, ckpt: str | None = None, **changes: Any
) -> Listener:
    data = embspatial(train_path=file, val_images=1, batch_images=3, seed=2)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)],
        **changes,
    )
    trainer.fit(module, data, ckpt_path=ckpt, weights_only=True if ckpt else None)
    return module


@pytest.mark.parametrize("limit", [None, 2])
def test_a_resumed_training_sees_what_it_would_have_seen(
    tmp_path: Path, file: str, limit: int | None
) -> None:
    """10 images in batches of 3, epochs of 3 steps, interrupted at every place of an epoch."""
    changes = {} if limit is None else {"limit_train_batches": limit}
    whole = fit(tmp_path / "whole", file, Listener(), 8, **changes).seen
    assert [epoch for epoch, _ in whole] == [step // (limit or 3) for step in range(8)]
    for stop in (1, 2, 3, 4, 5, 6):
        folder = tmp_path / f"stop{stop}"
        before = fit(folder, file, Listener(stop), 8, **changes).seen
        after = fit(folder, file, Listener(), 8, str(folder / "last.ckpt"), **changes).seen
        assert before == whole[:stop]
        assert after == whole[stop:], f"interrupted after {stop} steps"


def test_an_epoch_may_be_interrupted_after_every_batch() -> None:
    def epoch(state: dict[str, Any]) -> DataLoader[Batch]:
        batches: Any = loader(TrainingPlans(small_set(11), 2, 2, seed=5))
        batches.load_state_dict(state)
        return batches

    state: dict[str, Any] = {"epoch": 0, "seen": 0}
    for wanted in rows(epoch(state)):
        batches: Any = epoch(state)
        assert next(iter(batches))["record"].tolist() == wanted
        state = batches.state_dict()


def test_a_users_image_and_captions(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    given = ["The night stand is left of the lamp.", "the bed is farther than the sofa"]
    record_set = predict_set(tmp_path / "photo.jpg", given, 16)
    (batch,) = loader(EvaluationPlans(record_set, 1))
    assert batch["pixels"].shape == (1, 3, 16, 16)
    assert batch["captions"] == [given[0], "The bed is farther than the sofa."]
    assert batch["negated"] == [
        "The lamp is left of the night stand.",
        "The sofa is farther than the bed.",
    ]
    assert record_set.records[0].image_size == (64, 48)


@pytest.mark.parametrize(
    ("content", "caption", "message"),
    [
        (None, "The a is left of the b.", r"cannot read the image .*photo\.jpg: No such file"),
        (jpeg()[:-200], "The a is left of the b.", r"photo\.jpg: the image .*\(.*truncated"),
        (b"hello", "The a is left of the b.", r"photo\.jpg: not an image"),
        (b"", "The a is left of the b.", r"photo\.jpg: the image is empty"),
        (jpeg(), "The a is near the b.", "cannot read the caption 'The a is near the b.'"),
        (jpeg(), None, "there is no caption"),
    ],
)
def test_an_unusable_image_or_caption_is_one_line(
    tmp_path: Path, content: bytes | None, caption: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "photo.jpg").write_bytes(content)
    with refused(message):
        predict_set(tmp_path / "photo.jpg", [caption] if caption else [], 16)
