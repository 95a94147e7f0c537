"""The pictures of the README: ``python -m tools.figures`` writes results/figures/*.png."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from spatialbench.report.stored_rows import Row, read_reported, read_rows

from spatialbench.data.relations import RELATIONS
from spatialbench.data.rooms.facts import SceneView, records
from spatialbench.data.rooms.render import render
from spatialbench.data.rooms.scene import generate
from spatialbench.data.rooms.store import view
from spatialbench.evaluation.statistics import COLUMNS
from spatialbench.utils.errors import atomic_path

SCENES = 120
"""Validation scenes from which the pictures are chosen: one of each relation."""
PIXELS = 240
MARKS, FILLS = "osD^v<>PX*", ("full", "none", "left", "right")
"""As many marks as colours; the next rows have them again, filled in another way."""


def rooms_figure(path: Path) -> None:
    """One picture of each relation, with both boxes, the caption (green) and the negated caption (red)."""
    scenes: list[SceneView] = []
    pictures = []
    for index in range(SCENES):
        scene = generate("val", index)
        picture = render(scene, PIXELS, supersample=2)
        scenes.append(view(scene, picture))
        pictures.append(picture.image)
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 7.9))
    used: set[int] = set()
    for axis, relation in zip(axes.flat, RELATIONS, strict=True):
        record = max(
            (r for r in records(scenes) if r.relation == relation and r.image not in used),
            key=lambda r: min(r.boxes[n].w * r.boxes[n].h for n in (r.subject, r.object)),
        )
        used.add(record.image)
        axis.imshow(pictures[record.image])
        for name, colour in ((record.subject, "#2ca02c"), (record.object, "#ff7f0e")):
            box = record.boxes[name]
            axis.add_patch(
                Rectangle((box.x, box.y), box.w, box.h, fill=False, edgecolor=colour, linewidth=2)
            )
        axis.set_title(record.statement.caption, fontsize=10, color="#1a7a1a")
        axis.set_xlabel(record.statement.negated.caption, fontsize=10, color="#b22222")
        axis.set(xticks=[], yticks=[])
    figure.tight_layout()
    _save(figure, path)


def accuracy_figure(path: Path, rows: Sequence[Row]) -> None:
    """Accuracy by relation with 95 % intervals, a colour a row."""
    figure, axis = plt.subplots(figsize=(10.5, 4.2))
    columns = [column for column in COLUMNS if column != "macro"]
    width = 0.8 / len(rows)
    for number, row in enumerate(rows):
        _bars(
            axis,
            row,
            columns,
            [k + (number - (len(rows) - 1) / 2) * width for k in range(len(columns))],
            width,
        )
    axis.axhline(50, color="black", linewidth=0.8, linestyle="--")
    axis.set_xticks(range(len(columns)), [column.capitalize() for column in columns])
    axis.set(ylabel="accuracy, percent (chance 50)", ylim=(40, 100))
    axis.legend(ncols=3, fontsize=8, loc="upper right", frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    _save(figure, path)


def measures_figure(path: Path, rows: Sequence[Row]) -> None:
    """What alignment gives and what it costs: boxes top-1 to the right, same-mask AUC upwards, with 95 % intervals."""
    figure, axis = plt.subplots(figsize=(8.5, 5.0))
    for number, row in enumerate(rows):
        found = row.result.measures
        if found is None or not {"box_top1", "same_mask"} <= found.value.keys():
            continue
        x, y = found.value["box_top1"], found.value["same_mask"]
        bounds = ((x, *found.interval["box_top1"]), (y, *found.interval["same_mask"]))
        across, up = ([[at - low], [high - at]] for at, low, high in bounds)
        mark, fill = MARKS[number % len(MARKS)], FILLS[number // len(MARKS) % len(FILLS)]
        name = row.result.name
        axis.errorbar(
            x,
            y,
            xerr=across,
            yerr=up,
            fmt=mark,
            fillstyle=fill,
            markersize=6,
            elinewidth=0.8,
            label=name,
        )
    axis.set(xlabel="Boxes top-1, percent", ylabel="Same-mask AUC, percent")
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    _save(figure, path)


def _bars(
    axis: Axes, row: Row, columns: Sequence[str], places: Sequence[float], width: float
) -> None:
    drawn = []
    for column, place in zip(columns, places, strict=True):
        mean, bounds = row.result.accuracy[column], row.result.interval[column]
        if mean is not None:  # a relation without records has no bar
            low, high = bounds or (mean, mean)
            drawn.append((place, mean, mean - low, high - mean))
    x, height, below, above = zip(*drawn, strict=True)
    axis.bar(x, height, width * 0.95, label=row.result.name)
    axis.errorbar(x, height, [below, above], fmt="none", ecolor="black", elinewidth=0.8)


def _save(figure: plt.Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
    plt.close(figure)
    print(f"wrote {path}")


def main() -> None:
    results = Path("results")
    rooms_figure(results / "figures" / "rooms.png")
    order = [row.name for row in read_reported(results / "reported.yaml")]
    rows = read_rows(results, Path("benchmarks"), "rooms", order=order)
    if rows:
        trained_on_pairs = [
            row for number, row in enumerate(rows) if not number or row.result.runs[0].train_pairs
        ]
        accuracy_figure(results / "figures" / "rooms_accuracy.png", trained_on_pairs)
        measures_figure(results / "figures" / "rooms_measures.png", rows)


if __name__ == "__main__":
    main()
