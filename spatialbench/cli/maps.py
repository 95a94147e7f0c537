"""``spatialbench maps``, and the maps of the report: models run here and are drawn in ``report``.

Letters: W H width and height of the image in pixels, h w of a map, D width of the joint space.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from spatialbench.cli.parser import Parser
from spatialbench.config.experiment import Resolved, resolve
from spatialbench.data.images import fit, read_image
from spatialbench.evaluation.relevance import attention, relevance
from spatialbench.methods.base import Method
from spatialbench.models.towers import patch_size
from spatialbench.report.html.inputs import ReportInputs, Row
from spatialbench.report.html.record_browser import RowMaps, Sample, frames, record_image, sample
from spatialbench.report.map_figures import (
    Frame,
    Point,
    draw_relevance,
    draw_similarity,
    save,
    scale,
)
from spatialbench.results.run_folder import BEST
from spatialbench.results.stale import Today
from spatialbench.training.controls import test_set
from spatialbench.training.score import load_method, readable_errors
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.progress import progress
from spatialbench.utils.say import say
from spatialbench.utils.suggest import did_you_mean

T = TypeVar("T")
Output = tuple[Figure, dict[str, Any], list[str]]
"""A figure, the JSON form of its numbers, and their lines for a terminal."""


def maps(argv: list[str]) -> int:
    """Write one of the two figures and print its numbers.

    Raises:
        SpatialbenchError: something the user gave is wrong; one line.
    """
    o = _options(argv)
    out = Path(o.out or ("relevance.png" if o.relevance else "maps.png"))
    if out.suffix.lower() != ".png" or out.is_dir():
        raise SpatialbenchError(
            f"--out: the figure is a PNG file; give a name that ends in .png, not {out}"
        )
    figure, report, lines = _relevance(o) if o.relevance else _similarity(o)
    save(figure, out)
    say(f"wrote {out}")
    print(json.dumps({**report, "out": str(out)}) if o.format == "json" else "\n".join(lines))
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = Parser("maps", "figures of several pages side by side: similar tokens, or relevance")
    add = parser.add_argument
    add("--config", action="append", required=True, metavar="PAGE.yaml", help="may be repeated")
    add("--image", metavar="FILE", help="an image of your own")
    text = "in pixels: which tokens are similar to the one there; may be repeated"
    add("--point", action="append", default=[], type=_numbers, metavar="X,Y", help=text)
    text = "side of the image that is encoded for --point (default: the track's regions)"
    add("--size", type=int, metavar="PIXELS", help=text)
    text = "instead: where a page looks when it scores an image against a caption"
    add("--relevance", action="store_true", help=text)
    add("--record", metavar="ID", help="--relevance of a record of the track's test, not --image")
    add("--caption", metavar="TEXT", help="a sentence; --record has one of its own")
    text = "left, top, width, height in pixels of --image: of the subject; again: of the object"
    add("--box", action="append", default=[], type=_numbers, metavar="X,Y,W,H", help=text)
    text = "with --relevance, draw also the attention, which does not depend on the caption"
    add("--attention", action="store_true", help=text)
    add("--track", default="rooms", help="name or path of the track (default: rooms)")
    add("--budget", default="quick", help="whose runs: smoke, quick or full (default: quick)")
    add("--runs", default="runs", metavar="FOLDER", help="where they are (default: runs)")
    add("--seed", type=int, metavar="N", help="only runs with this seed (default: the newest)")
    text = "once for each page, in their order, or not at all"
    add("--ckpt_path", action="append", metavar="FILE|LAST", help=text)
    add("--out", metavar="FILE.png", help="default: maps.png, or relevance.png")
    add("--format", choices=("text", "json"), default="text", help="json: the maps themselves")
    o = parser.parse_args(argv)
    if o.relevance:
        wrong = {
            "--point and --size do not go with --relevance": o.point or o.size is not None,
            "give --record ID, or --image FILE with --caption": (o.record and o.image)
            or not (o.record or o.image),
            "--image needs --caption: the sentence that is read": o.image and o.caption is None,
            "--box belongs to --image: a record has boxes of its own": o.box and not o.image,
            "--box: the subject's and the object's, no more": len(o.box) > 2,
            "--box: needs x,y,w,h in pixels, as 12,80,40,30": any(len(b) != 4 for b in o.box),
        }
    else:
        others = o.record or o.caption or o.box or o.attention
        wrong = {
            "--record, --caption, --box and --attention belong to --relevance": others,
            "needs --image": o.image is None,
            "needs --point, or --relevance": not o.point,
            "--point: needs x,y in pixels, as 120,80": any(len(p) != 2 for p in o.point),
            "--size: needs a whole number, 1 or more": o.size is not None and o.size < 1,
        }
    for message, applies in wrong.items():
        if applies:
            parser.error(message)
    return o


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(map(float, text.split(",")))
    except ValueError:
        values = (math.nan,)
    if not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"needs numbers with commas between them; got {text!r}")
    return values


def _each_page(
    o: argparse.Namespace, compute: Callable[[Resolved, Method, Path | None], T]
) -> dict[str, T]:
    """Title of each page -> the result of ``compute(page, method, checkpoint)``."""
    given = o.ckpt_path or ["LAST"] * len(o.config)
    if len(given) != len(o.config):
        raise SpatialbenchError(
            f"{len(o.config)} --config and {len(given)} --ckpt_path: give --ckpt_path once for "
            "each page, in their order, or not at all (LAST: the newest run, or none)"
        )
    runs, results = Path(o.runs), {}
    pages = [resolve(page, o.track, o.budget, o.seed, runs=runs) for page in o.config]
    names = titles([page.page.name for page in pages])
    for name, page, word in zip(names, pages, given, strict=True):
        with readable_errors(page):
            checkpoint = None if word == "LAST" else word
            results[name] = compute(page, *load_method(page, checkpoint, runs, o.seed is None))
    return results


def titles(names: Sequence[str]) -> list[str]:
    """Add a number to the names that come again: a page with two checkpoints."""
    return [
        f"{name} #{names[:k].count(name) + 1}" if names.count(name) > 1 else name
        for k, name in enumerate(names)
    ]


def _similarity(o: argparse.Namespace) -> Output:
    image = read_image(Path(o.image))
    width, height = image.size
    points = [Point(*point) for point in o.point]
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise SpatialbenchError(
                f"--point {x:g},{y:g} lies outside of {o.image}, which has {width} x {height} "
                f"pixels: x from 0 to {width - 1}, y from 0 to {height - 1}"
            )

    @torch.inference_mode()
    def compute(page: Resolved, model: Method, checkpoint: Path | None) -> dict[str, Any]:
        size = _encoded_size(o.size, page, model)
        dense = model.dense(_pixels(fit(image, size, "squash")).to(model.device))[0].cpu()
        if not dense.isfinite().all():
            raise SpatialbenchError(
                f"page {page.page.path}: its tokens are not finite; the training diverged"
            )
        tokens = [token_at(point, image.size, (dense.shape[0], dense.shape[1])) for point in points]
        facts = {"page": str(page.page.path), "checkpoint": checkpoint and str(checkpoint)}
        maps = [similarity(dense, token).numpy() for token in tokens]
        return {**facts, "size": size, "token": tokens, "map": maps}

    pages = _each_page(o, compute)
    report, lines = [], []
    for place, point in enumerate(points):
        ends = scale([page["map"][place] for page in pages.values()])
        row = []
        for name, page in pages.items():
            values, token = page["map"][place], page["token"][place]
            mean, share = float(values.mean()), above_midpoint(values, ends)
            numbers = {"token": token, "mean": mean, "above_midpoint": share}
            row.append({"name": name, **page, **numbers, "map": _rounded(values)})
            text = f"{name:<{max(map(len, pages))}}  ({point.x:g}, {point.y:g})  mean {mean:6.3f}"
            lines.append(f"{text}  above midpoint {share:5.1f} %")
        report.append({"point": point, "scale": ends, "pages": row})
    figure = draw_similarity(image, points, {name: page["map"] for name, page in pages.items()})
    return figure, {"image": o.image, "image_size": image.size, "points": report}, lines


def similarity(dense: Tensor, token: tuple[int, int]) -> Tensor:
    r"""Cosine of one token with every token, :math:`A_{ij} = \langle f_{rc}, f_{ij} \rangle`.

    Args:
        dense: f, [h, w, D], unit norm.
        token: r and c, the row and the column of the query.

    Returns:
        [h, w] in [-1, 1]; 1 at the query.
    """
    return dense @ dense[token]


def token_at(point: Point, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the token under a point of an image of W x H pixels.

    The h x w cells of the grid share the image evenly.
    """
    row, column = math.floor(point.y * grid[0] / size[1]), math.floor(point.x * grid[1] / size[0])
    return min(row, grid[0] - 1), min(column, grid[1] - 1)  # just before the border may round up


