"""Made-up rows for the tests of the report: images of noise, curves and hostile names."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.embspatial.embspatial_export import export
from spatialbench.evaluation.pairs import answers
from spatialbench.report.html.inputs import ReportInputs
from spatialbench.results.files import write_row
from tests.support import fakes, tiny

EVIL = '</script><img src=x onerror="window.hacked=1"><b>'
"""A text that would run if it were ever taken for markup."""

TRACK = """\
name: rooms
seeds: [0, 1]
trainer: {{max_steps: 6, accelerator: cpu, devices: 1}}
data:
  {{source: embspatial, path: {folder}/test.json, train_path: {folder}/test.json, image_size: 32}}
model: {{student: {folder}/tiny-student.json}}
evaluations:
  regions: {{class_path: spatialbench.evaluation.regions.RegionEvaluation}}
  selection: {{class_path: spatialbench.evaluation.selection.ImageSelection}}
budgets: {{full: {{}}, smoke: {{trainer: {{max_steps: 2}}}}}}
"""
PAPERS = """\
- {name: b, paper: "Someone <i>2024</i>", table: Table 1, row: B, accuracy: {left: 71.5, all: 66.0}}
"""
CLAIM = "- {{claim: {}, paper: P, track: rooms, row: {}, than: {}, column: all, expect: higher}}\n"
CLAIMS = CLAIM.format(json.dumps(f"b is better {EVIL}"), "b", "a")
CLAIMS += CLAIM.format("c is better.", "c", "b")


def folders(base: Path) -> tuple[Path, Path]:
    """Make the rows a (near chance), b (better), c and zeroshot on 24 records of noise.

    Returns:
        The folders of results and of benchmarks.
    """
    benchmarks, results = base / "benchmarks", base / "results"
    (benchmarks / "tracks").mkdir(parents=True)
    (benchmarks / "tiny-student.json").write_text(json.dumps(tiny.STUDENT))
    (benchmarks / "tracks" / "rooms.yaml").write_text(TRACK.format(folder=benchmarks))
    export(tiny.record_set("test", 4, 1), benchmarks / "test.json")
    for name in ("a", "b", "c"):
        tiny.page(benchmarks, name)
    tiny.page(benchmarks, "zeroshot", rest="trainer: {max_steps: 0}\n")
    for name, shift in (("a", 0.0), ("b", 2.5), ("c", 0.5), ("zeroshot", 0.0)):
        store(results, benchmarks, name, shift)
    (results / "reported.yaml").write_text(PAPERS)
    (results / "claims.yaml").write_text(CLAIMS)
    return results, benchmarks


def store(results: Path, benchmarks: Path, name: str, shift: float) -> None:
    """Store a row of two seeds on test.json, with hostile texts; ``a`` has the pair test alone."""
    data = PairDataModule(path=str(benchmarks / "test.json"), image_size=32)
    data.setup("test")
    records, pairs = data.test_set.records, []
    for seed in (0, 1):
        rng = np.random.default_rng([seed, *name.encode()])
        margins = rng.normal(shift, 1, len(records)).astype(np.float32) / 100
        pairs.append(answers(records, {"": margins}, data.test_set.fingerprint))
    evidence = {"pairs": pairs}
    if name != "a":
        evidence["regions"] = fakes.seeds_of("regions", name, (0, 1))
    if name in ("b", "c"):
        evidence["selection"] = fakes.seeds_of("selection", name, (0, 1))
    row = fakes.row(name, benchmarks, (0, 1), **evidence)
    evil = {"hardware": {"cpu": EVIL, "cores": 2}, "versions": {"torch": EVIL}}
    result = replace(row.result, runs=[replace(run, **evil) for run in row.result.runs])
    write_row(results / "rooms" / f"{name}.json", replace(row, result=result))


def run_folder(inputs: ReportInputs, name: str, place: int = 0) -> Path:
    """Make a run folder of a row with curves and no weights."""
    (row,) = [row for row in inputs.rows if row.result.name == name]
    return fakes.write_metrics(inputs.run_folder(row, place))


def read(base: tuple[Path, Path], runs: Path) -> ReportInputs:
    """Read the inputs of the report of (results, benchmarks)."""
    return ReportInputs.read(*base, "rooms", runs=runs)
