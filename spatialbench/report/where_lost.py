"""Figure "where is it lost": what patches know, what a probe finds in the embedding, the cosine.

For every row and relation up to three accuracies with their intervals: of the dense readout of the
patches and of the linear probe of the embedding, both of the evaluation ``located``, and of the
cosine, which is the pair test. A row without that evaluation has the cosine alone. Rows of readouts
are left out: their pair test is no cosine.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.located import SCORERS, Located
from spatialbench.evaluation.pairs import TITLES
from spatialbench.report.table_model import interval_cell, number
from spatialbench.results.files import Row
from spatialbench.results.schema import PAIRS

CHANCE = 50.0
COSINE = "cosine"
STAGES = {**SCORERS, COSINE: COSINE}
"""Stage -> how the figure calls it, from the patches to the score."""
MARKS = dict(zip(STAGES, "so^", strict=True))


class Point(NamedTuple):
    """One accuracy in percent, and its 95 % interval."""

    stage: str
    value: float
    low: float
    high: float


def chosen(rows: Sequence[Row], front: Sequence[str]) -> list[Row]:
    """Return the rows to draw: those of the front table, or all; none if none was evaluated."""
    rows = [row for row in rows if row.family != "readouts"]
    shown = [row for row in rows if row.name in front] or rows
    return shown if any(Located.name in row.evidence for row in shown) else []


def points(row: Row, relation: str) -> list[Point]:
    """Return what is known of a row in a relation, from the patches to the score."""
    found = []
    for stage in STAGES:
        name, measure = (
            (PAIRS, relation) if stage == COSINE else (Located.name, f"{stage}: {relation}")
        )
        stored = row.result.evaluations.get(name)
        value = None if stored is None else stored.value.get(measure)
        if stored is not None and value is not None:
            low, high = stored.interval[measure] or (value, value)
            found.append(Point(stage, value, low, high))
    return found


def words(row: Row, relation: str) -> str:
    """Say the points of a row."""
    said = (
        f"{STAGES[stage]} {number(value)} ({interval_cell((low, high))})"
        for stage, value, low, high in points(row, relation)
    )
    return f"{row.name}: {', '.join(said)}"


def draw(axes: Any, rows: Sequence[Row], relation: str, colours: Mapping[str, str]) -> None:
    """Draw a relation: a line for each row, a mark for each stage.

    Args:
        axes: of matplotlib.
        colours: stage -> colour.
    """
    shift = {stage: 0.22 * (place - 1) for place, stage in enumerate(STAGES)}
    for place, row in enumerate(rows):
        for stage, value, low, high in points(row, relation):
            y, style = place + shift[stage], {"color": colours[stage]}
            axes.hlines(y, low, high, alpha=0.55, **style)
            axes.plot(value, y, MARKS[stage], markersize=5, **style)
    axes.axvline(CHANCE, color="gray", linewidth=1, linestyle="--", zorder=0.5)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel="accuracy, percent", title=TITLES[relation])


def limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the scale that all relations share."""
    drawn = [point for row in rows for name in RELATIONS for point in points(row, name)]
    return min(point.low for point in drawn) - 1, max(point.high for point in drawn) + 1
