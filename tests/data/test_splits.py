"""Parts of a record set: what a split keeps apart, and the legacy readings that a track may name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.embspatial.embspatial_export import export
from spatialbench.data.missing import advice
from spatialbench.data.records import RecordSet
from spatialbench.data.rooms.kinds import KINDS
from spatialbench.data.splits import by_record, left_out, one_reference, whole_batches
from spatialbench.utils.errors import SpatialbenchError
from tests.support.tiny import record_set


def question(number: int, image: str) -> dict[str, object]:
    """A close question of four options, in the bench's schema."""
    names = ["sofa", "lamp", "bed", "chair"]
    boxes = [{"name": name, "bbox": [2 + 7 * place, 4, 6, 6]} for place, name in enumerate(names)]
    return {
        "question_id": f"q{number}",
        "relation": "close",
        "image": image,
        "answer_options": names,
        "answer": number % 4,
        "objects": boxes,
        "data_source": "mp3d",
        "scene_id": f"s{number}",
    }


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """20 pictures with a record of every relation, and a close question of four options about each."""
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    export(record_set("train", 20, 0), tmp_path / "plain.json")
    raws = json.loads((tmp_path / "plain.json").read_text())
    pictures = list(dict.fromkeys(raw["image"] for raw in raws))
    raws += [question(number, picture) for number, picture in enumerate(pictures)]
    (tmp_path / "sft.json").write_text(json.dumps(raws))
    return tmp_path / "sft.json"


def module(file: Path, **arguments: object) -> PairDataModule:
    data = PairDataModule(
        source="embspatial",
        train_path=str(file),
        image_size=32,
        batch_images=4,
        val_images=5,
        **arguments,
    )
    data.setup("fit")
    return data


def names(records: RecordSet) -> set[str]:
    return {record.record_id for record in records.records}


def pictures(records: RecordSet) -> set[bytes]:
    return {np.asarray(records.images[record.image]).tobytes() for record in records.records}


def test_a_split_by_image_shares_no_picture(file: Path) -> None:
    data = module(file)
    assert not pictures(data.train_set) & pictures(data.val_set)
    assert len(pictures(data.val_set)) == 5


def test_a_split_by_record_shares_pictures_and_no_record(file: Path) -> None:
    data = module(file, split="record", held_out=0.2)
    count = len(data.train_set.records) + len(data.val_set.records)
    assert len(data.val_set.records) == round(0.2 * count)
    assert not names(data.train_set) & names(data.val_set)
    assert pictures(data.train_set) & pictures(data.val_set)
    again = module(file, split="record", held_out=0.2, seed=7)
    assert names(again.val_set) == names(data.val_set), "drawn once, whatever the seed of training"
    assert again.val_set.fingerprint == data.val_set.fingerprint != data.train_set.fingerprint


def test_the_held_out_records_are_the_test_where_a_track_says_so(file: Path) -> None:
    data = module(file, split="record", test_on="held_out")
    data.setup("test")
    assert names(data.test_set) == names(data.val_set)
    with pytest.raises(SpatialbenchError, match=r"give the JSON or parquet file as data\.path"):
        module(file).setup("test")
    given = module(file, split="record", test_on="held_out", path=str(file))
    given.setup("test")
    assert len(given.test_set.records) == len(data.val_set.records) + len(data.train_set.records)


def test_one_reference_of_every_depth_question(file: Path) -> None:
    every, one = module(file).train_set, module(file, depth_pairs="random").train_set
    questions = Counter(name.partition("#")[0] for name in names(every) if "#" in name)
    drawn = [record for record in one.records if "#" in record.record_id]
    assert set(questions.values()) == {3}
    assert Counter(record.record_id.partition("#")[0] for record in drawn) == dict.fromkeys(
        questions, 1
    )
    assert all(record.weight == 1 for record in drawn)
    assert len({record.record_id.partition("#")[2] for record in drawn}) > 1, (
        "not always the same option"
    )
    rest = {record.record_id for record in every.records if "#" not in record.record_id}
    assert rest == {record.record_id for record in one.records if "#" not in record.record_id}
    assert one_reference(every).fingerprint == one_reference(every).fingerprint != every.fingerprint


def test_what_does_not_fill_a_batch_is_left_out_of_every_relation(file: Path) -> None:
    data = module(file, drop_last=4)
    full = module(file).val_set.counts
    assert data.val_set.counts == {relation: count // 4 * 4 for relation, count in full.items()}
    assert len(data.train_set.records) == len(module(file).train_set.records), (
        "training is left alone"
    )
    kept = whole_batches(record_set("x", 6, 0), 4)
    assert kept.counts == dict.fromkeys(kept.counts, 4)


def test_both_parts_make_up_the_whole() -> None:
    whole = record_set("x", 10, 0)
    trained, held = by_record(whole, 0.3)
    assert names(trained) | names(held) == names(whole)
    assert len(held.records) == 18


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(
        SpatialbenchError, match=r"data\.held_out is .*; it must be between 0 and 1"
    ):
        PairDataModule(held_out=share)


def test_a_missing_file_of_a_published_set_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = "data/embspatial/EmbSpatial-SFT.json"
    with pytest.raises(SpatialbenchError) as caught:
        PairDataModule(source="embspatial", train_path=path)
    line = (
        f"data.train_path: there is no file {path}; spatialbench data download embspatial brings it"
    )
    assert str(caught.value) == line
    assert advice("data/embspatial/other.json") == advice("mine/EmbSpatial-SFT.json") == ""


def test_pairs_of_names_that_training_never_has(file: Path) -> None:
    share = 0.5
    out = {
        ("bed", "lamp"),
        ("bed", "sofa"),
        ("chair", "lamp"),
        ("chair", "sofa"),
        ("bed", "chair"),
        ("lamp", "sofa"),
    }
    out = {pair for pair in out if left_out(*pair, share)}
    assert 0 < len(out) < 6
    whole, data = module(file), module(file, unseen_pairs=share)

    def pairs(records: RecordSet) -> set[tuple[str, ...]]:
        return {tuple(sorted((record.subject, record.object))) for record in records.records}

    assert pairs(whole.train_set) - pairs(data.train_set) == out & pairs(whole.train_set) != set()
    kept = {
        r.record_id
        for r in whole.train_set.records
        if tuple(sorted((r.subject, r.object))) not in out
    }
    assert names(data.train_set) == kept
    assert names(data.val_set) == names(whole.val_set)  # what is scored stays whole
    assert data.train_set.fingerprint != whole.train_set.fingerprint
    data.path = str(file)
    data.setup("test")
    assert pairs(data.test_set) >= out


def test_a_pair_is_left_out_by_its_names_alone() -> None:
    kinds = [kind.name for kind in KINDS]
    pairs = [(a, b) for row, a in enumerate(kinds) for b in kinds[row + 1 :]]
    out = {pair for pair in pairs if left_out(*pair, 0.2)}
    assert out == {(a, b) for a, b in pairs if left_out(b, a, 0.2)}
    assert out <= {pair for pair in pairs if left_out(*pair, 0.3)}
    assert len(out) / len(pairs) == pytest.approx(0.2, abs=0.05)
    assert not any(left_out(*pair, 0.0) for pair in pairs)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_of_pairs_is_less_than_one(share: float) -> None:
    with pytest.raises(
        SpatialbenchError, match=r"data\.unseen_pairs is .*; it must be 0 or more and less than 1"
    ):
        PairDataModule(unseen_pairs=share)
