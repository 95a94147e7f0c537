"""Which records are shown, and their pictures: those on which the rows disagree most, the hardest and the easiest."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.records import Record, RecordSet
from spatialbench.errors import SpatialbenchError
from spatialbench.evaluation.statistics import correctness
from spatialbench.experiment import deep_merge
from spatialbench.pages import Track
from spatialbench.relations import RELATIONS
from spatialbench.report.html.material import Material
from spatialbench.signatures import prune
from spatialbench.stale import Today

KINDS = {
    "disagreement": "among those on which the rows disagree most",
    "hardest": "among those that most rows get wrong",
    "easiest": "among those that most rows get right",
}
SIDE = 256
"""Of a picture in pixels; rooms are rendered anew at this size, others are reduced to it."""
QUALITY = 82


class Chosen(NamedTuple):
    """``place`` in the outcomes of the first row; ``kind`` one of ``KINDS``."""

    place: int
    kind: str


def choose(material: Material, count: int) -> list[Chosen]:
    """``count`` records of each relation: one half of most disagreement, one third the hardest, the rest the easiest.

    Disagreement is the variance over rows of a record's correctness, which is a mean over seeds. Of equals the first
    of the test set is taken: the same rows give the same records.
    """
    first = material.rows[0].outcomes
    right = np.stack([correctness(found).mean(0) for found in material.differences.margins.values()])  # [rows, N]
    variance, mean = right.var(0), right.mean(0)
    chosen = []
    for relation in RELATIONS:
        known = np.flatnonzero(first.relation == relation)
        left = list(known)
        for kind, score, most in (
            ("disagreement", -variance, count // 2),
            ("hardest", mean, count // 3),
            ("easiest", -mean, count - count // 2 - count // 3),
        ):
            best = sorted(left, key=lambda place, score=score: (round(float(score[place]), 9), place))[:most]  # type: ignore[misc]
            chosen += [Chosen(int(place), kind) for place in best]
            left = [place for place in left if place not in set(best)]
    return chosen


def test_set(material: Material) -> RecordSet:
    """The records of the rows' test, which today's track must still give.

    Raises:
        SpatialbenchError: the track is gone, its data are not here, or they are others than the rows'.
    """
    track = Today.read(material.benchmarks).tracks.get(material.track)
    if track is None:
        raise SpatialbenchError(f"the track {material.track} is gone")
    found = test_records(track, material.budget)
    stated = material.rows[0].result.data_fingerprint
    if found.fingerprint != stated:
        raise SpatialbenchError(
            f"today's test records (fingerprint {found.fingerprint}) are not those of the rows ({stated})"
        )
    return found


def test_records(track: Track, budget: str) -> RecordSet:
    """The test set of a track.

    Raises:
        SpatialbenchError: its data are not here.
    """
    block = deep_merge(track.config["data"], (track.budgets.get(budget) or {}).get("data") or {})
    data = PairDataModule(**prune(block, PairDataModule))
    data.setup("test")
    return data.test_set


def picture(records: RecordSet, record: Record) -> Image.Image:
    """The picture of a record, ``SIDE`` pixels high; a rendered room is rendered anew, so that it is sharp."""
    if records.name == "rooms/test":
        from spatialbench.data.rooms.render import render
        from spatialbench.data.rooms.scene import generate

        return Image.fromarray(render(generate("test", record.image), SIDE, supersample=2).image)
    found = Image.fromarray(np.asarray(records.images[record.image]))
    return found if found.height <= SIDE else found.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def jpeg(image: Image.Image) -> bytes:
    """A small file; the same picture gives the same bytes."""
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=QUALITY, optimize=True)
    return stream.getvalue()


def boxes(record: Record) -> list[tuple[str, float, float, float, float]]:
    """Name, left, top, width and height of the subject and the object, as shares of the picture's sides in percent."""
    width, height = record.image_size
    if not width or not height:
        return []
    found = [(name, record.boxes[name]) for name in (record.subject, record.object) if name in record.boxes]
    return [
        (
            name,
            round(100 * box.x / width, 2),
            round(100 * box.y / height, 2),
            round(100 * box.w / width, 2),
            round(100 * box.h / height, 2),
        )
        for name, box in found
    ]


def by_id(records: Sequence[Record]) -> dict[str, Record]:
    """Record id -> record."""
    return {record.record_id: record for record in records}
