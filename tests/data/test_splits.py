"""Parts of a record set: what a split keeps apart, and the legacy protocols of tracks."""

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.embspatial.embspatial_export import export
from spatialbench.data.records import Record, RecordSet
from spatialbench.data.rooms.kinds import KINDS
from spatialbench.data.setting_checks import advice
from spatialbench.data.splits import leaking, left_out, one_reference, part, whole_batches
from spatialbench.utils.errors import SpatialbenchError
from tests.support.checks import refused
from tests.support.records import depth
from tests.support.tiny import record_set

NAMES = ("sofa", "lamp", "bed", "chair")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """20 images, each with a record of every relation and a close question of four options."""
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    export(record_set("train", 20, 0), tmp_path / "plain.json")
    raws = json.loads((tmp_path / "plain.json").read_text())
    boxes = [{"name": name, "bbox": [2 + 7 * k, 4, 6, 6]} for k, name in enumerate(NAMES)]
    for number, image in enumerate(dict.fromkeys(raw["image"] for raw in raws)):
        changes = {"image": image, "objects": boxes, "scene_id": f"s{number}"}
        raws.append(depth(f"q{number}", "close", NAMES, number % 4, **changes))
    (tmp_path / "sft.json").write_text(json.dumps(raws))
    return tmp_path / "sft.json"


def module(file: Path, **arguments: Any) -> PairDataModule:
    sizes = {"image_size": 32, "batch_images": 4, "val_images": 5}
    data = PairDataModule("embspatial", train_path=str(file), **sizes, **arguments)
    data.setup("fit")
    return data


def names(records: RecordSet) -> set[str]:
    return {record.record_id for record in records.records}


def images(records: RecordSet) -> set[bytes]:
    return {np.asarray(records.images[record.image]).tobytes() for record in records.records}


def pairs(records: RecordSet) -> set[tuple[str, ...]]:
    return {tuple(sorted((record.subject, record.object))) for record in records.records}


def test_a_split_by_record_shares_images_but_no_record(file: Path) -> None:
    data = module(file, split="record", held_out=0.2)
    trained, held = names(data.train_set), names(data.val_set)
    every = names(module(file, val_path=str(file)).train_set)
    assert (trained | held, trained & held) == (every, set())
    assert len(held) == round(0.2 * len(every))
    assert images(data.train_set) & images(data.val_set)
    again = module(file, split="record", held_out=0.2, seed=7)
    assert names(again.val_set) == names(data.val_set), "the same for any seed of training"
    assert again.val_set.fingerprint == data.val_set.fingerprint != data.train_set.fingerprint


def test_the_held_out_records_are_the_test_if_a_track_says_so(file: Path) -> None:
    data = module(file, split="record", test_on="held_out")
    data.setup("test")
    assert names(data.test_set) == names(data.val_set)
    with refused(r"give the JSON or parquet file as data\.path"):
        module(file).setup("test")
    given = module(file, split="record", test_on="held_out", path=str(file))
    given.setup("test")
    assert len(given.test_set.records) == len(data.val_set.records) + len(data.train_set.records)


def test_validation_is_on_the_test_if_a_track_says_so(file: Path) -> None:
    data = module(file, path=str(file), val_on="test")
    data.setup("test")
    assert data.val_set.fingerprint == data.test_set.fingerprint
    held = module(file, test_on="held_out", val_on="test")
    assert names(held.val_set) == names(module(file).val_set), "both are what is held out"


def test_other_images_take_the_place_of_the_last_ones() -> None:
    trained, tested = record_set("train", 10, 0), record_set("test", 4, 1)
    rest = [record for record in tested.records if record.image in (1, 3)]
    made = leaking(trained, tested.images, rest)
    assert names(made) == names(part(trained, 0, 8)) | {record.record_id for record in rest}
    known = {r.record_id: (s, r.image) for s in (trained, tested) for r in s.records}
    for record in made.records:
        of, image = known[record.record_id]
        assert np.array_equal(made.images[record.image], of.images[image])
    assert len(made.images) == 10
    assert made.fingerprint != trained.fingerprint
    assert names(leaking(trained, tested.images, [])) == names(trained)


