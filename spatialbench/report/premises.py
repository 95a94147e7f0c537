"""The tables and the figure of ``spatialbench premises``."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatialbench.evaluation.pairs import TITLES
from spatialbench.report.table_model import Column, Table, number_column

Report = Mapping[str, Any]
"""Content of the command's JSON: data, images, models, the two models' numbers, below."""
MODELS = {"student": "#1f77b4", "vfm": "#ff7f0e"}
PLACES = {"x": "x", "y": "y", "log_depth": "log depth"}
RATES = {
    "object_top1": "names of cut-out objects",
    "image_r1": "image R@1",
    "text_r1": "text R@1",
}


def tables(report: Report) -> str:
    """Write the numbers for a terminal, and the measures below their bars."""
    parts = [_blocks(name, report) for name in MODELS if name in report]
    student = report.get("student", {})
    if student.get("relations"):
        parts.append(_relations(student["relations"]))
    lines = [*_embedding(student), *report["below"]]
    written = "".join(f"{line}\n" for line in lines or ["no measure is below its bar"])
    return "".join(part.write("text") for part in parts) + written


def _blocks(name: str, report: Report) -> Table:
    own = report[name]
    columns = [
        Column("block", lambda line: line["block"]),
        number_column("row R²", "row", 3),
        number_column("column R²", "column", 3),
        number_column("CLS on objects", "cls_mass", 3),
        number_column("/ area", "cls_ratio", 3),
        number_column("on own object", "own_mass", 3),
        number_column("/ area", "own_ratio", 3),
    ]
    areas = {"objects": own.get("cls_area"), "the own object": own.get("own_area")}
    notes = [f"area of {what}: {area:.3f}" for what, area in areas.items() if area is not None]
    notes += [f"left out: {reason}" for reason in own["left_out"]]
    title = f"{name}: {report['models'][name]}, on {report['images']} images of {report['data']}"
    return Table(title, columns, own["blocks"], notes)


def _relations(found: Mapping[str, Any]) -> Table:
    columns = [
        Column("relation", lambda line: TITLES[line["relation"]]),
        number_column("cosine of caption and swapped", "text_cosine", 4),
        number_column("zero-shot pairs", "zero_shot"),
        number_column("records", "records", 0),
    ]
    lines = [{"relation": name, **numbers} for name, numbers in found.items()]
    return Table("captions", columns, lines)


def _embedding(student: Mapping[str, Any]) -> list[str]:
    lines = []
    if place := student.get("embedding"):
        numbers = ", ".join(f"{PLACES[key]} {place[key]:.3f}" for key in PLACES if key in place)
        counts = f"{place['objects']} objects of {place['kinds']} kinds"
        lines.append(f"R² of an object's place from the embedding: {numbers} ({counts})")
    rates = student.get("recognition") or {}
    if shown := [f"{title} {rates[key]:.1f} %" for key, title in RATES.items() if key in rates]:
        lines.append(", ".join(shown))
    return lines


def draw(report: Report, bars: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the numbers by block, with the bars dotted, and those of the student's embedding."""
    figure = Figure(figsize=(15, 3.2), layout="constrained")
    axes = figure.subplots(1, 5)
    titles = {"row": "row R²", "column": "column R²"}
    titles |= {"cls_ratio": "CLS on objects / area", "own_ratio": "on own object / area"}
    for axis, (key, title) in zip(axes, titles.items(), strict=False):
        axis.set_title(title, fontsize=10)
        for name, colour in MODELS.items():
            _line(axis, key, report.get(name, {}), name, colour)
            if name in report and key in bars.get(name, {}):
                axis.axhline(bars[name][key], color=colour, linestyle=":", linewidth=1)
        if key.endswith("ratio"):
            axis.axhline(1, color="grey", linewidth=0.8)
        else:
            axis.set_ylim(min(0, axis.get_ylim()[0]), 1)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=8)
    place = report.get("student", {}).get("embedding") or {}
    known = [key for key in PLACES if key in place]
    axes[4].bar(
        [PLACES[key] for key in known], [place[key] for key in known], color=MODELS["student"]
    )
    axes[4].set_title("R² from the embedding", fontsize=10)
    axes[4].set_ylim(min(0, axes[4].get_ylim()[0]), 1)
    figure.suptitle(f"{', '.join(report['models'].values())}; {report['data']}", fontsize=9)
    return figure


def _line(axis: Axes, key: str, found: Mapping[str, Any], name: str, colour: str) -> None:
    lines = [line for line in found.get("blocks", []) if key in line]
    places = [line["block"] for line in lines]
    axis.plot(places, [line[key] for line in lines], marker="o", color=colour, label=name)
