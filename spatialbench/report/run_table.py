"""The table of one run: every measure of an evaluation with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.evidence import Evidence
from spatialbench.report.table_model import number

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
    headings = cls.headings(list(evidence.ratios), evidence.notes)
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("", no_wrap=True)
    for heading in ("%", "95 % from", "to", "n", *(more or {})):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for measure, heading in headings.items():
        value, bounds = evidence.values()[measure], evidence.interval(measure)
        count = evidence.ratios[measure].denominator[0].sum()
        shown = number(value) if bounds else "–"
        low, high = (number(bounds.low), number(bounds.high)) if bounds else ("–", "–")
        others = [column.get(measure, "") for column in (more or {}).values()]
        drawn.add_row(heading, shown, low, high, f"{count:.0f}", *others)
    show(drawn)
    if evidence.labels:
        _print_groups(evidence, headings)
    clusters = len(set(evidence.clusters.tolist()))
    lines = [f"{evidence.units} {cls.unit} of {clusters} scenes or images, data {evidence.data}"]
    notes = evidence.notes.items()
    lines += [f"{name}: {text}" for name, text in notes if name not in evidence.ratios]
    lines.append(footer)
    Console().print("\n".join(line for line in lines if line), highlight=False, soft_wrap=True)


def _print_groups(evidence: Evidence, headings: Mapping[str, str]) -> None:
    drawn = Table(title="By group, in %", title_justify="left")
    for heading in ("", "n", *headings.values()):
        drawn.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    counts = next(iter(evidence.ratios.values())).denominator[0].sum(0)
    values = {measure: evidence.group_values(measure) for measure in headings}
    for place, label in enumerate(evidence.labels[:ROWS]):
        cells = [number(values[measure][label]) for measure in headings]
        drawn.add_row(label, f"{counts[place]:.0f}", *cells)
    show(drawn)


def evidence_json(evidence: Evidence, unit: str) -> dict[str, Any]:
    """Return ``{data, <unit>, notes, measures: {name: {value, interval, groups}}}``, in percent."""
    measures = {}
    for name, value in evidence.values().items():
        more = {"interval": evidence.interval(name), "groups": evidence.group_values(name)}
        measures[name] = {"value": value, **more}
    facts = {"data": evidence.data, unit: evidence.units, "notes": dict(evidence.notes)}
    return {**facts, "measures": measures}


def show(drawn: Table) -> None:
    """Print a table, as wide as its numbers need."""
    needed = Console(width=1000).measure(drawn).maximum
    Console(width=max(Console().width, needed)).print(drawn)
