"""``spatialbench maps``: what a token of a picture is alike to, for any set of pages side by side.

One row a point, one column a page: the cosine of the token under the point with every token of the page's dense map.
A page whose tokens mix their surroundings in lights up far from the object under the point.

Letters: W H width and height of the picture in pixels, h w of a map, D width of the joint space.

Source: figure 5 of Qiu et al., "Refining CLIP's Spatial Awareness", ICLR 2025.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from spatialbench.data.images import fit, read_image
from spatialbench.utils.errors import SpatialbenchError, atomic_path

if TYPE_CHECKING:
    from torch import Tensor

    from spatialbench.config.experiment import Resolved

CELL = 2.6
"""Inches of a picture's width in the figure."""
DPI = 110


class Point(NamedTuple):
    """Pixels of the picture from its upper left corner: pixel k covers [k, k + 1)."""

    x: float
    y: float


@dataclass(frozen=True)
class PageMaps:
    """The maps of one page.

    Attributes:
        page: the page's file.
        checkpoint: the weights; None: those the page starts from.
        size: side of the square picture that was encoded, in pixels.
        tokens: (row, column) of the token under each point.
        maps: a map float32 [h, w] in [-1, 1] of each point.
    """

    page: str
    checkpoint: str | None
    size: int
    tokens: Sequence[tuple[int, int]]
    maps: Sequence[np.ndarray]


# ------------------------------------------------------------------------------------------------- the maps
def affinity(dense: Tensor, token: tuple[int, int]) -> Tensor:
    r"""Cosine of one token with every token.

    .. math:: A_{ij} = \langle f_{rc}, f_{ij} \rangle

    Args:
        dense: f, [h, w, D], unit norm.
        token: r and c, the row and the column of the query.

    Returns:
        [h, w] in [-1, 1]; 1 at the query.
    """
    return dense @ dense[token]


