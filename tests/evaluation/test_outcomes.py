"""Outcome files: round trip, the same bytes for the same content, damage refused."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spatialbench.evaluation.outcomes import RunOutcomes

from spatialbench.data.records import Record
from spatialbench.evaluation.pairs import Outcomes
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.npz import digest, npz_bytes


@pytest.fixture
def run() -> RunOutcomes:
    records = [
        Record("a", 0, "sofa", "left", "lamp", scene_id="room 1"),
        Record("b", 0, "bed", "far", "lamp", scene_id="room 1"),
        Record("c", 1, "bed", "far", "lamp"),
    ]
    scores = np.array([0.3, 0.2, 0.1], dtype=np.float32)
    return RunOutcomes.of(Outcomes(np.arange(3), scores, scores[::-1].copy()), records)


def test_round_trip(run: RunOutcomes, tmp_path: Path) -> None:
    run.save(tmp_path / "outcomes.npz")
    again = RunOutcomes.load(tmp_path / "outcomes.npz")
    assert again.record_ids.tolist() == ["a", "b", "c"]
    assert again.relation.tolist() == ["left", "far", "far"]
    assert again.cluster.tolist() == ["room 1", "room 1", "image 1"]
    assert np.array_equal(again.margin, run.margin)
    assert again.scores().accuracy()["far"] == 25.0  # a tie and a miss


def test_outcomes_must_fit_the_records(run: RunOutcomes) -> None:
    with pytest.raises(SpatialbenchError, match="1 outcomes for 2 records"):
        RunOutcomes.of(
            Outcomes(np.arange(1), np.zeros(1), np.zeros(1)),
            [Record(name, 0, "a", "left", "b") for name in "xy"],
        )


def test_the_same_content_gives_the_same_bytes_and_no_clock(run: RunOutcomes) -> None:
    arrays = {"ids": run.record_ids, "margin": run.margin}
    content = npz_bytes(arrays)
    assert content == npz_bytes({name: array.copy() for name, array in arrays.items()})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_digest_sees_content_names_and_types() -> None:
    margin = np.zeros(3, dtype=np.float32)
    digests = {
        digest({"margin": margin}),
        digest({"margins": margin}),
        digest({"margin": margin.astype(np.float16)}),
        digest({"margin": margin.reshape(1, 3)}),
        digest({"margin": margin + 1}),
    }
    assert len(digests) == 5
    assert digest({"margin": margin}) == digest({"margin": margin.copy()})


def test_damaged_files_are_refused(run: RunOutcomes, tmp_path: Path) -> None:
    path = tmp_path / "outcomes.npz"
    with pytest.raises(SpatialbenchError, match="no such file"):
        RunOutcomes.load(path)
    run.save(path)
    content = path.read_bytes()
    for damage in (
        b"",
        content[:100],
        content[: len(content) // 2],
        b"not a zip",
        content[:60] + b"\0" * 60,
    ):
        path.write_bytes(damage)
        with pytest.raises(SpatialbenchError, match=r"outcomes\.npz"):
            RunOutcomes.load(path)


def test_foreign_content_is_refused(run: RunOutcomes, tmp_path: Path) -> None:
    path = tmp_path / "outcomes.npz"
    for wrong, message in [
        (replace(run, relation=np.array(["left", "behind", "far"])), "unknown relation 'behind'"),
        (replace(run, record_ids=np.array(["a", "a", "c"])), "twice"),
        (replace(run, positive=np.zeros(2, dtype=np.float32)), "not one number per record"),
        (replace(run, cluster=np.array(["x"])), "differ in length"),
        (replace(run, positive=np.array(["x", "y", "z"])), "positive has the type"),
    ]:
        wrong.save(path)
        with pytest.raises(SpatialbenchError, match=message):
            RunOutcomes.load(path)
    path.write_bytes(npz_bytes({"margin": run.margin}))
    with pytest.raises(SpatialbenchError, match="expected"):
        RunOutcomes.load(path)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.npz"
    np.savez(path, record_ids=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SpatialbenchError, match="not a readable outcomes file"):
        RunOutcomes.load(path)
