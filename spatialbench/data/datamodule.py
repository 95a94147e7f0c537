"""The data of a track as Lightning wants it: rooms or EmbSpatial, the same batches from both."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from spatialbench.data.batches import Batch, TrainingPlans, evaluation_loader, training_loader
from spatialbench.data.embspatial.reader import Loaded
from spatialbench.data.embspatial.reader import load as load_file
from spatialbench.data.images import Resize
from spatialbench.data.missing import check_files
from spatialbench.data.problems import CheckReport
from spatialbench.data.records import RecordSet
from spatialbench.data.splits import by_record, one_reference, part, whole_batches, without_pairs
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.provenance import usable_cores
from spatialbench.utils.say import say


class PairDataModule(LightningDataModule):
    """Images with captions and negated captions for training, validation and test.

    Pictures are never mirrored and never cropped at random: both would change which caption is true.

    Args:
        source: where training and validation come from: ``rooms`` (rendered) or ``embspatial`` (``train_path``).
        path: a JSON or parquet file in EmbSpatial's schema, scored by test, validate and predict in the place of the
            track's own test set.
        train_path: for ``embspatial``, the file to train on (EmbSpatial-SFT).
        val_path: for ``embspatial``, the file to validate on; without it the last ``val_images`` images of
            ``train_path`` are held out.
        image_size: side of the square images in pixels.
        resize: how a picture becomes square: ``squash`` stretches it, ``crop`` keeps the centre (objects at the sides
            may vanish), ``letterbox`` pads it.
        train_images: the first so many distinct images are trained on.
        val_images: distinct images of the validation set.
        test_images: for ``rooms``, the first so many images of the test split; none is the balanced test of 3,600
            records.
        batch_images: distinct images a training batch.
        records_per_image: at most so many records of each image a training batch.
        eval_batch_images: distinct images a batch of validation, test and predict.
        workers: processes that prepare batches beside the main one, as many as there are cores for at most.
        pin_memory: batches in page-locked memory where there is a GPU, so that they travel while it computes.
        strict: a damaged record of a file is an error; without it damaged records are dropped and counted.
        split: for ``embspatial`` without ``val_path``, how ``train_path`` is divided: ``image`` keeps the pictures of
            training and validation apart; ``record`` draws records, so that a picture may be on both sides.
        held_out: share of the records that ``split: record`` holds out.
        test_on: what is tested where no ``path`` is given: ``path`` asks for it, ``held_out`` takes the validation set.
        depth_pairs: a close or far question gives its answer against ``all`` other objects, or one drawn at ``random``.
        unseen_pairs: share of the pairs of names of which no record is trained on; ``spatialbench subsets`` then has
            the accuracy on the test's records of these pairs (``unseen``).
        drop_last: of every relation of what is scored, leave out the records that do not fill a batch of so many.
        seed: of the order of training images and the choice of their records.

    Raises:
        SpatialbenchError: a number is out of range, or a file is not given, not there, or without a usable record.
    """

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
        depth_pairs: Literal["all", "random"] = "all",
        unseen_pairs: float = 0.0,
        drop_last: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        limits = {
            "image_size": (image_size, 8),
            "train_images": (train_images, 1),
            "val_images": (val_images, 1),
            "test_images": (1 if test_images is None else test_images, 1),
            "batch_images": (batch_images, 1),
            "records_per_image": (records_per_image, 1),
            "eval_batch_images": (eval_batch_images, 1),
            "workers": (workers, 0),
            "drop_last": (drop_last, 0),
            "seed": (seed, 0),
        }
        for name, (value, least) in limits.items():
            if value < least:
                raise SpatialbenchError(f"data.{name} is {value}; it must be {least} or more")
        check_files({"path": path, "train_path": train_path, "val_path": val_path})
        if not 0 < held_out < 1:
            raise SpatialbenchError(f"data.held_out is {held_out}; it must be between 0 and 1")
        if not 0 <= unseen_pairs < 1:
            raise SpatialbenchError(
                f"data.unseen_pairs is {unseen_pairs}; it must be 0 or more and less than 1"
            )
        self.source, self.path, self.train_path, self.val_path = source, path, train_path, val_path
        self.image_size: int = image_size
        self.resize: Resize = resize
        self.train_images, self.val_images, self.test_images = train_images, val_images, test_images
        self.batch_images, self.records_per_image = batch_images, records_per_image
        self.eval_batch_images, self.workers = eval_batch_images, min(workers, usable_cores())
        self.pin_memory, self.strict, self.seed = (
            pin_memory and torch.cuda.is_available(),
            strict,
            seed,
        )
        self.split, self.held_out, self.test_on = split, held_out, test_on
        self.depth_pairs, self.unseen_pairs, self.drop_last = depth_pairs, unseen_pairs, drop_last
        self.train_set: RecordSet
        self.val_set: RecordSet
        self.test_set: RecordSet
        self.reports: dict[str, CheckReport] = {}
        self._files: dict[str, Loaded] = {}
        self._rooms_sets: dict[str, RecordSet] = {}

    def prepare_data(self) -> None:
        """Renders or decodes what is not in the cache yet; one process of a machine does it."""
        stage = self.trainer.state.fn if self.trainer is not None else None
        self.setup(stage.value if stage is not None else None)

    def setup(self, stage: str | None = None) -> None:
        """Loads the sets of a stage: ``fit``, ``validate``, ``test``, ``predict``, or all of them (None)."""
        if stage in ("fit", None):
            self.setup_training()
            self.val_set = self._validation_set()
        if stage == "validate":
            self.val_set = self._test_set() if self.path else self._validation_set()
        if stage in ("test", "predict", None):
            self.test_set = self._test_set()
            if not self.test_set.records:
                raise SpatialbenchError(
                    f"{self.test_set.name} has no record to score; raise data.test_images"
                )

    def setup_training(self) -> None:
        """Loads what is trained on."""
        self.train_set = self._training_set()
        if self.unseen_pairs:
            self.train_set = without_pairs(self.train_set, self.unseen_pairs)
        usable = len({record.image for record in self.train_set.records})
        if usable < self.batch_images:
            raise SpatialbenchError(
                f"the training set {self.train_set.name} has {usable} images with records, fewer than one batch "
                f"of {self.batch_images}; lower data.batch_images or give more images (data.train_images)"
            )

    def _training_set(self) -> RecordSet:
        if self.source == "rooms":
            return self._rooms("train", self.train_images)
        whole = self._file(self._needed("train_path", self.train_path))
        if self.split == "record" and not self.val_path:
            return by_record(part(whole, 0, self.train_images), self.held_out)[0]
        held_out = 0 if self.val_path else self.val_images
        if held_out >= len(whole.images):
            raise SpatialbenchError(
                f"{self.train_path} has {len(whole.images)} images, all of them held out for validation; "
                "give data.val_path or lower data.val_images"
            )
        return part(whole, 0, min(self.train_images, len(whole.images) - held_out))

    def _validation_set(self) -> RecordSet:
        if self.source == "rooms":
            return self._rooms("val", self.val_images)
        if self.val_path:
            return self._scored(part(self._file(self.val_path), 0, self.val_images))
        whole = self._file(self._needed("train_path", self.train_path))
        if self.split == "record":
            return self._scored(by_record(part(whole, 0, self.train_images), self.held_out)[1])
        return self._scored(
            part(whole, max(0, len(whole.images) - self.val_images), len(whole.images))
        )

    def _test_set(self) -> RecordSet:
        if self.path:
            return self._scored(self._file(self.path))
        if self.source == "embspatial" and self.test_on == "held_out":
            return self._validation_set()
        if self.source == "embspatial":
            self._needed("path", self.path)
        return self._rooms("test", self.test_images)

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

    def _file(self, path: str) -> RecordSet:
        """A file's record set, read once; says what was dropped and which images another file of this run shares."""
        if path not in self._files:
            loaded = load_file(path, self.image_size, self.resize, self.strict)
            if loaded.report.dropped:
                say(f"{loaded.report.summary()}; see: spatialbench data check {path}")
            for other, earlier in self._files.items():
                shared = len(set(loaded.image_keys) & set(earlier.image_keys))
                if shared:
                    say(
                        f"{path} shares {shared} of its {len(loaded.image_keys)} images with {other}"
                    )
            self._files[path] = loaded
            self.reports[path] = loaded.report
        record_set = self._files[path].record_set
        return one_reference(record_set) if self.depth_pairs == "random" else record_set

    def _scored(self, record_set: RecordSet) -> RecordSet:
        return whole_batches(record_set, self.drop_last) if self.drop_last else record_set

    def train_dataloader(self) -> DataLoader[Batch]:
        plans = TrainingPlans(
            self.train_set, self.batch_images, self.records_per_image, self.seed, *self.ranks()
        )
        return training_loader(plans, self.workers, self.pin_memory)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation(self.val_set)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation(self.test_set)

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation(self.test_set)

    def _evaluation(self, record_set: RecordSet) -> DataLoader[Batch]:
        return evaluation_loader(
            record_set, self.eval_batch_images, self.workers, *self.ranks(), self.pin_memory
        )

    def ranks(self) -> tuple[int, int]:
        """World size and rank."""
        return (
            (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)
        )
