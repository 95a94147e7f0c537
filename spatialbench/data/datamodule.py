"""The data of a track as Lightning wants it: rooms or EmbSpatial, the same batches from both."""

from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from spatialbench.data.batches import (
    Batch,
    EvaluationPlans,
    ResumablePlans,
    TrainingPlans,
    loader,
)
from spatialbench.data.embspatial.reader import Loaded
from spatialbench.data.embspatial.reader import load as load_file
from spatialbench.data.images import Resize
from spatialbench.data.records import RecordSet
from spatialbench.data.setting_checks import check_files, check_fills_batch, check_least
from spatialbench.data.splits import (
    by_record,
    leaking,
    one_reference,
    part,
    whole_batches,
    without_pairs,
)
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.provenance import usable_cores
from spatialbench.utils.say import say


class PairDataModule(LightningDataModule):
    """Images with captions and negated captions for training, validation and test.

    Images are never cropped at random, nor mirrored unless ``mirror`` says so: both change which
    caption is true.

    Args:
        source: of training and validation: ``rooms`` (rendered) or ``embspatial`` (``train_path``).
        path: a file in EmbSpatial's schema that test, validate and predict score instead.
        train_path: for ``embspatial``, the file to train on (EmbSpatial-SFT).
        val_path: the file to validate on; default: hold out the end of ``train_path``.
        image_size: side of the square images in pixels.
        resize: ``squash`` stretches an image, ``crop`` keeps its centre, ``letterbox`` pads it.
        train_images: number of distinct images to train on, the first ones.
        val_images: distinct images of the validation set.
        test_images: of the rooms' test split; default: the balanced test of 3,600 records.
        batch_images: distinct images a training batch.
        records_per_image: at most so many records of each image a training batch.
        eval_batch_images: distinct images a batch of validation, test and predict.
        workers: processes that prepare batches, at most as many as there are cores.
        pin_memory: page-locked batches if there is a GPU, for copies while it computes.
        strict: a damaged record of a file is an error; default: it is dropped and counted.
        split: of ``train_path``: ``image`` shares no image between training and validation,
            ``record`` draws records. Of the rooms, ``record`` leaves the test as it is, and trains
            on its images as well, with the facts that it does not ask for.
        held_out: share of the records that ``split: record`` holds out.
        test_on: without ``path``, ``held_out`` tests on the validation set.
        val_on: ``test`` validates on the test set, so that ``finetuning.scored: best`` chooses by
            it, as the authors do.
        depth_pairs: a close or far answer against ``all`` other objects, or a ``random`` one.
        unseen_pairs: share of the pairs of names without any training record; ``spatialbench
            subsets`` then has the accuracy on the test's records of these pairs (``unseen``).
        drop_last: leave out the scored records of a relation that do not fill a batch of this size.
        mirror: probability with which an image of a training batch of pairs is mirrored from left
            to right while its captions stay: a control that cannot learn left from right.
        seed: of the order of training images and the choice of their records.

    Raises:
        SpatialbenchError: a number is out of range, or a file is not given, missing, or without a
            usable record.
    """

    learns_from: ClassVar[Literal["pairs", "regions", "images"]] = "pairs"

    def __init__(
        self,
        source: Literal["rooms", "embspatial"] = "rooms",
        path: str | None = None,
        train_path: str | None = None,
        val_path: str | None = None,
        image_size: int = 96,
        resize: Literal["squash", "crop", "letterbox"] = "squash",
        train_images: int = 16_000,
        val_images: int = 500,
        test_images: int | None = None,
        batch_images: int = 128,
        records_per_image: int = 4,
        eval_batch_images: int = 256,
        workers: int = 0,
        pin_memory: bool = True,
        strict: bool = False,
        split: Literal["image", "record"] = "image",
        held_out: float = 0.2,
        test_on: Literal["path", "held_out"] = "path",
        val_on: Literal["held_out", "test"] = "held_out",
        depth_pairs: Literal["all", "random"] = "all",
        unseen_pairs: float = 0.0,
        drop_last: int = 0,
        mirror: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_least(8, image_size=image_size)
        check_least(1, train_images=train_images, val_images=val_images, test_images=test_images)
        check_least(1, batch_images=batch_images, eval_batch_images=eval_batch_images)
        check_least(1, records_per_image=records_per_image)
        check_least(0, workers=workers, drop_last=drop_last, seed=seed)
        check_files({"path": path, "train_path": train_path, "val_path": val_path})
        if not 0 < held_out < 1:
            raise SpatialbenchError(f"data.held_out is {held_out}; it must be between 0 and 1")
        if not 0 <= unseen_pairs < 1:
            raise SpatialbenchError(
                f"data.unseen_pairs is {unseen_pairs}; it must be 0 or more and less than 1"
            )
        if not 0 <= mirror <= 1:
            raise SpatialbenchError(f"data.mirror is {mirror}; it must be between 0 and 1")
        self.source, self.path, self.train_path, self.val_path = source, path, train_path, val_path
        self.image_size: int = image_size
        self.resize: Resize = resize
        self.train_images, self.val_images, self.test_images = train_images, val_images, test_images
        self.batch_images, self.records_per_image = batch_images, records_per_image
        self.eval_batch_images, self.workers = eval_batch_images, min(workers, usable_cores())
        self.pin_memory = pin_memory and torch.cuda.is_available()
        self.strict, self.mirror, self.seed = strict, mirror, seed
        self.split, self.held_out, self.test_on, self.val_on = split, held_out, test_on, val_on
        self.depth_pairs, self.unseen_pairs, self.drop_last = depth_pairs, unseen_pairs, drop_last
        self.train_set: RecordSet
        self.val_set: RecordSet
        self.test_set: RecordSet
        self._files: dict[str, Loaded] = {}
        self._rooms_sets: dict[str, RecordSet] = {}

    def prepare_data(self) -> None:
        """Fill the cache with rendered or decoded images, in one process of a machine."""
        stage = self.trainer.state.fn if self.trainer is not None else None
        self.setup(stage.value if stage is not None else None)

    def setup(self, stage: str | None = None) -> None:
        """Load the sets of ``fit``, ``validate``, ``test`` or ``predict``; None: all of them."""
        if stage in ("fit", None):
            self.setup_training()
            choose = self._test_set if self.val_on == "test" else self._validation_set
            self.val_set = choose()
        if stage == "validate":
            self.val_set = self._test_set() if self.path else self._validation_set()
        if stage in ("test", "predict", None):
            self.test_set = self._test_set()
            if not self.test_set.records:
                raise SpatialbenchError(
                    f"{self.test_set.name} has no record to score; raise data.test_images"
                )

    def setup_training(self) -> None:
        """Load the training set."""
        self.train_set = self._training_set()
        if self.unseen_pairs:
            self.train_set = without_pairs(self.train_set, self.unseen_pairs)
        usable = len({record.image for record in self.train_set.records})
        check_fills_batch(
            self.train_set.name, usable, "images with records", batch_images=self.batch_images
        )

    def _training_set(self) -> RecordSet:
        if self.source == "rooms":
            rooms = self._rooms("train", self.train_images)
            return self._leaking(rooms) if self.split == "record" else rooms
        whole = self._file(self._needed("train_path", self.train_path))
        if self.val_path:
            return part(whole, 0, self.train_images)
        if self.split == "record":
            return self._by_record[0]
        rest = len(whole.images) - self.val_images
        if rest <= 0:
            raise SpatialbenchError(
                f"{self.train_path} has {len(whole.images)} images, all of them held out for "
                "validation; give data.val_path or lower data.val_images"
            )
        return part(whole, 0, min(self.train_images, rest))

    def _validation_set(self) -> RecordSet:
        if self.source == "rooms":
            return self._rooms("val", self.val_images)
        if self.val_path:
            return self._scored(part(self._file(self.val_path), 0, self.val_images))
        if self.split == "record":
            return self._scored(self._by_record[1])
        whole = self._file(self._needed("train_path", self.train_path))
        count = len(whole.images)
        return self._scored(part(whole, max(0, count - self.val_images), count))

    def _test_set(self) -> RecordSet:
        if self.source == "rooms" and not self.path:
            return self._rooms("test", self.test_images)
        if self.test_on == "held_out" and not self.path:
            return self._validation_set()
        return self._scored(self._file(self._needed("path", self.path)))

    @cached_property
    def _by_record(self) -> tuple[RecordSet, RecordSet]:
        """Training and held-out records of ``split: record``."""
        whole = self._file(self._needed("train_path", self.train_path))
        return by_record(part(whole, 0, self.train_images), self.held_out)

    def _needed(self, name: str, path: str | None) -> str:
        if path is None:
            raise SpatialbenchError(
                f"data.source is embspatial: give the JSON or parquet file as data.{name}"
            )
        return path

    def _rooms(self, split: str, images: int | None) -> RecordSet:
        if split not in self._rooms_sets:
            from spatialbench.data.rooms import load  # the renderer is not needed for files

            self._rooms_sets[split] = load(split, images, self.image_size).record_set()
        return self._rooms_sets[split]

    def _leaking(self, rooms: RecordSet) -> RecordSet:
        """Add the test's images to the training images, with what the test does not ask for."""
        from spatialbench.data.rooms import left_over, load

        test = load("test", self.test_images, self.image_size)
        return leaking(rooms, test.images, left_over(test.scenes, test.records))

    def _file(self, path: str) -> RecordSet:
        """Read a file once; report dropped records and images shared with another file."""
        if path not in self._files:
            loaded = load_file(path, self.image_size, self.resize, self.strict)
            if loaded.report.dropped:
                say(f"{loaded.report.summary()}; see: spatialbench data check {path}")
            for other, earlier in self._files.items():
                shared = len(set(loaded.image_keys) & set(earlier.image_keys))
                if shared:
                    count = len(loaded.image_keys)
                    say(f"{path} shares {shared} of its {count} images with {other}")
            if self.depth_pairs == "random":
                loaded = replace(loaded, record_set=one_reference(loaded.record_set))
            self._files[path] = loaded
        return self._files[path].record_set

    def _scored(self, record_set: RecordSet) -> RecordSet:
        return whole_batches(record_set, self.drop_last) if self.drop_last else record_set

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training batches."""
        return loader(self.training_plans(*self._ranks()), self.workers, self.pin_memory)

    def training_plans(self, world: int, rank: int) -> ResumablePlans:
        """Return the training batches of one of ``world`` ranks."""
        images, records = self.batch_images, self.records_per_image
        return TrainingPlans(self.train_set, images, records, self.seed, world, rank, self.mirror)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return every record of the validation set once."""
        return self._evaluation(self.val_set)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return every record of the test set once."""
        return self._evaluation(self.test_set)

    predict_dataloader = test_dataloader

    def _evaluation(self, record_set: RecordSet) -> DataLoader[Batch]:
        plans = EvaluationPlans(record_set, self.eval_batch_images, *self._ranks())
        return loader(plans, self.workers, self.pin_memory)

    def _ranks(self) -> tuple[int, int]:
        """Return world size and rank."""
        trainer = self.trainer
        return (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
