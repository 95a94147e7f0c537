"""Parts of a record set: for the protocol of a track, and for the legacy readings that it may name.

Every draw is made once, from the names of the records, and is the same in every run.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spatialbench.data.records import Record, RecordSet, fingerprint
from spatialbench.data.relations import DEPTH_RELATIONS, RELATIONS

_SEED = 0


def part(record_set: RecordSet, start: int, stop: int) -> RecordSet:
    """The images ``start`` to ``stop`` of a record set, and their records."""
    if start == 0 and stop >= len(record_set.images):
        return record_set
    records = [
        replace(record, image=record.image - start)
        for record in record_set.records
        if start <= record.image < stop
    ]
    name = f"{record_set.name}[{start}:{stop}]"
    return RecordSet(
        name, record_set.images[start:stop], records, fingerprint(records, record_set.fingerprint)
    )


def by_record(record_set: RecordSet, share: float) -> tuple[RecordSet, RecordSet]:
    """Records at random to one side or the other; records of one picture may come to both.

    Args:
        share: of the records that come to the second part, in (0, 1).

    Returns:
        what is trained on, and what is held out; both have all the pictures.
    """
    order = np.random.default_rng(_SEED).permutation(len(record_set.records))
    held = np.zeros(len(order), dtype=bool)
    held[order[: round(share * len(order))]] = True
    return (
        _chosen(
            record_set,
            [r for r, out in zip(record_set.records, held, strict=True) if not out],
            "trained",
        ),
        _chosen(
            record_set,
            [r for r, out in zip(record_set.records, held, strict=True) if out],
            "held out",
        ),
    )


def without_pairs(record_set: RecordSet, share: float) -> RecordSet:
    """Without the records of a share of all pairs of names, to see whether what is learned holds for others, too.

    Args:
        share: of the pairs of names, in [0, 1). Whether a pair is among them hangs on its two names alone, so that it
            is the same for every file, split and seed.
    """
    kept = [
        record
        for record in record_set.records
        if not left_out(record.subject, record.object, share)
    ]
    return _chosen(record_set, kept, f"without {100 * share:g} % of the pairs of names")


def left_out(first: str, second: str, share: float) -> bool:
    """Whether the pair of two names, in either order, is among a ``share`` of all pairs."""
    digest = hashlib.sha256("\0".join(sorted((first, second))).encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def one_reference(record_set: RecordSet) -> RecordSet:
    """Of every close or far question one record: its answer against one other object, drawn at random."""
    questions: dict[str, list[Record]] = {}
    for record in record_set.records:
        questions.setdefault(_question(record), []).append(record)
    chosen = []
    for name, records in questions.items():
        draw = np.random.default_rng((_SEED, zlib.crc32(name.encode())))
        chosen.append(replace(records[int(draw.integers(len(records)))], weight=1.0))
    return _chosen(record_set, chosen, "one reference")


def whole_batches(record_set: RecordSet, size: int) -> RecordSet:
    """Of every relation as many records as fill batches of ``size``, the first ones."""
    counts = record_set.counts
    left = {relation: counts[relation] // size * size for relation in RELATIONS}
    kept = []
    for record in record_set.records:
        if left[record.relation] > 0:
            left[record.relation] -= 1
            kept.append(record)
    return _chosen(record_set, kept, f"batches of {size}")


def _question(record: Record) -> str:
    """A close or far question of N options gives the records ``<id>#<option>``."""
    name, mark, option = record.record_id.rpartition("#")
    return (
        name
        if mark and option.isdecimal() and record.relation in DEPTH_RELATIONS
        else record.record_id
    )


def _chosen(record_set: RecordSet, records: Sequence[Record], how: str) -> RecordSet:
    name = f"{record_set.name}, {how}"
    return RecordSet(name, record_set.images, records, fingerprint(records, record_set.fingerprint))
