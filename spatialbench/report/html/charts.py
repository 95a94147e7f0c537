"""Figures as inline SVG: dots with intervals, lines, points in a plane. Colours are the style sheet's, so that they
follow light and dark; every mark says its numbers on hover, and each figure in its label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from spatialbench.report.html.elements import Html, join, tag

LINE = 17.0
"""Height of a line of a dot plot."""
LETTER = 6.9
"""Mean width of a letter of a name, in units of a figure."""
LONGEST = 27
"""Letters of a name in a figure; longer ones are cut, and whole on hover."""
MARKS = "●○■□"
"""How machines are told apart in a plane, as text; more of them share the last."""
SHADES = 3
"""Lines of one figure are told apart by so many shades."""


class Scale(NamedTuple):
    """From values to places: ``low`` lies at ``start``, ``high`` at ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values between the ends."""
        step = _step((self.high - self.low) / count)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """The ends of a scale that holds the values with some room."""
    low, high = min(values), max(values)
    room = (high - low) * share or max(abs(high) * 0.05, 0.5)
    return low - room, high + room


def drawing(width: float, height: float, label: str, *children: Html) -> Html:
    """A figure that shrinks with its frame."""
    box = f"0 0 {width:g} {height:g}"
    return tag(
        "svg", *children, viewBox=box, width=width, height=height, role="img", aria_label=label
    )


def text(
    x: float, y: float, shown: str, class_: str | None = None, anchor: str | None = None
) -> Html:
    """Words in a figure."""
    return tag("text", shown, x=_r(x), y=_r(y), class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Html:
    return tag("line", x1=_r(x1), y1=_r(y1), x2=_r(x2), y2=_r(y2), class_=class_)


def _r(value: float) -> float:
    return round(value, 1)


def short(value: float) -> str:
    """A number of an axis."""
    shown = f"{value:,.0f}".replace(",", "\u2009") if abs(value) >= 1000 else f"{value:.4g}"
    return shown.replace("-", "−")


# ---------------------------------------------------------------------------------------------------------- dot plot
@dataclass(frozen=True)
class Dot:
    """A value and its interval; ``name`` is the row's, ``tip`` what is said on hover."""

    name: str
    value: float
    low: float
    high: float
    tip: str
    best: bool = False


def dots(
    title: str,
    across: str,
    found: Sequence[Dot],
    ends: tuple[float, float],
    reference: float | None = None,
) -> Html:
    """A line for each row, one above the other.

    Args:
        across: what the axis is.
        ends: of the scale, which figures beside one another share.
        reference: where a broken line stands.
    """
    longest = max(len(shortened(dot.name, LONGEST)) for dot in found)
    left, width, top = max(60.0, 14 + LETTER * longest), 380.0, 6.0
    bottom = top + LINE * len(found)
    x = Scale(*ends, left, width - 12)
    marks = [line(x.at(tick), top, x.at(tick), bottom, "rule") for tick in x.ticks()]
    marks += [text(x.at(tick), bottom + 14, short(tick), "tick", "middle") for tick in x.ticks()]
    marks.append(text((left + width - 12) / 2, bottom + 29, f"{across} →", "axis", "middle"))
    if reference is not None:
        marks.append(line(x.at(reference), top, x.at(reference), bottom, "reference"))
    for place, dot in enumerate(found):
        y = top + LINE * (place + 0.5)
        marks.append(
            tag(
                "g",
                tag("rect", x=0, y=_r(y - LINE / 2), width=width, height=LINE, class_="band"),
                text(left - 8, y + 4, shortened(dot.name, LONGEST), "name", "end"),
                line(x.at(dot.low), y, x.at(dot.high), y, "whisker"),
                tag(
                    "circle",
                    cx=_r(x.at(dot.value)),
                    cy=_r(y),
                    r=5 if dot.best else 3.6,
                    class_="dot",
                ),
                class_="mark best" if dot.best else "mark",
                data_row=dot.name,
                data_tip=f"{dot.name}: {dot.tip}",
            )
        )
    label = f"{title}. " + "; ".join(f"{dot.name} {dot.tip}" for dot in found)
    return tag("figure", tag("figcaption", title), drawing(width, bottom + 34, label, *marks))


def shortened(name: str, most: int) -> str:
    """A name that has to fit."""
    return name if len(name) <= most else name[: most - 1] + "…"


# -------------------------------------------------------------------------------------------------------------- lines
def lines(
    title: str, label: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]], marks: bool
) -> Html:
    """Lines over the steps of a training, one for each seed.

    Args:
        label: what a screen reader says.
        series: (name, points of at least one).
        marks: a dot at every point: for a few of them.
    """
    width, height, left, bottom = 320.0, 182.0, 44.0, 142.0
    points = [point for _, found in series for point in found]
    y = Scale(*padded([value for _, value in points]), bottom, 8)
    last = max(step for step, _ in points)
    x = Scale(0, last or 1, left, width - 14)
    drawn = [line(left, y.at(tick), width - 14, y.at(tick), "rule") for tick in y.ticks(4)]
    drawn += [text(left - 6, y.at(tick) + 4, short(tick), "tick", "end") for tick in y.ticks(4)]
    drawn += [text(x.at(tick), bottom + 16, short(tick), "tick", "middle") for tick in x.ticks(4)]
    drawn.append(text((left + width) / 2, bottom + 32, "steps →", "axis", "middle"))
    keys = []
    for place, (name, found) in enumerate(series):
        keys.append(tag("span", name, class_=f"key shade{place % SHADES}"))
        path = " ".join(f"{x.at(step):.1f},{y.at(value):.1f}" for step, value in found)
        shade = f"shade{place % SHADES}"
        drawn.append(tag("polyline", points=path, class_=f"curve {shade}"))
        for step, value in found if marks else found[-1:]:
            tip = f"{name}: {value:.4g} after {step + 1:g} steps"
            drawn.append(
                tag(
                    "circle",
                    cx=_r(x.at(step)),
                    cy=_r(y.at(value)),
                    r=3,
                    class_=f"dot {shade}",
                    data_tip=tip,
                )
            )
    shown = tag("p", keys, class_="upward")
    return tag("figure", tag("figcaption", title), shown, drawing(width, height, label, *drawn))