def above_midpoint(values: np.ndarray, ends: tuple[float, float]) -> float:
    """Percentage of the tokens above the middle of a colour scale."""
    return 100 * float((values > sum(ends) / 2).mean())


def _encoded_size(asked: int | None, page: Resolved, model: Method) -> int:
    """Round what was asked for, else twice the model's image size, to whole patches."""
    patch = math.lcm(*patch_size(model.student))
    default = page.config["data"].get("region_size") or 2 * model.image_size
    size = max(1, round((asked or default) / patch)) * patch
    if asked not in (None, size):
        text = f"--size {asked} is not a multiple of the patch of {patch} pixels; {size} is used"
        say(f"note: {page.page.name}: {text}")
    return size


def _rounded(values: np.ndarray) -> list[list[float]]:
    return [[round(float(value), 6) for value in line] for line in values]


def _pixels(image: np.ndarray) -> Tensor:
    """uint8 [S, S, 3] -> [1, 3, S, S]."""
    return torch.tensor(image.transpose(2, 0, 1))[None]


class _Scene(NamedTuple):
    """An image, a caption, at most two boxes; ``pixels`` of a record, as the models see it."""

    image: Image.Image
    caption: str
    boxes: Sequence[Frame]
    pixels: np.ndarray | None = None


def _relevance(o: argparse.Namespace) -> Output:
    scene = _own_scene(o) if o.image else _record_scene(o)

    def compute(page: Resolved, model: Method, checkpoint: Path | None) -> dict[str, np.ndarray]:
        own = fit(scene.image, model.image_size, "squash") if scene.pixels is None else scene.pixels
        both = _both_maps(model, own, scene.caption)
        return both if o.attention else {"relevance": both["relevance"]}

    pages = _each_page(o, compute)
    report, lines, columns = [], [], {}
    for name, page in pages.items():
        values = page["relevance"]
        shares = [round(share_inside(values, box), 4) for box in scene.boxes]
        whole = float(values.sum()) or 1.0
        report.append({"name": name, "inside": shares, "map": _rounded(values / whole)})
        objects = zip(("subject", "object"), shares, strict=False)
        parts = ", of the ".join(f"{what} {share:5.1f} %" for what, share in objects)
        text = f"{name:<{max(map(len, pages))}}  relevance in the box of the {parts}"
        lines.append(text if parts else name)
        for kind, drawn in page.items():
            columns[name if kind == "relevance" else f"{name}, {kind}"] = drawn
    figure = draw_relevance(scene.image, scene.caption, scene.boxes, columns)
    return figure, {"caption": scene.caption, "boxes": scene.boxes, "pages": report}, lines


