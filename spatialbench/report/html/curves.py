"""The section of training curves: the run folders' metrics.jsonl, where they are still there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from spatialbench.report.html.charts import lines, side_by_side
from spatialbench.report.html.elements import Html, join, missing
from spatialbench.report.html.material import Material
from spatialbench.report.rows import Row

SHOWN = {"train/loss": "training loss", "val/all": "All on the validation split, percent"}
"""Logged name -> what it is."""
MOST = 120
"""Points of a line; longer ones are averaged over equal parts."""
Curve = list[tuple[float, float]]


def read_curves(path: Path) -> dict[str, Curve]:
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


def curves(material: Material) -> Html:
    """Two figures for each row, a line for each seed; and a line for each row of which nothing is there."""
    figures: list[Html] = []
    gone: list[str] = []
    for row in material.rows:
        if not any(run.train_steps for run in row.result.runs):
            gone.append(f"{row.result.name}: nothing was trained.")
            continue
        found = _of_row(material, row)
        if not found:
            folder = material.run_folder(row, 0).parent
            gone.append(f"{row.result.name}: its run folder is gone ({folder}); no curve.")
            continue
        figures += [_figure(row, name, found) for name in SHOWN if any(name in curve for curve in found.values())]
    count = f"{len(gone)} of {len(material.rows)} rows without a curve"
    summary = f"{count}: nothing was trained, or the run folder is gone"
    return join(side_by_side(*figures) if figures else None, missing(summary, gone))


def _of_row(material: Material, row: Row) -> dict[int, dict[str, Curve]]:
    """Seed -> its curves, of the seeds that have any."""
    found = {}
    for place, run in enumerate(row.result.runs):
        path = material.run_folder(row, place) / "metrics.jsonl"
        if path.is_file() and (known := read_curves(path)):
            found[run.seed] = known
    return found


def _figure(row: Row, name: str, found: Mapping[int, Mapping[str, Sequence[tuple[float, float]]]]) -> Html:
    series = [(f"seed {seed}", thinned(list(curve[name]))) for seed, curve in found.items() if name in curve]
    ends = ", ".join(f"{seed} ends at {points[-1][1]:.4g}" for seed, points in series)
    title, seeds = f"{row.result.name}: {SHOWN[name]}", len(row.result.seeds)
    title += f", {len(series)} of {seeds} seeds" if len(series) < seeds else ""
    return lines(title, f"{title}; {ends}", series, marks=name.startswith("val/"))
