"""Plans and batches: every record exactly once in evaluation, draws by seed, epoch and batch."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from spatialbench.data.batches import Batch, EvaluationPlans, TrainingPlans, loader
from spatialbench.data.records import Record, RecordSet
from tests.support.records import small_set

pytestmark = pytest.mark.usefixtures("cache")


def rows(batches: DataLoader[Batch]) -> list[list[int]]:
    return [batch["record"].tolist() for batch in batches]


def check_batch(batch: Batch, record_set: RecordSet) -> None:
    """Check a batch against its records, in plain Python."""
    assert batch["pixels"].dtype == torch.uint8
    assert batch["pixels"].is_contiguous()
    assert batch["image"].dtype == batch["record"].dtype == torch.int64
    images: dict[int, int] = {}
    pairs = batch["image"].tolist(), batch["record"].tolist(), batch["captions"], batch["negated"]
    for row, number, caption, negated in zip(*pairs, strict=True):
        record = record_set.records[number]
        assert images.setdefault(row, record.image) == record.image
        pixels = batch["pixels"][row].permute(1, 2, 0).numpy()
        assert np.array_equal(pixels, record_set.images[record.image])
        assert caption == record.statement.caption
        assert negated == record.statement.negated.caption
    assert sorted(images) == list(range(len(batch["pixels"])))
    assert len(set(images.values())) == len(images)  # distinct


@pytest.mark.parametrize("batch_images", [1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_record_exactly_once(batch_images: int, world: int) -> None:
    record_set = small_set(7)
    seen: Counter[int] = Counter()
    alone = rows(loader(EvaluationPlans(record_set, batch_images)))
    for rank in range(world):
        own = loader(EvaluationPlans(record_set, batch_images, world, rank))
        assert len(own) == -(-len(alone) // world), "all ranks have equally many batches"
        for batch in own:
            check_batch(batch, record_set)
            assert len(batch["pixels"]) <= batch_images
            assert batch["record"].tolist() in [*alone, []], "the same for any number of ranks"
            seen.update(batch["record"].tolist())
    assert seen == Counter(range(len(record_set.records)))


def test_evaluation_keeps_the_records_of_an_image_together_and_skips_bare_images() -> None:
    whole = small_set(7)
    records = [record for record in whole.records[::-1] if record.image not in (2, 5)]
    record_set = RecordSet("x", whole.images, records, "x")
    batches: dict[int, set[int]] = {}
    for i, batch in enumerate(loader(EvaluationPlans(record_set, 2))):
        check_batch(batch, record_set)
        for row in batch["record"].tolist():
            batches.setdefault(records[row].image, set()).add(i)
    assert sorted(batches) == [0, 1, 3, 4, 6]
    assert all(len(numbers) == 1 for numbers in batches.values())


def test_a_training_epoch_is_distinct_images_and_some_records_of_each() -> None:
    record_set = small_set(11)
    plans = TrainingPlans(record_set, batch_images=3, records_per_image=2, seed=5)
    batches = list(loader(plans))
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
        return rows(loader(plans))

    assert epoch(1, 4) == epoch(1, 4)
    assert epoch(1, 4, start=2) == epoch(1, 4)[2:]
    assert len({str(epoch(seed, number)) for seed in range(3) for number in range(3)}) == 9


def test_over_epochs_every_record_is_drawn() -> None:
    plans = TrainingPlans(small_set(11), batch_images=3, records_per_image=1, seed=0)
    assert set(drawn(plans, 60)) == set(range(len(small_set(11).records)))


def test_a_rare_relation_is_drawn_as_often_as_the_images_allow() -> None:
    """Draw from nine records of left and one of above: above is drawn about half of the time."""
    relations = ["left"] * 9 + ["above"]
    records = [Record(str(k), 0, "sofa", name, "ball") for k, name in enumerate(relations)]
    record_set = RecordSet("r", np.zeros((1, 8, 8, 3), np.uint8), records, "f")
    counts = drawn(TrainingPlans(record_set, 1, 1, seed=0), 300)
    assert 0.4 < counts[9] / counts.total() < 0.6


def test_the_records_drawn_depend_on_seed_epoch_and_batch() -> None:
    """Three images of 30 records, one a batch: the same places in two batches would be no draw."""
    records = [Record(str(k), k // 30, "sofa", "left", "ball") for k in range(90)]
    record_set = RecordSet("r", np.zeros((3, 8, 8, 3), np.uint8), records, "f")
    places: list[str] = []
    for seed, number in product(range(3), repeat=2):
        plans = TrainingPlans(record_set, 1, 5, seed)
        plans.set_epoch(number)
        places += [str(plan.rows[0] % 30) for plan in plans]
    assert len(set(places)) == 27


def drawn(plans: TrainingPlans, epochs: int) -> Counter[int]:
    seen: Counter[int] = Counter()
    for number in range(epochs):
        plans.set_epoch(number)
        seen.update(int(row) for plan in plans for group in plan.rows for row in group)
    return seen


def test_mirrored_images_keep_their_captions() -> None:
    record_set = small_set(11)
    plain = list(loader(TrainingPlans(record_set, 3, 2, seed=5)))
    for batch, other in zip(
        plain, loader(TrainingPlans(record_set, 3, 2, seed=5, mirror=1.0)), strict=True
    ):
        assert torch.equal(other["pixels"], batch["pixels"].flip(-1))
        for key in ("captions", "negated"):
            assert other[key] == batch[key]
        for key in ("image", "record"):
            assert torch.equal(other[key], batch[key])


def test_half_of_the_images_are_mirrored_by_seed_epoch_and_batch_alone() -> None:
    def flips(world: int = 1, rank: int = 0, start: int = 0, epoch: int = 1) -> list[list[bool]]:
        plans = TrainingPlans(small_set(40), 5, 2, 3, world=world, rank=rank, mirror=0.5)
        plans.set_epoch(epoch)
        plans.resume = (epoch, start)
        return [plan.mirrored.tolist() for plan in plans]

    alone = flips()
    assert flips(start=3) == alone[3:]
    assert [flips(2, 0), flips(2, 1)] == [alone[::2], alone[1::2]]
    assert flips(epoch=2) != alone
    count = sum(flip for epoch in range(25) for batch in flips(epoch=epoch) for flip in batch)
    assert 430 < count < 570  # of 1000; 500 +- 4.4 standard deviations


def test_ranks_share_an_epoch_without_overlap() -> None:
    record_set = small_set(11)
    alone = rows(loader(TrainingPlans(record_set, 2, 2, seed=3)))
    first, second = (
        rows(loader(TrainingPlans(record_set, 2, 2, 3, world=2, rank=rank))) for rank in range(2)
    )
    assert [first[0], second[0], first[1], second[1]] == alone[:4]
