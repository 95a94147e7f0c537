"""``spatialbench maps``: models run here, and their maps are drawn in ``report``.

Letters: W H width and height of the image in pixels, h w of a map, D width of the joint space.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from spatialbench.report import map_figures as drawing
from spatialbench.report.html.record_browser import frames, record_image
from spatialbench.report.map_figures import Frame, Point
from spatialbench.training.controls import test_set
from spatialbench.training.score import load_method, readable_errors
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.say import say
from spatialbench.utils.suggest import did_you_mean

Output = tuple[Figure, dict[str, Any], list[str]]
"""A figure, the JSON form of its numbers, and their lines for a terminal."""


def maps(argv: list[str]) -> int:
    """Run ``spatialbench maps``: write one of the two figures and print its numbers."""
    o = _options(argv)
    out = Path(o.out or ("relevance.png" if o.relevance else "maps.png"))
    if out.suffix.lower() != ".png" or out.is_dir():
        raise SpatialbenchError(f"--out: give a name that ends in .png, not {out}")
    figure, report, lines = _relevance(o) if o.relevance else _similarity(o)
    drawing.save(figure, out)
    say(f"wrote {out}")
    print(json.dumps({**report, "out": str(out)}) if o.format == "json" else "\n".join(lines))
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = Parser("maps", "figures of several pages side by side: similar tokens, or relevance")
    add, flag = parser.add, parser.flag
    numbers: dict[str, Any] = {"action": "append", "default": [], "type": _numbers}
    add("--config", "may be repeated", "PAGE.yaml", action="append", required=True)
    add("--image", "an image of your own", "FILE")
    add("--point", "in pixels: which tokens are similar to this one; repeatable", "X,Y", **numbers)
    text = "side of the image encoded for --point (default: the track's)"
    add("--size", text, "PIXELS", type=int)
    flag("--relevance", "instead: where a page looks when it scores an image against a caption")
    add("--record", "--relevance of a record of the track's test, not --image", "ID")
    add("--caption", "a sentence; --record has one of its own", "TEXT")
    add("--box", "of the subject, in pixels of --image; again: of the object", "X,Y,W,H", **numbers)
    flag("--attention", "with --relevance: also the attention, which ignores the caption")
    parser.common("track", "runs", budget="quick", format="json|text")
    add("--seed", "only runs with this seed (default: the newest)", "N", type=int)
    add("--ckpt_path", "once for each page, in order, or not at all", "FILE|LAST", action="append")
    add("--out", "default: maps.png, or relevance.png", "FILE.png")
    o = parser.parse_args(argv)
    if o.relevance:
        wrong = {
            "--point and --size do not go with --relevance": o.point or o.size is not None,
            "give --record ID, or --image FILE with --caption": bool(o.record) == bool(o.image),
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
    o: argparse.Namespace, compute: Callable[[Resolved, Method, Path | None], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Title of each page -> the result of ``compute(page, method, checkpoint)``."""
    given = o.ckpt_path or ["LAST"] * len(o.config)
    if len(given) != len(o.config):
        counts = f"{len(o.config)} --config and {len(given)} --ckpt_path"
        raise SpatialbenchError(f"{counts}: give one for each page (LAST: its newest run), or none")
    runs, results = Path(o.runs), {}
    pages = [resolve(page, o.track, o.budget, o.seed, runs=runs) for page in o.config]
    names = [page.page.name for page in pages]
    for k, (name, page, word) in enumerate(zip(names, pages, given, strict=True)):
        title = f"{name} #{names[:k].count(name) + 1}" if names.count(name) > 1 else name
        with readable_errors(page):
            checkpoint = None if word == "LAST" else word
            results[title] = compute(page, *load_method(page, checkpoint, runs, o.seed is None))
    return results


def _similarity(o: argparse.Namespace) -> Output:
    image = read_image(Path(o.image))
    width, height = image.size
    points = [Point(*point) for point in o.point]
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            where = f"{o.image}, which has {width} x {height} pixels"
            raise SpatialbenchError(f"--point {x:g},{y:g} lies outside of {where}")

    @torch.inference_mode()
    def compute(page: Resolved, model: Method, checkpoint: Path | None) -> dict[str, Any]:
        size = _encoded_size(o.size, page, model)
        dense = model.dense(_pixels(fit(image, size, "squash")).to(model.device))[0].cpu()
        if not dense.isfinite().all():
            where = f"page {page.page.path}"
            raise SpatialbenchError(f"{where}: its tokens are not finite; it diverged")
        height, width = dense.shape[:2]
        tokens = [token_at(point, image.size, (height, width)) for point in points]
        facts = {"page": str(page.page.path), "checkpoint": checkpoint and str(checkpoint)}
        maps = [(dense @ dense[token]).numpy() for token in tokens]  # cosines: the norm is 1
        return {**facts, "size": size, "token": tokens, "map": maps}

    pages = _each_page(o, compute)
    report, lines = [], []
    for place, point in enumerate(points):
        ends = drawing.scale([page["map"][place] for page in pages.values()])
        row = []
        for name, page in pages.items():
            values, token = page["map"][place], page["token"][place]
            mean, share = float(values.mean()), 100 * float((values > sum(ends) / 2).mean())
            numbers = {"token": token, "mean": mean, "above_midpoint": share}
            numbers["map"] = values.astype(float).round(6).tolist()
            row.append({"name": name, **page, **numbers})
            text = f"{name:<{max(map(len, pages))}}  ({point.x:g}, {point.y:g})  mean {mean:6.3f}"
            lines.append(f"{text}  above midpoint {share:5.1f} %")
        report.append({"point": point, "scale": ends, "pages": row})
    columns = {name: page["map"] for name, page in pages.items()}
    figure = drawing.draw_similarity(image, points, columns)
    return figure, {"image": o.image, "image_size": image.size, "points": report}, lines


