"""Controls: what must come out does, and one that is broken on purpose fails the run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spatialbench.data.records import Box, Record, RecordSet
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.controls import checks, heuristics
from spatialbench.evaluation.controls.checks import OWN, BrokenControl, absent, counts, exact
from spatialbench.evaluation.controls.heuristics import NO_BOXES
from spatialbench.evaluation.controls.suite import ABOUT, NO_DEPTH, OF_MODEL, Controls
from spatialbench.evaluation.controls.transforms import balanced, mirrored, shuffled, swapped
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.pairs import Count, answers
from spatialbench.methods.clip import Clip
from tests.support.checks import refused
from tests.support.models import student

NEAR, FAR = Box(2, 20, 8, 10), Box(20, 4, 6, 6)
"""Near: left, lower, larger, in an image of 32 x 32."""


def record(relation: str, subject: str = "sofa", other: str = "lamp", image: int = 0) -> Record:
    key, boxes = f"{image}-{subject}-{relation}-{other}", {"sofa": NEAR, "lamp": FAR}
    scene = f"scene {image}"
    return Record(key, image, subject, relation, other, boxes, (32, 32), "simulated", scene)


def truths() -> RecordSet:
    """Two images of noise, one record of each relation; the sofa is near, left and under."""
    subjects = dict.fromkeys(RELATIONS, "lamp") | dict.fromkeys(("close", "left", "under"), "sofa")
    other = {"sofa": "lamp", "lamp": "sofa"}
    records = [record(r, s, other[s], image) for image in range(2) for r, s in subjects.items()]
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    return RecordSet("simulated", images, records, "f" * 16)


def both_ways() -> RecordSet:
    """Every statement once in each direction, on another image each."""
    order = [("sofa", "lamp"), ("lamp", "sofa")]
    records = [record(r, *names, image) for image, names in enumerate(order) for r in RELATIONS]
    return replace(truths(), records=records)


@pytest.fixture(scope="module")
def model() -> Clip:
    torch.manual_seed(0)
    return Clip(student()).eval()


def evidence_of(record_set: RecordSet, notes: str = "", **values: np.ndarray) -> Evidence:
    """Evidence of scorers; ``own`` stands for the model itself."""
    named = {OWN if name == "own" else name: margins for name, margins in values.items()}
    return answers(record_set.records, named, "d", {"exact": notes})


def test_swapped_captions_are_the_negated_ones() -> None:
    before, after = truths().records, swapped(truths()).records
    assert [r.statement for r in after] == [r.statement.negated for r in before]


def test_mirrored_flips_images_and_boxes_and_nothing_else() -> None:
    before, after = truths(), mirrored(truths())
    assert np.array_equal(after.images[:, :, 0], before.images[:, :, 31])
    assert np.array_equal(mirrored(after).images, before.images)
    assert mirrored(after).records == before.records
    assert after.records[0].boxes["sofa"] == Box(32 - 2 - 8, 20, 8, 10)
    assert [r.statement for r in after.records] == [r.statement for r in before.records]


def test_shuffled_gives_every_record_an_image_of_another_scene() -> None:
    records = [
        replace(record("left", image=image), scene_id=f"scene {image // 3}") for image in range(12)
    ]
    images = RecordSet("x", np.zeros((12, 4, 4, 3), np.uint8), records, "f")
    other = [after.image for after in shuffled(images, 5).records]
    assert sorted(other) == list(range(12))
    assert all(new // 3 != old // 3 for old, new in enumerate(other))
    assert other == [after.image for after in shuffled(images, 5).records]
    records = [replace(r, scene_id="one" if r.image < 8 else r.scene_id) for r in records]
    with refused("8 of 12 images are of scene one"):
        shuffled(replace(images, records=records), 5)


def test_boxes_know_directions_and_guess_depth() -> None:
    records = truths().records
    side = np.isin([record.relation for record in records], heuristics.DIRECTIONS)
    boxes = heuristics.directions(records)
    assert (boxes[side] > 0).all()
    assert (boxes[~side] == 0).all()
    assert boxes[2] == pytest.approx((23 - 6) / 32, abs=1e-6)  # left: centres at 6 and 23 of 32
    for scorer, lead in (
        ("elevation", (25 - 7) / 32),
        ("bottom edge", (30 - 10) / 32),
        ("box size", (80 - 36) / 1024),
    ):
        margins = heuristics.nearness(records, scorer)
        assert margins[~side] == pytest.approx(lead, abs=1e-6)
        assert (margins[side] == 0).all()


def test_a_model_and_its_controls(model: Clip) -> None:
    evidence = Controls(truths(), 1, "clip").run(model)
    assert set(evidence.margins.values) == {*ABOUT} - {"depth"} > set(OF_MODEL)
    assert exact(evidence) == ["constant", "boxes, mirrored", "swapped"]
    assert absent(evidence) == {"depth": NO_DEPTH}
    assert np.array_equal(evidence.answers("swapped"), -evidence.answers(OWN))
    assert counts(evidence, "swapped") == checks.mirror(counts(evidence, OWN))
    values = evidence.values()
    assert values["swapped: all"] == 100 - values[f"{OWN}: all"]
    assert {values[f"constant: {name}"] for name in (*RELATIONS, "all", "macro")} == {50}
    assert evidence.interval("constant: all") == (50, 50)
    assert counts(evidence, "constant")["close"] == Count(2, 0, 2)
    assert checks.verdict(evidence, "constant") == "exact, holds"
    assert checks.verdict(evidence, OWN) == "the page itself"
    assert checks.verdict(evidence, "elevation") == "does not contain 50"
    assert list(checks.differences(evidence)) == [checks.SWAP, checks.REST, checks.ABOVE]


def test_records_without_boxes_have_fewer_controls(model: Clip) -> None:
    bare = truths()
    bare = replace(bare, records=[replace(record, boxes={}) for record in bare.records])
    evidence = Controls(bare, 2, "clip").run(model)
    names = ("boxes", "boxes, mirrored", "elevation", "bottom edge", "box size")
    assert absent(evidence) == dict.fromkeys(names, NO_BOXES) | {"depth": NO_DEPTH}
    one_scene = replace(bare, records=[replace(r, scene_id="one") for r in bare.records])
    assert "cannot be shuffled" in absent(Controls(one_scene, 2, "clip").run(model))["shuffled"]


def test_blind_is_exactly_50_where_every_statement_has_its_swapped_form(model: Clip) -> None:
    assert balanced(both_ways().records)
    assert not balanced(truths().records)
    evidence = Controls(both_ways(), 2, "clip").run(model)
    assert "blind" in exact(evidence)
    assert evidence.values()["blind: all"] == 50


def test_the_rooms_boxes_and_depth_are_the_ceiling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Clip
) -> None:
    from spatialbench.data.rooms import load

    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    rooms = load("test", 32, 48).record_set()
    values = {"depth": heuristics.depth(rooms), "boxes": heuristics.directions(rooms.records)}
    values["boxes, mirrored"] = heuristics.directions(mirrored(rooms).records)
    evidence = evidence_of(rooms, "boxes; boxes, mirrored; depth", **values)
    checks.check(evidence)
    for relation, found in counts(evidence, "depth").items():
        assert found.correct == (found.n if relation in ("close", "far") else 0)
    for relation in heuristics.DIRECTIONS:
        n = rooms.counts[relation]
        assert counts(evidence, "boxes")[relation] == Count(n, n, 0)
        right = 0 if relation in ("left", "right") else n
        assert counts(evidence, "boxes, mirrored")[relation] == Count(n, right, 0)
    assert min(rooms.counts["left"], rooms.counts["close"]) > 0
    left = [record for record in rooms.records if record.relation == "left"]
    wrong = replace(rooms, records=[replace(record, relation="right") for record in left])
    with pytest.raises(BrokenControl, match=r"boxes has 0\.00 .* on right and must have 100\.00"):
        Controls(wrong, 2, "clip").run(model)


def test_the_verdict_on_mirrored_images() -> None:
    """A scorer that reads the image swaps; at chance there is nothing to swap."""
    many = truths()
    records = [replace(r, record_id=f"{k}") for k, r in enumerate([*many.records] * 20)]
    many = replace(many, records=records)
    side = np.isin([record.relation for record in records], ("left", "right"))
    right = np.ones(len(records))
    reads = np.where(side, -right, right)
    cases = [(reads, right), (right, right), (-reads, right), (reads, np.where(side, 0, right))]
    seen = [evidence_of(many, own=own, mirrored=flipped) for flipped, own in cases]
    assert [checks.verdict(evidence, "mirrored") for evidence in seen] == [
        "left, right swap; the others stay",
        "left, right do not swap; the others stay",
        "left, right do not swap; the others change",
        "left, right at chance; the others stay",
    ]


def test_broken_controls_are_refused(model: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commonest fault: the first of two captions is always the right one."""
    ones = np.ones(12)
    with pytest.raises(BrokenControl) as error:
        checks.check(evidence_of(truths(), "constant", constant=ones), "clip: ")
    assert str(error.value) == (
        "clip: broken control: constant has 100.00 (2 right, 0 ties of 2) on close and must have "
        "50.00 (0 right, 2 ties of 2) (5 more); no number of this test can be trusted"
    )
    uneven = np.where(np.arange(12) == 0, -1.0, 1.0)
    wrong = r"blind has 100\.00 .* on far and must have 50\.00 .*\(4 more\)"
    with pytest.raises(BrokenControl, match=wrong):
        checks.check(evidence_of(truths(), "blind", blind=uneven))
    monkeypatch.setattr(
        type(model),
        "predict_step",
        lambda self, batch, index=0: {
            "record": batch["record"],
            "positive": torch.ones(len(batch["captions"])),
            "negative": torch.zeros(len(batch["captions"])),
        },
    )
    message = r"clip: broken control: swapped has 100\.00 .* on close and must have 0\.00"
    with pytest.raises(BrokenControl, match=message):
        Controls(truths(), 2, "clip").run(model)
