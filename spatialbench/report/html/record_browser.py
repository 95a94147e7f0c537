"""The record browser's data: which records are shown, their images, and the answer of every row."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from spatialbench.config.experiment import deep_merge
from spatialbench.config.signatures import prune
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.records import Record, RecordSet
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.ratio import correctness
from spatialbench.report.html.inputs import ReportInputs
from spatialbench.report.map_figures import Frame
from spatialbench.results.schema import PAIRS
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

KINDS = {
    "disagreement": "among those that set the most rows apart",
    "hardest": "among those that most rows get wrong",
    "easiest": "among those that most rows get right",
}
AGAIN = 0.25
"""Weight of setting two rows apart once more."""
SIDE = 256
"""Height of an image in pixels; rooms are rendered anew at this size, others are reduced to it."""
QUALITY = 82
RowMaps = Mapping[str, Sequence[np.ndarray]]
"""``attention`` and ``relevance`` -> a map [h, w] of every record of ``Sample.mapped``."""


class Chosen(NamedTuple):
    """A record by its place in the outcomes of the first row, and one of ``KINDS``."""

    place: int
    kind: str


@dataclass(frozen=True)
class Sample:
    """The test set, and the records of it that are shown, each with its choice."""

    test: RecordSet
    records: Sequence[tuple[Chosen, Record]]

    @cached_property
    def mapped(self) -> list[Record]:
        """The records with maps: of each relation the first that sets rows apart."""
        first: dict[str, Record] = {}
        for chosen, record in self.records:
            if chosen.kind == "disagreement":
                first.setdefault(record.relation, record)
        return list(first.values())


def sample(inputs: ReportInputs, count: int) -> Sample:
    """Choose ``count`` records of each relation of the rows' test."""
    first = inputs.rows[0]
    track = Today.read(inputs.benchmarks).tracks.get(inputs.track)
    if track is None:
        raise SpatialbenchError(f"the track {inputs.track} is gone")
    own = (track.budgets.get(first.result.budget) or {}).get("data") or {}
    data = PairDataModule(**prune(deep_merge(track.config["data"], own), PairDataModule))
    data.setup("test")
    today, stated = data.test_set.fingerprint, first.result.pairs.data
    if today != stated:
        raise SpatialbenchError(
            f"today's test records (fingerprint {today}) are not those of the rows ({stated})"
        )
    known = {record.record_id: record for record in data.test_set.records}
    ids = first.margins.units
    chosen = [(choice, known[str(ids[choice.place])]) for choice in choose(inputs, count)]
    return Sample(data.test_set, chosen)


def choose(inputs: ReportInputs, count: int) -> list[Chosen]:
    """Choose records of each relation: half set rows apart, a third are hardest, the rest easiest.

    Ties go to the first of the test set, so that the same rows give the same records.
    """
    relations = inputs.rows[0].margins.group
    answers = [found.answers() for found in inputs.differences.evidence[PAIRS].values()]
    right = np.stack([correctness(seeds).mean(0) for seeds in answers])  # [rows, N]
    mean = right.mean(0).round(9)
    apart = np.zeros((len(right), len(right)))
    chosen = []
    for relation in RELATIONS:
        remaining = np.flatnonzero(relations == relation)
        best = _set_apart(right, remaining, count // 2, apart)
        chosen += [Chosen(place, "disagreement") for place in best]
        remaining = remaining[~np.isin(remaining, best)]
        ends = ("hardest", mean, count // 3), ("easiest", -mean, count - count // 2 - count // 3)
        for kind, score, most in ends:
            order = np.argsort(score[remaining], kind="stable")
            chosen += [Chosen(int(place), kind) for place in remaining[order][:most]]
            remaining = np.sort(remaining[order][most:])
    return chosen


def _set_apart(right: np.ndarray, places: np.ndarray, most: int, apart: np.ndarray) -> list[int]:
    """Take ``most`` of the records at ``places``, each the one that sets the most rows apart.

    A pair of rows that k records have set apart counts ``AGAIN ** k``, so that similar rows are
    set apart too.

    Args:
        right: [rows, N], correctness as a mean over seeds.
        apart: [rows, rows], k; updated in place.
    """
    good = (right[:, places] > 0.5).astype(float)  # [rows, n]
    bad = (right[:, places] < 0.5).astype(float)
    taken: list[int] = []
    for _ in range(min(most, len(places))):
        gain = ((AGAIN**apart @ bad) * good).sum(0)
        gain[np.isin(places, taken)] = -1
        best = int(gain.round(9).argmax())
        apart += np.outer(good[:, best], bad[:, best])
        taken.append(int(places[best]))
    return taken


def browser_data(inputs: ReportInputs, shown: Sample) -> dict[str, Any]:
    """Make the data of ``records.js``."""
    records: list[dict[str, Any]] = []
    with progress("drawing records", len(shown.records), "records") as advance:
        for chosen, record in shown.records:
            evidence = inputs.differences.evidence[PAIRS].values()
            rows = [row.answers()[:, chosen.place].tolist() for row in evidence]
            facts = {
                "place": len(records),
                "id": record.record_id,
                "relation": record.relation,
                "scene": record.scene_id or f"image {record.image}",
                "kind": chosen.kind,
                "caption": record.statement.caption,
                "negated": record.statement.negated.caption,
                "margins": [[float(f"{margin:.3g}") for margin in row] for row in rows],
            }
            records.append({**facts, **framed(record_image(shown.test, record), record)})
            advance(1)
    return {"rows": inputs.names, "kinds": KINDS, "records": records}


def framed(image: Image.Image, record: Record) -> dict[str, Any]:
    """Return an image as data, its size and the named boxes, in units of 1/100 of its height."""
    width = 100 * image.width / image.height
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=QUALITY, optimize=True)
    boxes = [
        [name, *(round(side, 2) for side in (x * width, y * 100, w * width, h * 100))]
        for name, (x, y, w, h) in frames(record).items()
    ]
    content = base64.b64encode(stream.getvalue()).decode()
    uri = f"data:image/jpeg;base64,{content}"
    return {"picture": uri, "size": [round(width, 2), 100], "boxes": boxes}


def frames(record: Record) -> dict[str, Frame]:
    """Return the boxes of the subject and the object by name."""
    width, height = record.image_size
    known = {name: record.boxes.get(name) for name in (record.subject, record.object)}
    return {
        name: (box.x / width, box.y / height, box.w / width, box.h / height)
        for name, box in known.items()
        if box is not None and width and height
    }


def record_image(records: RecordSet, record: Record) -> Image.Image:
    """Return the image of a record, at most ``SIDE`` high; a room is rendered anew, to be sharp."""
    if records.name == "rooms/test":
        from spatialbench.data.rooms.render import render
        from spatialbench.data.rooms.scene import generate

        return Image.fromarray(render(generate("test", record.image), SIDE, supersample=2).image)
    image = Image.fromarray(np.asarray(records.images[record.image]))
    return image if image.height <= SIDE else image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
