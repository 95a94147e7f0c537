"""A record set as a file in EmbSpatial-Bench's own schema, with the images inside as PNG.

:mod:`spatialbench.data.embspatial.reader` reads back the same pairs in the same order, and the same
pixels at the size of the images.
"""

import base64
import hashlib
import io
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

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

DISTRACTORS = ("inside", "blocking")  # other predicates, which boxes without an overlap refute


def export(record_set: RecordSet, path: str | os.PathLike[str]) -> int:
    """Write a record set as a JSON list in EmbSpatial-Bench's schema; return the number of records.

    A direction becomes a question with four sentences; close and far become the choice between the
    two names. A hash of the record's id sets the position of the right option.

    Each record must box its two objects, in pixels of the stored image. The file is written whole
    or not at all.

    Raises:
        SpatialbenchError: a record has no such box, or the file cannot be written.
    """
    side = record_set.images.shape[1]

    @lru_cache(maxsize=64)  # records of one image are neighbours
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
                    json.dump(_question(record, png(record.image), side), stream)
                    advance(1)
                stream.write("\n]\n" if total else "[]\n")
        except OSError as error:
            raise SpatialbenchError(f"cannot write {path}: {error.strerror or error}") from error
    return total


def _question(record: Record, image: str, side: int) -> dict[str, Any]:
    if record.relation in DEPTH_RELATIONS:
        question = QUESTION[record.relation]
        options = [record.subject, record.object]
    else:
        question = QUESTION["direction"].format(record.subject, record.object)
        other = Statement(record.subject, CONVERSE[record.relation], record.object)
        options = [record.statement.caption, other.caption]
        options += [f"The {record.subject} is {word} the {record.object}." for word in DISTRACTORS]
    digest = int.from_bytes(hashlib.sha256(record.record_id.encode()).digest()[:8], "big")
    answer = digest % len(options)
    return {
        "data_source": record.source,
        "scene_id": record.scene_id,
        "question_id": record.record_id,
        "question": question,
        "relation": record.relation,
        "image": image,
        "answer_options": [*options[1 : answer + 1], options[0], *options[answer + 1 :]],
        "answer": answer,
        "objects": [
            {"name": name, "bbox": _box(record, name, side)}
            for name in (record.subject, record.object)
        ],
    }


def _box(record: Record, name: str, side: int) -> list[float]:
    if name not in record.boxes or record.image_size != (side, side):
        why = f"no box for {name!r} in the stored image"
        raise SpatialbenchError(f"cannot export record {record.record_id!r}: {why}")
    box = record.boxes[name]
    return [box.x, box.y, box.w, box.h]
