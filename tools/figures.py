"""The figures of README.md and of the stored rows: ``python -m tools.figures``.

Writes results/figures/rooms.png and, if there are rows, rooms_accuracy.png and rooms_measures.png;
where_lost.png, if a row of the front table has the evaluation ``located``.
"""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from spatialbench.data.relations import RELATIONS
from spatialbench.data.rooms.facts import SceneView, records
from spatialbench.data.rooms.render import render
from spatialbench.data.rooms.scene import generate
from spatialbench.data.rooms.store import view
from spatialbench.evaluation.pairs import TITLES
from spatialbench.report import where_lost
from spatialbench.report.rows import read_rows
from spatialbench.results.files import Row
from spatialbench.results.stale import Today
from spatialbench.utils.errors import atomic_path

SCENES = 120
"""Validation scenes from which the images are chosen, one of each relation."""
PIXELS = 240
REGIONS = "regions"
MARKS, FILLS = "osD^v<>PX*", ("full", "none", "left", "right")
"""As many marks as colours; further rows have them again, filled in another way."""


def rooms_figure(path: Path) -> None:
    """Draw an image of each relation, with both boxes, the caption and the negated caption."""
    scenes: list[SceneView] = []
    images = []
    for index in range(SCENES):
        scene = generate("val", index)
        rendered = render(scene, PIXELS, supersample=2)
        scenes.append(view(scene, rendered))
        images.append(rendered.image)
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 7.9))
    used: set[int] = set()
    for axis, relation in zip(axes.flat, RELATIONS, strict=True):
        record = max(
            (r for r in records(scenes) if r.relation == relation and r.image not in used),
            key=lambda r: min(r.boxes[n].w * r.boxes[n].h for n in (r.subject, r.object)),
        )
        used.add(record.image)
        axis.imshow(images[record.image])
        for name, colour in ((record.subject, "#2ca02c"), (record.object, "#ff7f0e")):
            box = record.boxes[name]
            outline = Rectangle((box.x, box.y), box.w, box.h, fill=False, edgecolor=colour)
            outline.set_linewidth(2)
            axis.add_patch(outline)
        axis.set_title(record.statement.caption, fontsize=10, color="#1a7a1a")
        axis.set_xlabel(record.statement.negated.caption, fontsize=10, color="#b22222")
        axis.set(xticks=[], yticks=[])
    _save(figure, path)


def accuracy_figure(path: Path, rows: Sequence[Row]) -> None:
    """Draw the accuracy by relation with 95 % intervals, one colour for each row."""
    figure, axis = plt.subplots(figsize=(10.5, 4.2))
    columns = [column for column in TITLES if column != "macro"]
    width = 0.8 / len(rows)
    for number, row in enumerate(rows):
        offset = (number - (len(rows) - 1) / 2) * width
        _bars(axis, row, columns, offset, width)
    axis.axhline(50, color="black", linewidth=0.8, linestyle="--")
    axis.set_xticks(range(len(columns)), [TITLES[column] for column in columns])
    axis.set(ylabel="accuracy, percent (chance 50)", ylim=(40, 100))
    axis.legend(ncols=3, fontsize=8, loc="upper right", frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def measures_figure(path: Path, rows: Sequence[Row]) -> None:
    """Draw same-mask AUC over boxes top-1 with 95 % intervals: the gain and cost of alignment."""
    figure, axis = plt.subplots(figsize=(8.5, 5.0))
    for number, row in enumerate(rows):
        stored = row.result.evaluations.get(REGIONS)
        if stored is None:
            continue
        x, across = _point(stored.value["box_top1"], stored.interval["box_top1"])
        y, up = _point(stored.value["same_mask"], stored.interval["same_mask"])
        mark, fill = MARKS[number % len(MARKS)], FILLS[number // len(MARKS) % len(FILLS)]
        (line, *_) = axis.errorbar(x, y, xerr=across, yerr=up, label=row.name, fmt=mark)
        line.set(fillstyle=fill, markersize=6)
    axis.set(xlabel="Boxes top-1, percent", ylabel="Same-mask AUC, percent")
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def lost_figure(path: Path, rows: Sequence[Row]) -> None:
    """Draw where each relation is lost: patches, embedding, cosine."""
    colours = {stage: f"C{place}" for place, stage in enumerate(where_lost.STAGES)}
    size = (11, 2 * (0.3 * len(rows) + 1.1))
    figure, axes = plt.subplots(2, 3, figsize=size, sharex=True, sharey=True)
    for axis, relation in zip(axes.flat, RELATIONS, strict=True):
        where_lost.draw(axis, rows, relation, colours)
        axis.set_xlim(*where_lost.limits(rows))
        axis.spines[["top", "right"]].set_visible(False)
    marks = [
        Line2D([], [], color=colours[stage], marker=where_lost.MARKS[stage], ls="", label=title)
        for stage, title in where_lost.STAGES.items()
    ]
    axes[0, 2].legend(handles=marks, fontsize=8, frameon=False)
    _save(figure, path)


def _bars(axis: Axes, row: Row, columns: Sequence[str], offset: float, width: float) -> None:
    pairs = row.result.pairs
    points = [_point(pairs.value[column], pairs.interval[column]) for column in columns]
    height = [value for value, _ in points]
    below, above = ([error[side][0] for _, error in points] for side in (0, 1))
    x = [place + offset for place in range(len(columns))]
    axis.bar(x, height, width * 0.95, label=row.name)
    axis.errorbar(x, height, [below, above], fmt="none", ecolor="black", elinewidth=0.8)


def _point(value: float | None, bounds: list[float] | None) -> tuple[float, list[list[float]]]:
    """Value, and the distances to the bounds of its interval as ``errorbar`` takes them."""
    assert value is not None, "a stored row has every relation and measure"
    low, high = bounds or (value, value)
    return value, [[value - low], [high - value]]


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
    plt.close(figure)
    print(f"wrote {path}")


def main() -> None:
    """Write all figures."""
    results = Path("results")
    rooms_figure(results / "figures" / "rooms.png")
    rows = read_rows(results, Path("benchmarks"), "rooms")
    if rows:
        on_pairs = [row for row in rows if row is rows[0] or row.result.runs[0].train_pairs]
        accuracy_figure(results / "figures" / "rooms_accuracy.png", on_pairs)
        measures_figure(results / "figures" / "rooms_measures.png", rows)
        front = Today.read(Path("benchmarks")).tracks["rooms"].front
        if shown := where_lost.chosen(rows, front):
            lost_figure(results / "figures" / "where_lost.png", shown)


if __name__ == "__main__":
    main()
