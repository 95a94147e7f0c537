"""Controls: what must come out does, and one that is broken on purpose fails the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from spatialbench.evaluation.controls.row import (
    ABOVE,
    REST,
    SWAP,
    BrokenControl,
    ControlRow,
    Made,
    all_ties,
    check,
    mirror,
    row_of,
)
from spatialbench.results.controls_file import controls_path, read_controls

from spatialbench.cli.main import main
from spatialbench.data.records import Box, Record, RecordSet
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.controls import heuristics
from spatialbench.evaluation.controls import suite as made
from spatialbench.evaluation.controls.transforms import balanced, exchanged, mirrored, shuffled
from spatialbench.evaluation.pairs import Count
from spatialbench.methods.clip import Clip
from spatialbench.report.controls import (
    below_table,
    controls_sheet,
    controls_table,
    problems,
    section,
)
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.typed_files import load_json
from tests.support import tiny

NEAR, FAR = (
    Box(2, 20, 8, 10),
    Box(20, 4, 6, 6),
)  # near: left, lower, larger, in a picture of 32 x 32


def record(relation: str, subject: str = "sofa", other: str = "lamp", image: int = 0) -> Record:
    key = f"{image}-{subject}-{relation}-{other}"
    boxes = {"sofa": NEAR, "lamp": FAR}
    return Record(
        key, image, subject, relation, other, boxes, (32, 32), "made up", f"scene {image}"
    )


def truths(name: str = "made up") -> RecordSet:
    """Of two pictures of noise, one record of each relation; the sofa is near, left and under."""
    statements = {
        "close": "sofa",
        "far": "lamp",
        "left": "sofa",
        "right": "lamp",
        "above": "lamp",
        "under": "sofa",
    }
    other = {"sofa": "lamp", "lamp": "sofa"}
    records = [record(r, s, other[s], image) for image in range(2) for r, s in statements.items()]
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    return RecordSet(name, images, records, "f" * 16)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = tmp_path_factory.mktemp("student")
    (folder / "tiny-student.json").write_text(json.dumps(tiny.STUDENT))
    torch.manual_seed(0)
    return Clip(f"{folder / 'tiny-student.json'}:random").eval()


def row(found: Made, record_set: RecordSet, own: np.ndarray | None = None) -> ControlRow:
    clusters = np.array([record.scene_id for record in record_set.records])
    return row_of(found, own, made.relations(record_set), clusters)


# ------------------------------------------------------------------------------------------------------ the changes
def test_exchanged_captions_are_the_negated_ones() -> None:
    before, after = list(truths().pairs()), list(exchanged(truths()).pairs())
    assert [(pair.caption, pair.negated) for pair in after] == [
        (pair.negated, pair.caption) for pair in before
    ]


def test_mirrored_flips_pictures_and_boxes_and_nothing_else() -> None:
    before, after = truths(), mirrored(truths())
    assert np.array_equal(after.images[:, :, 0], before.images[:, :, 31])
    assert np.array_equal(mirrored(after).images, before.images)
    assert mirrored(after).records == before.records
    assert after.records[0].boxes["sofa"] == Box(32 - 2 - 8, 20, 8, 10)
    assert [pair.caption for pair in after.pairs()] == [pair.caption for pair in before.pairs()]


def test_shuffled_gives_every_record_a_picture_of_another_scene() -> None:
    records = [
        replace(record("left", image=image), scene_id=f"scene {image // 3}") for image in range(12)
    ]
    pictures = RecordSet("x", np.zeros((12, 4, 4, 3), np.uint8), records, "f")
    other = [after.image for after in shuffled(pictures, 5).records]
    assert sorted(other) == list(range(12))
    assert all(
        image // 3 != record.image // 3 for image, record in zip(other, records, strict=True)
    )
    assert other == [after.image for after in shuffled(pictures, 5).records]
    records = [
        replace(record, scene_id="one" if record.image < 8 else record.scene_id)
        for record in records
    ]
    with pytest.raises(SpatialbenchError, match="8 of 12 pictures are of scene one"):
        shuffled(replace(pictures, records=records), 5)


def test_balanced_is_every_statement_as_often_as_its_exchange() -> None:
    assert balanced([record("left"), record("left", "lamp", "sofa", 1)])
    assert not balanced([record("left"), record("right", "lamp", "sofa", 1)])


# --------------------------------------------------------------------------------------------------- without a model
def test_a_constant_scorer_is_at_exactly_50() -> None:
    made_up = truths()
    found = row(
        Made("constant", "", "", heuristics.constant(made_up.records), all_ties(made_up.counts)),
        made_up,
    )
    assert found.accuracy == dict.fromkeys((*RELATIONS, "all", "macro"), 50.0)
    assert found.interval["all"] == [50.0, 50.0]
    assert found.relations["close"] == Count(2, 0, 2)
    assert found.verdict == "exact, holds"
    check([found])


def test_boxes_know_directions_and_guess_depth() -> None:
    made_up = truths()
    side = np.isin(made.relations(made_up), heuristics.DIRECTIONS)
    boxes = heuristics.directions(made_up.records)
    assert (boxes[side] > 0).all()
    assert (boxes[~side] == 0).all()
    assert boxes[2] == pytest.approx((23 - 6) / 32, abs=1e-6)  # left: centres at 6 and 23 of 32
    for scorer, lead in (
        (heuristics.elevation, (25 - 7) / 32),
        (heuristics.bottom_edge, (30 - 10) / 32),
        (heuristics.box_size, (80 - 36) / 1024),
    ):
        assert scorer(made_up.records)[~side] == pytest.approx(lead, abs=1e-6)
        assert (scorer(made_up.records)[side] == 0).all()


def test_of_records_without_boxes_it_is_said_so() -> None:
    bare = truths()
    bare = replace(bare, records=[replace(record, boxes={}) for record in bare.records])
    found, absent = made.without_model(bare)
    assert [each.name for each in found] == ["constant", "random"]
    assert absent["elevation"] == made.NO_BOXES
    assert absent["depth"] == made.NO_DEPTH


def test_the_rooms_boxes_and_depth_are_the_ceiling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from spatialbench.data.rooms import load

    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    rooms = load("test", 32, 48).record_set()
    found, absent = made.without_model(rooms)
    rows = {each.name: row(each, rooms) for each in found}
    check(list(rows.values()))
    assert not absent
    for relation, counts in rows["depth"].relations.items():
        assert counts.correct == (counts.n if relation in ("close", "far") else 0)
    for relation in heuristics.DIRECTIONS:
        n = rooms.counts[relation]
        assert rows["boxes"].relations[relation] == Count(n, n, 0)
        assert rows["boxes, mirrored"].relations[relation] == Count(
            n, 0 if relation in ("left", "right") else n, 0
        )
    assert min(rooms.counts["left"], rooms.counts["close"]) > 0
    wrong = replace(
        rooms, records=[replace(r, relation="right") for r in rooms.records if r.relation == "left"]
    )
    rows_of_wrong = [row(each, wrong) for each in made.without_model(wrong)[0]]
    with pytest.raises(BrokenControl, match=r"boxes has 0\.00 .* on right and must have 100\.00"):
        check(rows_of_wrong)


# ------------------------------------------------------------------------------------------------------- with a model
def test_of_a_model_exchanged_captions_mirror_to_the_record(model: Clip) -> None:
    made_up = truths()
    found, absent = made.of_model(model, "clip", made_up, 1)
    by_name = {each.name: each for each in found}
    assert not absent
    assert np.array_equal(by_name["exchanged"].margins, -by_name["as it is"].margins)
    rows = [row(each, made_up, by_name["as it is"].margins) for each in found]
    check(rows)
    own, turned = rows[0], next(each for each in rows if each.name == "exchanged")
    assert turned.relations == mirror(own.relations)
    assert turned.accuracy["all"] == 100 - own.accuracy["all"]
    assert list(next(each for each in rows if each.name == "mirrored").differences) == [
        SWAP,
        REST,
        ABOVE,
    ]


def test_the_verdict_on_mirrored_pictures() -> None:
    """A scorer that reads the picture swaps, one that does not is told, one at chance has nothing to swap."""
    many = truths()
    many = replace(
        many, records=[replace(r, record_id=f"{k}") for k, r in enumerate([*many.records] * 20)]
    )
    side = np.isin(made.relations(many), ("left", "right"))
    right = np.ones(len(many.records))
    reads = np.where(side, -right, right)
    verdicts = [
        row(Made("mirrored", "x", "", margins), many, own).verdict
        for margins, own in (
            (reads, right),
            (right, right),
            (-reads, right),
            (reads, np.where(side, 0, right)),
        )
    ]
    assert verdicts == [
        "left, right swap; the others stay",
        "left, right do not swap; the others stay",
        "left, right do not swap; the others change",
        "left, right at chance; the others stay",
    ]


def test_blind_is_exactly_50_where_every_statement_has_its_exchange(model: Clip) -> None:
    records = [
        record(relation, a, b, image)
        for image, (a, b) in enumerate([("sofa", "lamp"), ("lamp", "sofa")])
        for relation in RELATIONS
    ]
    whole = replace(truths(), records=records)
    blind = next(each for each in made.of_model(model, "clip", whole, 2)[0] if each.name == "blind")
    assert row(blind, whole).accuracy["all"] == 50
    assert blind.expected is not None
    assert (
        next(
            each for each in made.of_model(model, "clip", truths(), 2)[0] if each.name == "blind"
        ).expected
        is None
    )


def test_a_model_that_forgets_which_caption_is_which_breaks_the_control(
    model: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commonest fault: the first of two captions is always the right one."""
    monkeypatch.setattr(
        type(model),
        "predict_step",
        lambda self, batch, index=0: {
            "record": batch["record"],
            "positive": torch.ones(len(batch["captions"])),
            "negative": torch.zeros(len(batch["captions"])),
        },
    )
    made_up = truths()
    found, _ = made.of_model(model, "clip", made_up, 2)
    with pytest.raises(
        BrokenControl, match=r"exchanged of clip has 100\.00 .* on close and must have 0\.00"
    ):
        check([row(each, made_up, found[0].margins) for each in found])


