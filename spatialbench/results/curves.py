"""Training curves: read from a run folder's metrics.jsonl, and kept beside a result.

``<row>.curves.jsonl`` has a line for each seed and curve, and outlives the run folder. The steps to
an accuracy (report/steps.py) come from it, and no other number of a table.
"""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from spatialbench.data.relations import RELATIONS
from spatialbench.results.files import STORED_BUDGET
from spatialbench.results.schema import Result
from spatialbench.utils.errors import SpatialbenchError, write_atomic

SHOWN = {"train/loss": "training loss", "val/all": "All on the validation split, percent"}
"""Logged name -> description; these are kept and drawn."""
KEPT = (*SHOWN, *(f"val/{relation}" for relation in RELATIONS))
MOST = 120
"""Points of a curve; longer curves are averaged over equal parts."""
Curve = list[tuple[float, float]]


def curves_path(path: Path) -> Path:
    """Path of the curves beside the result file ``path``."""
    return path.with_name(f"{path.stem}.curves.jsonl")


def read_metrics(path: Path) -> dict[str, Curve]:
    """Read a metrics.jsonl without values that are not finite and a line that a kill cut short."""
    curves: dict[str, Curve] = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(text)
            step = float(values.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        for name, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value) and math.isfinite(step):
                curves.setdefault(str(name), []).append((step, float(value)))
    return {name: sorted(curve) for name, curve in curves.items()}


def thinned(curve: Curve, most: int = MOST) -> Curve:
    """Average a curve over equal parts, at most ``most`` of them."""
    if len(curve) <= most:
        return curve
    cuts = [round(k * len(curve) / most) for k in range(most + 1)]
    parts = [curve[start:stop] for start, stop in pairwise(cuts)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def keep_curves(path: Path, result: Result, folders: Sequence[Path]) -> None:
    """Write the curves beside the result file ``path``, or remove those of an earlier row.

    Only rows of the table (budget ``full``) have curves.

    Args:
        folders: of the runs of ``result``, in their order.
    """
    lines = []
    for run, folder in zip(result.runs, folders, strict=True):
        metrics = folder / "metrics.jsonl"
        drawn = result.budget == STORED_BUDGET and run.train_steps and metrics.is_file()
        curves = read_metrics(metrics) if drawn else {}
        for name in KEPT:
            if name in curves:
                points = [[step, float(f"{value:.5g}")] for step, value in thinned(curves[name])]
                line = {"seed": run.seed, "config_hash": run.config_hash, "commit": run.commit}
                lines.append(json.dumps({**line, "name": name, "points": points}) + "\n")
    if lines:
        write_atomic(curves_path(path), "".join(lines))
    else:
        curves_path(path).unlink(missing_ok=True)


def read_curves(path: Path, result: Result) -> dict[int, dict[str, Curve]]:
    """Read seed -> name -> curve beside the result file ``path``; empty where there is no file.

    Raises:
        SpatialbenchError: it is damaged, or of other runs than those of the result.
    """
    own = curves_path(path)
    runs = {(run.seed, run.config_hash, run.commit) for run in result.runs}
    curves: dict[int, dict[str, Curve]] = {}
    try:
        for text in own.read_text(encoding="utf-8").splitlines() if own.exists() else []:
            line = json.loads(text)
            seed, name, points = line["seed"], line["name"], np.array(line["points"], dtype=float)
            if (seed, line["config_hash"], line["commit"]) not in runs:
                raise ValueError(f"seed {seed!r} of another run than the result's")
            if name not in KEPT or points.shape[1:] != (2,) or not np.isfinite(points).all():
                raise ValueError(f"{name!r} is no curve of steps and values")
            curves.setdefault(seed, {})[name] = [(step, value) for step, value in points.tolist()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        advice = "restore it from git, or delete it"
        raise SpatialbenchError(f"{own}: cannot be read ({error}); {advice}") from error
    return curves
