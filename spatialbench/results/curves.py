"""Training curves: of a run folder's metrics.jsonl, and those kept beside a result, for when the run folder is gone.

``<row>.curves.jsonl`` has a line for each seed and curve. No number of a table comes from it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from spatialbench.results.files import STORED_BUDGET
from spatialbench.results.schema import Result
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.typed_files import parse

SHOWN = {"train/loss": "training loss", "val/all": "All on the validation split, percent"}
"""Logged name -> what it is; these are kept."""
MOST = 120
"""Points of a line; longer ones are averaged over equal parts."""
ADVICE = "restore it from git, or delete it: the next 'spatialbench run' with the run folder there makes it again"
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Kept:
    """One line of a file of curves.

    Attributes:
        seed, config_hash, commit: of the run, as in the result.
        name: a key of ``SHOWN``.
        points: step and value.
    """

    seed: int
    config_hash: str
    commit: str
    name: str
    points: list[list[float]]

    def __post_init__(self) -> None:
        if self.name not in SHOWN:
            raise ValueError(f"name must be one of {', '.join(SHOWN)}, found {self.name!r}")
        if not self.points or any(len(point) != 2 for point in self.points):
            raise ValueError("points must be pairs of a step and a value")


def curves_path(path: Path) -> Path:
    """The file of curves beside the result file ``path``."""
    return path.with_name(f"{path.stem}.curves.jsonl")


def read_metrics(path: Path) -> dict[str, Curve]:
    """Name -> (step, value), of a metrics.jsonl; what is no number, or a line cut short by a kill, is left out."""
    found: dict[str, Curve] = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(text)
            step = float(values.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        for name, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value) and math.isfinite(step):
                found.setdefault(str(name), []).append((step, float(value)))
    return {name: sorted(curve) for name, curve in found.items()}


def thinned(curve: Curve, most: int = MOST) -> Curve:
    """At most so many points: means of equal parts."""
    if len(curve) <= most:
        return curve
    cuts = [round(k * len(curve) / most) for k in range(most + 1)]
    parts = [curve[start:stop] for start, stop in pairwise(cuts)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def keep_curves(path: Path, result: Result, folders: Sequence[Path]) -> bool:
    """Writes the curves beside the result file ``path``; removes those of an earlier row where there are none. Rows of
    other budgets than the table's have none.

    Args:
        folders: of the runs of ``result``, in their order.

    Returns:
        Whether there are any.
    """
    lines = []
    for run, folder in zip(result.runs, folders, strict=True):
        metrics = folder / "metrics.jsonl"
        drawn = result.budget == STORED_BUDGET and run.train_steps and metrics.is_file()
        known = read_metrics(metrics) if drawn else {}
        for name in SHOWN:
            if name in known:
                points = [[step, float(f"{value:.5g}")] for step, value in thinned(known[name])]
                lines.append(
                    json.dumps(asdict(Kept(run.seed, run.config_hash, run.commit, name, points)))
                )
    if lines:
        write_atomic(curves_path(path), "\n".join(lines) + "\n")
    else:
        curves_path(path).unlink(missing_ok=True)
    return bool(lines)


def read_curves(path: Path, result: Result) -> dict[int, dict[str, Curve]]:
    """Seed -> name -> curve, of the file beside the result file ``path``; empty where there is none.

    Raises:
        SpatialbenchError: it is damaged, or of other runs than those of the result.
    """
    own = curves_path(path)
    if not own.exists():
        return {}
    runs = {(run.seed, run.config_hash, run.commit) for run in result.runs}
    found: dict[int, dict[str, Curve]] = {}
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpatialbenchError(f"{own}: cannot be read ({error}); {ADVICE}") from error
    for number, text in enumerate(lines, 1):
        where = f"{own} line {number}"
        try:
            data = json.loads(text)
        except ValueError as error:
            raise SpatialbenchError(f"{where}: not valid JSON; {ADVICE}") from error
        kept = parse(Kept, data, where, ADVICE)
        if (kept.seed, kept.config_hash, kept.commit) not in runs:
            raise SpatialbenchError(
                f"{where}: seed {kept.seed} of another run than the result's; {ADVICE}"
            )
        found.setdefault(kept.seed, {})[kept.name] = [(step, value) for step, value in kept.points]
    return found
