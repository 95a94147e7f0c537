"""Tables of subsets: every row in every subset of every fact, with its interval, beside one row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from spatialbench.data.records import RecordSet
from spatialbench.evaluation.statistics import Interval, Resampler, accuracy, intervals
from spatialbench.evaluation.subsets import Fact
from spatialbench.report.differences import stream
from spatialbench.report.stored_rows import Row
from spatialbench.report.table_model import Cell, Line, Sheet, as_csv, check_format, number, write
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

FEW = 30
"""Records: of fewer a bootstrap says nothing, and no difference is emphasised."""


class Part(NamedTuple):
    """A row in a subset: percent, its interval, and its paired difference to the row beside; None for that row."""

    name: str
    accuracy: float
    interval: Interval
    gain: float | None
    gain_interval: Interval | None


class Subset(NamedTuple):
    """``n`` records of a fact, and every row on them; no parts where there is no record."""

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
    """A table for each fact.

    Args:
        rows: the stored rows of a track, in the order of its table.
        record_set: its test, whose records the facts are of.
        names: of the rows to show; none: all.
        than: the row that the others are compared with; None: the second of the table, fine-tuned CLIP.
        format: one of ``sheet.FORMATS``.

    Raises:
        SpatialbenchError: no such row, other records, or an unknown format.
    """
    check_format(format)
    known = {row.result.name: row for row in rows}
    beside = than or rows[min(1, len(rows) - 1)].result.name
    for name in [*names, beside]:
        if name not in known:
            raise SpatialbenchError(f"no stored row {name!r}{did_you_mean(name, known)}")
    shown = [known[name] for name in dict.fromkeys(names or known)]
    place = _places(known[beside], record_set)
    found = [
        _measured(fact, name, place, shown, known[beside])
        for fact in facts
        for name in fact.subsets
    ]
    absent = [
        f"{fact.name} ({fact.about}): not of these records, {fact.absent}."
        for fact in facts
        if fact.absent
    ]
    if format == "json":
        return json.dumps([_json(subset, beside) for subset in found], indent=2)
    if format == "csv":
        return as_csv(_csv(found, beside)).rstrip("\n")
    sheets = [
        _sheet(fact, [subset for subset in found if subset.fact is fact], beside)
        for fact in facts
        if fact.subsets
    ]
    return "\n".join([*(write(sheet, format) for sheet in sheets), *absent])


def _places(row: Row, record_set: RecordSet) -> np.ndarray:
    """int64 [N]: where each outcome's record stands in the set.

    Raises:
        SpatialbenchError: the rows were scored on other records.
    """
    where = {record.record_id: place for place, record in enumerate(record_set.records)}
    ids = row.outcomes.record_ids.tolist()
    if set(ids) != set(where):
        raise SpatialbenchError(
            f"the rows of track {row.result.track} were scored on other records than {record_set.name} has today; "
            f"{row.result.command}"
        )
    return np.array([where[record_id] for record_id in ids])


def _measured(
    fact: Fact, name: str, place: np.ndarray, shown: Sequence[Row], beside: Row
) -> Subset:
    assert fact.labels is not None, "a fact with subsets has labels"
    first = beside.outcomes
    some = fact.labels[place] == name
    if not some.any():
        return Subset(fact, name, 0, [])
    relation = first.relation[some]
    draws = Resampler(relation, first.cluster[some])
    reference = beside.outcomes.margins[:, some]
    parts = []
    for row in shown:
        margins, label = row.outcomes.aligned(first)[:, some], row.result.name
        interval = intervals(draws.columns(margins, stream(label)))["all"]
        assert interval is not None, "there are records"
        gain = bounds = None
        if row is not beside:
            pair = draws.difference(margins, reference, (stream(label), stream(beside.result.name)))
            gain, bounds = pair.gain["all"], pair.interval["all"]
        parts.append(Part(label, accuracy(margins, relation)["all"], interval, gain, bounds))
    return Subset(fact, name, int(some.sum()), parts)


def _sheet(fact: Fact, subsets: Sequence[Subset], beside: str) -> Sheet:
    names = [part.name for part in next(subset.parts for subset in subsets if subset.parts)]
    cells: dict[str, list[Cell | str]] = {name: [name] for name in names}
    for subset in subsets:
        by_name = {part.name: part for part in subset.parts}
        for name in names:
            cells[name].append(_cell(by_name[name], subset.n) if name in by_name else "–")
    return Sheet(
        title=f"{fact.name}: accuracy in %",
        header=["", *(f"{subset.name} ({subset.n})" for subset in subsets)],
        lines=[Line(line) for line in cells.values()],
        notes=[
            f"{fact.name}: {fact.about}.",
            f"Accuracy (95 % interval), difference to {beside} where its paired interval excludes 0 and there are "
            f"{FEW} records.",
            "",
        ],
        data=[],
        rows=[],
    )


def _cell(part: Part, n: int) -> Cell:
    apart = (
        n >= FEW
        and part.gain_interval is not None
        and not part.gain_interval.low <= 0 <= part.gain_interval.high
    )
    text = f"{number(part.accuracy)} ({number(part.interval.low)} to {number(part.interval.high)})"
    return Cell(text if part.gain is None or not apart else f"{text}, {part.gain:+.1f}", apart)


def _json(subset: Subset, beside: str) -> dict[str, Any]:
    """``{fact, about, subset, n, than, rows: [{name, accuracy, interval, difference, difference_interval}]}``."""
    rows = [
        {
            "name": part.name,
            "accuracy": round(part.accuracy, 4),
            "interval": [round(bound, 3) for bound in part.interval],
            "difference": None if part.gain is None else round(part.gain, 4),
            "difference_interval": None
            if part.gain_interval is None
            else [round(b, 3) for b in part.gain_interval],
        }
        for part in subset.parts
    ]
    fact = subset.fact
    return {
        "fact": fact.name,
        "about": fact.about,
        "subset": subset.name,
        "n": subset.n,
        "than": beside,
        "rows": rows,
    }


def _csv(subsets: Sequence[Subset], beside: str) -> list[list[object]]:
    header = [
        "fact",
        "subset",
        "n",
        "name",
        "accuracy",
        "low",
        "high",
        "than",
        "difference",
        "gain_low",
        "gain_high",
    ]
    lines: list[list[object]] = [[*header]]
    for subset in subsets:
        for part in subset.parts:
            bounds = part.gain_interval or (None, None)
            where = [subset.fact.name, subset.name, subset.n, part.name]
            lines.append([*where, part.accuracy, *part.interval, beside, part.gain, *bounds])
    return lines
