"""The run folder: what a run writes, how it is found again, and the checks of a checkpoint before it is used.

``runs/<track>/<budget>/<page>/<config hash>/seed<k>/`` holds config.yaml (the complete configuration), last.ckpt
(weights, optimizer, position), metrics.jsonl (training and validation), run.json (provenance, times, scores),
outcomes.npz (the scores of every test record) and, where they were asked for, measures.npz (regions, dense quality,
retrieval) and selection.npz (image selection) and, of a generative method, reconstructions.png. run.json says
``finished: true`` only when all else is in place.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatialbench.config.evaluations import region_settings, selection_settings
from spatialbench.config.experiment import Resolved
from spatialbench.config.pages import Config
from spatialbench.evaluation.measures import Measures
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.suggest import did_you_mean

SCHEMA = 1
STAMP = "spatialbench"
"""Key of a checkpoint under which a run notes whose weights they are."""


@dataclass(frozen=True)
class RunRecord:
    """A run folder and its run.json."""

    run_dir: Path
    info: dict[str, Any]

    @property
    def finished(self) -> bool:
        return bool(self.info.get("finished"))

    @property
    def made(self) -> tuple[str, bool]:
        """Commit of the code, and whether tracked files differed from it."""
        return str(self.info.get("commit", "")), bool(self.info.get("dirty"))

    @property
    def checkpoint(self) -> Path:
        return self.run_dir / "last.ckpt"

    @property
    def outcomes(self) -> Path:
        return self.run_dir / "outcomes.npz"

    @property
    def measures(self) -> Path:
        """Regions, dense quality and retrieval; there only where the run measured them."""
        return self.run_dir / "measures.npz"

    @property
    def selection(self) -> Path:
        """Image selection; there only where the run measured it."""
        return self.run_dir / "selection.npz"

    @classmethod
    def read(cls, run_dir: Path) -> RunRecord:
        """The record of a folder; an empty one when nothing was written yet.

        Raises:
            SpatialbenchError: run.json is damaged or of another version.
        """
        path = run_dir / "run.json"
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(run_dir, {})
        except OSError as error:
            raise SpatialbenchError(
                f"cannot use the run folder {run_dir}: {error.strerror}; give another folder"
            ) from error
        except ValueError as error:
            raise SpatialbenchError(
                f"{path}: cannot be read ({error}); --force runs it again"
            ) from error
        if not isinstance(info, dict) or info.get("schema") != SCHEMA:
            raise SpatialbenchError(
                f"{path}: not a run record of this version; --force runs it again"
            )
        return cls(run_dir, info)

    def write(self) -> None:
        """Writes run.json in one step."""
        write_atomic(
            self.run_dir / "run.json", json.dumps({"schema": SCHEMA, **self.info}, indent=2) + "\n"
        )


def measured(resolved: Resolved, record: RunRecord) -> bool:
    """Whether a finished run is measured as the track asks today."""
    return _is(record.measures, region_settings(resolved.track, resolved.budget), record)


def selected(resolved: Resolved, record: RunRecord) -> bool:
    """Whether a finished run has the image selection that the track asks for today."""
    return _is(record.selection, selection_settings(resolved.track, resolved.budget), record)


def _is(path: Path, wanted: str, record: RunRecord) -> bool:
    if not wanted or not record.outcomes.exists():
        return True
    try:
        return Measures.load(path).settings == wanted
    except SpatialbenchError:
        return False


BEST = "best.ckpt"
"""The checkpoint that was best on the validation set, of a track with ``finetuning.scored: best``."""
FILES = (
    "run.json",
    "last.ckpt",
    BEST,
    "outcomes.npz",
    "measures.npz",
    "selection.npz",
    "metrics.jsonl",
    "config.yaml",
    "reconstructions.png",
)
"""What a run folder can hold."""


def to_score(resolved: Resolved, last: Path) -> Path:
    """The last checkpoint, or the best one, where ``finetuning.scored`` says so and there was a validation."""
    best = resolved.run_dir / BEST
    return best if scores_best(resolved) and best.is_file() else last


def scores_best(resolved: Resolved) -> bool:
    """Whether the track says ``finetuning.scored: best``."""
    model = resolved.config["model"].get("init_args") or {}
    return (model.get("finetuning") or {}).get("scored") == "best"


def clear(run_dir: Path) -> None:
    """Removes what a run wrote, so that it starts from nothing.

    Raises:
        SpatialbenchError: a file cannot be removed.
    """
    for name in FILES:
        try:
            (run_dir / name).unlink(missing_ok=True)
        except OSError as error:
            raise SpatialbenchError(f"cannot remove {run_dir / name}: {error.strerror}") from error


def sweep(run_dir: Path) -> None:
    """Removes what a kill left of files that were being written."""
    for name in FILES:
        for path in run_dir.glob(f".{name}.*"):
            path.unlink(missing_ok=True)


def newest(resolved: Resolved, runs: Path, any_seed: bool = False) -> Path:
    """last.ckpt of the newest run, finished or not, of a page on its track and budget.

    Args:
        any_seed: not only of the seed of ``resolved``.

    Raises:
        SpatialbenchError: there is none; the message says which seeds or budgets have one.
    """
    folder = runs / resolved.track.name
    own = folder / resolved.budget / resolved.page.name
    pattern = "*/last.ckpt" if any_seed else f"seed{resolved.seed}/last.ckpt"
    found = list(own.glob(f"*/{pattern}"))
    if found:
        return max(found, key=lambda path: path.stat().st_mtime)
    others = sorted({path.parts[-5] for path in folder.glob(f"*/{resolved.page.name}/*/{pattern}")})
    seeds = sorted({path.parts[-2] for path in own.glob("*/*/last.ckpt")})
    what = f"page {resolved.page.path} on {resolved.track.name} at budget {resolved.budget}"
    what += "" if any_seed else f" with seed {resolved.seed}"
    advice = (
        f"--budget {others[0]} has one"
        if others
        else f"spatialbench fit --config {resolved.page.path} makes one"
    )
    advice = f"--seed {seeds[0].removeprefix('seed')} has one" if seeds else advice
    raise SpatialbenchError(f"no run of {what} under {runs}: {advice}, or give --ckpt_path FILE")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Opens a checkpoint, memory-mapped, without running any code in it.

    Raises:
        SpatialbenchError: missing, damaged, or not a checkpoint of this project.
    """
    import torch

    if path.is_dir():
        raise SpatialbenchError(f"checkpoint {path} is a folder; give the last.ckpt of a run")
    if not path.is_file():
        near = [str(p) for p in sorted(path.parent.glob("*.ckpt"))] if path.parent.is_dir() else []
        raise SpatialbenchError(
            f"no such checkpoint: {path}{did_you_mean(str(path), near) if near else ''}"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise SpatialbenchError(
            f"checkpoint {path}: damaged, truncated or not a plain checkpoint; delete it, or run fit with --force"
        ) from error
    if (
        not isinstance(checkpoint, dict)
        or "state_dict" not in checkpoint
        or STAMP not in checkpoint
    ):
        raise SpatialbenchError(
            f"checkpoint {path}: not written by 'spatialbench fit'; give its last.ckpt"
        )
    return checkpoint


def checkpoint_of(
    resolved: Resolved, given: str | None, runs: Path, any_seed: bool = False
) -> tuple[Path | None, list[str]]:
    """The checkpoint to score a page with, checked, and what the user should know about it, a line each.

    Args:
        given: a file; LAST: the newest run of the page; None: LAST for a page that needs training or goes on from
            another, else no checkpoint.
        runs: the folder of all runs.
        any_seed: whatever seed the newest run or the file has. Else it must have that of ``resolved``, since what is
            printed and stored names it.

    Returns:
        The path, None for a page that is scored as it starts; and the notes.

    Raises:
        SpatialbenchError: there is no run, or the checkpoint is damaged, of another class or of another seed.
    """
    if given is None and not resolved.needs_training and resolved.init_from is None:
        return None, []
    if given is None or given == "LAST":
        path = newest(resolved, runs, any_seed)
        notes = [f"checkpoint: {path}"]
    else:
        path, notes = Path(given), []
    checkpoint = read_checkpoint(path)
    other = checkpoint[STAMP].get("seed", resolved.seed)
    if not any_seed and other != resolved.seed:
        raise SpatialbenchError(
            f"checkpoint {path} is of a run with seed {other}, not {resolved.seed}: --seed {other}"
        )
    return path, notes + check_checkpoint(path, checkpoint, resolved)


def stamp(resolved: Resolved) -> dict[str, Any]:
    """What a checkpoint notes about its origin; plain values only."""
    return {
        "page": resolved.page.name,
        "track": resolved.track.name,
        "budget": resolved.budget,
        "seed": resolved.seed,
        "config_hash": resolved.config_hash,
        "model": json.loads(json.dumps(resolved.config["model"])),
    }


def check_checkpoint(path: Path, checkpoint: Mapping[str, Any], resolved: Resolved) -> list[str]:
    """Refuses a checkpoint of another class; returns one line for every argument in which page and checkpoint differ.

    The page wins: Lightning would silently let the checkpoint's arguments win over page and command line (#20801).

    Raises:
        SpatialbenchError: the checkpoint was trained with another class than the page asks for.
    """
    trained, asked = checkpoint[STAMP]["model"], resolved.config["model"]
    if trained["class_path"] != asked["class_path"]:
        raise SpatialbenchError(
            f"checkpoint {path} holds {trained['class_path']} (page {checkpoint[STAMP]['page']}), but page "
            f"{resolved.page.path} asks for {asked['class_path']}: give the page that trained it, or another checkpoint"
        )
    before = dict(_leaves(trained.get("init_args") or {}))
    after = dict(_leaves(asked.get("init_args") or {}))
    return [
        f"note: {path.name} was trained with {key}={before.get(key, 'its default')}; "
        f"{key}={after.get(key, 'its default')} is used, as the page and the command line say"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _leaves(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
