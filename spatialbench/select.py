"""``spatialbench test --evaluation NAME``: image selection alone, of a page's weights on any pairs of pictures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from spatialbench.beside import evaluation_set
from spatialbench.callbacks import Interruptions
from spatialbench.errors import SpatialbenchError
from spatialbench.experiment import Resolved
from spatialbench.report.selection import print_selection, run_json
from spatialbench.scoring import load_method, readable_errors, select_from


def run(resolved: Resolved, options: argparse.Namespace) -> None:
    """Prints what the page's weights select.

    Args:
        options: evaluation, evaluation_path, ckpt_path, runs, seed and format, as ``spatialbench.cli`` parses them.

    Raises:
        SpatialbenchError: something the user gave is wrong; one line.
    """
    if options.evaluation is None:
        raise SpatialbenchError("--evaluation_path belongs to --evaluation mmvp")
    pairs = evaluation_set(options.evaluation, options.evaluation_path, resolved.track, resolved.budget)
    with Interruptions(), readable_errors(resolved):
        model, _ = load_method(resolved, options.ckpt_path, Path(options.runs), options.seed)
        found = select_from(model, pairs)
    if options.format == "json":
        print(json.dumps({"evaluation": options.evaluation, "data": found.data, **run_json(found)}, indent=2))
    else:
        print_selection(found, f"{resolved.label} on {pairs.name}")