def _both_maps(model: Method, image: np.ndarray, caption: str) -> dict[str, np.ndarray]:
    pixels = _pixels(image)
    maps = {"attention": attention(model, pixels), "relevance": relevance(model, pixels, caption)}
    return {kind: values[0].numpy() for kind, values in maps.items()}


def share_inside(values: np.ndarray, box: Frame) -> float:
    """Percentage of a map in a box; a token counts by the share of its cell that the box covers."""
    left, top, width, height = box
    shares = []
    for start, length, cells in ((top, height, len(values)), (left, width, values.shape[1])):
        edges = np.arange(cells + 1) / cells
        covered = np.minimum(edges[1:], start + length) - np.maximum(edges[:-1], start)
        shares.append(np.clip(covered, 0, None) * cells)
    total = float(values.sum())
    return 100 * float((values * np.outer(*shares)).sum()) / total if total else 0.0


def _own_scene(o: argparse.Namespace) -> _Scene:
    image = read_image(Path(o.image))
    width, height = image.size
    for x, y, w, h in o.box:
        if x < 0 or y < 0 or w <= 0 or h <= 0 or x + w > width or y + h > height:
            raise SpatialbenchError(
                f"--box {x:g},{y:g},{w:g},{h:g} does not lie in {o.image}, which has "
                f"{width} x {height} pixels"
            )
    boxes = [(x / width, y / height, w / width, h / height) for x, y, w, h in o.box]
    return _Scene(image, o.caption, boxes)