def test_a_leaking_split_of_the_rooms_leaves_the_test_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sets = {name: record_set(name, 10, seed) for seed, name in enumerate(("train", "val", "test"))}

    def load(split: str, images: int | None, size: int) -> SimpleNamespace:
        made = sets[split]
        chosen = RecordSet(split, made.images, made.records[::2], split)
        scored = chosen if split == "test" else made
        return SimpleNamespace(
            record_set=lambda: scored, images=made.images, scenes=made, records=scored.records
        )

    def left_over(scenes: RecordSet, stated: list[Record]) -> list[Record]:
        return [record for record in scenes.records if record not in stated]

    rooms = SimpleNamespace(load=load, left_over=left_over)
    monkeypatch.setitem(sys.modules, "spatialbench.data.rooms", rooms)
    data = PairDataModule("rooms", image_size=32, train_images=10, batch_images=4, split="record")
    data.setup()
    assert images(data.train_set) & images(data.test_set)
    assert not names(data.train_set) & names(data.test_set)
    assert names(data.train_set) == {r.record_id for r in sets["test"].records[1::2]}
    assert names(data.val_set) == names(sets["val"])


def test_one_reference_of_every_depth_question(file: Path) -> None:
    every, drawn = module(file).train_set, module(file, depth_pairs="random").train_set
    questions = Counter(name.partition("#")[0] for name in names(every) if "#" in name)
    chosen = [record for record in drawn.records if "#" in record.record_id]
    assert set(questions.values()) == {3}
    counts = Counter(record.record_id.partition("#")[0] for record in chosen)
    assert counts == dict.fromkeys(questions, 1)
    assert all(record.weight == 1 for record in chosen)
    options = {record.record_id.partition("#")[2] for record in chosen}
    assert len(options) > 1, "not always the same option"
    rest = [{name for name in names(one) if "#" not in name} for one in (every, drawn)]
    assert rest[0] == rest[1]
    assert one_reference(every).fingerprint == one_reference(every).fingerprint != every.fingerprint


def test_an_incomplete_batch_is_left_out_of_every_relation(file: Path) -> None:
    data, full = module(file, drop_last=4), module(file)
    wanted = {relation: count // 4 * 4 for relation, count in full.val_set.counts.items()}
    assert data.val_set.counts == wanted
    assert len(data.train_set.records) == len(full.train_set.records)
    kept = whole_batches(record_set("x", 6, 0), 4)
    assert kept.counts == dict.fromkeys(kept.counts, 4)


def test_a_missing_file_of_a_published_set_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = "data/embspatial/EmbSpatial-SFT.json"
    with pytest.raises(SpatialbenchError) as caught:
        PairDataModule(source="embspatial", train_path=path)
    assert str(caught.value) == f"data.train_path: there is no file {path}{advice(path)}"
    assert "spatialbench data download embspatial" in advice(path)
    assert advice("data/embspatial/other.json") == advice("mine/EmbSpatial-SFT.json") == ""


def test_unseen_pairs_of_names_are_in_the_test_but_not_in_training(file: Path) -> None:
    every = {tuple(sorted((a, b))) for a in NAMES for b in NAMES if a < b}
    out = {pair for pair in every if left_out(*pair, 0.5)}
    assert 0 < len(out) < 6
    whole, data = module(file), module(file, unseen_pairs=0.5)
    assert pairs(whole.train_set) - pairs(data.train_set) == out & pairs(whole.train_set) != set()
    assert pairs(data.train_set) & out == set()
    kept = [r for r in whole.train_set.records if tuple(sorted((r.subject, r.object))) not in out]
    assert names(data.train_set) == {record.record_id for record in kept}
    assert names(data.val_set) == names(whole.val_set)  # the scored sets stay whole
    assert data.train_set.fingerprint != whole.train_set.fingerprint
    data.path = str(file)
    data.setup("test")
    assert pairs(data.test_set) >= out


def test_a_pair_is_left_out_by_its_names_alone() -> None:
    kinds = [kind.name for kind in KINDS]
    every = [(a, b) for row, a in enumerate(kinds) for b in kinds[row + 1 :]]
    out = {pair for pair in every if left_out(*pair, 0.2)}
    assert out == {(a, b) for a, b in every if left_out(b, a, 0.2)}
    assert out <= {pair for pair in every if left_out(*pair, 0.3)}
    assert len(out) / len(every) == pytest.approx(0.2, abs=0.05)
    assert not any(left_out(*pair, 0.0) for pair in every)
