"""The location head: (1) to (3) as loops, what is unknown is left out, and a plain CLIP remains."""

import math

import numpy as np
import pytest
import torch

from spatialbench.data.locations import locations
from spatialbench.data.records import Box, Record
from spatialbench.methods.clip import Clip
from spatialbench.methods.location_head import LocationHead
from tests.support.checks import close, refused
from tests.support.models import NAMES, batch, images, silent, step, student

BOXES = {"sofa": Box(0, 0, 16, 8), "lamp": Box(24, 24, 8, 8), "bed": Box(4, 20, 10, 6)}
DEPTHS = {"sofa": 2.0, "lamp": 3.5}


def record(row: int, subject: str, other: str, **changes: object) -> Record:
    given = {"boxes": BOXES, "image_size": (32, 32), "depths": DEPTHS, **changes}
    return Record(str(row), row // 3, subject, "left", other, **given)


def records() -> list[Record]:
    """Return records for the rows of ``batch()``; the floor lamp has no box, the bed no depth."""
    pairs = [(NAMES[k % 4], NAMES[(k + 1 + k // 4) % 4]) for k in range(12)]
    return [record(row, *pair) for row, pair in enumerate(pairs)]


def method(weight: float = 150.0) -> LocationHead:
    made = LocationHead(student(), weight)
    made.prepare(records(), "squash")
    return silent(made)


def test_a_location_is_the_centre_in_the_resized_image() -> None:
    wide = record(0, "sofa", "lamp", image_size=(64, 32), boxes={"sofa": Box(24, 0, 8, 16)})
    for resize, x, y in (("squash", 28 / 64, 0.25), ("crop", 12 / 32, 0.25)):
        (found,) = locations([wide], resize)
        assert found[0].tolist() == pytest.approx([x, y, math.log(2)])
        assert np.isnan(found[1]).all(), "no box: nowhere"
    (found,) = locations([record(0, "bed", "lamp")], "squash")
    assert found[0][:2].tolist() == pytest.approx([9 / 32, 23 / 32])
    assert math.isnan(found[0][2]), "no depth"


def test_the_equations_as_loops() -> None:
    head = method().double()
    rows = records()
    names = list(dict.fromkeys(name for r in rows for name in (r.subject, r.object)))
    codes = dict(zip(names, head.codes, strict=True))
    pixels = images(4)
    embedded = head.image(pixels).detach()
    total, count = 0.0, 0
    for row in (0, 3, 7, 8):
        v = embedded[row // 3]
        for name in (rows[row].subject, rows[row].object):
            if name not in BOXES:
                continue
            x, y = BOXES[name].centre
            truth = [x / 32, y / 32, *([math.log(DEPTHS[name])] if name in DEPTHS else [])]
            for k, value in enumerate(truth):
                said = float((v @ head.head.weight[k] @ codes[name] + head.head.bias[k]).detach())
                total += (1.0, 1.0, 0.5)[k] * (said - value) ** 2
                count += 1
    record_rows = torch.tensor([0, 3, 7, 8])
    found = head.location_error(embedded[record_rows // 3], record_rows).detach()
    assert float(found) == pytest.approx(total / count, rel=1e-5)  # boxes are in float32

    data = batch(4, 3)
    loss, _ = step(head, data)
    protocol = head.finetuning_loss(data).detach()
    error = head.location_error(head.image(data["pixels"])[data["image"]], data["record"])
    close(loss, protocol + 150 * error.detach(), rtol=1e-9)


def test_codes_are_whitened_embeddings_of_the_names() -> None:
    head = method()
    names = list(dict.fromkeys(name for r in records() for name in (r.subject, r.object)))
    texts = head.text(head.tokenize([f"a {name}" for name in names])).detach().double()
    spectrum, vectors = torch.linalg.eigh(texts @ texts.T)
    white = vectors @ torch.diag(spectrum.rsqrt()) @ vectors.T @ texts  # (T T^T)^(-1/2) T
    close(head.codes.double(), white, rtol=0, atol=1e-4)
    close(head.codes @ head.codes.T, torch.eye(len(names)), rtol=0, atol=1e-5)


def test_more_names_than_dimensions_have_codes_of_unit_norm() -> None:
    head = LocationHead(student())
    width = head.student.visual.output_dim
    many = [record(k, f"sofa {k}", f"lamp {k}", boxes={}) for k in range(width)]
    head.prepare(many, "squash")
    assert head.codes.shape == (2 * width, width)
    close(head.codes.norm(dim=1), torch.ones(2 * width), rtol=1e-5)


def test_the_head_starts_at_the_mean_location_and_teaches_the_image_tower() -> None:
    head = method()
    known = torch.from_numpy(locations(records(), "squash")).flatten(0, 1)
    for k in range(3):
        column = known[:, k][known[:, k].isfinite()]
        assert head.head.bias.tolist()[k] == pytest.approx(float(column.mean()), rel=1e-5)
    rows = torch.arange(12)
    head.location_error(head.image(images(4))[rows // 3], rows).backward()
    named = dict(head.named_parameters())
    moved = {name for name, p in named.items() if p.grad is not None and bool(p.grad.any())}
    assert all(torch.isfinite(named[name].grad).all() for name in moved), "in spite of the NaN"
    assert {"head.weight", "head.bias", "student.visual.proj"} <= moved
    assert not any(name.startswith(("student.transformer", "student.token")) for name in moved)


def test_without_a_location_only_the_protocol_is_left() -> None:
    head = silent(LocationHead(student()))
    head.prepare([record(k, "sofa", "lamp", boxes={}) for k in range(12)], "squash")
    data = batch(4, 3)
    loss, gradients = step(head, data)
    plain = Clip(student())
    plain.student.load_state_dict(head.student.state_dict())
    expected, wanted = step(plain, data)
    close(loss, expected, rtol=1e-6)
    assert all(torch.isfinite(value).all() for value in gradients.values())
    close(gradients["student.visual.proj"], wanted["student.visual.proj"], rtol=1e-4)


def test_it_is_scored_as_its_student_alone() -> None:
    head, plain = method(), Clip(student())
    plain.student.load_state_dict(head.student.state_dict())
    assert head.image(images(2)).equal(plain.image(images(2)))
    assert head.dense(images(2)).equal(plain.dense(images(2)))


def test_codes_are_of_the_text_tower_at_the_start_and_in_no_checkpoint() -> None:
    head = method()
    before = head.codes.clone()
    assert not {"codes", "named", "located"} & set(head.state_dict())
    with torch.no_grad():
        head.student.text_projection.mul_(-1)
    assert head.codes.equal(before)
    assert not head.codes.requires_grad


def test_a_negative_weight_is_refused() -> None:
    with refused("weight is -1.0; it must be 0 or more"):
        LocationHead(student(), -1.0)
