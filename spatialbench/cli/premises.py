"""``spatialbench premises``: whether a student and a VFM hold what the methods need."""

import argparse
import json
from pathlib import Path
from typing import cast

import torch
import yaml

from spatialbench import WEIGHTS
from spatialbench.cli.parser import Parser, count
from spatialbench.config.experiment import resolve
from spatialbench.data.coco.coco_check import is_coco
from spatialbench.data.coco.coco_regions import CocoRegions
from spatialbench.data.embspatial.reader import load
from spatialbench.data.record_regions import RecordRegions
from spatialbench.data.records import RecordSet
from spatialbench.data.region_sets import RegionSet
from spatialbench.evaluation.premises import below
from spatialbench.evaluation.premises import premises as measure
from spatialbench.methods.base import Method
from spatialbench.methods.clip import Clip
from spatialbench.models.timm_vfm import VFM, load_vfm
from spatialbench.report.map_figures import save
from spatialbench.report.premises import draw, tables
from spatialbench.training.score import load_method, readable_errors
from spatialbench.utils.errors import write_atomic
from spatialbench.utils.say import say

BARS = WEIGHTS / "premises.yaml"
ROOMS = ("rooms/val", "rooms/train", "rooms/pretrain")


def premises(argv: list[str]) -> int:
    """Run ``spatialbench premises``; 1 if a measure is below its bar."""
    o = _options(argv)
    names, model, vfm = _models(o)
    size = (model or cast("VFM", vfm)).image_size
    source, records = _images(o, size)
    found = measure(source, records, model, vfm)
    bars = yaml.safe_load(BARS.read_text(encoding="utf-8"))
    report = {"data": source.name, "images": len(source), "models": names, **found}
    report["below"] = below(found, bars)
    if o.json:
        write_atomic(o.json, json.dumps(report, indent=2) + "\n")
        say(f"wrote {o.json}")
    if o.figure:
        save(draw(report, bars), Path(o.figure))
        say(f"wrote {o.figure}")
    print(tables(report), end="")
    return 1 if report["below"] else 0


def _options(argv: list[str]) -> argparse.Namespace:
    parser = Parser("premises", "what a student and a VFM hold of what the methods need; 1 minute")
    parser.add("--student", "an open_clip model, or none (default: rooms-student)", "SPEC")
    text = "a timm ViT, or none (default: rooms-vfm, or that of --config)"
    parser.add("--vfm", text, "SPEC")
    parser.add("--config", "in place of --student: a page, trained or not", "PAGE.yaml")
    parser.common("ckpt_path", "track", "seed", "runs", budget="quick")
    text = f"{', '.join(ROOMS)}, or a file in COCO's or EmbSpatial's format (default: {ROOMS[0]})"
    parser.add("--data", text, "DATA", default=ROOMS[0])
    parser.add("--images", "the images of a COCO file", "FOLDER")
    parser.add("--limit", "the first N images (default: 1000)", "N", type=count, default=1000)
    parser.add("--json", "write all numbers", "FILE.json")
    parser.add("--figure", "draw them by block", "FILE.png")
    o = parser.parse_args(argv)
    wrong = {
        "--student and --config: give one of them": o.student and o.config,
        "--ckpt_path belongs to --config": o.ckpt_path and not o.config,
        "there is no model: --student and --vfm are none": o.student == o.vfm == "none",
        "--figure: give a name that ends in .png": o.figure and Path(o.figure).suffix != ".png",
        "--limit must be 10 or more": o.limit < 10,
        "--images belongs to a COCO file": o.images and not is_coco(o.data),
        f"{o.data} is a COCO file; give its images: --images FOLDER": (
            is_coco(o.data) and not o.images
        ),
        f"--data {o.data}: give one of {', '.join(ROOMS)}, or a file; the test split is kept for "
        "the table": o.data not in ROOMS and not Path(o.data).is_file(),
    }
    for message, applies in wrong.items():
        if applies:
            parser.error(message)
    return o


def _models(o: argparse.Namespace) -> tuple[dict[str, str], Method | None, VFM | None]:
    """Load what was asked for, with its names."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names: dict[str, str] = {}
    model: Method | None = None
    vfm: VFM | None = None
    if o.config:
        page = resolve(o.config, o.track, o.budget, o.seed, runs=Path(o.runs))
        with readable_errors(page):
            model, path = load_method(page, o.ckpt_path, Path(o.runs), o.seed is None)
        device, names["student"] = model.device, f"{page.page.name} ({path or 'untrained'})"
        if o.vfm is None and hasattr(model, "vfm"):
            vfm, names["vfm"] = cast("VFM", model.vfm), str(model.hparams["vfm"])
    elif o.student != "none":
        names["student"] = o.student or "rooms-student"
        model = Clip(names["student"]).eval().to(device)
    if o.vfm != "none" and (o.vfm or not o.config):
        names["vfm"] = o.vfm or "rooms-vfm"
        size = None if model is None else model.image_size
        vfm = load_vfm(names["vfm"], size, cache=False).to(device)
    return names, model, vfm


def _images(o: argparse.Namespace, size: int) -> tuple[RegionSet, RecordSet | None]:
    """Open the images with their named boxes, and the statements about them."""
    if o.data in ROOMS:
        from spatialbench.data.rooms.room_regions import RoomsRegions  # needs the renderer

        rooms = RoomsRegions(o.data.removeprefix("rooms/"), o.limit, size)
        return rooms, rooms.rooms.record_set()
    if is_coco(o.data):
        return CocoRegions(o.data, o.images, size, o.limit), None
    regions = RecordRegions(load(o.data, size).record_set, o.limit)
    return regions, regions.records
