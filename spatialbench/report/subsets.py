"""Tables of subsets: every row in every subset of a fact, compared with one row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from spatialbench.data.records import RecordSet
from spatialbench.evaluation.bootstrap import Interval, percentiles
from spatialbench.evaluation.record_facts import Fact
from spatialbench.report.differences import Gain, stream
from spatialbench.report.table_model import Cell, Column, Record, Table, check_format, number
from spatialbench.results.files import Row
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

FEW = 30
"""Records below which a bootstrap says nothing, and no difference is emphasised."""


class Part(NamedTuple):
    """A row in a subset: percent, interval, and paired difference to the row of comparison."""

    name: str
    accuracy: float
    interval: Interval
    gain: Gain | None


class Subset(NamedTuple):
    """The ``n`` records of a subset, and every row on them; no parts without a record."""

    fact: Fact
    name: str
    n: int
    parts: list[Part]


def subsets_table(
    rows: Sequence[Row],
    record_set: RecordSet,
    facts: Sequence[Fact],
    names: Sequence[str] = (),
    than: str | None = None,
    format: str = "text",
) -> str:
    """Write a table for each fact.

    Args:
        rows: the stored rows of a track, in the order of its table.
        record_set: its test, the records of the facts.
        names: the rows to show; empty: all.
        than: the row to compare with; None: the second of the table, fine-tuned CLIP.

    Raises:
        SpatialbenchError: no such row, other records, or an unknown format.
    """
    check_format(format)
    known = {row.name: row for row in rows}
    beside = than or rows[min(1, len(rows) - 1)].name
    for name in [*names, beside]:
        if name not in known:
            raise SpatialbenchError(f"no stored row {name!r}{did_you_mean(name, known)}")
    shown = [known[name] for name in dict.fromkeys(names or known)]
    place = _places(known[beside], record_set)
    subsets = {
        fact.name: [_evaluated(fact, name, place, shown, known[beside]) for name in fact.subsets]
        for fact in facts
        if fact.subsets
    }
    if format in ("json", "csv"):
        parts = [(s, part) for some in subsets.values() for s in some for part in s.parts]
        return Table("", [], [_record(s, part, beside) for s, part in parts]).write(format)
    tables = [_table(some, beside).write(format) for some in subsets.values()]
    absent = [f"{f.name} ({f.about}): not of these records, {f.absent}." for f in facts if f.absent]
    return "\n".join([*tables, *absent])


def _places(row: Row, record_set: RecordSet) -> np.ndarray:
    """Return the position in the set of each record of a row, int64 [N]."""
    where = {record.record_id: place for place, record in enumerate(record_set.records)}
    assert row.pairs.margins is not None, "the pair test has margins"
    ids = row.pairs.margins.units.tolist()
    if set(ids) != set(where):
        raise SpatialbenchError(
            f"the rows of track {row.result.track} were scored on other records than "
            f"{record_set.name} has today; {row.result.command}"
        )
    return np.array([where[record_id] for record_id in ids])


def _evaluated(
    fact: Fact, name: str, place: np.ndarray, shown: Sequence[Row], beside: Row
) -> Subset:
    assert fact.labels is not None, "a fact with subsets has labels"
    some = fact.labels[place] == name
    if not some.any():
        return Subset(fact, name, 0, [])
    reference = beside.pairs.only(some)
    draws, parts = reference.resampler, []
    for row in shown:
        own = row.pairs.aligned(beside.pairs).only(some)
        ratio = own.ratios["all"]
        interval, gain = percentiles(draws.samples(ratio, stream(row.name))), None
        streams = stream(row.name), stream(beside.name)
        points, paired = draws.difference(ratio, reference.ratios["all"], streams)
        if row is not beside and paired is not None:
            gain = Gain(points, paired)
        assert interval is not None, "there are records"
        parts.append(Part(row.name, float(np.mean(ratio.seeds)), interval, gain))
    return Subset(fact, name, int(some.sum()), parts)


def _table(subsets: Sequence[Subset], beside: str) -> Table:
    fact = subsets[0].fact
    records: dict[str, dict[str, Any]] = {}
    for subset in subsets:
        for part in subset.parts:
            record = records.setdefault(part.name, {"": part.name})
            record[subset.name] = _cell(part, subset.n)
    columns = [Column("", itemgetter(""))]
    columns += [Column(f"{s.name} ({s.n})", partial(_shown, key=s.name)) for s in subsets]
    notes = [
        f"{fact.name}: {fact.about}.",
        f"Accuracy (95 % interval), difference to {beside} where its paired interval excludes 0 "
        f"and there are {FEW} records.",
        "",
    ]
    return Table(f"{fact.name}: accuracy in %", columns, [*records.values()], notes)


def _shown(record: Record, key: str) -> Cell | str:
    return record.get(key, "–")


def _cell(part: Part, n: int) -> Cell:
    low, high = (number(bound) for bound in part.interval)
    text = f"{number(part.accuracy)} ({low} to {high})"
    if part.gain is None or n < FEW or part.gain.interval.low <= 0 <= part.gain.interval.high:
        return Cell(text)
    return Cell(f"{text}, {part.gain.points:+.1f}", bold=True)


def _record(subset: Subset, part: Part, beside: str) -> Record:
    low, high = part.gain.interval if part.gain else (None, None)
    return {
        "fact": subset.fact.name,
        "subset": subset.name,
        "n": subset.n,
        "name": part.name,
        "accuracy": round(part.accuracy, 4),
        "low": round(part.interval.low, 3),
        "high": round(part.interval.high, 3),
        "than": beside,
        "difference": None if part.gain is None else round(part.gain.points, 4),
        "difference_low": low,
        "difference_high": high,
    }
