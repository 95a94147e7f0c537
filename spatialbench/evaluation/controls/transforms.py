"""Changes of a test set: captions swapped, images mirrored, images of other scenes.

Records keep their places.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spatialbench.data.records import Record, RecordSet
from spatialbench.evaluation.pairs import scene_of
from spatialbench.utils.errors import SpatialbenchError


def swapped(record_set: RecordSet) -> RecordSet:
    """Swap subject and object: the caption becomes the negated caption, and the reverse."""
    records = [replace(r, subject=r.object, object=r.subject) for r in record_set.records]
    return _changed(record_set, "swapped", records)


def mirrored(record_set: RecordSet) -> RecordSet:
    """Flip images and boxes left-right; captions stay, so those of left and right become false."""
    records = []
    for r in record_set.records:
        width = r.image_size[0]
        boxes = {name: replace(box, x=width - box.x - box.w) for name, box in r.boxes.items()}
        records.append(replace(r, boxes=boxes))
    changed = _changed(record_set, "mirrored", records)
    return replace(changed, images=record_set.images[:, :, ::-1])


def shuffled(record_set: RecordSet, seed: int) -> RecordSet:
    """Replace every image by one of another scene; records of one image stay together.

    Raises:
        SpatialbenchError: more than half of the images belong to one scene.
    """
    scene = {record.image: scene_of(record) for record in record_set.records}
    sizes = Counter(scene.values())
    most, largest = sizes.most_common(1)[0]
    if 2 * largest > len(scene):
        raise SpatialbenchError(
            f"{largest} of {len(scene)} images are of scene {most}: they cannot be shuffled"
        )
    names = np.random.default_rng(seed).permutation(sorted(sizes)).tolist()
    place = {name: k for k, name in enumerate(names)}
    images = sorted(scene, key=lambda image: (place[scene[image]], image))  # scene by scene
    instead = dict(zip(images, [*images[largest:], *images[:largest]], strict=True))
    records = [replace(record, image=instead[record.image]) for record in record_set.records]
    return _changed(record_set, "shuffled", records)


def balanced(records: Sequence[Record]) -> bool:
    """Return whether every statement occurs as often as the one with its objects swapped.

    Reading captions alone is then right in exactly half of the records of each relation.
    """
    statements = Counter((record.subject, record.relation, record.object) for record in records)
    return all(statements[b, relation, a] == n for (a, relation, b), n in statements.items())


def _changed(record_set: RecordSet, how: str, records: Sequence[Record]) -> RecordSet:
    name, fingerprint = f"{record_set.name}, {how}", f"{record_set.fingerprint}-{how}"
    return replace(record_set, name=name, records=records, fingerprint=fingerprint)
