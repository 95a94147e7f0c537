"""A user's own picture and captions as a record set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from spatialbench.data.images import Resize, fit, read_picture
from spatialbench.data.records import Record, RecordSet, fingerprint
from spatialbench.data.relations import parse
from spatialbench.utils.errors import SpatialbenchError


def predict_set(
    image: str | Path, captions: Sequence[str], size: int, resize: Resize = "squash"
) -> RecordSet:
    """One picture, turned upright by its EXIF orientation, and one record per caption in the order given.

    Args:
        image: a picture file of any format that Pillow reads.
        captions: sentences of the grammar, for instance ``The sofa is left of the lamp.``
        size: side of the square image in pixels.
        resize: how the picture is made square.

    Raises:
        SpatialbenchError: the file is missing, truncated or no image; a caption is not a sentence of the grammar, or
            there is none.
    """
    path = Path(image)
    picture = read_picture(path)
    if not captions:
        raise SpatialbenchError(
            "there is no caption; write for instance --caption 'The sofa is left of the lamp.'"
        )
    try:
        statements = [parse(caption) for caption in captions]
    except ValueError as error:
        raise SpatialbenchError(str(error)) from error
    pixels = fit(picture, size, resize)[None].copy()  # Pillow's own memory is read-only
    records = [
        Record(
            record_id=f"caption {i + 1}",
            image=0,
            subject=statement.subject,
            relation=statement.relation,
            object=statement.object,
            image_size=picture.size,
            source="user",
            scene_id=path.name,
        )
        for i, statement in enumerate(statements)
    ]
    return RecordSet(
        f"predict/{path.name}",
        pixels,
        records,
        fingerprint(records, hashlib.sha256(pixels.tobytes()).hexdigest()),
    )
