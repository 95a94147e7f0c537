"""A user's own image and captions as a record set."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from spatialbench.data.images import Resize, fit, read_image
from spatialbench.data.records import Record, RecordSet, fingerprint
from spatialbench.data.relations import parse
from spatialbench.utils.errors import SpatialbenchError


def predict_set(
    image: str | Path, captions: Sequence[str], size: int, resize: Resize = "squash"
) -> RecordSet:
    """Build one record per caption, in the order given, about an image in its EXIF orientation.

    Raises:
        SpatialbenchError: the file is missing, truncated or no image; there is no caption, or one
            is not a sentence of the grammar.
    """
    path = Path(image)
    original = read_image(path)
    if not captions:
        example = "--caption 'The sofa is left of the lamp.'"
        raise SpatialbenchError(f"there is no caption; write for instance {example}")
    try:
        statements = [parse(caption) for caption in captions]
    except ValueError as error:
        raise SpatialbenchError(str(error)) from error
    pixels = fit(original, size, resize)[None].copy()  # Pillow's own memory is read-only
    records = [
        Record(
            record_id=f"caption {i + 1}",
            image=0,
            subject=statement.subject,
            relation=statement.relation,
            object=statement.object,
            image_size=original.size,
            source="user",
            scene_id=path.name,
        )
        for i, statement in enumerate(statements)
    ]
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return RecordSet(f"predict/{path.name}", pixels, records, fingerprint(records, digest))
