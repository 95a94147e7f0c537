"""Steps until a relation is learned: to 60 % on the validation split."""

from collections.abc import Sequence
from pathlib import Path

from spatialbench.data.relations import RELATIONS
from spatialbench.report.table_model import markdown_table
from spatialbench.results.curves import Curve, read_curves
from spatialbench.results.files import Row

LEARNED = 60.0
"""Percent; chance is 50."""


def steps_to(curve: Curve) -> float | None:
    """Return the number of steps from which on a curve stays at ``LEARNED`` or above.

    None: its last value is below, or it has none. The points count steps from 0.
    """
    found = None
    for step, value in reversed(curve):
        if value < LEARNED:
            break
        found = step + 1
    return found


def section(rows: Sequence[Row], folder: Path) -> list[str]:
    """Lines about the rows in ``folder`` whose curves have the relations; none without such a row.

    Raises:
        SpatialbenchError: the curves beside a row are damaged, or of other runs.
    """
    lines = []
    for row in rows:
        curves = read_curves(folder / f"{row.name}.json", row.result).values()
        by_relation = [[c.get(f"val/{relation}", []) for c in curves] for relation in RELATIONS]
        if any(any(seeds) for seeds in by_relation):
            lines.append([row.name, *map(_cell, by_relation)])
    if not lines:
        return []
    text = (
        f"Training steps before the first validation from which on a relation has {LEARNED:g} % or "
        "more until the end; mean over seeds. A dash: in no seed."
    )
    header = ["", *(relation.capitalize() for relation in RELATIONS)]
    return [f"### Steps to {LEARNED:g} %", "", text, "", *markdown_table(header, lines)]


def _cell(seeds: Sequence[Curve]) -> str:
    """Mean of the seeds that get there, with their number if not all do."""
    reached = [step for step in map(steps_to, seeds) if step is not None]
    if not reached:
        return "–"
    mean = f"{sum(reached) / len(reached):.0f}"
    return mean if len(reached) == len(seeds) else f"{mean} ({len(reached)} of {len(seeds)} seeds)"
