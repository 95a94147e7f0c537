"""Parts of a record set, for the protocol of a track and for legacy protocols that it may name.

Every draw depends only on the names of the records, so that it is the same in every run.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spatialbench.data.records import Record, RecordSet, fingerprint
from spatialbench.data.relations import DEPTH_RELATIONS

_SEED = 0


def part(record_set: RecordSet, start: int, stop: int) -> RecordSet:
    """Return the images ``start`` to ``stop`` and their records."""
    if start == 0 and stop >= len(record_set.images):
        return record_set
    records = [
        replace(record, image=record.image - start)
        for record in record_set.records
        if start <= record.image < stop
    ]
    name = f"{record_set.name}[{start}:{stop}]"
    digest = fingerprint(records, record_set.fingerprint)
    return RecordSet(name, record_set.images[start:stop], records, digest)


def leaking(record_set: RecordSet, images: np.ndarray, records: Sequence[Record]) -> RecordSet:
    """Put other ``images`` [K, S, S, 3], those with records, in the place of as many of a set."""
    rows = {row: place for place, row in enumerate(sorted({record.image for record in records}))}
    kept = part(record_set, 0, max(0, len(record_set.images) - len(rows)))
    both = [replace(record, image=rows[record.image]) for record in records]
    both += [replace(record, image=record.image + len(rows)) for record in kept.records]
    pixels = np.concatenate([images[list(rows)], kept.images]) if rows else kept.images
    digest = fingerprint(both, kept.fingerprint)
    return RecordSet(f"{record_set.name}, leaking", pixels, both, digest)


def by_record(record_set: RecordSet, share: float) -> tuple[RecordSet, RecordSet]:
    """Hold out a ``share`` in (0, 1) of the records, drawn at random.

    Both parts have all images, and records of one image may come to both.
    """
    records = record_set.records
    order = np.random.default_rng(_SEED).permutation(len(records))
    held = set(order[: round(share * len(order))].tolist())
    trained = [record for row, record in enumerate(records) if row not in held]
    held_out = [record for row, record in enumerate(records) if row in held]
    return _chosen(record_set, trained, "trained"), _chosen(record_set, held_out, "held out")


def without_pairs(record_set: RecordSet, share: float) -> RecordSet:
    """Leave out the records of a ``share`` in [0, 1) of all pairs of names (``left_out``)."""
    kept = [r for r in record_set.records if not left_out(r.subject, r.object, share)]
    return _chosen(record_set, kept, f"without {100 * share:g} % of the pairs of names")


def left_out(first: str, second: str, share: float) -> bool:
    """Return whether the pair of names, in either order, is among a ``share`` of all pairs.

    It depends on the two names alone: it is the same for every file, split and seed.
    """
    digest = hashlib.sha256("\0".join(sorted((first, second))).encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def one_reference(record_set: RecordSet) -> RecordSet:
    """Keep one record of every close or far question: one other object, drawn at random."""
    questions: dict[str, list[Record]] = {}
    for record in record_set.records:
        questions.setdefault(_question(record), []).append(record)
    chosen = []
    for name, records in questions.items():
        draw = np.random.default_rng((_SEED, zlib.crc32(name.encode())))
        chosen.append(replace(records[int(draw.integers(len(records)))], weight=1.0))
    return _chosen(record_set, chosen, "one reference")


def whole_batches(record_set: RecordSet, size: int) -> RecordSet:
    """Keep the first records of every relation, as many as fill batches of ``size``."""
    room = {relation: count // size * size for relation, count in record_set.counts.items()}
    kept = []
    for record in record_set.records:
        if room[record.relation] > 0:
            room[record.relation] -= 1
            kept.append(record)
    return _chosen(record_set, kept, f"batches of {size}")


def _question(record: Record) -> str:
    """Return the question of a record; close and far with N options give ``<id>#<option>``."""
    name, mark, option = record.record_id.rpartition("#")
    several = mark and option.isdecimal() and record.relation in DEPTH_RELATIONS
    return name if several else record.record_id


def _chosen(record_set: RecordSet, records: Sequence[Record], how: str) -> RecordSet:
    name = f"{record_set.name}, {how}"
    return RecordSet(name, record_set.images, records, fingerprint(records, record_set.fingerprint))