def token_at(point: Point, size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the token under a point of W x H pixels, whose h x w cells are equal."""
    row, column = math.floor(point.y * grid[0] / size[1]), math.floor(point.x * grid[1] / size[0])
    return min(row, grid[0] - 1), min(column, grid[1] - 1)  # just before the border may round up


def _encoded_size(asked: int | None, page: Resolved, model: Method) -> int:
    """Round what was asked for, else twice the model's image size, to whole patches."""
    patch = math.lcm(*patch_size(model.student))
    default = page.config["data"].get("region_size") or 2 * model.image_size
    size = max(1, round((asked or default) / patch)) * patch
    if asked not in (None, size):
        text = f"--size {asked} is not a multiple of the patch of {patch} pixels; {size} is used"
        say(f"note: {page.page.name}: {text}")
    return size


def _pixels(image: np.ndarray) -> Tensor:
    """uint8 [S, S, 3] -> [1, 3, S, S]."""
    return torch.tensor(image.transpose(2, 0, 1))[None]


class _Scene(NamedTuple):
    """An image, a caption and at most two boxes; ``pixels``: a record's, as the models see it."""

    image: Image.Image
    caption: str
    boxes: Sequence[Frame]
    pixels: np.ndarray | None = None


def _relevance(o: argparse.Namespace) -> Output:
    scene = _own_scene(o) if o.image else _record_scene(o)

    def compute(page: Resolved, model: Method, checkpoint: Path | None) -> dict[str, np.ndarray]:
        own = fit(scene.image, model.image_size, "squash") if scene.pixels is None else scene.pixels
        both = both_maps(model, own, scene.caption)
        return both if o.attention else {"relevance": both["relevance"]}

    pages = _each_page(o, compute)
    report, lines, columns = [], [], {}
    for name, page in pages.items():
        values = page["relevance"]
        shares = [round(share_inside(values, box), 4) for box in scene.boxes]
        scaled = (values / (float(values.sum()) or 1.0)).astype(float)
        report.append({"name": name, "inside": shares, "map": scaled.round(6).tolist()})
        objects = zip(("subject", "object"), shares, strict=False)
        parts = ", of the ".join(f"{what} {share:5.1f} %" for what, share in objects)
        text = f"{name:<{max(map(len, pages))}}  relevance in the box of the {parts}"
        lines.append(text if parts else name)
        for kind, drawn in page.items():
            columns[name if kind == "relevance" else f"{name}, {kind}"] = drawn
    figure = drawing.draw_relevance(scene.image, scene.caption, scene.boxes, columns)
    return figure, {"caption": scene.caption, "boxes": scene.boxes, "pages": report}, lines


def both_maps(model: Method, image: np.ndarray, caption: str) -> dict[str, np.ndarray]:
    """Attention and relevance [h, w] of an image uint8 [S, S, 3], in eval mode."""
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
            where = f"{o.image}, which has {width} x {height} pixels"
            raise SpatialbenchError(f"--box {x:g},{y:g},{w:g},{h:g} does not lie in {where}")
    boxes = [(x / width, y / height, w / width, h / height) for x, y, w, h in o.box]
    return _Scene(image, o.caption, boxes)


def _record_scene(o: argparse.Namespace) -> _Scene:
    records, _ = test_set(resolve(o.config[0], o.track, o.budget, o.seed, runs=Path(o.runs)))
    known = {record.record_id: record for record in records.records}
    if o.record not in known:
        nearest = did_you_mean(o.record, known)
        raise SpatialbenchError(f"no record {o.record!r} in {records.name}{nearest}")
    record = known[o.record]
    image, pixels = record_image(records, record), np.array(records.images[record.image])
    caption, boxes = o.caption or record.statement.caption, [*frames(record).values()]
    return _Scene(image, caption, boxes, pixels)
