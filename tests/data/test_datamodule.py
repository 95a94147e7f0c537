"""Batches: every record exactly once where it counts, the same order for the same seed, also after an interruption."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from spatialbench.data.batches import Batch, TrainingPlans, evaluation_loader, training_loader
from spatialbench.data.datamodule import PairDataModule, part
from spatialbench.data.user_image import predict_set
from spatialbench.data.records import Record, RecordSet
from spatialbench.utils.errors import SpatialbenchError
from tests.support.records import depth, direction, jpeg, small_set, text, write


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> str:
    """11 images; image i has a direction record and, where i is even, a far record of three options."""
    raws = []
    for i in range(11):
        raws.append(direction(f"d{i}", image=text(jpeg(i))))
        if i % 2 == 0:
            raws.append(
                depth(f"f{i}", names=("sofa", "bed", "window"), answer=0, image=text(jpeg(i)))
            )
    return str(write(tmp_path / "file.json", raws))


def rows(loader: DataLoader[Batch]) -> list[list[int]]:
    return [batch["record"].tolist() for batch in loader]


def check_batch(batch: Batch, record_set: RecordSet) -> None:
    """What a batch says of its records, in plain Python."""
    count = len(batch["captions"])
    assert count == len(batch["negated"]) == len(batch["image"]) == len(batch["record"])
    assert batch["pixels"].dtype == torch.uint8
    assert batch["pixels"].is_contiguous()
    assert batch["image"].dtype == batch["record"].dtype == torch.int64
    images = {}
    for k in range(count):
        record = record_set.records[int(batch["record"][k])]
        row = int(batch["image"][k])
        assert images.setdefault(row, record.image) == record.image
        assert np.array_equal(
            batch["pixels"][row].permute(1, 2, 0).numpy(), record_set.images[record.image]
        )
        assert batch["captions"][k] == record.statement.caption
        assert batch["negated"][k] == record.statement.negated.caption
    assert sorted(images) == list(range(len(batch["pixels"])))
    assert len(set(images.values())) == len(images)  # distinct


@pytest.mark.parametrize("batch_images", [1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_record_exactly_once(batch_images: int, world: int) -> None:
    record_set = small_set(7)
    seen: Counter[int] = Counter()
    alone = rows(evaluation_loader(record_set, batch_images))
    steps = {
        len(evaluation_loader(record_set, batch_images, 0, world, rank)) for rank in range(world)
    }
    assert steps == {-(-len(alone) // world)}, "all ranks have as many batches"
    for rank in range(world):
        for batch in evaluation_loader(record_set, batch_images, 0, world, rank):
            check_batch(batch, record_set)
            assert len(batch["pixels"]) <= batch_images
            assert batch["record"].tolist() in [*alone, []], (
                "the same batches whatever the number of ranks"
            )
            seen.update(batch["record"].tolist())
    assert seen == Counter(range(len(record_set.records)))


def test_evaluation_keeps_the_records_of_an_image_together_and_passes_over_images_without_one() -> (
    None
):
    whole = small_set(7)
    records = [record for record in whole.records[::-1] if record.image not in (2, 5)]
    record_set = RecordSet("x", whole.images, records, "x")
    batches = list(evaluation_loader(record_set, 2))
    where: dict[int, set[int]] = {}
    for i, batch in enumerate(batches):
        check_batch(batch, record_set)
        for row in batch["record"].tolist():
            where.setdefault(records[row].image, set()).add(i)
    assert sorted(where) == [0, 1, 3, 4, 6]
    assert all(len(found) == 1 for found in where.values())


def test_a_training_epoch_is_distinct_images_and_some_records_of_each() -> None:
    record_set = small_set(11)
    plans = TrainingPlans(record_set, batch_images=3, records_per_image=2, seed=5)
    batches = list(training_loader(plans))
    assert len(batches) == len(plans) == 3
    seen: Counter[int] = Counter()
    for batch in batches:
        check_batch(batch, record_set)
        assert len(batch["pixels"]) == 3
        assert batch["image"].bincount().max() <= 2
        assert len(set(batch["record"].tolist())) == len(batch["record"])
        images = {record_set.records[row].image for row in batch["record"].tolist()}
        available = sum(min(2, 1 + image % 3) for image in images)
        assert len(batch["record"]) == available
        seen.update(images)
    assert max(seen.values()) == 1


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def epoch(seed: int, number: int, start: int = 0) -> list[list[int]]:
        plans = TrainingPlans(small_set(11), batch_images=3, records_per_image=2, seed=seed)
        plans.set_epoch(number)
        plans.resume = (number, start)
        return rows(training_loader(plans))

    assert epoch(1, 4) == epoch(1, 4)
    assert epoch(1, 4, start=2) == epoch(1, 4)[2:]
    assert len({str(epoch(seed, number)) for seed in range(3) for number in range(3)}) == 9


def test_over_epochs_every_record_is_drawn() -> None:
    plans = TrainingPlans(small_set(11), batch_images=3, records_per_image=1, seed=0)
    seen: Counter[int] = Counter()
    for number in range(60):
        plans.set_epoch(number)
        seen.update(int(row) for plan in plans for group in plan for row in group)
    assert sorted(seen) == list(range(len(small_set(11).records)))


def test_ranks_share_an_epoch_without_overlap() -> None:
    record_set = small_set(11)
    alone = rows(training_loader(TrainingPlans(record_set, 2, 2, seed=3)))
    ranks = [
        rows(training_loader(TrainingPlans(record_set, 2, 2, 3, world=2, rank=rank)))
        for rank in range(2)
    ]
    assert [len(batches) for batches in ranks] == [2, 2]
    assert [ranks[0][0], ranks[1][0], ranks[0][1], ranks[1][1]] == alone[:4]


def test_workers_change_nothing(file: str) -> None:
    data = PairDataModule("embspatial", path=file, image_size=16, eval_batch_images=3)
    data.setup("test")
    alone = list(data.test_dataloader())
    data.workers = 2
    for one, other in zip(alone, data.test_dataloader(), strict=True):
        assert torch.equal(one["pixels"], other["pixels"])
        assert torch.equal(one["record"], other["record"])
        assert one["captions"] == other["captions"]


def test_as_many_workers_as_cores(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spatialbench.data.datamodule.usable_cores", lambda: 3)
    assert [
        PairDataModule("embspatial", path=file, workers=count).workers for count in (0, 2, 8)
    ] == [0, 2, 3]


def test_a_file_is_tested_in_the_place_of_the_tracks_test_set(file: str) -> None:
    data = PairDataModule("rooms", path=file, image_size=16, eval_batch_images=4)
    data.setup("test")
    assert len(data.test_set.records) == 11 + 6 * 2
    seen = sorted(row for batch in rows(data.test_dataloader()) for row in batch)
    assert seen == list(range(23))
    data.setup("validate")
    assert data.val_set is data.test_set
    data.setup("predict")
    assert sum(len(batch) for batch in rows(data.predict_dataloader())) == 23


def test_training_and_validation_share_no_image(file: str) -> None:
    data = PairDataModule(
        "embspatial", train_path=file, image_size=16, train_images=6, val_images=3, batch_images=2
    )
    data.setup("fit")
    assert (len(data.train_set.images), len(data.val_set.images)) == (6, 3)
    train = {image.tobytes() for image in data.train_set.images}
    assert not train & {image.tobytes() for image in data.val_set.images}
    assert {record.record_id for record in data.val_set.records} == {
        "d8",
        "f8#1",
        "f8#2",
        "d9",
        "d10",
        "f10#1",
        "f10#2",
    }
    for batch in data.val_dataloader():
        check_batch(batch, data.val_set)
    for batch in data.train_dataloader():
        check_batch(batch, data.train_set)


def test_a_validation_file_leaves_the_training_file_whole(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = PairDataModule(
        "embspatial", train_path=file, val_path=file, image_size=16, val_images=4, batch_images=2
    )
    data.setup("fit")
    assert (len(data.train_set.images), len(data.val_set.images)) == (11, 4)


def test_files_that_share_images_are_named(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(
        tmp_path / "other.json",
        [direction("x", image=text(jpeg(4))), direction("y", image=text(jpeg(99)))],
    )
    data = PairDataModule(
        "embspatial", train_path=file, path=str(other), image_size=16, val_images=2, batch_images=2
    )
    data.setup("fit")
    data.setup("test")
    assert f"{other} shares 1 of its 2 images with {file}" in capsys.readouterr().err


def test_dropped_records_are_told_in_one_line_and_strict_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(
        write(tmp_path / "file.json", [direction("good"), direction("bad") | {"relation": "on"}])
    )
    data = PairDataModule(path=path, image_size=16)
    data.setup("test")
    (line,) = capsys.readouterr().err.splitlines()
    assert "1 of 2 questions kept" in line
    assert "unknown_relation 1" in line
    assert "record 'bad'" in line
    assert f"spatialbench data check {path}" in line
    assert data.reports[path].dropped.total() == 1
    with pytest.raises(SpatialbenchError, match="record 'bad': unknown relation 'on'"):
        PairDataModule(path=path, image_size=16, strict=True).setup("test")


@pytest.mark.parametrize(
    ("arguments", "stage", "message"),
    [
        (
            {"batch_images": 12, "train_path": "FILE", "val_path": "FILE"},
            "fit",
            "11 images .* one batch of 12",
        ),
        ({"train_path": "FILE", "val_images": 11}, "fit", "all of them held out"),
        ({}, "fit", "data.train_path"),
        ({"train_path": "FILE"}, "test", "data.path"),
    ],
)
def test_data_that_does_not_do_is_one_line(
    file: str, arguments: dict[str, Any], stage: str, message: str
) -> None:
    arguments = {name: file if value == "FILE" else value for name, value in arguments.items()}
    data = PairDataModule("embspatial", image_size=16, **arguments)
    with pytest.raises(SpatialbenchError, match=message) as caught:
        data.setup(stage)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "missing.json"}, r"data\.path: there is no file missing\.json"),
        ({"train_path": "missing.json"}, r"data\.train_path"),
        ({"batch_images": 0}, r"data\.batch_images is 0; it must be 1 or more"),
        ({"image_size": 4}, r"data\.image_size"),
        ({"workers": -1}, r"data\.workers"),
    ],
)
def test_arguments_are_checked_before_anything_runs(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpatialbenchError, match=message):
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
    assert [len(chosen.images) for chosen in (data.train_set, data.val_set, data.test_set)] == [
        7,
        5,
        9,
    ]


def test_a_part_has_its_own_fingerprint_and_rows() -> None:
    whole = small_set(7)
    tail = part(whole, 4, 7)
    assert [record.image for record in tail.records] == [0, 0, 1, 1, 1, 2]
    assert np.array_equal(tail.images[1], whole.images[5])
    assert len({whole.fingerprint, tail.fingerprint, part(whole, 3, 7).fingerprint}) == 3
    assert part(whole, 0, 9) is whole


class Listener(lightning.LightningModule):
    """Learns nothing and writes down which records it is shown."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.stop_after = stop_after
        self.heard: list[tuple[int, list[int]]] = []
        self.predicted: list[int] = []

    def training_step(self, batch: Batch) -> torch.Tensor:
        self.heard.append((self.current_epoch, batch["record"].tolist()))
        if self.stop_after == self.global_step + 1:
            self.trainer.should_stop = True
        return self.weight.sum()

    def validation_step(self, batch: Batch) -> None:
        pass

    def predict_step(self, batch: Batch) -> None:
        self.predicted += batch["record"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(
    tmp_path: Path, file: str, module: Listener, steps: int, ckpt: str | None = None, **changes: Any
) -> Listener:
    data = PairDataModule(
        "embspatial", train_path=file, image_size=16, val_images=1, batch_images=3, seed=2
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[
            ModelCheckpoint(tmp_path / "checkpoints", save_last=True, every_n_train_steps=1)
        ],
        **changes,
    )
    trainer.fit(module, data, ckpt_path=ckpt, weights_only=True if ckpt else None)
    return module


@pytest.mark.parametrize("limit", [None, 2])
def test_a_resumed_training_sees_what_it_would_have_seen(
    tmp_path: Path, file: str, limit: int | None
) -> None:
    """10 training images in batches of 3: epochs of 3 steps; interrupted at every place of an epoch."""
    changes = {} if limit is None else {"limit_train_batches": limit}
    whole = fit(tmp_path / "whole", file, Listener(), 8, **changes).heard
    assert [epoch for epoch, _ in whole] == [step // (limit or 3) for step in range(8)]
    for stop in (1, 2, 3, 4, 5, 6):
        folder = tmp_path / f"stop{stop}"
        before = fit(folder, file, Listener(stop), 8, **changes).heard
        after = fit(
            folder, file, Listener(), 8, str(folder / "checkpoints" / "last.ckpt"), **changes
        ).heard
        assert before == whole[:stop]
        assert after == whole[stop:], f"interrupted after {stop} steps"


def test_lightning_predicts_every_record_once(tmp_path: Path, file: str) -> None:
    module = Listener()
    data = PairDataModule(path=file, image_size=16, eval_batch_images=4)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.predict(module, data)
    assert sorted(module.predicted) == list(range(23))


def test_a_users_picture_and_captions(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg())
    record_set = predict_set(
        tmp_path / "photo.jpg",
        ["The night stand is left of the lamp.", "the bed is farther than the sofa"],
        16,
    )
    (batch,) = evaluation_loader(record_set)
    assert batch["pixels"].shape == (1, 3, 16, 16)
    assert batch["captions"] == [
        "The night stand is left of the lamp.",
        "The bed is farther than the sofa.",
    ]
    assert batch["negated"] == [
        "The lamp is left of the night stand.",
        "The sofa is farther than the bed.",
    ]
    assert record_set.records[0].image_size == (64, 48)


@pytest.mark.parametrize(
    ("content", "captions", "message"),
    [
        (None, ["The a is left of the b."], r"cannot read the image .*photo\.jpg: No such file"),
        (
            jpeg()[:-200],
            ["The a is left of the b."],
            r"photo\.jpg: the image cannot be decoded \(.*truncated",
        ),
        (b"hello", ["The a is left of the b."], r"photo\.jpg: not an image"),
        (b"", ["The a is left of the b."], r"photo\.jpg: the image is empty"),
        (jpeg(), ["The a is near the b."], "cannot read the caption 'The a is near the b.'"),
        (jpeg(), [], "there is no caption"),
    ],
)
def test_a_picture_or_caption_that_does_not_do_is_one_line(
    tmp_path: Path, content: bytes | None, captions: list[str], message: str
) -> None:
    if content is not None:
        (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(SpatialbenchError, match=message) as caught:
        predict_set(tmp_path / "photo.jpg", captions, 16)
    assert "\n" not in str(caught.value)


def test_a_rare_relation_is_drawn_as_often_as_the_images_allow() -> None:
    """One image with nine records of left and one of above, one of two drawn a batch: above in half of them or more."""
    records = [
        Record(f"left{k}", 0, "sofa", "left", "ball", {}, (8, 8), "s", "s") for k in range(9)
    ] + [Record("above", 0, "sofa", "above", "ball", {}, (8, 8), "s", "s")]  # fmt: skip
    plans = TrainingPlans(
        RecordSet("r", np.zeros((1, 8, 8, 3), np.uint8), records, "f"), 1, 1, seed=0
    )
    drawn = []
    for epoch in range(300):
        plans.set_epoch(epoch)
        drawn += [records[int(rows[0])].relation for plan in plans for rows in plan]
    assert 0.4 < drawn.count("above") / len(drawn) < 0.6
