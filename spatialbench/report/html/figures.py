"""The sections of figures: accuracy by relation, accuracy against cost, what was gained against what was lost."""

from __future__ import annotations

from collections.abc import Callable

from spatialbench.evaluation.measures import TITLES as MEASURES
from spatialbench.evaluation.statistics import COLUMNS
from spatialbench.report.html.charts import Dot, Point, dots, legend, padded, plane, side_by_side
from spatialbench.report.html.elements import Html, join, tag
from spatialbench.report.html.material import Material
from spatialbench.report.rows import Row
from spatialbench.report.sheet import interval_cell, number
from spatialbench.report.table import TITLES

CHANCE = 50.0
RETRIEVAL = ("text_r1", "image_r1")
"""What a row may have forgotten."""


def accuracy(material: Material) -> Html:
    """A dot plot for each relation, All and macro, on one scale."""
    known = [pair for row in material.rows for pair in row.result.interval.values() if pair is not None]
    ends = padded([CHANCE, *(bound for pair in known for bound in pair)], 0.03)
    panels = []
    for column in COLUMNS:
        best, found = material.differences.best(column), []
        for row in material.rows:
            mean, bounds = row.result.accuracy[column], row.result.interval[column]
            if mean is not None:
                low, high = bounds or (mean, mean)
                tip = f"{number(mean)} % ({interval_cell(bounds)})"
                found.append(Dot(row.result.name, mean, low, high, tip, best == row.result.name))
        if found:
            panels.append(dots(TITLES[column], found, ends, CHANCE))
    return side_by_side(*panels)


# --------------------------------------------------------------------------------------------------------------- cost
def minutes(row: Row) -> float:
    """Of training one seed, rendering and caches apart, a mean over seeds."""
    seconds = [run.wall_seconds.get("train", 0.0) for run in row.result.runs]
    return sum(seconds) / len(seconds) / 60


def test_seconds(row: Row) -> float:
    """Of scoring the test set, a mean over seeds."""
    seconds = [run.wall_seconds.get("test", 0.0) for run in row.result.runs]
    return sum(seconds) / len(seconds)


COSTS: dict[str, tuple[str, Callable[[Row], float], bool]] = {
    "minutes of training a seed": ("min", minutes, False),
    "parameters, millions": ("M", lambda row: row.result.parameters.total / 1e6, False),
    "seconds of the test": ("s", test_seconds, False),
}
"""What a row costs: (unit, value, logarithmic)."""


def cost(material: Material) -> Html:
    """All against what a row costs."""
    figures = []
    for title, (unit, value, logarithmic) in COSTS.items():
        points = []
        for row in material.rows:
            mean, bounds = row.result.accuracy["all"], row.result.interval["all"]
            if mean is None:
                continue
            tip = f"{number(mean)} % for {number(value(row), 2)} {unit}"
            place = material.numbers[row.result.name]
            points.append(Point(row.result.name, place, value(row), mean, tip, up=_pair(bounds)))
        figures.append(plane(f"All against {title}", title, "All, percent", points, logarithmic))
    runs = [run for row in material.rows for run in row.result.runs]
    machines = sorted({str(run.hardware.get("gpu") or run.hardware.get("cpu")) for run in runs})
    text = "Times are of the machines that made the rows"
    note = f"{text}: {', '.join(machines)}; those of different machines are no comparison of methods."
    return join(side_by_side(*figures), _legend(material), tag("p", note, class_="note"))


def _pair(bounds: list[float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (bounds[0], bounds[1])


def _legend(material: Material) -> Html:
    return legend([(number, name) for name, number in material.numbers.items()])


# --------------------------------------------------------------------------------------------------------- forgetting
def forgetting(material: Material) -> Html:
    """What a row gained on All against what it lost in retrieval, both beside the first row that was measured."""
    measured = [row for row in material.rows if row.result.name in material.measures]
    if len(measured) < 2:
        return tag(
            "p", "Fewer than two rows have measures of retrieval: nothing to set beside the pairs.", class_="gone"
        )
    base = measured[0].result.name
    figures = []
    for name in RETRIEVAL:
        points = []
        for row in measured[1:]:
            other = row.result.name
            gained = material.differences.between(other, base, "all")
            lost = material.differences.between(other, base, name)
            if gained is None or lost is None:
                continue
            tip = f"All {gained.text}, {MEASURES[name]} {lost.text}"
            bounds = (gained.interval.low, gained.interval.high), (lost.interval.low, lost.interval.high)
            points.append(Point(other, material.numbers[other], gained.points, lost.points, tip, *bounds))
        if points:
            title = f"{MEASURES[name]} lost for All gained"
            beside = f"points beside {base}"
            figures.append(plane(title, f"All, {beside}", f"{MEASURES[name]}, {beside}", points))
    missing = [row.result.name for row in material.rows if row.result.name not in material.measures]
    note = tag("p", f"Not measured: {', '.join(missing)}.", class_="note") if missing else None
    return join(side_by_side(*figures), _legend(material), note)
