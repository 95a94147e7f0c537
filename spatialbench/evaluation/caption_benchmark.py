"""Caption benchmarks: is the true caption of a record the one closest to its image?

Every number is (1)-(3) of ``Measure`` in ``data/captions/caption_set.py``, from float32 cosines.
Every distinct caption and every distinct image is encoded once.

Letters: M records, K captions of a record, P distinct images, S pixels a side, D joint width.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.captions.caption_set import CaptionSet, ImageSource
from spatialbench.data.images import Resize
from spatialbench.data.selection_sets import fingerprint
from spatialbench.evaluation.base import Details, Evaluation, Model
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.prompts import caption_embeddings
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

_IMAGES, _RECORDS = 64, 4096  # at once
_READERS = min(8, os.cpu_count() or 1)


class CaptionBenchmark(Evaluation):
    """The measures of a published benchmark that was downloaded."""

    name = "captions"
    title = "Captions"
    explanation = "In percent, more is better; a tie counts as a random choice in expectation."
    unit = "records"

    def __init__(self, source: CaptionSet) -> None:
        self.source = source

    def run(self, model: Model) -> Evidence:
        """Score all captions of all records; see :meth:`Evaluation.run`."""
        if not model.free_captions:
            raise SpatialbenchError(
                f"{self.source.name}: this page scores only captions of the form 'The A is left of "
                "the B.'; take a page that embeds captions, such as clip_zeroshot"
            )
        scores, *asked = caption_scores(model, self.source)
        return caption_evidence(self.source, scores, fingerprint(self.version, *asked))

    def details(self, evidence: Evidence) -> Details:
        """Return ties and chance of every measure, and the pair accuracy of every relation."""
        facts = measure_facts(self.source, evidence)
        columns = {
            "ties": {name: str(fact.ties) for name, fact in facts.items()},
            "chance": {name: f"{fact.chance:.1f}" for name, fact in facts.items()},
        }
        lines, relations = [], {}
        for part, counts in by_relation(self.source, evidence).items():
            relations[part] = {relation: pairs._asdict() for relation, pairs in counts.items()}
            for name, (n, accuracy, ties) in counts.items():
                lines.append(f"{part} {name}: pair accuracy {accuracy:.1f} of {n}, ties {ties}")
        as_json = {name: fact._asdict() for name, fact in facts.items()}
        return Details(columns, lines, {"counts": as_json, "relations": relations})

    @classmethod
    def headings(
        cls, measures: Sequence[str], notes: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Measure -> its title, which the notes hold."""
        return {name: (notes or {}).get(name, name) for name in measures}


def caption_evidence(source: CaptionSet, scores: np.ndarray, data: str) -> Evidence:
    """Count the measures of a benchmark; the notes hold their titles, and what was dropped.

    A unit of several records stands in the row of its first record; its numerator is (2), its
    denominator 1.

    Args:
        scores: float [M, K]; NaN beyond the captions of a record.
        data: hash of records and images.
    """
    ratios, notes = {}, {}
    for measure in source.measures():
        single = credit(scores, measure.options)
        names, group = np.unique(np.array(measure.groups), return_inverse=True)
        cells = np.array([unit[0] for unit in measure.units]), group
        above, below = np.zeros((2, len(scores), len(names)))
        np.add.at(above, cells, [np.prod(single[list(unit)]) for unit in measure.units])  # (2)
        np.add.at(below, cells, 1)
        ratios[measure.name] = above, below
        notes[measure.name] = measure.title
    notes["records"] = "; ".join([f"{source.account.read} read", *source.account.lines()])
    clusters = [record.cluster for record in source.records]
    return Evidence.of(clusters, ratios, data, notes=notes)


def credit(scores: np.ndarray, options: int | None) -> np.ndarray:
    """(1) of the first ``options`` captions (None: all) of scores [M, K], float64 [M]."""
    part = scores[:, :options]
    best = np.nanmax(part, axis=1, keepdims=True)
    return (part[:, 0] == best[:, 0]) / (part == best).sum(1)


class MeasureFacts(NamedTuple):
    """Facts of a measure: its units, those with a tie for the highest score, chance in percent."""

    n: int
    ties: int
    chance: float


def measure_facts(source: CaptionSet, evidence: Evidence) -> dict[str, MeasureFacts]:
    """Return the facts of every measure, from the evidence of one seed.

    A tie in a unit of several records is known if a measure counts these records singly.
    """
    facts = {}
    for measure in source.measures():
        single = _credits(source, evidence, measure.options)
        ties = sum(any(0 < single[row] < 1 for row in unit) for unit in measure.units)
        facts[measure.name] = MeasureFacts(len(measure.units), ties, measure.chance)
    return facts


