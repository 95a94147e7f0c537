"""Made-up rows, pages and tracks for the tests of results, plan and report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spatialbench.config.evaluations import evaluations_of
from spatialbench.config.experiment import Resolved
from spatialbench.config.pages import Track
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.ratio import Margins
from spatialbench.results.files import Row, make_row, result_path, write_row
from spatialbench.results.run_folder import RunRecord
from spatialbench.results.schema import PAIRS, Parameters, SeedRun
from spatialbench.results.stale import Today
from spatialbench.training.collect import identity

TRACK = """\
name: rooms
seeds: [0, 1, 2]
trainer: {max_steps: 100}
data: {image_size: 96}
evaluations:
  regions: {class_path: spatialbench.evaluation.regions.RegionEvaluation}
  selection: {class_path: spatialbench.evaluation.selection.ImageSelection}
budgets:
  smoke: {trainer: {max_steps: 2}}
  quick: {trainer: {max_steps: 10}}
  full: {trainer: {max_steps: 100}}
"""

FLAWS = """\
flaws:
  - {name: none, about: As it is.}
  - {name: worse, about: Worse., layer: {model: {width: 2}}}
  - {name: vfm, about: Random., pages: [spatial_attn], layer: {model: {width: 3}}}
  - {name: ties, about: Ties., recount: {ties_wrong: true}}
"""


class FakeMethod:
    """The class of the made-up pages."""

    def __init__(self, width: int = 1) -> None: ...


def page_text(extra: str = "") -> str:
    """Text of a page of ``FakeMethod``."""
    head = "# A paper.\n#   spatialbench fit --config x\nmodel:\n"
    return f"{head}  class_path: tests.support.fakes.FakeMethod\n{extra}"


def benchmarks(folder: Path, *names: str) -> Path:
    """Make a folder with pages of these names and the track ``rooms``."""
    (folder / "tracks").mkdir(parents=True, exist_ok=True)
    (folder / "tracks" / "rooms.yaml").write_text(TRACK)
    for name in names:
        (folder / f"{name}.yaml").write_text(page_text())
    return folder


def audited(folder: Path, flaws: str = FLAWS) -> Path:
    """Make a folder with the two pages of the audit, a track of the rooms, and flaws."""
    benchmarks(folder, "clip_finetune", "spatial_attn")
    track = folder / "tracks" / "rooms.yaml"
    track.write_text(TRACK.replace("data: {", "data: {source: rooms, "))
    (folder / "audit").mkdir(exist_ok=True)
    (folder / "audit" / "flaws.yaml").write_text(flaws)
    return folder


def pairs(seed: int, shift: float = 0.3, per_relation: int = 20, data: str = "f" * 16) -> Evidence:
    """Random answers of one seed to 6 * per_relation records in scenes of three."""
    n = 6 * per_relation
    margins = np.random.default_rng(seed).normal(shift, 1, n).astype(np.float32) / 100
    ids = np.array([f"rooms-test-{index:05d}" for index in range(n)])
    scenes = np.array([f"room {index // 3}" for index in range(n)])
    relations = np.tile(RELATIONS, per_relation)
    answers = Margins(ids, relations, {"": margins[None]}, RELATIONS)
    return Evidence(scenes, {}, data, margins=answers)


def answered(evidence: Evidence, margins: np.ndarray) -> Evidence:
    """Give the same records other margins, float [S, N] or [N]."""
    assert evidence.margins is not None
    values = {"": np.atleast_2d(margins).astype(np.float32)}
    return replace(evidence, margins=evidence.margins._replace(values=values))


def regions(seed: int, level: float = 0.5, images: int = 60, data: str = "d" * 16) -> Evidence:
    """Random measures of one seed: hits of four classes, an area by image, retrieval.

    Scenes have two images.

    Args:
        level: share of the boxes that are right, in [0, 1]; the area follows it.
    """
    rng, whole = np.random.default_rng(seed), np.ones(images)
    boxes = np.random.default_rng(0).integers(0, 4, (images, 4))  # the same for every seed
    ratios = {
        "same_mask": (np.clip(rng.normal(level, 0.1, images), 0, 1), whole),
        "box_top1": (rng.binomial(boxes, level).astype(float), boxes.astype(float)),
        "image_r1": (rng.integers(0, 2, images).astype(float), whole),
    }
    order = ("box_top1", "same_mask", "image_r1")
    scenes = [f"room {index // 2}" for index in range(images)]
    return Evidence.of(scenes, {name: ratios[name] for name in order}, data)


def selection(seed: int, level: float = 0.5, count: int = 60, data: str = "s" * 16) -> Evidence:
    """Random image selection of one seed: three patterns of equally many pairs.

    Args:
        level: share of the pairs that are right by the embedding; with the patches 0.2 fewer.
    """
    rng = np.random.default_rng(seed)
    groups = np.eye(3)[np.arange(count) % 3]
    right = [rng.random(count) < share for share in (level, level - 0.2)]
    names = ("select_cls", "select_local")
    ratios = {name: (groups * won[:, None], groups) for name, won in zip(names, right, strict=True)}
    scenes = [f"room {index // 2}" for index in range(count)]
    return Evidence.of(scenes, ratios, data, ("left", "colour", "presence"))


MAKERS = {PAIRS: pairs, "regions": regions, "selection": selection}


def seeds_of(
    evaluation: str, name: str, seeds: Sequence[int] = (0, 1, 2), **kwargs: object
) -> list[Evidence]:
    """Random evidence of a row by seed; ``kwargs``: see the evaluation's function above."""
    start = sum(map(ord, name))
    return [MAKERS[evaluation](1000 * seed + start, **kwargs) for seed in seeds]  # type: ignore[operator]