# -------------------------------------------------------------------------------------------------------------- plane
@dataclass(frozen=True)
class Point:
    """A row in a plane; ``number`` stands beside it, ``mark`` is a place in ``MARKS``. The intervals may be missing."""

    name: str
    number: int
    x: float
    y: float
    tip: str
    across: tuple[float, float] | None = None
    up: tuple[float, float] | None = None
    mark: int = 0


def plane(title: str, across: str, up: str, found: Sequence[Point], origin: bool = False) -> Html:
    """Rows by two numbers.

    Args:
        across, up: what the axes are.
        origin: the axes are differences: broken lines stand at no difference.
    """
    width, height, left, bottom = 460.0, 330.0, 46.0, 278.0
    xs = [value for point in found for value in (point.x, *(point.across or ()))]
    ys = [value for point in found for value in (point.y, *(point.up or ()))]
    xs, ys = ([*xs, 0.0], [*ys, 0.0]) if origin else (xs, ys)
    x, y = Scale(*padded(xs), left, width - 16), Scale(*padded(ys), bottom, 10)
    drawn = [line(left, y.at(tick), width - 16, y.at(tick), "rule") for tick in y.ticks()]
    drawn += [text(left - 6, y.at(tick) + 4, short(tick), "tick", "end") for tick in y.ticks()]
    drawn += [line(x.at(tick), 10, x.at(tick), bottom, "rule") for tick in x.ticks()]
    drawn += [text(x.at(tick), bottom + 16, short(tick), "tick", "middle") for tick in x.ticks()]
    drawn.append(text((left + width) / 2, height - 12, f"{across} →", "axis", "middle"))
    if origin:
        drawn.append(line(left, y.at(0), width - 16, y.at(0), "reference"))
        drawn.append(line(x.at(0), 10, x.at(0), bottom, "reference"))
    places = _labels([(x.at(point.x), y.at(point.y)) for point in found], width, bottom)
    for point, (tx, ty) in zip(found, places, strict=True):
        px, py = x.at(point.x), y.at(point.y)
        bars = (
            [line(x.at(point.across[0]), py, x.at(point.across[1]), py, "whisker")]
            if point.across
            else []
        )
        bars += [line(px, y.at(point.up[0]), px, y.at(point.up[1]), "whisker")] if point.up else []
        drawn.append(
            tag(
                "g",
                bars,
                _leader(px, py, tx, ty),
                _mark(px, py, point.mark),
                text(tx, ty + 3.5, str(point.number), "label", "middle"),
                class_="mark",
                data_row=point.name,
                data_tip=f"{point.name}: {point.tip}",
            )
        )
    label = f"{title}. " + "; ".join(f"{point.name}: {point.tip}" for point in found)
    upward = tag("p", f"↑ {up}", class_="upward")
    return tag(
        "figure",
        tag("figcaption", title),
        upward,
        drawing(width, height, label, *drawn),
        class_="plane",
    )


def _leader(x: float, y: float, tx: float, ty: float) -> Html | None:
    """From a point to its label, up to the first letter, where the label stands apart."""
    distance = math.hypot(tx - x, ty - y)
    if distance < 14:
        return None
    rest = 8 / distance
    return line(x, y, tx + rest * (x - tx), ty + rest * (y - ty), "leader")


def _mark(x: float, y: float, mark: int) -> Html:
    """A dot or a square, full or empty; see ``MARKS``."""
    mark = min(mark, len(MARKS) - 1)
    class_ = "dot empty" if mark % 2 else "dot"
    if mark < 2:
        return tag("circle", cx=_r(x), cy=_r(y), r=4, class_=class_)
    return tag("rect", x=_r(x - 4), y=_r(y - 4), width=8, height=8, class_=class_)


def _labels(
    points: Sequence[tuple[float, float]], width: float, bottom: float
) -> list[tuple[float, float]]:
    """A place beside each point, away from the points and from one another where there is room."""
    taken = [(x, y, 5.0) for x, y in points]
    places = []
    for x, y in points:
        ring = [
            (x + distance * math.cos(angle), y + distance * math.sin(angle))
            for distance in (12.0, 19.0, 27.0, 36.0)
            for angle in (k * math.pi / 6 for k in range(12))
        ]
        inside = [(a, b) for a, b in ring if 50 < a < width - 20 and 14 < b < bottom - 6] or ring
        crowds = [
            sum(max(0.0, size + 8 - math.hypot(a - u, b - v)) for u, v, size in taken)
            for a, b in inside
        ]
        best = inside[crowds.index(min(crowds))]
        taken.append((*best, 7.0))
        places.append(best)
    return places


def legend(names: Sequence[tuple[int, str]]) -> Html:
    """Which number is which row."""
    return tag(
        "ul",
        [tag("li", tag("b", number), f" {name}", data_row=name) for number, name in names],
        class_="legend",
    )


def side_by_side(*figures: Html) -> Html:
    """Figures in lines that break where the page is narrow."""
    return tag("div", join(*figures), class_="figures")