def _record_scene(o: argparse.Namespace) -> _Scene:
    first = resolve(o.config[0], o.track, o.budget, o.seed, runs=Path(o.runs))
    records, _ = test_set(first)
    known = {record.record_id: record for record in records.records}
    if o.record not in known:
        nearest = did_you_mean(o.record, known)
        raise SpatialbenchError(f"no record {o.record!r} in {records.name}{nearest}")
    record = known[o.record]
    image, pixels = record_image(records, record), np.array(records.images[record.image])
    boxes = list(frames(record).values())
    return _Scene(image, o.caption or record.statement.caption, boxes, pixels)


def write_report(o: argparse.Namespace) -> Path:
    """Write the HTML report, with maps where the models are there.

    Args:
        o: track, out, runs, budget, records, no_maps, results and benchmarks.
    """
    from spatialbench.report.html.page import html

    folders = Path(o.results), Path(o.benchmarks)
    inputs = ReportInputs.read(*folders, o.track, o.budget, Path(o.runs))
    chosen: Sample | str | None = None
    maps = None
    if o.records:
        try:
            chosen = sample(inputs, o.records)
        except SpatialbenchError as error:
            chosen = " ".join(str(error).split())
        if not o.no_maps:
            maps = row_maps(inputs, chosen) if isinstance(chosen, Sample) else {}
    path = Path(o.out)
    write_atomic(path, html(inputs, chosen, maps))
    return path


def row_maps(inputs: ReportInputs, sample: Sample) -> dict[str, RowMaps | str]:
    """Compute both maps of every row for the records of the report, or say why there are none."""
    maps: dict[str, RowMaps | str] = {}
    with progress("computing maps", len(inputs.rows), "rows") as advance:
        for row in inputs.rows:
            try:
                maps[row.name] = _maps_of_row(inputs, row, sample)
            except SpatialbenchError as error:
                maps[row.name] = " ".join(str(error).split())
            advance(1)
    return maps


def _maps_of_row(inputs: ReportInputs, row: Row, sample: Sample) -> RowMaps:
    model, maps = _model_of_row(inputs, row), []
    for record in sample.mapped:
        pixels = np.array(sample.test.images[record.image])
        maps.append(_both_maps(model, pixels, record.statement.caption))
    return {kind: [both[kind] for both in maps] for kind in ("attention", "relevance")}


def _model_of_row(inputs: ReportInputs, row: Row) -> Method:
    """Load the method with the weights of the row's first seed."""
    today, result = Today.read(inputs.benchmarks), row.result
    if row.stale:
        raise SpatialbenchError(f"the row is stale ({', '.join(row.stale)}): no map")
    page, track = today.pages[result.name], today.tracks[result.track]
    resolved = resolve(page, track, result.budget, result.seeds[0], runs=inputs.runs)
    checkpoint = None
    if resolved.needs_training or resolved.init_from is not None:
        folder = inputs.run_folder(row, 0)
        files = [path for path in (folder / BEST, folder / "last.ckpt") if path.is_file()]
        if not files:
            raise SpatialbenchError(f"no checkpoint in {folder}: no map")
        checkpoint = str(files[0])
    with readable_errors(resolved):
        return load_method(resolved, checkpoint, inputs.runs)[0]
