"""The section of training curves: those kept beside the results, or the run folders' where they are still there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spatialbench.report.html.charts import lines, side_by_side
from spatialbench.report.html.elements import Html, join, missing
from spatialbench.report.html.inputs import Material
from spatialbench.report.stored_rows import Row
from spatialbench.results.curves import SHOWN, Curve, read_metrics, thinned


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
            gone.append(
                f"{row.result.name}: no curve is kept, and its run folder is gone ({folder})."
            )
            continue
        figures += [
            _figure(row, name, found)
            for name in SHOWN
            if any(name in curve for curve in found.values())
        ]
    count = f"{len(gone)} of {len(material.rows)} rows without a curve"
    summary = f"{count}: nothing was trained, or no curve was kept"
    return join(side_by_side(*figures) if figures else None, missing(summary, gone))


def _of_row(material: Material, row: Row) -> dict[int, dict[str, Curve]]:
    """Seed -> its curves, of the seeds that have any."""
    if kept := material.curves.get(row.result.name):
        return kept
    found = {}
    for place, run in enumerate(row.result.runs):
        path = material.run_folder(row, place) / "metrics.jsonl"
        if path.is_file() and (known := read_metrics(path)):
            found[run.seed] = known
    return found


def _figure(
    row: Row, name: str, found: Mapping[int, Mapping[str, Sequence[tuple[float, float]]]]
) -> Html:
    series = [
        (f"seed {seed}", thinned(list(curve[name])))
        for seed, curve in found.items()
        if name in curve
    ]
    ends = ", ".join(f"{seed} ends at {points[-1][1]:.4g}" for seed, points in series)
    title, seeds = f"{row.result.name}: {SHOWN[name]}", len(row.result.seeds)
    title += f", {len(series)} of {seeds} seeds" if len(series) < seeds else ""
    return lines(title, f"{title}; {ends}", series, marks=name.startswith("val/"))
