"""From a record set to batches: which images and records go together, and in which order.

A batch holds *distinct* images and some records of each, so that every image is encoded once a batch.
N pairs, M distinct images of a batch, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from spatialbench.data.records import Record, RecordSet

Plan = list[np.ndarray]
"""One batch: for each of its images the rows of its records in ``RecordSet.records``; empty is a batch of nothing."""


class Batch(TypedDict):
    """What a method is given.

    pixels: uint8 [M, 3, S, S], the distinct images. image: int64 [N], the row of ``pixels`` of every pair.
    captions, negated: N sentences each. record: int64 [N], the row of every pair in ``RecordSet.records``.
    """

    pixels: Tensor
    image: Tensor
    captions: list[str]
    negated: list[str]
    record: Tensor


def records_by_image(records: Sequence[Record]) -> list[np.ndarray]:
    """The rows of the records of each image that has any, images in the order of their rows."""
    rows: dict[int, list[int]] = {}
    for row, record in enumerate(records):
        rows.setdefault(record.image, []).append(row)
    return [np.asarray(rows[image]) for image in sorted(rows)]


class PairDataset(Dataset[Batch]):
    """A record set that is indexed by plans: one item is one whole batch."""

    def __init__(self, record_set: RecordSet) -> None:
        self.record_set = record_set

    def __len__(self) -> int:
        return len(self.record_set.records)

    def __getitem__(self, plan: Plan) -> Batch:
        records = self.record_set.records
        chosen = [[records[row] for row in rows] for rows in plan]
        images = np.array([group[0].image for group in chosen], dtype=np.int64)
        pixels = self.record_set.images[images]  # [M, S, S, 3]
        statements = [record.statement for group in chosen for record in group]
        return Batch(
            pixels=torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
            image=torch.repeat_interleave(
                torch.tensor([len(group) for group in chosen], dtype=torch.int64)
            ),
            captions=[statement.caption for statement in statements],
            negated=[statement.negated.caption for statement in statements],
            record=torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *plan])),
        )


class ResumablePlans(DistributedSampler[Any]):
    """The batches of an epoch, the same for the same (seed, epoch) wherever and however often they are asked for.

    A DistributedSampler, so that Lightning leaves the ranks to it: rank r of R takes the batches r, r + R, ..., equally
    many on all ranks.

    Args:
        items: M, what is shuffled and cut into batches (what does not fill a batch is left for another epoch).
        batch: of so many items.

    Attributes:
        resume: (epoch, batches of it that were seen before an interruption).
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        items: int,
        batch: int,
        seed: int,
        world: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas=world, rank=rank, seed=seed)
        self.items, self.batch = items, batch
        self.resume = (0, 0)

    @property
    def start(self) -> int:
        """The batch of this epoch to begin with."""
        epoch, seen = self.resume
        return seen if epoch == self.epoch else 0

    def __len__(self) -> int:
        return self.items // self.batch // self.num_replicas

    def __iter__(self) -> Iterator[Any]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.items)
        for step in range(self.start, len(self)):
            batch = step * self.num_replicas + self.rank
            yield self.plan(
                order[batch * self.batch : (batch + 1) * self.batch], (self.seed, self.epoch, batch)
            )

    def plan(self, items: np.ndarray, key: tuple[int, int, int]) -> Any:
        """What the dataset is asked for: a batch of items and the key of its random numbers."""
        return items, key


class TrainingPlans(ResumablePlans):
    """Batches of pairs.

    A batch has ``batch_images`` distinct images. Up to ``records_per_image`` records of each are drawn without
    replacement, a record of a rare relation with more weight: in rooms left and right are six times as many as above
    and under.
    """

    def __init__(
        self,
        record_set: RecordSet,
        batch_images: int,
        records_per_image: int,
        seed: int,
        world: int = 1,
        rank: int = 0,
    ) -> None:
        self.groups = records_by_image(record_set.records)
        super().__init__(PairDataset(record_set), len(self.groups), batch_images, seed, world, rank)
        self.records_per_image = records_per_image
        counts = record_set.counts
        self.weights = np.array([1 / counts[record.relation] for record in record_set.records])

    def plan(self, items: np.ndarray, key: tuple[int, int, int]) -> Plan:
        draw = np.random.default_rng(key)
        return [self._some(self.groups[image], draw) for image in items]

    def _some(self, rows: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        if len(rows) <= self.records_per_image:
            return draw.permutation(rows)
        weights = self.weights[rows]
        return draw.choice(rows, self.records_per_image, replace=False, p=weights / weights.sum())


class EvaluationPlans(DistributedSampler[Plan]):
    """Every record exactly once, in order; the images of a batch are distinct and bring all their records.

    No padding and no dropped rest. All ranks have as many batches, as what DistributedDataParallel does at every batch
    needs; where the batches do not divide the ranks, the last of some ranks holds nothing. A batch is the same whatever
    the number of ranks.
    """

    def __init__(
        self, record_set: RecordSet, batch_images: int, world: int = 1, rank: int = 0
    ) -> None:
        self.groups = records_by_image(record_set.records)
        super().__init__(PairDataset(record_set), num_replicas=world, rank=rank, shuffle=False)
        self.batch_images = batch_images

    def __len__(self) -> int:
        return -(-len(self.groups) // (self.batch_images * self.num_replicas))

    def __iter__(self) -> Iterator[Plan]:
        for step in range(len(self)):
            start = (step * self.num_replicas + self.rank) * self.batch_images
            yield self.groups[start : start + self.batch_images]


class TrainingLoader(DataLoader[Any]):
    """A loader that goes on in the middle of an epoch: Lightning keeps its state in the checkpoint."""

    seen = 0

    @property
    def plans(self) -> ResumablePlans:
        assert isinstance(self.sampler, ResumablePlans)
        return self.sampler

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.seen = self.plans.start
        for batch in super().__iter__():
            self.seen += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.plans.epoch, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]
        self.plans.resume = (state["epoch"], self.seen)


def training_loader(plans: ResumablePlans, workers: int = 0, pin: bool = False) -> TrainingLoader:
    """Args:
    pin: batches in page-locked memory, from where a GPU takes them while it computes.
    """
    return TrainingLoader(
        plans.dataset,
        batch_size=None,
        sampler=plans,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
    )


def evaluation_loader(
    record_set: RecordSet,
    batch_images: int = 256,
    workers: int = 0,
    world: int = 1,
    rank: int = 0,
    pin: bool = False,
) -> DataLoader[Batch]:
    """Batches that hold every record exactly once (``EvaluationPlans``)."""
    plans = EvaluationPlans(record_set, batch_images, world, rank)
    return DataLoader(
        plans.dataset,
        batch_size=None,
        sampler=plans,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
    )
