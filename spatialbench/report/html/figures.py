"""The figures of the report: accuracy by relation, training curves, cost, forgetting."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from markupsafe import Markup

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.pairs import COLUMNS, TITLES
from spatialbench.report import where_lost
from spatialbench.report.evaluation_table import winners
from spatialbench.report.html import svg
from spatialbench.report.html.inputs import ReportInputs
from spatialbench.report.table_model import interval_cell, number
from spatialbench.results.curves import SHOWN, Curve, thinned
from spatialbench.results.files import Row

CHANCE = 50.0
KEPT = ("text_r1", "image_r1", "object_top1")
"""Measures of what a row may have forgotten: retrieval, zero-shot classification."""
MARKS = "●○■□"
"""Machines in the figures of cost, as text; further ones share the last."""
SHADES = (svg.ACCENT, svg.SECOND, svg.THIRD)
LONGEST = 27
"""Letters of a name in a figure; longer ones are cut."""


@dataclass(frozen=True)
class Drawing:
    """A figure; ``numbers`` is what it shows, in words."""

    title: str
    svg: Markup
    numbers: Sequence[str] = ()


@dataclass(frozen=True)
class Point:
    """A row in a plane: two values, the same in words, their intervals, a place in ``MARKS``."""

    name: str
    number: int
    x: float
    y: float
    words: str
    across: Sequence[float] | None = None
    up: Sequence[float] | None = None
    mark: int = 0


def accuracy(inputs: ReportInputs) -> list[Drawing]:
    """Draw a dot with its interval for each row, a figure for each column, all on one scale."""
    bounds = [CHANCE]
    for row in inputs.rows:
        bounds += [bound for pair in row.result.pairs.interval.values() for bound in pair or ()]
    drawings = []
    ends = min(bounds) - 1, max(bounds) + 1
    for column in COLUMNS:
        rows = [row for row in inputs.rows if row.result.pairs.value[column] is not None]
        count = inputs.rows[0].pairs.ratios[column].denominator[0].sum()
        title = f"{TITLES[column]}, n = {count:.0f}"
        if rows:
            best = winners(rows, column, inputs.differences)
            drawings.append(_dots(title, rows, column, ends, best))
    return drawings


def _dots(
    title: str, rows: Sequence[Row], column: str, ends: tuple[float, float], best: set[str]
) -> Drawing:
    words = []
    with svg.drawing(title, 380, 17 * len(rows) + 46) as (figure, axes):
        names = [row.name for row in rows]
        names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
        axes.set_yticks(range(len(names)), names, color=svg.INK)
        for place, row in enumerate(rows):
            name, stored = row.name, row.result.pairs
            mean, interval = stored.value[column], stored.interval[column]
            words.append(f"{name} {number(mean)} %, 95 % interval {interval_cell(interval)}")
            colour = svg.GOOD if name in best else svg.ACCENT
            axes.hlines(place, *(interval or (mean, mean)), color=colour, alpha=0.55)
            axes.plot(mean, place, "o", color=colour, markersize=9 if name in best else 6)
            if name in best:
                axes.get_yticklabels()[place].set(color=svg.GOOD, fontweight="bold")
        axes.axvline(CHANCE, color=svg.SOFT, linewidth=1, linestyle="--", zorder=0.5)
        axes.set(xlim=ends, ylim=(len(names) - 0.5, -0.5), xlabel="accuracy, percent")
        axes.grid(visible=False, axis="y")
        return Drawing(title, svg.markup(figure, f"{title}. {'; '.join(words)}"))


def lost(inputs: ReportInputs) -> list[Drawing]:
    """Draw for each relation what patches, embedding and cosine of the front rows say."""
    rows, drawings = where_lost.chosen(inputs.rows, inputs.front), []
    colours = dict(zip(where_lost.STAGES, SHADES, strict=True))
    for relation in RELATIONS if rows else ():
        with svg.drawing(f"lost, {relation}", 380, 24 * len(rows) + 60) as (figure, axes):
            where_lost.draw(axes, rows, relation, colours)
            axes.set(xlim=where_lost.limits(rows), title="")
            numbers = [where_lost.words(row, relation) for row in rows]
            title = TITLES[relation]
            drawn = svg.markup(figure, f"{title}. {'; '.join(numbers)}")
            drawings.append(Drawing(title, drawn, numbers))
    return drawings


def curves(inputs: ReportInputs) -> tuple[list[Drawing], list[str]]:
    """Draw loss and validation of each row, a line for each seed; and say why a row has none."""
    drawings, missing = [], []
    for row in inputs.rows:
        name, by_seed = row.name, inputs.curves(row)
        if not any(run.train_steps for run in row.result.runs):
            missing.append(f"{name}: nothing was trained.")
        elif not by_seed:
            folder = inputs.run_folder(row, 0).parent
            missing.append(f"{name}: no curve is kept, and its run folder is gone ({folder}).")
        for kind in SHOWN:
            lines = {s: thinned(list(known[kind])) for s, known in by_seed.items() if kind in known}
            drawings += [_lines(row, kind, lines)] if lines else []
    return drawings, missing


def _lines(row: Row, kind: str, lines: Mapping[int, Curve]) -> Drawing:
    """One kind of curve of a row; every point of validation, of which there are few, has a mark."""
    title, seeds = f"{row.name}: {SHOWN[kind]}", len(row.result.seeds)
    title += f", {len(lines)} of {seeds} seeds" if len(lines) < seeds else ""
    ends = ", ".join(f"{seed} ends at {curve[-1][1]:.4g}" for seed, curve in lines.items())
    with svg.drawing(title, 320, 190) as (figure, axes):
        for place, (seed, curve) in enumerate(lines.items()):
            marks = None if kind.startswith("val/") else [len(curve) - 1]
            style = {"color": SHADES[place % len(SHADES)], "markevery": marks, "markersize": 5}
            axes.plot(*zip(*curve, strict=True), "o-", label=f"seed {seed}", **style)
        axes.set(xlabel="steps", xlim=(0, None))
        axes.locator_params(nbins=5)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderpad=0)
        return Drawing(title, svg.markup(figure, f"{title}; {ends}"))


COSTS = {
    "training time": ("minutes of training a seed, with earlier stages", "min"),
    "parameters": ("parameters, millions, frozen ones included", "million"),
    "test time": ("seconds to score the test", "s"),
}
"""Title -> axis, and unit."""


def seconds(row: Row, stage: str) -> float:
    """Return the wall time of a stage of one seed, as a mean over seeds."""
    times = [run.wall_seconds.get(stage, 0.0) for run in row.result.runs]
    return sum(times) / len(times)


def _cost(inputs: ReportInputs, row: Row, title: str) -> tuple[float, str]:
    """One of ``COSTS``, and words about it."""
    if title == "test time":
        return seconds(row, "test"), ""
    if title == "parameters":
        parameters = row.result.parameters
        return parameters.total / 1e6, f" ({number(parameters.trainable / 1e6, 2)} trained)"
    return training_minutes(inputs, row)


def training_minutes(inputs: ReportInputs, row: Row) -> tuple[float, str]:
    """Return the training time with the stages a row starts from, and words about them.

    A stage without a row is named, not counted.
    """
    rows = {other.name: other for other in inputs.rows}
    stages, own = row.result.init_from, seconds(row, "train") / 60
    minutes = {name: seconds(rows[name], "train") / 60 for name in stages if name in rows}
    parts = [f"{number(value, 2)} of {name}" for name, value in minutes.items()]
    parts += [f"not counted: {name}" for name in stages if name not in rows]
    words = f" ({'; '.join([f'{number(own, 2)} its own', *parts])})" if parts else ""
    return own + sum(minutes.values()), words


def _machine(row: Row) -> str:
    machines = {str(run.hardware.get("gpu") or run.hardware.get("cpu")) for run in row.result.runs}
    return ", ".join(sorted(machines))


def cost(inputs: ReportInputs) -> tuple[list[Drawing], str]:
    """Draw All against what a row costs; and say which mark is which machine."""
    machines = list(dict.fromkeys(map(_machine, inputs.rows)))
    drawings = []
    for title, (axis, unit) in COSTS.items():
        timed, points = title.endswith("time"), []
        for row in inputs.rows:
            pairs = row.result.pairs
            mean, interval = pairs.value["all"], pairs.interval["all"]
            if mean is None:
                continue
            value, words = _cost(inputs, row, title)
            mine = f"All {number(mean)} % ({interval_cell(interval)})"
            words = f"{mine}, {number(value, 2)} {unit}{words}"
            words += f", on {_machine(row)}" if timed else ""
            mark = machines.index(_machine(row)) if timed else 0
            name, place = row.name, inputs.numbers[row.name]
            points.append(Point(name, place, value, mean, words, up=interval, mark=mark))
        drawings.append(plane(f"All against {title}", axis, "All, percent", points))
    last = len(MARKS) - 1
    return drawings, "; ".join(f"{MARKS[min(k, last)]} {name}" for k, name in enumerate(machines))


def forgetting(inputs: ReportInputs) -> tuple[list[Drawing], list[str]] | None:
    """Draw All gained against other measures lost, both against the first measured row; and notes.

    None where fewer than two rows are measured.
    """
    evaluated = [row.name for row in inputs.rows if len(row.evidence) > 1]
    if len(evaluated) < 2:
        return None
    base, drawings, notes = evaluated[0], [], []
    lacking: dict[str, list[str]] = {}
    for measure in (name for name in KEPT if name in inputs.headings):
        heading = inputs.headings[measure]
        points, without = [], []
        for name, place in inputs.numbers.items():
            between = partial(inputs.differences.between, name, base)
            gained, lost = between("all"), between(measure)
            if gained is None or lost is None:
                without.append(name)
            elif name != base:
                words = f"All {gained.text}, {heading} {lost.text}"
                values = gained.points, lost.points, words, gained.interval, lost.interval
                points.append(Point(name, place, *values))
        if points:
            what = f"All, points against {base}", f"{heading}, points against {base}"
            drawings.append(plane(f"{heading} lost for All gained", *what, points, True))
            if without:
                lacking.setdefault(", ".join(without), []).append(heading)
        elif inputs.differences.evaluation_of(measure):
            notes.append(f"{heading}: no other row to compare with {base}.")
    notes += [f"Without {', '.join(titles)}: {names}." for names, titles in lacking.items()]
    return drawings, notes


def plane(
    title: str, across: str, up: str, points: Sequence[Point], origin: bool = False
) -> Drawing:
    """Draw rows by two quantities, ``across`` and ``up``; ``origin``: with lines at 0."""
    with svg.drawing(title, 460, 340) as (figure, axes):
        for point in points:
            square, empty = divmod(min(point.mark, len(MARKS) - 1), 2)
            if point.across:
                axes.hlines(point.y, *point.across, color=svg.ACCENT, alpha=0.28)
            if point.up:
                axes.vlines(point.x, *point.up, color=svg.ACCENT, alpha=0.28)
            style = {"color": svg.ACCENT, "markerfacecolor": svg.PANEL if empty else svg.ACCENT}
            axes.plot(point.x, point.y, "s" if square else "o", markersize=7, **style)
        for line in (axes.axhline, axes.axvline) if origin else ():
            line(0, color=svg.SOFT, linewidth=1, linestyle="--")
        axes.set(xlabel=across, ylabel=up)
        axes.margins(0.06)
        figure.draw_without_rendering()
        _label(axes, points)
        words = [f"{point.number} {point.name}: {point.words}" for point in points]
        return Drawing(title, svg.markup(figure, f"{title}. {'; '.join(words)}"), words)


def _label(axes: Any, points: Sequence[Point]) -> None:
    """Write the number of each point beside it, where it covers no other as far as possible."""
    taken = [(*axes.transData.transform((point.x, point.y)), 11.0) for point in points]
    for point, (x, y, _) in zip(points, list(taken), strict=True):
        ring = [
            (x + distance * math.cos(k * math.pi / 6), y + distance * math.sin(k * math.pi / 6))
            for distance in (12, 19, 27, 36)
            for k in range(12)
        ]
        inside = [place for place in ring if axes.bbox.contains(*place)] or ring
        crowd = [sum(max(0, r - math.hypot(a - u, b - v)) for u, v, r in taken) for a, b in inside]
        a, b = inside[crowd.index(min(crowd))]
        taken.append((a, b, 15.0))
        arrow = {"arrowstyle": "-", "color": svg.SOFT, "linewidth": 0.7, "shrinkA": 6, "shrinkB": 0}
        place = {"xy": (point.x, point.y), "xytext": (a - x, b - y), "textcoords": "offset points"}
        far = math.hypot(a - x, b - y) > 14
        style = {"ha": "center", "va": "center", "fontsize": 10, "fontweight": "bold"}
        axes.annotate(str(point.number), **place, arrowprops=arrow if far else None, **style)
