"""The sections of figures: accuracy by relation, accuracy against cost, what was gained against what was lost."""

from __future__ import annotations

from collections.abc import Callable

from spatialbench.evaluation.measures import TITLES as MEASURES
from spatialbench.evaluation.statistics import COLUMNS
from spatialbench.report.html.charts import (
    MARKS,
    Dot,
    Point,
    dots,
    legend,
    padded,
    plane,
    side_by_side,
)
from spatialbench.report.html.elements import Html, join, tag
from spatialbench.report.html.inputs import Material
from spatialbench.report.stored_rows import Row
from spatialbench.evaluation.pairs import TITLES
from spatialbench.report.table_model import interval_cell, number

CHANCE = 50.0
KEPT = ("text_r1", "image_r1", "object_top1")
"""Measures of what a row may have forgotten: retrieval, zero-shot classification."""


def accuracy(material: Material) -> Html:
    """A dot plot for each relation, All and macro, on one scale."""
    known = [
        pair for row in material.rows for pair in row.result.interval.values() if pair is not None
    ]
    ends = padded([CHANCE, *(bound for pair in known for bound in pair)], 0.03)
    panels = []
    for column in COLUMNS:
        best, found = material.differences.best(column), []
        for row in material.rows:
            mean, bounds = row.result.accuracy[column], row.result.interval[column]
            if mean is not None:
                low, high = bounds or (mean, mean)
                tip = f"{number(mean)} %, 95 % interval {interval_cell(bounds)}"
                found.append(Dot(row.result.name, mean, low, high, tip, best == row.result.name))
        if found:
            count = material.rows[0].result.counts.get(column, material.rows[0].result.n)
            panels.append(
                dots(f"{TITLES[column]}, n = {count}", "accuracy, percent", found, ends, CHANCE)
            )
    return side_by_side(*panels)


# --------------------------------------------------------------------------------------------------------------- cost
def minutes(row: Row) -> float:
    """Of training one seed, rendering and caches apart, a mean over seeds."""
    seconds = [run.wall_seconds.get("train", 0.0) for run in row.result.runs]
    return sum(seconds) / len(seconds) / 60


def minutes_in_all(material: Material, row: Row) -> tuple[float, str]:
    """The same with the stages it starts from, and words for them: a stage without a row is named, not counted."""
    rows = {other.result.name: other for other in material.rows}
    known = [rows[name] for name in row.result.init_from if name in rows]
    parts = [f"{number(minutes(stage), 2)} of {stage.result.name}" for stage in known]
    parts += [f"not counted: {name}" for name in row.result.init_from if name not in rows]
    words = f" ({'; '.join([f'{number(minutes(row), 2)} its own', *parts])})" if parts else ""
    return minutes(row) + sum(map(minutes, known)), words


def millions(material: Material, row: Row) -> tuple[float, str]:
    """Parameters of all that is there in training, frozen ones too."""
    return (
        row.result.parameters.total / 1e6,
        f" ({number(row.result.parameters.trainable / 1e6, 2)} trained)",
    )


def test_seconds(material: Material, row: Row) -> tuple[float, str]:
    """Of scoring the test set, a mean over seeds."""
    seconds = [run.wall_seconds.get("test", 0.0) for run in row.result.runs]
    return sum(seconds) / len(seconds), ""


COSTS: dict[str, tuple[str, str, Callable[[Material, Row], tuple[float, str]], bool]] = {
    "training time": (
        "minutes of training a seed, stages it starts from included",
        "min",
        minutes_in_all,
        True,
    ),
    "parameters": ("parameters, millions, frozen ones included", "million", millions, False),
    "test time": ("seconds to score the {n} records of the test", "s", test_seconds, True),
}
"""What a row costs: (axis, unit, value and words about it, whether it is a time)."""


def cost(material: Material) -> Html:
    """All against what a row costs."""
    machines = list(dict.fromkeys(machine(row) for row in material.rows))
    figures = []
    for title, (axis, unit, value, timed) in COSTS.items():
        points = []
        for row in material.rows:
            mean, bounds = row.result.accuracy["all"], row.result.interval["all"]
            if mean is None:
                continue
            found, words = value(material, row)
            tip = (
                f"All {number(mean)} % ({interval_cell(bounds)}), {number(found, 2)} {unit}{words}"
            )
            tip += f", on {machine(row)}" if timed else ""
            place = material.numbers[row.result.name]
            mark = machines.index(machine(row)) if timed else 0
            points.append(
                Point(row.result.name, place, found, mean, tip, up=_pair(bounds), mark=mark)
            )
        figures.append(
            plane(
                f"All against {title}",
                axis.format(n=material.rows[0].result.n),
                "All, percent",
                points,
            )
        )
    marks = "; ".join(f"{MARKS[min(k, len(MARKS) - 1)]} {name}" for k, name in enumerate(machines))
    note = (
        f"Times are wall time on the machine that made the row, and grow with what else it did meanwhile: {marks}. "
        "Those of different machines are no comparison of methods."
    )
    return join(side_by_side(*figures), _legend(material), tag("p", note, class_="note"))


def machine(row: Row) -> str:
    """What made a row."""
    return ", ".join(
        sorted({str(run.hardware.get("gpu") or run.hardware.get("cpu")) for run in row.result.runs})
    )


def _pair(bounds: list[float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (bounds[0], bounds[1])


def _legend(material: Material) -> Html:
    return legend([(number, name) for name, number in material.numbers.items()])


# --------------------------------------------------------------------------------------------------------- forgetting
def forgetting(material: Material) -> Html:
    """What a row gained on All against what it lost elsewhere, both beside the first row that was measured."""
    measured = [row for row in material.rows if row.result.name in material.measures]
    if len(measured) < 2:
        return tag(
            "p",
            "Fewer than two rows have measures beside the pairs: nothing to set beside the pairs.",
            class_="gone",
        )
    base = measured[0].result.name
    figures, notes = [], []
    lacking: dict[str, list[str]] = {}
    for name in KEPT:
        points, without = [], []
        for row in material.rows:
            other = row.result.name
            gained = material.differences.between(other, base, "all")
            lost = material.differences.between(other, base, name)
            if gained is None or lost is None:
                without.append(other)
            elif other != base:
                tip = f"All {gained.text}, {MEASURES[name]} {lost.text}"
                bounds = (
                    (gained.interval.low, gained.interval.high),
                    (lost.interval.low, lost.interval.high),
                )
                points.append(
                    Point(other, material.numbers[other], gained.points, lost.points, tip, *bounds)
                )
        if points:
            title = f"{MEASURES[name]} lost for All gained"
            beside = f"points beside {base}"
            figures.append(
                plane(title, f"All, {beside}", f"{MEASURES[name]}, {beside}", points, origin=True)
            )
            if without:
                lacking.setdefault(", ".join(without), []).append(MEASURES[name])
        elif any(name in found.ratios for found in material.measures.values()):
            notes.append(f"{MEASURES[name]}: no other row to set beside {base}.")
    notes += [f"Without {', '.join(titles)}: {rows}." for rows, titles in lacking.items()]
    return join(
        side_by_side(*figures), _legend(material), [tag("p", note, class_="note") for note in notes]
    )
