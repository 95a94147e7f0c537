"""Batches of a record set: the images and records of each, and their order.

A batch holds distinct images and some records of each, so that each image is encoded once a batch.

Letters: N pairs and M distinct images of a batch, S pixels a side.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from spatialbench.data.records import RecordSet


class Plan(NamedTuple):
    """One batch; it may be empty."""

    rows: list[np.ndarray]  # of each image, the rows of its records in ``RecordSet.records``
    mirrored: np.ndarray | None = None  # bool [M]; None: no image is


Key = tuple[int, int, int]
"""Seed, epoch and batch: they determine the random numbers of a batch."""


class Batch(TypedDict):
    """The input of a method: distinct images, and pairs of captions about them."""

    pixels: Tensor  # uint8 [M, 3, S, S]
    image: Tensor  # int64 [N], row of ``pixels``
    captions: list[str]  # N
    negated: list[str]  # N
    record: Tensor  # int64 [N], row of ``RecordSet.records``
    mirrored: NotRequired[Tensor]  # bool [M]; absent: no image is mirrored from left to right


class PairDataset(Dataset[Batch]):
    """A record set indexed by plans: one item is one whole batch."""

    def __init__(self, record_set: RecordSet) -> None:
        self.record_set = record_set
        rows: dict[int, list[int]] = {}
        for row, record in enumerate(record_set.records):
            rows.setdefault(record.image, []).append(row)
        # rows of the records of each image that has any, in the order of the images
        self.groups = [np.asarray(rows[image]) for image in sorted(rows)]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, plan: Plan) -> Batch:
        records = self.record_set.records
        images = np.array([records[rows[0]].image for rows in plan.rows], dtype=np.int64)
        pixels = self.record_set.images[images]  # [M, S, S, 3]
        if plan.mirrored is not None:
            pixels[plan.mirrored] = pixels[plan.mirrored, :, ::-1]
        counts = torch.tensor([len(rows) for rows in plan.rows], dtype=torch.int64)
        chosen = np.concatenate([np.zeros(0, np.int64), *plan.rows])
        statements = [records[row].statement for row in chosen]
        batch = Batch(
            pixels=torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
            image=torch.repeat_interleave(counts),
            captions=[statement.caption for statement in statements],
            negated=[statement.negated.caption for statement in statements],
            record=torch.from_numpy(chosen),
        )
        if plan.mirrored is not None:
            batch["mirrored"] = torch.from_numpy(plan.mirrored)
        return batch


class ResumablePlans(DistributedSampler[Any]):
    """The batches of an epoch, always the same for the same (seed, epoch).

    A DistributedSampler, so that Lightning does not add its own: rank r of R takes the batches
    r, r + R, ..., equally many on all ranks.

    ``dataset`` is indexed by the plans, its length is the number of items to shuffle; a batch has
    ``batch`` of them, and an incomplete last one is dropped.
    """

    def __init__(
        self, dataset: Dataset[Any], batch: int, seed: int, world: int = 1, rank: int = 0
    ) -> None:
        super().__init__(dataset, num_replicas=world, rank=rank, seed=seed)
        self.items, self.batch = len(dataset), batch  # type: ignore[arg-type]
        self.resume = (0, 0)  # epoch, batches of it that were seen before an interruption

    @property
    def start(self) -> int:
        """The first batch of this epoch."""
        epoch, seen = self.resume
        return seen if epoch == self.epoch else 0

    def __len__(self) -> int:
        return self.items // self.batch // self.num_replicas

    def __iter__(self) -> Iterator[Any]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.items)
        for step in range(self.start, len(self)):
            batch = step * self.num_replicas + self.rank
            items = order[batch * self.batch : (batch + 1) * self.batch]
            yield self.plan(items, (self.seed, self.epoch, batch))

    def plan(self, items: np.ndarray, key: Key) -> Any:
        """Return the dataset's index for a batch of items and the key of its random numbers."""
        return items, key


class TrainingPlans(ResumablePlans):
    """Batches of pairs.

    A batch has ``batch_images`` distinct images. Up to ``records_per_image`` records of each are
    drawn without replacement, weighted by the inverse frequency of their relation: in the rooms,
    left and right are six times as frequent as above and under. Each image is mirrored from left to
    right with probability ``mirror``; its captions stay as they are.
    """

    def __init__(
        self,
        record_set: RecordSet,
        batch_images: int,
        records_per_image: int,
        seed: int,
        world: int = 1,
        rank: int = 0,
        mirror: float = 0.0,
    ) -> None:
        pairs = PairDataset(record_set)
        super().__init__(pairs, batch_images, seed, world, rank)
        self.groups, self.records_per_image = pairs.groups, records_per_image
        self.mirror = mirror
        counts = record_set.counts
        self.weights = np.array([1 / counts[record.relation] for record in record_set.records])

    def plan(self, items: np.ndarray, key: Key) -> Plan:
        """Draw the records of each image, then the images that are mirrored."""
        draw = np.random.default_rng(key)
        rows = [self._some(self.groups[image], draw) for image in items]
        return Plan(rows, draw.random(len(items)) < self.mirror if self.mirror else None)

    def _some(self, rows: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        if len(rows) <= self.records_per_image:
            return draw.permutation(rows)
        weights = self.weights[rows]
        return draw.choice(rows, self.records_per_image, replace=False, p=weights / weights.sum())


class EvaluationPlans(DistributedSampler[Plan]):
    """Every record exactly once, in order; each image brings all its records.

    There is no padding and no dropped rest, and a batch does not depend on the number of ranks. All
    ranks have equally many batches, as DistributedDataParallel needs; the last one may be empty.
    """

    def __init__(
        self, record_set: RecordSet, batch_images: int, world: int = 1, rank: int = 0
    ) -> None:
        pairs = PairDataset(record_set)
        super().__init__(pairs, num_replicas=world, rank=rank, shuffle=False)
        self.groups, self.batch_images = pairs.groups, batch_images

    def __len__(self) -> int:
        return -(-len(self.groups) // (self.batch_images * self.num_replicas))

    def __iter__(self) -> Iterator[Plan]:
        for step in range(len(self)):
            start = (step * self.num_replicas + self.rank) * self.batch_images
            yield Plan(self.groups[start : start + self.batch_images])


class TrainingLoader(DataLoader[Any]):
    """A loader that resumes within an epoch: Lightning keeps its state in the checkpoint."""

    seen = 0

    @property
    def plans(self) -> ResumablePlans:
        """The sampler."""
        assert isinstance(self.sampler, ResumablePlans)
        return self.sampler

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.seen = self.plans.start
        for batch in super().__iter__():
            self.seen += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the number of its batches that were seen."""
        return {"epoch": self.plans.epoch, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batches that were seen."""
        self.seen = state["seen"]
        self.plans.resume = (state["epoch"], self.seen)


def loader(plans: DistributedSampler[Any], workers: int = 0, pin: bool = False) -> DataLoader[Any]:
    """Return the batches of plans, resumable in training.

    ``pin``: page-locked batches, for faster copies to a GPU.
    """
    kind = TrainingLoader if isinstance(plans, ResumablePlans) else DataLoader
    return kind(
        plans.dataset,
        batch_size=None,
        sampler=plans,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
    )
