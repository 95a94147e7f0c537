"""Figures of maps over an image: similarity to a token, and relevance or attention with boxes.

Only drawing: the maps come as arrays from ``spatialbench/cli/maps.py``. [h, w] is a map.

Source of the first figure: figure 5 of Qiu et al., "Refining CLIP's Spatial Awareness", ICLR 2025;
of the second: the analysis figure of Yang and Jeon's poster.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from spatialbench.utils.errors import atomic_path

CELL = 2.6
"""Width of an image in the figure, in inches."""
DPI = 110
STRENGTH = 0.72
"""Opacity of the colour where relevance is greatest."""
COLOURS = ("#19d36b", "#ff9d2e")
"""Boxes of the subject and of the object."""
Frame = tuple[float, float, float, float]
"""Left, top, width and height, as shares of the sides of the image."""


class Point(NamedTuple):
    """Pixels from the upper left corner of the image: pixel k covers [k, k + 1)."""

    x: float
    y: float


def scale(maps: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the least and the greatest value of several maps, the ends of their colour scale."""
    return min(float(values.min()) for values in maps), max(float(values.max()) for values in maps)


def draw_similarity(
    image: Image.Image, points: Sequence[Point], columns: Mapping[str, Sequence[np.ndarray]]
) -> Figure:
    """Draw the image and, over its grey copy, the map of every page; one row for each point.

    The maps of a row share one colour scale; ``columns``: title -> a map [h, w] of each point.
    """
    figure, axes = _panels(image, len(points), columns, width=0.9)
    small = image.copy()
    small.thumbnail((math.ceil(2 * CELL * DPI),) * 2)
    pale = {"cmap": "gray", "vmin": -160, "vmax": 255}  # so that the colours stay true
    for row, point in enumerate(points):
        low, high = scale([maps[row] for maps in columns.values()])
        _show(axes[row, 0], image, small)
        axes[row, 0].set_ylabel(f"({point.x:g}, {point.y:g})", fontsize=8)
        for axis, maps in zip(axes[row, 1:], columns.values(), strict=True):
            _show(axis, image, small.convert("L"), **pale)
            colours = {"cmap": "turbo", "vmin": low, "vmax": high, "alpha": 0.6}
            heat = _show(axis, image, maps[row], interpolation="bilinear", **colours)
        for axis in axes[row]:
            axis.plot(*point, marker="o", markersize=6, color="white", markeredgecolor="black")
        bar = figure.colorbar(heat, ax=list(axes[row]), fraction=0.05, pad=0.01)
        bar.ax.tick_params(labelsize=7)
        bar.set_label("cosine", fontsize=8)
    return figure


def draw_relevance(
    image: Image.Image, caption: str, boxes: Sequence[Frame], columns: Mapping[str, np.ndarray]
) -> Figure:
    """Draw the image and, over its grey copy, the map of every page, with the boxes on each."""
    figure, axes = _panels(image, 1, columns, height=0.2)
    shown = [image, *(overlay(image, values) for values in columns.values())]
    for axis, panel in zip(axes[0], shown, strict=True):
        _show(axis, image, panel)
        for (x, y, w, h), colour in zip(boxes, COLOURS, strict=False):
            corner, sides = (x * image.width, y * image.height), (w * image.width, h * image.height)
            axis.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, linewidth=2))
    figure.suptitle(caption, fontsize=10)
    return figure


def overlay(image: Image.Image, values: np.ndarray) -> Image.Image:
    """Lay a map [h, w] over the grey image: where it is high, the colour is warmer and hides more.

    Values are 0 or more and shown relative to the greatest.
    """
    largest = float(values.max())
    small = Image.fromarray((values / largest if largest > 0 else values * 0).astype(np.float32))
    share = np.clip(np.asarray(small.resize(image.size, Image.Resampling.BICUBIC)), 0, 1)[..., None]
    colour = 255 * colormaps["inferno"](share[..., 0])[..., :3]
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] * np.ones(3)
    weight = STRENGTH * (0.25 + 0.75 * share)
    return Image.fromarray(np.rint((1 - weight) * grey + weight * colour).astype(np.uint8))


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; the same figure gives the same bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def _panels(
    image: Image.Image, rows: int, columns: Mapping[str, Any], width: float = 0, height: float = 0
) -> tuple[Figure, np.ndarray]:
    """Make a figure of images, with titles above the first row and room to spare."""
    tall = CELL * min(max(image.height / image.width, 0.3), 2.5) + 0.1
    size = CELL * (1 + len(columns)) + width, tall * rows + 0.4 + height
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, 1 + len(columns), squeeze=False)
    for axis, title in zip(axes[0], ("image", *columns), strict=True):
        axis.set_title(title, fontsize=9)
    return figure, axes


def _show(axis: Axes, image: Image.Image, values: Any, **style: Any) -> Any:
    """Stretch an array over the image; the axes are in its pixels."""
    shown = axis.imshow(np.asarray(values), extent=(0, image.width, image.height, 0), **style)
    axis.set(xticks=[], yticks=[], xlim=(0, image.width), ylim=(image.height, 0))
    return shown