def token_at(point: Point, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """(row, column) of the token whose cell holds a point.

    Args:
        point: inside of the picture.
        size: W, H.
        grid: h, w; the cells share the picture evenly.
    """
    row, column = math.floor(point.y * grid[0] / size[1]), math.floor(point.x * grid[1] / size[0])
    return min(row, grid[0] - 1), min(
        column, grid[1] - 1
    )  # a hair before the border may be rounded onto it


def scale(maps: Sequence[np.ndarray]) -> tuple[float, float]:
    """The ends of the colour scale that several maps share: their least and their greatest value."""
    return min(float(values.min()) for values in maps), max(float(values.max()) for values in maps)


def above_midpoint(values: np.ndarray, ends: tuple[float, float]) -> float:
    """Percent of the tokens above the middle of a colour scale."""
    return 100 * float((values > sum(ends) / 2).mean())


def draw(
    picture: Image.Image, points: Sequence[Point], columns: Mapping[str, Sequence[np.ndarray]]
) -> Figure:
    """The picture with each point, and beside it the map of every page, enlarged bilinearly over the grey picture.

    The maps of a row share one colour scale.

    Args:
        picture: RGB.
        points: one a row.
        columns: title -> a map [h, w] of each point; grids may differ.
    """
    width, height = picture.size
    tall = CELL * min(max(height / width, 0.3), 2.5)
    figure = Figure(
        figsize=(CELL * (1 + len(columns)) + 0.9, (tall + 0.1) * len(points) + 0.4),
        layout="constrained",
    )
    axes = figure.subplots(len(points), 1 + len(columns), squeeze=False)
    shown = picture.copy()
    shown.thumbnail((math.ceil(2 * CELL * DPI),) * 2)
    grey = np.asarray(shown.convert("L"))
    whole = (0, width, height, 0)
    for row, point in enumerate(points):
        low, high = scale([maps[row] for maps in columns.values()])
        axes[row, 0].imshow(np.asarray(shown), extent=whole)
        axes[row, 0].set_ylabel(f"({point.x:g}, {point.y:g})", fontsize=8)
        for axis, maps in zip(axes[row, 1:], columns.values(), strict=True):
            axis.imshow(
                grey, extent=whole, cmap="gray", vmin=-160, vmax=255
            )  # pale, so that the colours stay true
            heat = axis.imshow(
                maps[row],
                extent=whole,
                cmap="turbo",
                vmin=low,
                vmax=high,
                interpolation="bilinear",
                alpha=0.6,
            )
        for axis in axes[row]:
            axis.plot(
                point.x, point.y, marker="o", markersize=6, color="white", markeredgecolor="black"
            )
            axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
        bar = figure.colorbar(heat, ax=list(axes[row]), fraction=0.05, pad=0.01)
        bar.ax.tick_params(labelsize=7)
        bar.set_label("cosine", fontsize=8)
    for axis, title in zip(axes[0], ("picture", *columns), strict=True):
        axis.set_title(title, fontsize=9)
    return figure


# ------------------------------------------------------------------------------------------------- the command
def run(options: argparse.Namespace) -> None:
    """``spatialbench maps``: writes the figure, prints the numbers.

    Args:
        options: as ``spatialbench.cli.commands`` parses them.

    Raises:
        SpatialbenchError: something the user gave is wrong; one line.
    """
    words = checkpoints(options)
    out = Path(options.out)
    if out.suffix.lower() != ".png" or out.is_dir():
        raise SpatialbenchError(
            f"--out: the figure is a PNG file; give a name that ends in .png, not {options.out}"
        )
    picture = read_image(Path(options.image))
    points = [inside(Point(*point), picture.size, options.image) for point in options.point]
    from spatialbench.config.experiment import resolve
    from spatialbench.training.score import readable_errors, say

    runs = Path(options.runs)
    pages = [
        resolve(page, options.track, options.budget, options.seed, runs=runs)
        for page in options.config
    ]
    found = []
    for resolved, word in zip(pages, words, strict=True):
        with readable_errors(resolved):
            found.append(maps_of(resolved, word, options, picture, points))
    names = titles([resolved.page.name for resolved in pages])
    with atomic_path(out) as temporary:
        figure = draw(picture, points, dict(zip(names, (page.maps for page in found), strict=True)))
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
    say(f"wrote {out}")
    report = _report(points, names, found)
    if options.format == "json":
        print(
            json.dumps(
                {
                    "image": options.image,
                    "image_size": picture.size,
                    "out": str(out),
                    "points": report,
                }
            )
        )
        return
    wide = max(map(len, names))
    for row in report:
        for page in row["pages"]:
            x, y = row["point"]
            share = page["above_midpoint"]
            print(
                f"{page['name']:<{wide}}  ({x:g}, {y:g})  mean {page['mean']:6.3f}  above midpoint {share:5.1f} %"
            )


def maps_of(
    resolved: Resolved,
    given: str | None,
    options: argparse.Namespace,
    picture: Image.Image,
    points: Sequence[Point],
) -> PageMaps:
    """The map of every point for one page.

    Args:
        given: the checkpoint, see :func:`spatialbench.results.run_folder.checkpoint_of`.

    Raises:
        SpatialbenchError: no checkpoint, or a model whose tokens are no numbers.
    """
    import torch

    from spatialbench.training.score import load_method, say

    model, checkpoint = load_method(resolved, given, Path(options.runs), options.seed is None)
    size, note = encoded_size(options.size, resolved, model)
    if note:
        say(f"note: {resolved.page.name}: {note}")
    pixels = torch.from_numpy(fit(picture, size, "squash").transpose(2, 0, 1).copy())[None]
    with torch.inference_mode():
        dense = model.dense(pixels.to(model.device))[0].cpu()  # [h, w, D]
    if not dense.isfinite().all():
        raise SpatialbenchError(
            f"page {resolved.page.path}: its tokens are not finite; the training diverged"
        )
    tokens = [token_at(point, picture.size, (dense.shape[0], dense.shape[1])) for point in points]
    maps = [affinity(dense, token).numpy() for token in tokens]
    return PageMaps(
        str(resolved.page.path), None if checkpoint is None else str(checkpoint), size, tokens, maps
    )


def encoded_size(asked: int | None, resolved: Resolved, model: Any) -> tuple[int, str]:
    """Side of the picture that is encoded, a multiple of the patch, and a note where that is not what was asked for.

    Args:
        asked: pixels; None: the size of the track's region set, else twice the student's own.
        resolved: says the track.
        model: says the patch.
    """
    from spatialbench.models.towers import patch_size

    patch = math.lcm(*patch_size(model.student))
    default = ((resolved.track.regions or {}).get("init_args") or {}).get(
        "size"
    ) or 2 * model.image_size
    size = max(1, round((asked or default) / patch)) * patch
    if asked in (None, size):
        return size, ""
    return size, f"--size {asked} is not a multiple of the patch of {patch} pixels; {size} is used"


def titles(names: Sequence[str]) -> list[str]:
    """The names, told apart by a number where one comes again: a page with two checkpoints."""
    return [
        f"{name} #{names[:k].count(name) + 1}" if names.count(name) > 1 else name
        for k, name in enumerate(names)
    ]


def inside(point: Point, size: tuple[int, int], image: str) -> Point:
    """The point itself.

    Raises:
        SpatialbenchError: it does not lie in the picture.
    """
    if not (0 <= point.x < size[0] and 0 <= point.y < size[1]):
        raise SpatialbenchError(
            f"--point {point.x:g},{point.y:g} lies outside of {image}, which has {size[0]} x {size[1]} pixels: "
            f"x from 0 to {size[0] - 1}, y from 0 to {size[1] - 1}"
        )
    return point


def _report(
    points: Sequence[Point], names: Sequence[str], found: Sequence[PageMaps]
) -> list[dict[str, Any]]:
    """Of every point: the colour scale, and of every page its token, mean cosine, percent above midpoint and map."""
    rows = []
    for row, point in enumerate(points):
        ends = scale([page.maps[row] for page in found])
        pages = [
            {
                **{
                    "name": name,
                    "page": page.page,
                    "checkpoint": page.checkpoint,
                    "size": page.size,
                },
                "token": page.tokens[row],
                "mean": float(page.maps[row].mean()),
                "above_midpoint": above_midpoint(page.maps[row], ends),
                "map": [[round(float(value), 6) for value in line] for line in page.maps[row]],
            }
            for name, page in zip(names, found, strict=True)
        ]
        rows.append({"point": point, "scale": ends, "pages": pages})
    return rows


def checkpoints(options: argparse.Namespace) -> list[str | None]:
    """The checkpoint of every page; LAST is what a page takes by itself, so that zero-shot pages may stand between."""
    given = options.ckpt_path or ["LAST"] * len(options.config)
    if len(given) != len(options.config):
        raise SpatialbenchError(
            f"{len(options.config)} --config and {len(given)} --ckpt_path: give --ckpt_path once for each page, in "
            "their order (LAST: the newest run, or the page as it starts), or not at all"
        )
    return [None if word == "LAST" else word for word in given]