# ------------------------------------------------------------------------------------------------------- the command
@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    folder = tiny.benchmark(tmp_path / "benchmarks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    track = folder / "tracks" / "tiny.yaml"
    track.write_text(track.read_text() + "  full: {}\n")
    page = tiny.page(folder, "zero", rest="trainer: {max_steps: 0}\n")
    return ["controls", "--config", str(page), "--track", "tiny"]


def test_the_command_prints_and_stores(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--write"]) == 0
    text = capsys.readouterr().out
    assert "zero, exchanged" in text
    assert "Not of these records: depth, no depth is known of these records." in text
    path = controls_path(Path("results"), "tiny", "zero")
    stored = read_controls(path)
    assert [each.name for each in stored.rows][:2] == ["constant", "random"]
    today = Today.read(Path("benchmarks"))
    assert problems(Path("results"), today) == []
    assert "### Controls" in section(Path("results"), "tiny", today)
    assert controls_table("results", "benchmarks", "tiny", "md") in below_table(
        "results", "benchmarks", "tiny", "full", "md"
    )
    assert below_table("results", "benchmarks", "tiny", "full", "csv") == ""
    assert [each["name"] for each in controls_sheet([stored]).data] == [
        each.name for each in stored.rows
    ]
    Path("benchmarks/zero.yaml").write_text(
        Path("benchmarks/zero.yaml").read_text() + "seed_everything: 3\n"
    )
    found = problems(Path("results"), Today.read(Path("benchmarks")))
    assert len(found) == 1
    assert "stale, page zero changed" in found[0]


def test_what_is_stored_is_recounted(arguments: list[str]) -> None:
    assert main([*arguments, "--write"]) == 0
    path = controls_path(Path("results"), "tiny", "zero")
    content = load_json(path, "")
    content["rows"][0]["accuracy"]["all"] = 51.0
    path.write_text(json.dumps(content))
    with pytest.raises(SpatialbenchError, match="constant, field 'accuracy'"):
        read_controls(path)
    content["rows"][0]["accuracy"]["all"] = 50.0
    content["rows"][0]["expected"]["close"] = {"n": 4, "correct": 4, "ties": 0}
    path.write_text(json.dumps(content))
    with pytest.raises(BrokenControl, match=r"constant has 50\.00"):
        read_controls(path)


def test_a_broken_control_fails_the_run_and_stores_nothing(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(heuristics, "constant", lambda records: np.ones(len(records)))
    assert main([*arguments, "--write"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1] == (
        "spatialbench: broken control: constant has 100.00 (4 right, 0 ties of 4) on close and must have 50.00 (0 "
        "right, 4 ties of 4) (5 more such); no number of this test can be trusted"
    )
    assert not Path("results").exists()
    assert main([*arguments, "--write", "--budget", "smoke"]) == 2
