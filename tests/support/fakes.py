"""Rows, pages and tracks made up for the tests of results, runner and report: no model, no training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spatialbench.config.experiment import Resolved
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.measures import Measures
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.results.files import ResultOutcomes, make_result, result_path, write_result
from spatialbench.results.schema import Parameters, Result, SeedRun
from spatialbench.results.run_folder import RunRecord
from spatialbench.results.stale import Today, ancestors, grammar_hash, page_hash, track_hash

TRACK = """\
name: rooms
seeds: [0, 1, 2]
trainer: {max_steps: 100}
data: {image_size: 96}
budgets:
  smoke: {trainer: {max_steps: 2}}
  quick: {trainer: {max_steps: 10}}
  full: {trainer: {max_steps: 100}}
"""


class FakeMethod:
    """What the made-up pages name."""

    def __init__(self, width: int = 1) -> None: ...


def page_text(extra: str = "") -> str:
    """A page of ``FakeMethod``."""
    return f"# A paper.\n#   spatialbench fit --config x\nmodel:\n  class_path: tests.support.fakes.FakeMethod\n{extra}"


def benchmarks(folder: Path, *names: str) -> Path:
    """A folder with pages of these names and the track ``rooms``."""
    (folder / "tracks").mkdir(parents=True, exist_ok=True)
    (folder / "tracks" / "rooms.yaml").write_text(TRACK)
    for name in names:
        (folder / f"{name}.yaml").write_text(page_text())
    return folder


def run_outcomes(seed: int, shift: float = 0.3, per_relation: int = 20) -> RunOutcomes:
    """Random scores of 6 * per_relation records in scenes of three."""
    n = 6 * per_relation
    rng = np.random.default_rng(seed)
    return RunOutcomes(
        record_ids=np.array([f"rooms-test-{index:05d}" for index in range(n)]),
        relation=np.tile(RELATIONS, per_relation),
        cluster=np.array([f"room {index // 3}" for index in range(n)]),
        positive=rng.normal(shift, 1, n).astype(np.float32) / 100,
        negative=np.zeros(n, dtype=np.float32),
    )


def run_measures(
    seed: int, level: float = 0.5, pictures: int = 60, data: str = "d" * 16
) -> Measures:
    """Random measures of one seed: hits of four classes, an area by picture, retrieval; scenes of two pictures.

    Args:
        level: share of the boxes that are right, in [0, 1]; the area follows it.
    """
    rng = np.random.default_rng(seed)
    regions = (
        np.random.default_rng(0).integers(0, 4, (pictures, 4)).astype(float)
    )  # the pictures', whatever the seed
    ratios = {
        "same_mask": (np.clip(rng.normal(level, 0.1, pictures), 0, 1), np.ones(pictures)),
        "box_top1": (rng.binomial(regions.astype(int), level).astype(float), regions),
        "image_r1": (rng.integers(0, 2, pictures).astype(float), np.ones(pictures)),
    }
    return Measures.of([f"room {index // 2}" for index in range(pictures)], ratios, data)


def run_selection(seed: int, level: float = 0.5, pairs: int = 60, data: str = "s" * 16) -> Measures:
    """Random image selection of one seed: three patterns, as many pairs of each, scenes of two pairs.

    Args:
        level: share of the pairs that are right by the embedding; with the patches 0.2 fewer.
    """
    rng = np.random.default_rng(seed)
    groups = np.eye(3)[np.arange(pairs) % 3]
    right = {
        "select_cls": rng.random(pairs) < level,
        "select_local": rng.random(pairs) < level - 0.2,
    }
    ratios = {name: (groups * found[:, None], groups) for name, found in right.items()}
    return Measures.of(
        [f"room {k // 2}" for k in range(pairs)], ratios, data, ("left", "colour", "presence")
    )


def seed_run(seed: int, outcomes: RunOutcomes) -> SeedRun:
    scores = outcomes.scores()
    return SeedRun(
        seed=seed,
        config_hash="0123456789abcdef",
        commit="a" * 40,
        dirty=False,
        versions={"python": "3.11.0", "torch": "2.15.0"},
        hardware={"cpu": "Test CPU", "cores": 2, "threads": 2, "gpu": None},
        wall_seconds={"train": 100.0, "total": 120.0},
        peak_memory_mb=900.5,
        peak_gpu_memory_mb=0.0,
        train_steps=100,
        train_pairs=51200,
        relations=dict(scores.relations),
        micro=round(scores.micro, 4),
        macro=round(scores.macro, 4),
    )


def result_of(
    name: str,
    folder: Path,
    runs: Sequence[RunOutcomes],
    seeds: Sequence[int] = (0,),
    budget: str = "full",
    measures: Measures | None = None,
    selection: Measures | None = None,
) -> Result:
    """The row that the runner would make today of these runs of the page ``name`` in the benchmarks ``folder``."""
    today = Today.read(folder)
    page, track = today.pages[name], today.tracks["rooms"]
    return make_result(
        [seed_run(seed, run) for seed, run in zip(seeds, runs, strict=True)],
        ResultOutcomes.join(runs),
        measures,
        selection,
        name=name,
        page=f"benchmarks/{name}.yaml",
        page_hash=page_hash(page, budget),
        track=track.name,
        track_hash=track_hash(track, budget, page),
        init_from=ancestors(page, budget, track),
        budget=budget,
        grammar=grammar_hash(),
        data_fingerprint="f" * 16,
        parameters=Parameters(total=2_000_000, trainable=1_500_000),
    )


def row(
    name: str,
    folder: Path,
    seeds: Sequence[int] = (0, 1, 2),
    shift: float = 0.3,
    budget: str = "full",
    measures: Measures | None = None,
    selection: Measures | None = None,
) -> tuple[Result, ResultOutcomes]:
    """A row with random outcomes; ``shift`` moves its accuracy."""
    runs = [run_outcomes(1000 * seed + sum(map(ord, name)), shift) for seed in seeds]
    return result_of(name, folder, runs, seeds, budget, measures, selection), ResultOutcomes.join(
        runs
    )


def measures_of(name: str, seeds: Sequence[int] = (0, 1, 2), **kwargs: object) -> Measures:
    """Random measures of a row; see ``run_measures``."""
    return Measures.join(
        [run_measures(1000 * seed + sum(map(ord, name)), **kwargs) for seed in seeds]
    )  # type: ignore[arg-type]


def selection_of(name: str, seeds: Sequence[int] = (0, 1, 2), **kwargs: object) -> Measures:
    """Random image selection of a row; see ``run_selection``."""
    return Measures.join(
        [run_selection(1000 * seed + sum(map(ord, name)), **kwargs) for seed in seeds]
    )  # type: ignore[arg-type]


def store(
    results: Path,
    name: str,
    folder: Path,
    measures: Measures | None = None,
    selection: Measures | None = None,
    **kwargs: object,
) -> Path:
    """Writes a row where the table looks for it; returns its path."""
    result, outcomes = row(name, folder, measures=measures, selection=selection, **kwargs)  # type: ignore[arg-type]
    path = result_path(results, result.track, result.budget, name)
    write_result(path, result, outcomes, measures, selection)
    return path


def write_run(
    resolved: Resolved,
    outcomes: RunOutcomes,
    measures: Measures | None = None,
    selection: Measures | None = None,
    **info: object,
) -> RunRecord:
    """A finished run folder, as ``spatialbench.training.fit.fit`` leaves it."""
    made = seed_run(resolved.seed, outcomes)
    kept = {
        key: value
        for key, value in vars(made).items()
        if key not in ("relations", "micro", "macro")
    }
    names = {"page": resolved.page.name, "track": resolved.track.name, "budget": resolved.budget}
    numbers = {"total_parameters": 20, "trainable_parameters": 10, "data_fingerprint": "f" * 16}
    outcomes.save(resolved.run_dir / "outcomes.npz")
    if measures is not None:
        measures.save(resolved.run_dir / "measures.npz")
    if selection is not None:
        selection.save(resolved.run_dir / "selection.npz")
    record = RunRecord(resolved.run_dir, {**names, **numbers, **kept, "finished": True, **info})
    record.write()
    return record
