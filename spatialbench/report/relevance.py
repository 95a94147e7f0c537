"""``spatialbench maps --relevance``: where pages look when they read a caption, side by side, with both objects' boxes.

The analysis figure of Yang and Jeon's poster; what relevance is stands in ``evaluation/relevance.py``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from spatialbench.data.images import fit, read_picture
from spatialbench.report.maps import CELL, DPI, checkpoints, titles
from spatialbench.utils.errors import SpatialbenchError, atomic_path
from spatialbench.utils.suggest import did_you_mean

if TYPE_CHECKING:
    from spatialbench.config.experiment import Resolved

STRENGTH = 0.72
"""How much of the colour covers the picture where relevance is greatest."""
COLOURS = ("#19d36b", "#ff9d2e")
"""Of the boxes: the subject, the object."""
Frame = tuple[float, float, float, float]
"""Left, top, width and height as shares of the picture's sides."""


class Scene(NamedTuple):
    """What is looked at: a picture, a caption, two boxes at most. ``pixels``: uint8 [S, S, 3] where the picture is a
    record's, as the models see it.
    """

    picture: Image.Image
    caption: str
    boxes: Sequence[Frame]
    pixels: np.ndarray | None = None


def overlay(picture: Image.Image, found: np.ndarray) -> Image.Image:
    """A map over the grey picture: the more relevant, the less of the picture and the warmer the colour.

    Args:
        picture: RGB.
        found: [h, w], 0 or more; shown relative to its greatest value.
    """
    largest = float(found.max())
    small = Image.fromarray((found / largest if largest > 0 else found * 0).astype(np.float32))
    share = np.clip(np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC)), 0, 1)[
        ..., None
    ]  # [H, W, 1]
    colour = 255 * colormaps["inferno"](share[..., 0])[..., :3]
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None] * np.ones(3)
    weight = STRENGTH * (0.25 + 0.75 * share)
    return Image.fromarray(np.rint((1 - weight) * grey + weight * colour).astype(np.uint8))


def inside(found: np.ndarray, box: Frame) -> float:
    """Percent of the relevance that lies in a box; a token counts by the share of its cell that the box covers."""
    shares = []
    for start, length, cells in (
        (box[1], box[3], found.shape[0]),
        (box[0], box[2], found.shape[1]),
    ):
        edges = np.arange(cells + 1) / cells
        covered = np.minimum(edges[1:], start + length) - np.maximum(edges[:-1], start)
        shares.append(np.clip(covered, 0, None) * cells)
    total = float(found.sum())
    return 100 * float((found * np.outer(*shares)).sum()) / total if total else 0.0


def draw(scene: Scene, columns: Mapping[str, np.ndarray]) -> Figure:
    """The picture, and beside it the map of every page; the boxes on each."""
    width, height = scene.picture.size
    tall = CELL * min(max(height / width, 0.3), 2.5)
    figure = Figure(figsize=(CELL * (1 + len(columns)), tall + 0.7), layout="constrained")
    axes = figure.subplots(1, 1 + len(columns), squeeze=False)[0]
    shown = [scene.picture, *(overlay(scene.picture, found) for found in columns.values())]
    for axis, image, title in zip(axes, shown, ("picture", *columns), strict=True):
        axis.imshow(np.asarray(image), extent=(0, width, height, 0))
        for (x, y, w, h), colour in zip(scene.boxes, COLOURS, strict=False):
            corner, sides = (x * width, y * height), (w * width, h * height)
            axis.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=colour, linewidth=2))
        axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
        axis.set_title(title, fontsize=9)
    figure.suptitle(scene.caption, fontsize=10)
    return figure


# ------------------------------------------------------------------------------------------------------- the command
def command(argv: list[str], parser: argparse.ArgumentParser) -> int:
    """Write the figure; print for each page how much of its relevance lies in either box.

    Args:
        argv: the words after ``maps``.
        parser: an empty one, whose errors are one line.

    Raises:
        SpatialbenchError: something the user gave is wrong; one line.
    """
    add = parser.add_argument
    add("--relevance", action="store_true", help="this figure")
    add(
        "--config",
        action="append",
        required=True,
        metavar="PAGE.yaml",
        help="a page; may be repeated",
    )
    add(
        "--attention",
        action="store_true",
        help="and the attention, which no caption moves, beside each",
    )
    add(
        "--record",
        metavar="ID",
        help="a record of the track's test: its picture, caption and boxes",
    )
    add("--image", metavar="FILE", help="or a picture of your own")
    add(
        "--caption",
        metavar="TEXT",
        help="with --image, any sentence; with --record in the place of its own",
    )
    text = "with --image: left, top, width, height in pixels; twice: the subject's, the object's"
    add("--box", action="append", default=[], type=_box, metavar="X,Y,W,H", help=text)
    add("--track", default="rooms", help="name or path of the track (default: rooms)")
    add("--budget", default="quick", help="whose runs: smoke, quick or full (default: quick)")
    add(
        "--runs", default="runs", metavar="FOLDER", help="where the run folders are (default: runs)"
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        help="only runs with this seed (default: the newest run of any)",
    )
    add(
        "--ckpt_path",
        action="append",
        metavar="FILE|LAST",
        help="once for each page, in their order, or not at all",
    )
    add("--out", default="relevance.png", metavar="FILE.png", help="default: relevance.png")
    add(
        "--format",
        choices=("text", "json"),
        default="text",
        help="json: the maps themselves (default: text)",
    )
    o = parser.parse_args(argv)
    if (o.record is None) == (o.image is None):
        parser.error("give --record ID, or --image FILE with --caption")
    if o.image is not None and o.caption is None:
        parser.error("--image needs --caption: the sentence that is read")
    if o.box and o.image is None:
        parser.error("--box belongs to --image: a record has boxes of its own")
    if len(o.box) > len(COLOURS):
        parser.error("--box: the subject's and the object's, no more")
    _run(o)
    return 0


