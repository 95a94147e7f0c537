"""The weights of a page, scored: test, validation, and what is measured beside the pairs. Nothing here trains."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from spatialbench.config.evaluations import (
    region_set,
    region_settings,
    selection_set,
    selection_settings,
)
from spatialbench.config.experiment import Resolved
from spatialbench.data.region_sets import RegionSet
from spatialbench.data.selection_sets import SelectionSet
from spatialbench.evaluation.measures import Measures
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.evaluation.regions import measure as measure_regions
from spatialbench.evaluation.relations import Scores
from spatialbench.evaluation.selection import measure as measure_selection
from spatialbench.methods.base import Method
from spatialbench.models.open_clip_student import resize_mode
from spatialbench.results.run_folder import (
    RunRecord,
    checkpoint_of,
    measured,
    read_checkpoint,
    selected,
)
from spatialbench.training.build import Built, build
from spatialbench.training.callbacks import Interruptions
from spatialbench.utils import provenance
from spatialbench.utils.distributed import is_first_rank
from spatialbench.utils.errors import SpatialbenchError


def test(built: Built, checkpoint: Path | None) -> tuple[RunOutcomes, str]:
    """Scores every record of the test set once.

    Args:
        built: a :class:`Method` and its datamodule.
        checkpoint: the weights; None: those the model starts from.

    Returns:
        The outcomes, and the fingerprint of the data.
    """
    path = None if checkpoint is None else str(checkpoint)
    built.trainer.test(
        built.model, datamodule=built.data, ckpt_path=path, weights_only=True, verbose=False
    )
    data = built.data.test_set  # type: ignore[attr-defined]
    return RunOutcomes.of(built.model.test_outcomes, data.records), data.fingerprint  # type: ignore[arg-type]


def validate(built: Built, checkpoint: Path | None) -> dict[str, float]:
    """The metrics of the validation set, by name without ``val/``."""
    path = None if checkpoint is None else str(checkpoint)
    built.trainer.validate(
        built.model, datamodule=built.data, ckpt_path=path, weights_only=True, verbose=False
    )
    metrics = built.trainer.callback_metrics.items()
    return {
        name.removeprefix("val/"): float(value)
        for name, value in metrics
        if name.startswith("val/")
    }


def scores_json(scores: Scores) -> dict[str, Any]:
    """Counts by relation and percent by column, for run.json."""
    counts = {
        name: {"n": c.n, "correct": c.correct, "ties": c.ties}
        for name, c in scores.relations.items()
    }
    accuracy = {
        name: round(value, 3) for name, value in scores.accuracy().items() if not math.isnan(value)
    }
    return {"relations": counts, "accuracy": accuracy}


def load_weights(model: LightningModule, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Loads the weights of a checkpoint as Lightning would.

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
    """The method of a page with its weights, in eval mode, on the device that the page's trainer would take.

    Args:
        given, runs, any_seed: see :func:`spatialbench.results.run_folder.checkpoint_of`.

    Returns:
        The method, and the checkpoint it was read from.

    Raises:
        SpatialbenchError: no checkpoint where one is needed, one that does not fit, or a page without a method.
    """
    path, notes = checkpoint_of(resolved, given, runs, any_seed)
    for note in notes:
        say(note)
    built = build(resolved)
    if not isinstance(built.model, Method):
        raise SpatialbenchError(
            f"page {resolved.page.path} has no student: its model is not a method; give another"
        )
    if path is not None:
        load_weights(built.model, read_checkpoint(path), path)
    return built.model.eval().to(built.trainer.strategy.root_device), path


def open_regions(resolved: Resolved) -> RegionSet | None:
    """What the run is measured on beside the pairs; None where the track names nothing, where pairs of one's own
    (``--data.path``) are scored, and on ranks that do not measure."""
    return region_set(resolved.track, resolved.budget) if _measures(resolved) else None


def open_selection(resolved: Resolved) -> SelectionSet | None:
    """The pairs of pictures of image selection, likewise."""
    return selection_set(resolved.track, resolved.budget) if _measures(resolved) else None


def _measures(resolved: Resolved) -> bool:
    own_pairs = resolved.data_arguments.get("path") != resolved.track.config["data"].get("path")
    return not own_pairs and is_first_rank()


def measure(built: Built, resolved: Resolved, regions: RegionSet | None = None) -> Measures | None:
    """What the weights of the last :func:`test` are worth beside the pairs: regions, dense quality, retrieval.

    Args:
        built: of a method.
        regions: the set, where it is open already.

    Returns:
        None where there is nothing to measure on, and on all ranks but the first.
    """
    regions = open_regions(resolved) if regions is None else regions
    if regions is None or not isinstance(built.model, Method):
        return None
    found = measure_regions(built.model.eval().to(built.trainer.strategy.root_device), regions)
    return _stamped(found, region_settings(resolved.track, resolved.budget))


def select(built: Built, resolved: Resolved, pairs: SelectionSet | None = None) -> Measures | None:
    """Image selection, likewise.

    Args:
        pairs: the set, where it is open already.
    """
    pairs = open_selection(resolved) if pairs is None else pairs
    if pairs is None or not isinstance(built.model, Method):
        return None
    model = built.model.eval().to(built.trainer.strategy.root_device)
    return select_from(model, pairs, selection_settings(resolved.track, resolved.budget))


def select_from(model: Method, pairs: SelectionSet, settings: str = "") -> Measures:
    """Image selection of a method in eval mode, from any pairs.

    Args:
        settings: hash of what the pairs are.
    """
    return _stamped(
        measure_selection(model, pairs.pairs(model.image_size, resize_mode(model.student))),
        settings,
    )


def _stamped(found: Measures, settings: str) -> Measures:
    commit, dirty = provenance.commit()
    return replace(found, settings=settings, commits=(commit + (" (dirty)" if dirty else ""),))


def measure_into(path: Path, built: Built, resolved: Resolved, regions: RegionSet | None) -> None:
    """Writes what is measured, or removes what was measured before."""
    _write(path, measure(built, resolved, regions))


def select_into(path: Path, built: Built, resolved: Resolved, pairs: SelectionSet | None) -> None:
    """Likewise of image selection."""
    _write(path, select(built, resolved, pairs))


def _write(path: Path, found: Measures | None) -> None:
    if found is None:
        path.unlink(missing_ok=True)
    else:
        found.save(path)


def measure_again(resolved: Resolved, record: RunRecord) -> None:
    """Measures a finished run from its checkpoint where its track asks for more; what was trained and tested stays."""
    say(f"{resolved.label} is measured again, beside the pairs")
    with Interruptions(), readable_errors(resolved):
        built = build(resolved)
        if not isinstance(built.model, Method):
            return
        if record.checkpoint.exists():
            load_weights(built.model, read_checkpoint(record.checkpoint), record.checkpoint)
        if not measured(resolved, record):
            measure_into(record.measures, built, resolved, None)
        if not selected(resolved, record):
            select_into(record.selection, built, resolved, None)


@contextmanager
def readable_errors(resolved: Resolved) -> Iterator[None]:
    """Turns what PyTorch and the file system raise for a user's mistake into one line."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise SpatialbenchError("the GPU's memory is full: lower --data.batch_images") from error
    except OSError as error:
        if error.strerror is None:
            raise
        raise SpatialbenchError(
            f"{error.filename or resolved.run_dir}: {error.strerror}"
        ) from error
    except RuntimeError as error:
        if "loading state_dict" in str(error):
            raise SpatialbenchError(
                f"the checkpoint does not fit page {resolved.page.path}: {_misfit(str(error))}"
            ) from error
        raise


@rank_zero_only
def say(line: str) -> None:
    """A line for the person at the terminal; the standard output is for results."""
    print(line, file=sys.stderr, flush=True)


def tell(note: str) -> None:
    """A note, where there is one."""
    if note:
        say(f"note: {note}")


def _misfit(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    detail = lines[1] if len(lines) > 1 else lines[0]
    return f"its weights do not fit the model: {detail[:160]}"
