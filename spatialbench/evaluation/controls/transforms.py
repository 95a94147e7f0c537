"""The test set, changed: captions exchanged, pictures mirrored, another scene's picture. The records stay in place.

Letters: N records, M images, S pixels a side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spatialbench.data.records import Box, Record, RecordSet
from spatialbench.utils.errors import SpatialbenchError


def exchanged(record_set: RecordSet) -> RecordSet:
    """Subject and object change places in every record: the caption becomes the negated caption, and the reverse."""
    records = [
        replace(record, subject=record.object, object=record.subject)
        for record in record_set.records
    ]
    return _changed(record_set, "exchanged", records)


def mirrored(record_set: RecordSet) -> RecordSet:
    """Pictures and boxes are flipped left-right; the captions stay, so that those of left and right become false."""
    records = [
        replace(
            record,
            boxes={name: _flipped(box, record.image_size[0]) for name, box in record.boxes.items()},
        )
        for record in record_set.records
    ]
    return _changed(record_set, "mirrored", records, record_set.images[:, :, ::-1])


def shuffled(record_set: RecordSet, seed: int) -> RecordSet:
    """Every picture gives its place to one of another scene; the records of a picture stay together.

    Args:
        seed: of the order of the scenes.

    Raises:
        SpatialbenchError: more than half of the pictures are of one scene, so that there is no such order.
    """
    scene = {
        record.image: record.scene_id or f"image {record.image}" for record in record_set.records
    }
    sizes = Counter(scene.values())
    most, largest = sizes.most_common(1)[0]
    if 2 * largest > len(scene):
        raise SpatialbenchError(
            f"{largest} of {len(scene)} pictures are of scene {most}: they cannot be exchanged"
        )
    place = {
        name: k
        for k, name in enumerate(np.random.default_rng(seed).permutation(sorted(sizes)).tolist())
    }
    images = sorted(
        scene, key=lambda image: (place[scene[image]], image)
    )  # the pictures of a scene side by side
    instead = dict(zip(images, [*images[largest:], *images[:largest]], strict=True))
    records = [replace(record, image=instead[record.image]) for record in record_set.records]
    return _changed(record_set, "shuffled", records)


def balanced(records: Sequence[Record]) -> bool:
    """Whether every statement stands there as often as the one with its objects exchanged: then whoever reads captions
    only is right in exactly half of the records of each relation.
    """
    found = Counter((record.subject, record.relation, record.object) for record in records)
    return all(found[b, relation, a] == count for (a, relation, b), count in found.items())


def _flipped(box: Box, width: float) -> Box:
    return replace(box, x=width - box.x - box.w)


def _changed(
    record_set: RecordSet, how: str, records: Sequence[Record], images: np.ndarray | None = None
) -> RecordSet:
    return RecordSet(
        f"{record_set.name}, {how}",
        record_set.images if images is None else images,
        records,
        f"{record_set.fingerprint}-{how}",
    )
