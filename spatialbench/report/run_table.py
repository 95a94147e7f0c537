"""The table of one run: every measure of an evaluation with its interval."""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.evidence import Evidence
from spatialbench.report.table_model import Column, Table, number

ROWS = 40
"""Groups that are printed of one measure; JSON has all."""


def print_evidence(
    title: str,
    evidence: Evidence,
    cls: type[Evaluation] | Evaluation,
    more: Mapping[str, Mapping[str, str]] | None = None,
    footer: str = "",
) -> None:
    """Print an evaluation of one run; ``more``: further columns, heading -> measure -> text."""
    more = more or {}
    headings = cls.headings(list(evidence.ratios), evidence.notes)
    values, lines = evidence.values(), []
    for measure, heading in headings.items():
        bounds = evidence.interval(measure)
        numbers = (values[measure], *bounds) if bounds else (None,) * 3
        count = evidence.ratios[measure].denominator[0].sum()
        others = [column.get(measure, "") for column in more.values()]
        lines.append([heading, *map(number, numbers), f"{count:.0f}", *others])
    _print(title, ["", "%", "95 % from", "to", "n", *more], lines)
    if evidence.labels:
        counts = next(iter(evidence.ratios.values())).denominator[0].sum(0)
        groups = [evidence.group_values(measure) for measure in headings]
        parts = [
            [label, f"{count:.0f}", *(number(group[label]) for group in groups)]
            for label, count in zip(evidence.labels[:ROWS], counts, strict=False)
        ]
        _print("By group, in %", ["", "n", *headings.values()], parts)
    clusters = len(set(evidence.clusters.tolist()))
    print(f"{evidence.units} {cls.unit} of {clusters} scenes or images, data {evidence.data}")
    for name, text in evidence.notes.items():
        if name not in evidence.ratios:
            print(f"{name}: {text}")
    if footer:
        print(footer)


def _print(title: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    columns = [Column(heading, itemgetter(str(k))) for k, heading in enumerate(header)]
    records = [{str(k): text for k, text in enumerate(line)} for line in lines]
    print(Table(title, columns, records).write("text"), end="")


def evidence_json(evidence: Evidence, unit: str) -> dict[str, Any]:
    """Return ``{data, <unit>, notes, measures: {name: {value, interval, groups}}}``, in percent."""
    measures = {}
    for name, value in evidence.values().items():
        more = {"interval": evidence.interval(name), "groups": evidence.group_values(name)}
        measures[name] = {"value": value, **more}
    facts = {"data": evidence.data, unit: evidence.units, "notes": dict(evidence.notes)}
    return {**facts, "measures": measures}
