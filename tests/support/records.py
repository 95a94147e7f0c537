"""Records in EmbSpatial's exact schema, with real JPEG bytes, for the tests."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spatialbench.data.records import Box, Record, RecordSet, fingerprint

Raw = dict[str, Any]


def jpeg(seed: int = 0, width: int = 64, height: int = 48) -> bytes:
    """Return an image of coarse random patches."""
    shape = (height // 8, width // 8, 3)
    patches = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(patches).resize((width, height)).save(stream, "JPEG")
    return stream.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


BOXES = {
    "left": ([2, 10, 20, 20], [40, 10, 20, 20]),
    "right": ([40, 10, 20, 20], [2, 10, 20, 20]),
    "above": ([20, 2, 20, 10], [20, 30, 20, 10]),
    "under": ([20, 30, 20, 10], [20, 2, 20, 10]),
}
PHRASES = {"right": "at the right side of", "above": "above", "under": "beneath"}


def direction(
    question_id: str = "mp3d_1",
    relation: str = "left",
    a: str = "night stand",
    b: str = "lamp",
    **changes: Any,
) -> Raw:
    """Return a bench record: ``a`` is left of, right of, above, under ``b``, in 64 x 48 pixels."""
    words = ["inside", "touching", PHRASES.get(relation, "left of"), "out of"]
    boxes = zip((a, b), BOXES.get(relation, BOXES["left"]), strict=True)
    return {
        "data_source": "mp3d",
        "scene_id": "YVUC4YcDtcY",
        "question_id": question_id,
        "question": f"'What is the spatial relationship between {a} and {b} in the image?",
        "relation": relation,
        "image": text(jpeg()),
        "answer_options": [f"The {a} is {word} the {b}." for word in words],
        "answer": 2,
        "objects": [{"name": name, "bbox": box} for name, box in boxes],
    } | changes


def depth(
    question_id: str = "ai2thor_1",
    relation: str = "far",
    names: tuple[str, ...] = ("sofa", "dining table", "bed", "window"),
    answer: Any = 3,
    **changes: Any,
) -> Raw:
    """Return a bench record of close or far; object i has the box [6 + 12 i, 40 - 10 i, 10, 6]."""
    boxes = [[6 + 12 * i, 40 - 10 * i, 10, 6] for i in range(len(names))]
    return {
        "data_source": "ai2thor",
        "scene_id": "FloorPlan15",
        "question_id": question_id,
        "question": "From your perspective, which object in the image is the most distant?",
        "relation": relation,
        "image": text(jpeg()),
        "answer_options": list(names),
        "answer": answer,
        "objects": [{"name": n, "bbox": box} for n, box in zip(names, boxes, strict=True)],
    } | changes


def sft(raw: Raw, answer: str) -> Raw:
    """Return a record as EmbSpatial-SFT writes it: no options, no scene, the answer in words."""
    kept = {key: raw[key] for key in ("data_source", "question_id", "relation", "image", "objects")}
    return kept | {"question": [raw["question"]] * 5, "answer": answer}


def write(path: Path, raws: Any) -> Path:
    path.write_text(json.dumps(raws))
    return path


def said(records: Any) -> list[tuple[str, str, str]]:
    return [(record.subject, record.relation, record.object) for record in records]


def small_set(images: int = 7, size: int = 16, seed: int = 0) -> RecordSet:
    """Return a record set in memory: image i has 1 + i % 3 records."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    boxes = {"sofa": Box(1, 2, 4, 5), "floor lamp": Box(8, 2, 5, 6), "bed": Box(8, 10, 5, 4)}
    statements = [
        ("sofa", "left", "floor lamp"),
        ("floor lamp", "above", "bed"),
        ("bed", "close", "floor lamp"),
    ]
    records = [
        Record(f"{i}.{k}", i, *statement, boxes, (size, size), "memory", f"scene {i}")
        for i in range(images)
        for k, statement in enumerate(statements[: 1 + i % 3])
    ]
    return RecordSet("memory", pixels, records, fingerprint(records, str(seed)))