def stamped(evidence: Evidence, evaluation: str, track: Track, budget: str) -> Evidence:
    """Note the settings of the track and a commit in evidence."""
    spec = evaluations_of(track, budget).get(evaluation)
    return replace(evidence, settings=spec.settings if spec else "", commits=("a" * 40,))


def seed_run(seed: int) -> SeedRun:
    """Make up a run of 100 steps."""
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
    )


def row(
    name: str,
    folder: Path,
    seeds: Sequence[int] = (0, 1, 2),
    shift: float = 0.3,
    budget: str = "full",
    track: str = "rooms",
    **evidence: Sequence[Evidence],
) -> Row:
    """Make the row of the page ``name`` in the benchmarks ``folder``, as it would be made today.

    Args:
        shift: moves the accuracy of the pair test.
        evidence: evaluation -> evidence of each seed. Random for the pair test, where not given.
    """
    today = Today.read(folder, audit=True)
    known = today.tracks[track]
    evidence = {PAIRS: seeds_of(PAIRS, name, seeds, shift=shift), **evidence}
    return make_row(
        [seed_run(seed) for seed in seeds],
        {
            own: [stamped(found, own, known, budget) for found in evidence[own]]
            for own in (PAIRS, *(own for own in evidence if own != PAIRS))
        },
        parameters=Parameters(total=2_000_000, trainable=1_500_000),
        **{**identity(today.pages[name], known, budget), "page": f"benchmarks/{name}.yaml"},
    )


def store(results: Path, name: str, folder: Path, **kwargs: object) -> Path:
    """Write a row (see ``row``) where the table looks for it; return its path."""
    made = row(name, folder, **kwargs)  # type: ignore[arg-type]
    path = result_path(results, made.result.track, made.result.budget, name)
    write_row(path, made)
    return path


def write_metrics(folder: Path, offset: float = 0.0) -> Path:
    """Write the metrics of a run into a new folder; a kill cut the last line short."""
    folder.mkdir(parents=True)
    points = [{"step": k, "train/loss": offset + 2 / (k + 1), "lr": 0.1} for k in range(400)]
    points += [
        {"step": step, "val/all": 50 + step / 100, "val/left": 50 + step / 10} for step in (99, 399)
    ]
    lines = [json.dumps(point) for point in points]
    lines += ["no JSON", '{"step": 5, "train/loss": NaN}', '{"step": 7, "train/lo']
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return folder


def write_run(resolved: Resolved, evidence: Mapping[str, Evidence], **info: object) -> RunRecord:
    """Write a finished run folder, as ``spatialbench.training.fit.fit`` leaves it."""
    names = {"page": resolved.page.name, "track": resolved.track.name, "budget": resolved.budget}
    numbers = {"total_parameters": 20, "trainable_parameters": 10}
    kept = vars(seed_run(resolved.seed))
    record = RunRecord(resolved.run_dir, {**names, **numbers, **kept, "finished": True, **info})
    for name, found in evidence.items():
        stamped(found, name, resolved.track, resolved.budget).save(record.evidence(name))
    record.write()
    return record
