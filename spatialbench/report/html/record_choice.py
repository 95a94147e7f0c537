"""Which records are shown, and their pictures: those that set rows apart, the hardest and the easiest."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from spatialbench.config.experiment import deep_merge
from spatialbench.config.pages import Track
from spatialbench.config.signatures import prune
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.records import Record, RecordSet
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.statistics import correctness
from spatialbench.report.html.inputs import Material
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError

KINDS = {
    "disagreement": "among those that set the most rows apart",
    "hardest": "among those that most rows get wrong",
    "easiest": "among those that most rows get right",
}
AGAIN = 0.25
"""What it is worth to set two rows apart once more."""
SIDE = 256
"""Of a picture in pixels; rooms are rendered anew at this size, others are reduced to it."""
QUALITY = 82


class Chosen(NamedTuple):
    """``place`` in the outcomes of the first row; ``kind`` one of ``KINDS``."""

    place: int
    kind: str


def choose(material: Material, count: int) -> list[Chosen]:
    """``count`` records of each relation: one half that set rows apart, one third the hardest, the rest the easiest.

    Of equals the first of the test set is taken: the same rows give the same records.
    """
    first = material.rows[0].outcomes
    right = np.stack(
        [correctness(found).mean(0) for found in material.differences.margins.values()]
    )  # [rows, N]
    mean = right.mean(0).round(9)
    apart = np.zeros((len(right), len(right)))
    chosen = []
    for relation in RELATIONS:
        left = np.flatnonzero(first.relation == relation)
        for place in _apart(right, left, count // 2, apart):
            chosen.append(Chosen(place, "disagreement"))
            left = left[left != place]
        for kind, score, most in (
            ("hardest", mean, count // 3),
            ("easiest", -mean, count - count // 2 - count // 3),
        ):
            best = left[np.argsort(score[left], kind="stable")][:most]
            chosen += [Chosen(int(place), kind) for place in best]
            left = left[~np.isin(left, best)]
    return chosen


def _apart(right: np.ndarray, places: np.ndarray, most: int, apart: np.ndarray) -> list[int]:
    """Records one after the other, each the one that sets the most rows apart: first right, second wrong in the mean
    of their seeds. Two rows that k records have set apart already count ``AGAIN ** k``, so that two alike rows come
    apart, too.

    Args:
        right: [rows, N], correctness as a mean over seeds.
        apart: [rows, rows] k, counted on.
    """
    good, bad = (
        (right[:, places] > 0.5).astype(float),
        (right[:, places] < 0.5).astype(float),
    )  # [rows, n]
    found: list[int] = []
    for _ in range(min(most, len(places))):
        gain = ((AGAIN**apart @ bad) * good).sum(0)
        gain[np.isin(places, found)] = -1
        best = int(gain.round(9).argmax())
        apart += np.outer(good[:, best], bad[:, best])
        found.append(int(places[best]))
    return found


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
    found = [
        (name, record.boxes[name])
        for name in (record.subject, record.object)
        if name in record.boxes
    ]
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
