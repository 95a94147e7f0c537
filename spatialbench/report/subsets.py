"""Tables of subsets: every row in every subset of a fact, compared with one row."""

from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from spatialbench.data.records import RecordSet
from spatialbench.evaluation.bootstrap import percentiles
from spatialbench.evaluation.record_facts import Fact
from spatialbench.report.differences import stream
from spatialbench.report.table_model import Cell, Column, Record, Table, interval_cell, number
from spatialbench.results.files import Row
from spatialbench.utils.errors import SpatialbenchError

FEW = 30
"""Records below which a bootstrap says nothing, and no difference is emphasised."""


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
        names: the stored rows to show; empty: all.
        than: the row to compare with; None: the second of the table, fine-tuned CLIP.

    Raises:
        SpatialbenchError: the rows were scored on other records.
    """
    known = {row.name: row for row in rows}
    beside = known[than] if than else rows[min(1, len(rows) - 1)]
    shown = [known[name] for name in dict.fromkeys(names or known)]
    place = _places(beside, record_set)
    tables = [
        (fact, [_evaluated(fact, name, place, shown, beside) for name in fact.subsets])
        for fact in facts
        if fact.subsets
    ]
    if format in ("json", "csv"):
        records = [_rounded(record) for _, subsets in tables for each in subsets for record in each]
        return Table("", [], records).write(format)
    texts = [_table(fact, subsets, beside.name).write(format) for fact, subsets in tables]
    absent = [f"{f.name} ({f.about}): not of these records, {f.absent}." for f in facts if f.absent]
    return "\n".join([*texts, *absent])


def _places(row: Row, record_set: RecordSet) -> np.ndarray:
    """Return the position in the set of each record of a row, int64 [N]."""
    where = {record.record_id: place for place, record in enumerate(record_set.records)}
    ids = row.margins.units.tolist()
    if set(ids) != set(where):
        raise SpatialbenchError(
            f"the rows of track {row.result.track} were scored on other records than "
            f"{record_set.name} has today; {row.result.command}"
        )
    return np.array([where[record_id] for record_id in ids])


def _evaluated(
    fact: Fact, name: str, place: np.ndarray, shown: Sequence[Row], beside: Row
) -> list[dict[str, Any]]:
    """Every row in a subset, beside a row; nothing without a record."""
    assert fact.labels is not None, "a fact with subsets has labels"
    some = fact.labels[place] == name
    if not some.any():
        return []
    reference, n = beside.pairs.only(some), int(some.sum())
    draws, records = reference.resampler, []
    for row in shown:
        ratio = row.pairs.aligned(beside.pairs).only(some).ratios["all"]
        interval = percentiles(draws.samples(ratio, stream(row.name)))
        streams = stream(row.name), stream(beside.name)
        points, paired = draws.difference(ratio, reference.ratios["all"], streams)
        assert interval is not None, "there are records"
        low, high = (row is not beside and paired) or (None, None)
        records.append(
            {
                "fact": fact.name,
                "subset": name,
                "n": n,
                "name": row.name,
                "accuracy": float(np.mean(ratio.seeds)),
                **interval._asdict(),
                "than": beside.name,
                "difference": None if low is None else points,
                "difference_low": low,
                "difference_high": high,
            }
        )
    return records


def _table(fact: Fact, subsets: Sequence[Sequence[Record]], beside: str) -> Table:
    lines: dict[str, dict[str, Any]] = {}
    for subset in subsets:
        for record in subset:
            line = lines.setdefault(record["name"], {"": record["name"]})
            line[record["subset"]] = _cell(record)
    columns = [Column("", itemgetter(""))]
    for name, subset in zip(fact.subsets, subsets, strict=True):
        n = subset[0]["n"] if subset else 0
        columns.append(Column(f"{name} ({n})", partial(_shown, key=name)))
    notes = [
        f"{fact.name}: {fact.about}.",
        f"Accuracy (95 % interval), difference to {beside} where its paired interval excludes 0 "
        f"and there are {FEW} records.",
        "",
    ]
    return Table(f"{fact.name}: accuracy in %", columns, [*lines.values()], notes)


def _shown(record: Record, key: str) -> Cell | str:
    return record.get(key, "–")


def _cell(record: Record) -> Cell:
    interval = interval_cell((record["low"], record["high"]))
    text, low = f"{number(record['accuracy'])} ({interval})", record["difference_low"]
    if low is None or record["n"] < FEW or low <= 0 <= record["difference_high"]:
        return Cell(text)
    return Cell(f"{text}, {record['difference']:+.1f}", bold=True)


def _rounded(record: Record) -> Record:
    digits = {"accuracy": 4, "low": 3, "high": 3, "difference": 4}
    numbers = {key: round(record[key], n) for key, n in digits.items() if record[key] is not None}
    return {**record, **numbers}