class PairCount(NamedTuple):
    """Pair accuracy of ``n`` records in percent, and the ties among them."""

    n: int
    accuracy: float
    ties: int


def by_relation(source: CaptionSet, evidence: Evidence) -> dict[str, dict[str, PairCount]]:
    """Part -> relation -> pair accuracy, the most frequent relation first, of one seed."""
    single = _credits(source, evidence, options=2)
    cells: dict[str, dict[str, list[float]]] = {}
    for record, own in zip(source.records, single.tolist(), strict=True):
        if np.isfinite(own):
            cells.setdefault(record.part, {}).setdefault(record.relation, []).append(own)
    parts = {}
    for part, relations in cells.items():
        frequent_first = sorted(relations.items(), key=lambda item: (-len(item[1]), item[0]))
        parts[part] = {
            name: PairCount(len(own), 100 * float(np.mean(own)), own.count(0.5))
            for name, own in frequent_first
        }
    return parts


def _credits(source: CaptionSet, evidence: Evidence, options: int | None) -> np.ndarray:
    """(1) of every record, from measures of single records; NaN for a record that none counts."""
    credits = np.full(len(source.records), np.nan)
    for measure in source.measures():
        if measure.options == options and all(len(unit) == 1 for unit in measure.units):
            rows = [row for (row,) in measure.units]
            above, below = (part[0].sum(1)[rows] for part in evidence.ratios[measure.name])
            credits[rows] = above / below
    return credits


@torch.no_grad()
def caption_scores(model: Model, source: CaptionSet) -> tuple[np.ndarray, str, list[tuple], str]:
    """Score all captions of all records in float32.

    Returns:
        cosines float32 [M, K], NaN beyond the captions of a record; name and records of the
        benchmark, and the hash of its images.

    Raises:
        SpatialbenchError: an unreadable image, a caption too long, or a score that is not finite.
    """
    records = source.records
    captions = dict.fromkeys(caption for record in records for caption in record.captions)
    rows = {caption: row for row, caption in enumerate(captions)}
    with torch.autocast(model.device.type, enabled=False):
        texts = caption_embeddings(model, list(rows))
        images, digest = _images(model, source)
    scores = np.full((len(records), max(len(r.captions) for r in records)), np.nan, np.float32)
    for start in range(0, len(records), _RECORDS):
        cells = [
            (row, place, record.image, rows[caption])
            for row, record in enumerate(records[start : start + _RECORDS], start)
            for place, caption in enumerate(record.captions)
        ]
        record, option, image, text = np.array(cells).T
        scores[record, option] = (images[image] * texts[text]).sum(-1).cpu().numpy()
        if not np.isfinite(scores[record, option]).all():
            raise SpatialbenchError(
                f"{source.name}: a score is not a finite number; the training diverged"
            )
    asked = [(r.record, r.part, r.relation, r.image, r.captions) for r in records]
    return scores, source.name, asked, digest


def _images(model: Model, source: CaptionSet) -> tuple[Tensor, str]:
    """Encode the images: unit norm [P, D]; and the hash of the files and crops."""
    parts, digest = [], hashlib.sha256()
    with progress("encoding images", len(source.images), "images") as advance:
        for batch in _read(source, model.image_size, model.resize_mode):
            for _, content in batch:
                digest.update(content)
            pixels = torch.from_numpy(np.stack([pixels for pixels, _ in batch])).permute(0, 3, 1, 2)
            parts.append(model.image(pixels.to(model.device)))
            advance(len(batch))
    return torch.cat(parts), digest.hexdigest()


def _read(
    source: CaptionSet, size: int, resize: Resize
) -> Iterator[list[tuple[np.ndarray, bytes]]]:
    """Yield batches of pixels uint8 [S, S, 3] and hash of file and crop; reads one batch ahead."""

    def read(image: ImageSource) -> tuple[np.ndarray, bytes]:
        data = image.content()
        key = hashlib.sha256(data + repr(image.crop).encode()).digest()
        return image.pixels(data, size, resize, source.source), key

    with ThreadPoolExecutor(_READERS) as pool:
        starts = range(0, len(source.images), _IMAGES)
        batches = [source.images[start : start + _IMAGES] for start in starts]
        waiting = pool.map(read, batches[0])
        for batch in [*batches[1:], []]:
            ahead = pool.map(read, batch)
            yield list(waiting)
            waiting = ahead