def _run(options: argparse.Namespace) -> None:
    words, out = checkpoints(options), Path(options.out)
    if out.suffix.lower() != ".png" or out.is_dir():
        raise SpatialbenchError(
            f"--out: the figure is a PNG file; give a name that ends in .png, not {options.out}"
        )
    from spatialbench.config.experiment import resolve
    from spatialbench.training.score import readable_errors, say

    pages = [
        resolve(page, options.track, options.budget, options.seed, runs=Path(options.runs))
        for page in options.config
    ]
    scene = _own(options) if options.image else _of_record(options, pages[0])
    found = []
    for resolved, word in zip(pages, words, strict=True):
        with readable_errors(resolved):
            found.append(_maps(resolved, word, options, scene))
    names = titles([resolved.page.name for resolved in pages])
    with atomic_path(out) as temporary:
        columns = {
            name if kind == "relevance" else f"{name}, {kind}": one
            for name, maps in zip(names, found, strict=True)
            for kind, one in maps.items()
        }
        draw(scene, columns).savefig(temporary, dpi=DPI, metadata={"Software": None})
    say(f"wrote {out}")
    report = [
        _report(name, maps["relevance"], scene) for name, maps in zip(names, found, strict=True)
    ]
    if options.format == "json":
        print(
            json.dumps(
                {"caption": scene.caption, "boxes": scene.boxes, "out": str(out), "pages": report}
            )
        )
        return
    wide = max(map(len, names))
    for page in report:
        parts = [
            f"{what} {share:5.1f} %"
            for what, share in zip(("subject", "object"), page["inside"], strict=False)
        ]
        print(
            f"{page['name']:<{wide}}  relevance in the box of the {', of the '.join(parts)}"
            if parts
            else page["name"]
        )


def _maps(
    resolved: Resolved, given: str | None, options: argparse.Namespace, scene: Scene
) -> dict[str, np.ndarray]:
    """The maps of one page, float32 [h, w]: attention, where it is asked for, and relevance."""
    import torch

    from spatialbench.evaluation.relevance import attention, relevance
    from spatialbench.training.score import load_method

    model, _ = load_method(resolved, given, Path(options.runs), options.seed is None)
    pixels = (
        fit(scene.picture, model.image_size, "squash") if scene.pixels is None else scene.pixels
    )
    given_pixels = torch.tensor(pixels.transpose(2, 0, 1))[None]
    found = {"attention": attention(model, given_pixels)[0].numpy()} if options.attention else {}
    return {**found, "relevance": relevance(model, given_pixels, scene.caption)[0].numpy()}


def _own(options: argparse.Namespace) -> Scene:
    picture = read_picture(Path(options.image))
    width, height = picture.size
    for x, y, w, h in options.box:
        if x < 0 or y < 0 or w <= 0 or h <= 0 or x + w > width or y + h > height:
            raise SpatialbenchError(
                f"--box {x:g},{y:g},{w:g},{h:g} does not lie in {options.image}, which has {width} x {height} pixels"
            )
    return Scene(
        picture,
        options.caption,
        [(x / width, y / height, w / width, h / height) for x, y, w, h in options.box],
    )


def _of_record(options: argparse.Namespace, resolved: Resolved) -> Scene:
    from spatialbench.report.html.record_choice import boxes, by_id, picture, test_records

    records = test_records(resolved.track, options.budget)
    known = by_id(records.records)
    if options.record not in known:
        raise SpatialbenchError(
            f"no record {options.record!r} in {records.name}{did_you_mean(options.record, known)}"
        )
    record = known[options.record]
    frames = [(x / 100, y / 100, w / 100, h / 100) for _, x, y, w, h in boxes(record)]
    caption = options.caption or record.statement.caption
    return Scene(picture(records, record), caption, frames, np.array(records.images[record.image]))


def _report(name: str, found: np.ndarray, scene: Scene) -> dict[str, Any]:
    """Of a page: percent of its relevance in each box, and the map, which adds up to 1."""
    total = float(found.sum()) or 1.0
    return {
        "name": name,
        "inside": [round(inside(found, box), 4) for box in scene.boxes],
        "map": [[round(float(value) / total, 6) for value in line] for line in found],
    }


def _box(text: str) -> Frame:
    try:
        x, y, w, h = (float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"needs x,y,w,h in pixels of the picture, as 12,80,40,30; got {text!r}"
        ) from None
    if not all(np.isfinite((x, y, w, h))):
        raise argparse.ArgumentTypeError(f"needs four numbers; got {text!r}")
    return x, y, w, h
