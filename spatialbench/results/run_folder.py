"""The run folder: what a run writes, how it is found again, and how its checkpoints are checked.

``runs/<track>/<budget>/<page>/<config hash>/seed<k>/`` holds config.yaml (the complete
configuration), last.ckpt (weights, optimizer, position), metrics.jsonl (training and validation),
``<evaluation>.npz`` (the evidence of the pair test and of every other evaluation of the track) and
run.json (provenance, times, scores). Some methods add reconstructions.png. run.json says
``finished: true`` only when all else is in place.
"""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from spatialbench.config.evaluations import EvaluationSpec, evaluations_of
from spatialbench.config.experiment import Resolved
from spatialbench.config.pages import Config
from spatialbench.config.signatures import import_class
from spatialbench.evaluation.evidence import Evidence
from spatialbench.results.schema import PAIRS
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.suggest import did_you_mean

SCHEMA = 2
STAMP = "spatialbench"
"""Key under which a checkpoint notes which run its weights come from."""
BEST = "best.ckpt"
"""The best checkpoint on validation, where the track says ``finetuning.scored: best``."""
LOGS = ("run.json", "metrics.jsonl", "config.yaml", "reconstructions.png")
FILES = (*LOGS, "last.ckpt", BEST, "*.npz")
"""Patterns of the files of a run folder."""


@dataclass(frozen=True)
class RunRecord:
    """A run folder and its run.json."""

    run_dir: Path
    info: dict[str, Any]

    @property
    def finished(self) -> bool:
        """True if everything is in place."""
        return bool(self.info.get("finished"))

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.run_dir / "last.ckpt"

    @property
    def scored(self) -> Path:
        """The checkpoint that is scored: the best, where the track keeps it, else the last."""
        best = self.run_dir / BEST
        return best if best.is_file() else self.checkpoint

    @property
    def has_pairs(self) -> bool:
        """True if the run took the pair test; a module with a task of its own does not."""
        return self.evidence(PAIRS).exists()

    def evidence(self, name: str) -> Path:
        """File with the evidence of an evaluation."""
        return self.run_dir / f"{name}.npz"

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Read run.json; ``info`` is empty where nothing was written yet.

        Raises:
            SpatialbenchError: run.json is damaged or of another version.
        """
        path, again = run_dir / "run.json", "--force runs it again"
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(run_dir, {})
        except OSError as error:
            where = f"cannot use the run folder {run_dir}: {error.strerror}"
            raise SpatialbenchError(f"{where}; give another folder") from error
        except ValueError as error:
            raise SpatialbenchError(f"{path}: cannot be read ({error}); {again}") from error
        if not isinstance(info, dict) or info.get("schema") != SCHEMA:
            raise SpatialbenchError(f"{path}: not a run record of this version; {again}")
        return cls(run_dir, info)

    def write(self) -> None:
        """Write run.json atomically."""
        text = json.dumps({"schema": SCHEMA, **self.info}, indent=2) + "\n"
        write_atomic(self.run_dir / "run.json", text)


Fit = Callable[[Resolved, bool], RunRecord]
"""Makes one run, as ``spatialbench.training.fit.fit`` does; True: from nothing."""


def run_evaluations(resolved: Resolved) -> dict[str, EvaluationSpec]:
    """Return the track's evaluations by name; none for pairs of the user's own."""
    own_pairs = resolved.data_arguments.get("path") != resolved.track.config["data"].get("path")
    return {} if own_pairs else evaluations_of(resolved.track, resolved.budget)


def outdated(resolved: Resolved, record: RunRecord) -> list[str]:
    """List the evaluations that a finished run lacks, or has with other settings than today's."""
    if not record.has_pairs:
        return []
    specs = run_evaluations(resolved)
    return [name for name in specs if _settings(record.evidence(name)) != specs[name].settings]


def _settings(path: Path) -> str | None:
    try:
        return Evidence.load(path).settings
    except SpatialbenchError:
        return None


def is_current(resolved: Resolved, record: RunRecord) -> bool:
    """Return whether a run is finished and evaluated as the track asks today."""
    return record.finished and not outdated(resolved, record)


def scores_best(resolved: Resolved) -> bool:
    """Return whether the track says ``finetuning.scored: best``."""
    model = resolved.config["model"].get("init_args") or {}
    return (model.get("finetuning") or {}).get("scored") == "best"


def clear(run_dir: Path) -> None:
    """Remove everything a run wrote.

    Raises:
        SpatialbenchError: a file cannot be removed.
    """
    for path in [path for pattern in FILES for path in run_dir.glob(pattern)]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise SpatialbenchError(f"cannot remove {path}: {error.strerror}") from error


def sweep(run_dir: Path) -> None:
    """Remove the half-written files that a kill left."""
    for path in [path for pattern in FILES for path in run_dir.glob(f".{pattern}.*")]:
        path.unlink(missing_ok=True)


