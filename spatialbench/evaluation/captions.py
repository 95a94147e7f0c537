"""Benchmarks of captions: which caption of a record lies closest to its picture, counted as the benchmark counts.

What is computed is (1)-(3) of ``spatialbench.data.captions.caption_set.Measure``, from cosines in float32. Every distinct
caption and every distinct picture is encoded once. Intervals are a bootstrap over clusters, as of all measures.

Letters: M records, K captions of a record, P distinct pictures, S pixels a side, D joint width, U units, G groups.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from spatialbench.data.captions.caption_set import CaptionSet, Measure
from spatialbench.data.captions.image_files import ImageSource
from spatialbench.data.images import Resize
from spatialbench.data.selection_sets import fingerprint
from spatialbench.evaluation.measures import MeasureResampler, Ratio
from spatialbench.evaluation.prompts import TextEncoder, caption_embeddings
from spatialbench.evaluation.statistics import Interval
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

VERSION = 1
"""Of what is measured and how."""
_PICTURES, _CAPTIONS, _RECORDS = 64, 512, 4096  # at once
_READERS = min(8, os.cpu_count() or 1)


class Encoder(TextEncoder, Protocol):
    """What is measured; a ``spatialbench.methods.base.Method`` is one."""

    image_size: int

    @property
    def device(self) -> torch.device: ...

    def image(self, x: Tensor) -> Tensor:
        """uint8 [B, 3, S, S], S the ``image_size`` -> unit norm [B, D]."""


class CaptionScores(NamedTuple):
    """The answers of a model.

    Attributes:
        scores: float32 [M, K], cosines of the captions of each record in their order; NaN beyond the last.
        data: hash of records, captions and pictures: answers that share it can be compared.
    """

    scores: np.ndarray
    data: str


@torch.no_grad()
def score(model: Encoder, found: CaptionSet, resize: Resize) -> CaptionScores:
    """Cosines of all captions of all records. Always in float32.

    Args:
        model: in eval mode.
        resize: how a picture becomes square.

    Raises:
        SpatialbenchError: a picture cannot be read, a caption is too long, or a score is not a finite number.
    """
    rows = {c: n for n, c in enumerate(dict.fromkeys(c for r in found.records for c in r.captions))}
    with torch.autocast(model.device.type, enabled=False):
        texts = _texts(model, list(rows))
        pictures, digest = _pictures(model, found, resize)
    scores = np.full(
        (len(found.records), max(len(r.captions) for r in found.records)), np.nan, dtype=np.float32
    )
    for start in range(0, len(found.records), _RECORDS):
        part = found.records[start : start + _RECORDS]
        own = [
            (i, k, r.image, rows[c])
            for i, r in enumerate(part, start)
            for k, c in enumerate(r.captions)
        ]
        record, option, picture, text = np.array(own).T
        scores[record, option] = (pictures[picture] * texts[text]).sum(-1).cpu().numpy()
        if not np.isfinite(scores[record, option]).all():
            raise SpatialbenchError(
                f"{found.name}: a score is not a finite number; the training diverged"
            )
    said = [(r.record, r.part, r.relation, r.image, r.captions) for r in found.records]
    return CaptionScores(scores, fingerprint(VERSION, found.name, said, digest))


def _texts(model: Encoder, captions: Sequence[str]) -> Tensor:
    """Unit norm [C, D] of distinct captions."""
    parts = []
    with progress("encoding captions", len(captions), "captions") as advance:
        for start in range(0, len(captions), _CAPTIONS):
            parts.append(caption_embeddings(model, captions[start : start + _CAPTIONS]))
            advance(len(parts[-1]))
    return torch.cat(parts)


def _pictures(model: Encoder, found: CaptionSet, resize: Resize) -> tuple[Tensor, str]:
    """Unit norm [P, D], and the hash of what was encoded."""
    parts, digest = [], hashlib.sha256()
    with progress("encoding pictures", len(found.images), "pictures") as advance:
        for batch in _read(found, model.image_size, resize):
            for _, content in batch:
                digest.update(content)
            pixels = torch.from_numpy(np.stack([pixels for pixels, _ in batch])).permute(0, 3, 1, 2)
            parts.append(model.image(pixels.to(model.device)))
            advance(len(batch))
    return torch.cat(parts), digest.hexdigest()


def _read(found: CaptionSet, size: int, resize: Resize) -> Iterator[list[tuple[np.ndarray, bytes]]]:
    """Pixels uint8 [S, S, 3] and the hash of file and crop, a batch at a time; the next one is read meanwhile."""

    def one(image: ImageSource) -> tuple[np.ndarray, bytes]:
        data = image.content()
        return image.pixels(data, size, resize, found.source), hashlib.sha256(
            data + repr(image.crop).encode()
        ).digest()

    with ThreadPoolExecutor(_READERS) as pool:
        batches = [found.images[k : k + _PICTURES] for k in range(0, len(found.images), _PICTURES)]
        waiting = pool.map(one, batches[0])
        for batch in [*batches[1:], []]:
            ahead = pool.map(one, batch)
            yield list(waiting)
            waiting = ahead


def credit(scores: np.ndarray, options: int | None) -> np.ndarray:
    """(1): float64 [M], from scores [M, K] with NaN beyond a record's captions, of the first ``options`` of them."""
    part = scores[:, :options]
    best = np.nanmax(part, axis=1, keepdims=True)
    return (part[:, 0] == best[:, 0]) / (part == best).sum(1)


@dataclass(frozen=True)
class Value:
    """A measure of a run.

    Attributes:
        value, interval: percent, and its 95 % interval over clusters.
        n, ties: units, and those with a tie for the highest score.
    """

    value: float
    interval: Interval
    n: int
    ties: int


def evaluate(found: CaptionSet, measure: Measure, scores: np.ndarray) -> Value:
    """(3) of a measure.

    Args:
        scores: as ``score`` gives them.
    """
    single = credit(scores, measure.options)
    units = np.array([np.prod(single[list(unit)]) for unit in measure.units])  # (2)
    tied = [any(0 < single[row] < 1 for row in unit) for unit in measure.units]
    names, groups = np.unique(np.array(measure.groups), return_inverse=True)
    whole = np.eye(len(names))[groups][None]  # [1, U, G]
    ratio = Ratio(whole * units[:, None], whole)
    clusters = np.array([found.records[unit[0]].cluster for unit in measure.units])
    value = 100 * float(np.mean([units[groups == group].mean() for group in range(len(names))]))
    return Value(value, MeasureResampler(clusters).interval(ratio), len(units), int(np.sum(tied)))


class PairCount(NamedTuple):
    """Pair accuracy of a relation: ``n`` records, ``accuracy`` in percent, ``ties`` among them."""

    n: int
    accuracy: float
    ties: int


def by_relation(found: CaptionSet, scores: np.ndarray) -> dict[str, dict[str, PairCount]]:
    """part -> relation -> pair accuracy, the most frequent relation first."""
    single = credit(scores, 2)
    cells: dict[str, dict[str, list[int]]] = {}
    for row, record in enumerate(found.records):
        cells.setdefault(record.part, {}).setdefault(record.relation, []).append(row)
    return {
        part: {
            relation: PairCount(
                len(rows), 100 * float(single[rows].mean()), int((single[rows] == 0.5).sum())
            )
            for relation, rows in sorted(
                relations.items(), key=lambda item: (-len(item[1]), item[0])
            )
        }
        for part, relations in cells.items()
    }
