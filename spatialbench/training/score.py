"""Scoring the weights of a page: test, validation and the track's evaluations; no training."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from spatialbench.config.evaluations import EvaluationSpec
from spatialbench.config.experiment import Resolved
from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.pairs import PairEvaluation, pair_evidence
from spatialbench.methods.base import Method
from spatialbench.report.run_table import print_evidence
from spatialbench.results import run_folder
from spatialbench.results.run_folder import RunRecord, read_checkpoint
from spatialbench.results.schema import PAIRS
from spatialbench.training.build import Built, build
from spatialbench.training.callbacks import Interruptions
from spatialbench.utils import provenance
from spatialbench.utils.distributed import is_first_rank
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.say import say

Opened = dict[str, tuple[EvaluationSpec, Evaluation]]
"""Evaluations whose data are open, by name."""


def test(built: Built, checkpoint: Path | None) -> Evidence:
    """Score every record of the test set once; ``built.model.test_outcomes`` then has the scores.

    ``checkpoint``: the weights of the :class:`Method`; None: those that it starts from.
    """
    built.trainer.test(**_arguments(built, checkpoint))
    records: Any = built.data.test_set  # type: ignore[attr-defined]
    outcomes: Any = built.model.test_outcomes
    return stamped(pair_evidence(outcomes, records.records, records.fingerprint))


def validate(built: Built, checkpoint: Path | None) -> dict[str, float]:
    """Return the metrics of the validation set, by name without ``val/``."""
    built.trainer.validate(**_arguments(built, checkpoint))
    metrics = built.trainer.callback_metrics
    names = [name for name in metrics if name.startswith("val/")]
    return {name.removeprefix("val/"): float(metrics[name]) for name in names}


def _arguments(built: Built, checkpoint: Path | None) -> dict[str, Any]:
    path = None if checkpoint is None else str(checkpoint)
    shared = {"weights_only": True, "verbose": False}
    return {"model": built.model, "datamodule": built.data, "ckpt_path": path, **shared}


def open_evaluations(resolved: Resolved) -> Opened:
    """Open the data of the track's evaluations, so that missing data is reported at once.

    Empty for pairs of the user's own (``--data.path``), and on ranks other than the first.

    Raises:
        SpatialbenchError: an unknown class or argument, or data that cannot be read.
    """
    specs = run_folder.run_evaluations(resolved) if is_first_rank() else {}
    return {name: (spec, spec.load()) for name, spec in specs.items()}


def evaluate_all(built: Built, opened: Opened) -> dict[str, Evidence]:
    """Run evaluations on the weights of the last :func:`test`."""
    assert isinstance(built.model, Method)
    model = built.model.eval().to(built.trainer.strategy.root_device)
    found = {}
    for name, (spec, own) in opened.items():
        evidence = own.run(model)
        if not isinstance(evidence, Evidence):
            kind = type(evidence).__name__
            raise SpatialbenchError(f"evaluation {name}: run must return Evidence, not {kind}")
        found[name] = stamped(evidence, spec.settings)
    return found


def evaluate_again(resolved: Resolved, record: RunRecord, names: list[str]) -> None:
    """Run evaluations of a finished run from its checkpoint; training and test are not repeated."""
    say(f"{resolved.label}: evaluating {', '.join(names)} from its checkpoint")
    with Interruptions(), readable_errors(resolved):
        built = build(resolved)
        if record.scored.exists():
            load_weights(built.model, read_checkpoint(record.scored), record.scored)
        opened = open_evaluations(resolved)
        chosen = {name: opened[name] for name in names if name in opened}
        for name, evidence in evaluate_all(built, chosen).items():
            evidence.save(record.evidence(name))


def stamped(evidence: Evidence, settings: str = "") -> Evidence:
    """Note the settings and the commit of the code in evidence."""
    commit, dirty = provenance.commit()
    return replace(evidence, settings=settings, commits=(commit + (" (dirty)" if dirty else ""),))


def scores_json(evidence: Evidence) -> dict[str, float]:
    """Percent by measure; measures without a value are left out."""
    values = evidence.values().items()
    return {name: round(value, 3) for name, value in values if not math.isnan(value)}


def print_evaluations(resolved: Resolved, evidence: Mapping[str, Evidence]) -> None:
    """Print a table for each evaluation of a run."""
    specs = run_folder.run_evaluations(resolved)
    for name, found in evidence.items():
        cls = PairEvaluation if name == PAIRS else specs[name].cls
        print_evidence(f"{resolved.label}: {cls.title}", found, cls)


def load_weights(model: LightningModule, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Load the weights of a checkpoint as Lightning would.

    Raises:
        SpatialbenchError: they do not fit the model.
    """
    checkpoint = dict(checkpoint)
    model.on_load_checkpoint(checkpoint)
    try:
        model.load_state_dict(checkpoint["state_dict"], strict=model.strict_loading)
    except RuntimeError as error:
        raise SpatialbenchError(f"checkpoint {path}: {_misfit(str(error))}") from error


def load_method(
    resolved: Resolved, given: str | None, runs: Path, any_seed: bool = False
) -> tuple[Method, Path | None]:
    """Load the method of a page, in eval mode, on the page's device; with its checkpoint.

    The arguments are those of :func:`spatialbench.results.run_folder.checkpoint_of`.

    Raises:
        SpatialbenchError: no checkpoint where one is needed, a misfit, or a page without a method.
    """
    path, notes = run_folder.checkpoint_of(resolved, given, runs, any_seed)
    for note in notes:
        say(note)
    built = build(resolved)
    if not isinstance(built.model, Method):
        what = f"page {resolved.page.path} has no student: its model is not a method"
        raise SpatialbenchError(f"{what}; give another")
    if path is not None:
        load_weights(built.model, read_checkpoint(path), path)
    return built.model.eval().to(built.trainer.strategy.root_device), path


@contextmanager
def readable_errors(resolved: Resolved) -> Iterator[None]:
    """Turn what PyTorch and the file system raise for a user's mistake into one line."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise SpatialbenchError("the GPU's memory is full: lower --data.batch_images") from error
    except OSError as error:
        if error.strerror is None:
            raise
        place = error.filename or resolved.run_dir
        raise SpatialbenchError(f"{place}: {error.strerror}") from error
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        what = f"the checkpoint does not fit page {resolved.page.path}"
        raise SpatialbenchError(f"{what}: {_misfit(str(error))}") from error


def _misfit(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    detail = lines[1] if len(lines) > 1 else lines[0]
    return f"its weights do not fit the model: {detail[:160]}"