def newest(resolved: Resolved, runs: Path, any_seed: bool = False) -> Path:
    """Return last.ckpt of the newest run of a page on its track and budget, finished or not.

    Raises:
        SpatialbenchError: there is none; the message says which seeds or budgets have one.
    """
    folder = runs / resolved.track.name
    own = folder / resolved.budget / resolved.page.name
    pattern = "*/last.ckpt" if any_seed else f"seed{resolved.seed}/last.ckpt"
    checkpoints = list(own.glob(f"*/{pattern}"))
    if checkpoints:
        return max(checkpoints, key=lambda path: path.stat().st_mtime)
    others = sorted({path.parts[-5] for path in folder.glob(f"*/{resolved.page.name}/*/{pattern}")})
    seeds = sorted({path.parts[-2] for path in own.glob("*/*/last.ckpt")})
    advice = [f"--seed {name.removeprefix('seed')} has one" for name in seeds]
    advice += [f"--budget {budget} has one" for budget in others]
    advice += [f"spatialbench fit --config {resolved.page.path} makes one"]
    what = f"page {resolved.page.path} on {resolved.track.name} at budget {resolved.budget}"
    what += "" if any_seed else f" with seed {resolved.seed}"
    raise SpatialbenchError(f"no run of {what} under {runs}: {advice[0]}, or give --ckpt_path FILE")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Open a checkpoint, memory-mapped, without running any code in it.

    Raises:
        SpatialbenchError: missing, damaged, or not a checkpoint of this project.
    """
    import torch

    if path.is_dir():
        raise SpatialbenchError(f"checkpoint {path} is a folder; give the last.ckpt of a run")
    if not path.is_file():
        near = [str(p) for p in sorted(path.parent.glob("*.ckpt"))]
        hint = did_you_mean(str(path), near) if near else ""
        raise SpatialbenchError(f"no such checkpoint: {path}{hint}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        what = f"checkpoint {path}: damaged, truncated or not a plain checkpoint"
        raise SpatialbenchError(f"{what}; if it is of a run, fit with --force") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", STAMP} <= checkpoint.keys():
        what = f"checkpoint {path}: not written by 'spatialbench fit'"
        raise SpatialbenchError(f"{what}; give its last.ckpt")
    return checkpoint


def checkpoint_of(
    resolved: Resolved, given: str | None, runs: Path, any_seed: bool = False
) -> tuple[Path | None, list[str]]:
    """Find and check the checkpoint to score a page with; return it, and notes for the user.

    Args:
        given: a file; LAST: the newest run of the page in ``runs``; None: LAST for a page that
            needs training or starts from another page, else no checkpoint.
        any_seed: accept a run of another seed than that of ``resolved``.

    Raises:
        SpatialbenchError: no run, or a checkpoint that is damaged, of another class or seed.
    """
    if given is None and not resolved.needs_training and resolved.init_from is None:
        return None, []
    newest_run = given is None or given == "LAST"
    path = newest(resolved, runs, any_seed) if newest_run else Path(str(given))
    checkpoint = read_checkpoint(path)
    seed = checkpoint[STAMP].get("seed", resolved.seed)
    if not any_seed and seed != resolved.seed:
        what = f"checkpoint {path} is of a run with seed {seed}, not {resolved.seed}"
        raise SpatialbenchError(f"{what}: --seed {seed}")
    notes = [f"checkpoint: {path}"] if newest_run else []
    return path, notes + check_checkpoint(path, checkpoint, resolved)


def stamp(resolved: Resolved) -> dict[str, Any]:
    """Return what a checkpoint notes about its run, in plain values."""
    model = json.loads(json.dumps(resolved.config["model"]))
    return {**identity(resolved), "model": model}


def identity(resolved: Resolved) -> dict[str, Any]:
    """Return which run this is: page, track, budget, seed and the hash of the configuration."""
    return {
        "page": resolved.page.name,
        "track": resolved.track.name,
        "budget": resolved.budget,
        "seed": resolved.seed,
        "config_hash": resolved.config_hash,
    }


def check_checkpoint(path: Path, checkpoint: Mapping[str, Any], resolved: Resolved) -> list[str]:
    """Return a note on every argument that differs between a checkpoint and its page.

    A page that reads other methods (``Method.reads_others``) gets one note on what it reads. The
    page wins: Lightning would silently prefer the checkpoint's arguments over page and command
    line (Lightning #20801).

    Raises:
        SpatialbenchError: the checkpoint was trained with another class than the page asks for.
    """
    trained, asked = checkpoint[STAMP]["model"], resolved.config["model"]
    if trained["class_path"] != asked["class_path"]:
        label = f"page {checkpoint[STAMP]['page']}, {trained['class_path']}"
        if getattr(import_class(asked["class_path"], "page"), "reads_others", False):
            return [f"reading {path} ({label})"]
        raise SpatialbenchError(
            f"checkpoint {path} holds {trained['class_path']} (page {checkpoint[STAMP]['page']}), "
            f"but page {resolved.page.path} asks for {asked['class_path']}: give another one"
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
