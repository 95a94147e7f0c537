"""A record set as a file in EmbSpatial-Bench's own schema, the images inside as PNG.

Read back by :mod:`spatialbench.data.embspatial.reader` it gives the same pairs in the same order, and the same pixels when it
is read at the size of the images.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from spatialbench.data.images import Resize, clip, place
from spatialbench.data.records import Record, RecordSet
from spatialbench.data.relations import CONVERSE, DEPTH_RELATIONS, Statement
from spatialbench.utils.errors import SpatialbenchError, atomic_path
from spatialbench.utils.progress import progress

QUESTION = {
    "close": "From your perspective, which object in the image is at the shortest distance?",
    "far": "From your perspective, which object in the image is the most distant?",
    "direction": "What is the spatial relationship between {} and {} in the image?",
}
"""Templates of EmbSpatial-Bench (mengfeidu/EmbSpatial-Bench @ 75792fc, README.md)."""

DISTRACTORS = ("inside", "blocking")
"""Other predicates of EmbSpatial-Bench that boxes which do not overlap refute."""


def export(record_set: RecordSet, path: str | os.PathLike[str], resize: Resize = "squash") -> int:
    """Writes a record set as a JSON list in EmbSpatial-Bench's schema, record by record, and returns their number.

    A direction becomes a question with four sentences, close and far become the choice between the two names; where
    the right option stands is drawn by a hash of the record's id. Boxes are those of the stored image, in its pixels.

    Args:
        record_set: the records; each must box its two objects.
        path: the file, written whole or not at all.
        resize: how the record set's images were made from the originals that its boxes speak of.

    Raises:
        SpatialbenchError: a record has no box for one of its objects in the stored image, or the file cannot be
            written.
    """
    side = record_set.images.shape[1]

    @lru_cache(maxsize=64)  # records of one image stand together
    def png(row: int) -> str:
        stream = io.BytesIO()
        Image.fromarray(record_set.images[row]).save(stream, "PNG")
        return base64.b64encode(stream.getvalue()).decode("ascii")

    total = len(record_set.records)
    with (
        atomic_path(path) as temporary,
        progress(f"writing {Path(path).name}", total, "records") as advance,
    ):
        try:
            with temporary.open("w", encoding="utf-8") as stream:
                for i, record in enumerate(record_set.records):
                    stream.write(",\n" if i else "[\n")
                    json.dump(_question(record, png(record.image), side, resize), stream)
                    advance(1)
                stream.write("\n]\n" if total else "[]\n")
        except OSError as error:
            raise SpatialbenchError(f"cannot write {path}: {error.strerror or error}") from error
    return total


def _question(record: Record, image: str, side: int, resize: Resize) -> dict[str, Any]:
    """One record in EmbSpatial-Bench's schema."""
    digest = int.from_bytes(hashlib.sha256(record.record_id.encode()).digest()[:8], "big")
    if record.relation in DEPTH_RELATIONS:
        question = QUESTION[record.relation]
        options = [record.subject, record.object]
    else:
        question = QUESTION["direction"].format(record.subject, record.object)
        options = [
            record.statement.caption,
            Statement(record.subject, CONVERSE[record.relation], record.object).caption,
        ]
        options += [
            f"The {record.subject} is {words} the {record.object}." for words in DISTRACTORS
        ]
    answer = digest % len(options)
    options = [*options[1 : answer + 1], options[0], *options[answer + 1 :]]
    return {
        "data_source": record.source,
        "scene_id": record.scene_id,
        "question_id": record.record_id,
        "question": question,
        "relation": record.relation,
        "image": image,
        "answer_options": options,
        "answer": answer,
        "objects": [
            {"name": name, "bbox": _box(record, name, side, resize)}
            for name in (record.subject, record.object)
        ],
    }


def _box(record: Record, name: str, side: int, resize: Resize) -> list[float]:
    if name not in record.boxes:
        raise SpatialbenchError(
            f"cannot export record {record.record_id!r}: it has no box for {name!r}"
        )
    box = record.boxes[name]
    if record.image_size != (side, side):
        box = clip(place(box, record.image_size, side, resize), side, side)
    if min(box.w, box.h) <= 0:
        raise SpatialbenchError(
            f"cannot export record {record.record_id!r}: {name!r} is outside the stored image"
        )
    return [box.x, box.y, box.w, box.h]
