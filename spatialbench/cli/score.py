"""``spatialbench validate``, ``test`` and ``predict``: a page's weights on its own data, or on pictures given."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from spatialbench.config.experiment import Resolved
from spatialbench.methods.base import Method
from spatialbench.report.measures import HEADING, print_measures
from spatialbench.report.selection import print_selection, run_json
from spatialbench.report.table import print_run
from spatialbench.results.run_folder import checkpoint_of
from spatialbench.training import predict
from spatialbench.training import score as scoring
from spatialbench.training.build import Built, build
from spatialbench.training.callbacks import Interruptions, StepProgress
from spatialbench.utils.errors import SpatialbenchError


def run(name: str, resolved: Resolved, options: argparse.Namespace) -> None:
    """Prints what a command finds.

    Args:
        name: ``validate``, ``test`` or ``predict``.
        options: ckpt_path, runs, seed and format, of ``predict`` image and caption, as ``spatialbench.cli.main`` has them.

    Raises:
        SpatialbenchError: something the user gave is wrong; one line.
    """
    checkpoint, notes = checkpoint_of(resolved, options.ckpt_path, Path(options.runs))
    for note in notes:
        scoring.say(note)
    with Interruptions(), scoring.readable_errors(resolved):
        built = build(resolved, [StepProgress(resolved.page.name)])
        if name == "validate":
            metrics = scoring.validate(built, checkpoint)
            print(json.dumps(metrics, indent=2) if options.format == "json" else _lines(metrics))
            return
        if not isinstance(built.model, Method):
            raise SpatialbenchError(
                f"page {resolved.page.path} has no pair test; 'spatialbench validate' scores it on its own task"
            )
        if name == "test":
            _test(resolved, built, checkpoint, options)
        else:
            _predict(built, checkpoint, options)


def _test(
    resolved: Resolved, built: Built, checkpoint: Path | None, options: argparse.Namespace
) -> None:
    outcomes, fingerprint = scoring.test(built, checkpoint)
    measures, selection = scoring.measure(built, resolved), scoring.select(built, resolved)
    if options.format == "json":
        found = {"data_fingerprint": fingerprint, **scoring.scores_json(outcomes.scores())}
        found |= {} if measures is None else {"measures": measures.values()}
        print(json.dumps(found | ({} if selection is None else run_json(selection)), indent=2))
        return
    print_run(
        f"{resolved.label} on {resolved.data_arguments.get('path') or 'its test set'}", outcomes
    )
    if measures is not None:
        print_measures(HEADING, measures)
    if selection is not None:
        print_selection(selection)


def _predict(built: Built, checkpoint: Path | None, options: argparse.Namespace) -> None:
    if not options.image:
        if options.caption:
            raise SpatialbenchError("--caption needs a picture: --image FILE")
        for record in predict.predict_records(built, checkpoint):
            print(json.dumps(record))
        return
    verdicts = predict.predict(built, checkpoint, options.image, options.caption)
    if options.format == "json":
        print(json.dumps([verdict.as_json() for verdict in verdicts], indent=2))
    else:
        predict.show(verdicts)


def _lines(metrics: dict[str, float]) -> str:
    return "\n".join(f"{name:<12} {value:8.3f}" for name, value in metrics.items())
