"""The section of provenance: where every row comes from, and the command that makes it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from spatialbench.report.html.elements import Html, join, tag
from spatialbench.report.html.inputs import Material
from spatialbench.report.stored_rows import Row
from spatialbench.report.table_model import number
from spatialbench.results.schema import SeedRun


def origin(material: Material) -> Html:
    """An entry for each row, opened by the reader."""
    return join([_row(row) for row in material.rows])


def command(row: Row) -> str:
    """What makes the row."""
    result = row.result
    seeds = ",".join(map(str, result.seeds))
    return f"spatialbench run {result.page} --track {result.track} --budget {result.budget} --seeds {seeds} --force"


def _row(row: Row) -> Html:
    result, runs = row.result, row.result.runs
    facts = {
        "command": tag("code", command(row)),
        "page": f"{result.page}, hash {result.page_hash}",
        "track": f"{result.track}, hash {result.track_hash}, budget {result.budget}",
        "starts from": ", ".join(f"{name} ({found})" for name, found in result.init_from.items())
        or "–",
        "data": f"fingerprint {result.data_fingerprint}, {result.n} records; captions {result.grammar}",
        "outcomes": f"{result.outcomes.file}, sha256 {result.outcomes.sha256}",
        "commit": _each(
            runs, lambda run: (run.commit or "no commit") + (" (dirty)" if run.dirty else "")
        ),
        "configuration": _each(runs, lambda run: run.config_hash),
        "versions": _each(
            runs, lambda run: ", ".join(f"{name} {v}" for name, v in run.versions.items())
        ),
        "hardware": _each(
            runs,
            lambda run: ", ".join(f"{k} {v}" for k, v in run.hardware.items() if v is not None),
        ),
        "parameters": f"{result.parameters.total:,} in all, {result.parameters.trainable:,} trainable",
        "training": _each(runs, lambda run: f"{run.train_steps} steps, {_pairs(run)}"),
        "wall time": [tag("div", _wall(run)) for run in runs],
        "memory": f"{number(max(run.peak_memory_mb for run in runs) / 1000)} GB, "
        f"of the GPU {number(max(run.peak_gpu_memory_mb for run in runs) / 1000)} GB",
    }
    for kind in ("measures", "selection"):
        found = getattr(result, kind)
        if found is not None:
            facts[kind] = (
                f"{found.file}, sha256 {found.sha256}, data {found.data}, made by {', '.join(found.commits)}"
            )
    if row.stale:
        facts["stale"] = ", ".join(row.stale)
    mark = tag("span", "stale", class_="stale") if row.stale else None
    items = [join(tag("dt", name), tag("dd", text)) for name, text in facts.items()]
    return tag(
        "details",
        tag("summary", result.name, " ", mark),
        tag("dl", items),
        id=f"origin-{result.name}",
    )


def _each(runs: Iterable[SeedRun], say: Callable[[SeedRun], str]) -> str:
    """What the runs say, once where they all say the same."""
    found = {run.seed: say(run) for run in runs}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"seed {seed}: {text}" for seed, text in found.items())


def _pairs(run: SeedRun) -> str:
    return "pairs not counted" if run.train_pairs is None else f"{run.train_pairs:,} pairs"


def _wall(run: SeedRun) -> str:
    stages = ", ".join(
        f"{stage} {seconds:.0f} s"
        for stage, seconds in run.wall_seconds.items()
        if stage != "total"
    )
    total = run.wall_seconds.get("total", sum(run.wall_seconds.values()))
    return f"seed {run.seed}: {total / 60:.1f} minutes ({stages})"
