"""``spatialbench test --evaluation NAME``: one benchmark alone, of a page's weights, in the place of the pairs.

Two kinds: pairs of pictures (image selection) and records of captions. A benchmark is a class that reads a folder; its
name stands here and nowhere else.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spatialbench.config.evaluations import selection_set
from spatialbench.config.experiment import Resolved
from spatialbench.config.pages import Track
from spatialbench.config.signatures import import_class
from spatialbench.data.captions.caption_set import CaptionSet
from spatialbench.data.download.status import ROOT
from spatialbench.data.rooms.counterfactual import Counterfactual
from spatialbench.data.selection_sets import SelectionSet
from spatialbench.evaluation.captions import score
from spatialbench.models.open_clip_student import resize_mode
from spatialbench.report.captions import captions_json, print_captions
from spatialbench.report.published import read_published
from spatialbench.report.selection import print_selection, run_json
from spatialbench.training.callbacks import Interruptions
from spatialbench.training.score import load_method, readable_errors, select_from
from spatialbench.utils.arguments import did_you_mean
from spatialbench.utils.errors import SpatialbenchError

FOLDERS: dict[str, str] = {
    "mmvp": "spatialbench.data.captions.mmvp.Mmvp",
    "whatsup": "spatialbench.data.captions.whatsup.WhatsUp",
    "vsr": "spatialbench.data.captions.vsr.Vsr",
    "sugarcrepe": "spatialbench.data.captions.sugarcrepe.SugarCrepe",
    "aro": "spatialbench.data.captions.aro.Aro",
    "cvbench": "spatialbench.data.captions.cvbench.CvBench",
    "cocoqa": "spatialbench.data.captions.cocoqa.CocoQa",
    "vgqa": "spatialbench.data.captions.vgqa.VgQa",
    "spatialsense": "spatialbench.data.captions.spatialsense.SpatialSense",
}
"""Benchmark -> the class that reads its folder: ``--evaluation_path``, or where ``data download`` puts it."""
EVALUATIONS = ("counterfactual", *FOLDERS)
"""What ``--evaluation`` takes; counterfactual are the rooms' own pairs, which are rendered."""


def evaluation_set(
    name: str, path: str | None, track: Track, budget: str
) -> SelectionSet | CaptionSet:
    """The pairs or records of an evaluation by its name.

    Args:
        name: one of ``EVALUATIONS``; the rooms' counterfactual pairs are those of the track, where it names some.
        path: the folder of a downloaded benchmark; None: where ``spatialbench data download`` puts it.

    Raises:
        SpatialbenchError: unknown name, a path where none belongs, no folder where one is needed, or the set cannot be
            read.
    """
    if name not in EVALUATIONS:
        raise SpatialbenchError(f"unknown --evaluation {name!r}{did_you_mean(name, EVALUATIONS)}")
    if name in FOLDERS:
        benchmark: Any = import_class(FOLDERS[name], f"--evaluation {name}")
        if path is None and not (ROOT / name).is_dir():
            raise SpatialbenchError(
                f"--evaluation {name}: there is no folder {ROOT / name}; spatialbench data download {name} brings it, "
                f"or --evaluation_path FOLDER, {benchmark.source}"
            )
        return benchmark(str(ROOT / name) if path is None else path)
    if path is not None:
        raise SpatialbenchError(
            "--evaluation counterfactual renders its own pictures: leave --evaluation_path out"
        )
    own = selection_set(track, budget)
    return own if isinstance(own, Counterfactual) else Counterfactual()


def run(resolved: Resolved, options: argparse.Namespace, results: Path = Path("results")) -> None:
    """Prints what the page's weights score.

    Args:
        options: evaluation, evaluation_path, ckpt_path, runs, seed and format, as ``spatialbench.cli.main`` parses them.
        results: where the published numbers are.

    Raises:
        SpatialbenchError: something the user gave is wrong; one line.
    """
    if options.evaluation is None:
        raise SpatialbenchError(
            f"--evaluation_path belongs to --evaluation {', '.join(FOLDERS)}: say which"
        )
    found = evaluation_set(
        options.evaluation, options.evaluation_path, resolved.track, resolved.budget
    )
    published = read_published(results, options.evaluation)
    with Interruptions(), readable_errors(resolved):
        model, _ = load_method(resolved, options.ckpt_path, Path(options.runs))
        title = f"{resolved.label} on {found.name}"
        if isinstance(found, CaptionSet):
            scores = score(model, found, resize_mode(model.student))
            if options.format == "text":
                return print_captions(found, scores, published, title)
            made = captions_json(found, scores, published)
        else:
            measures = select_from(model, found)
            if options.format == "text":
                return print_selection(measures, title, published)
            known = {name: asdict(row) for name, row in published.items()}
            made = {"data": measures.data, **run_json(measures), "published": known}
    print(json.dumps({"evaluation": options.evaluation, **made}, indent=2))
