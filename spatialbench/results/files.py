"""Result files: made, written, read, and recounted from the evidence beside them.

``results/<track>/<row>.json`` holds a :class:`Result`; ``<row>.<evaluation>.npz`` beside it the
evidence of each evaluation, so that any two rows can be compared unit by unit. A file whose numbers
do not follow from its evidence is refused. Rows of another budget than ``full``, and evaluations
stored by themselves, have a folder of their own: ``results/<track>/smoke/<row>.json``.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatialbench.config.pages import FAMILY
from spatialbench.evaluation.evidence import Evidence
from spatialbench.evaluation.ratio import Margins
from spatialbench.results import schema
from spatialbench.results.schema import PAIRS, EvaluationResult, Result, SeedRun
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.typed_files import dump_json, load_json, parse

STORED_BUDGET = "full"
"""The budget of the rows of the table."""
AUDIT = "audit"
"""Folder of the audit's rows in the folder of results, itself one of results by track."""
ADVICE = "restore it from git, or make it again: spatialbench run <page> --force"
TOLERANCES = {"value": 1e-3, "by_seed": 1e-3, "groups": 1e-3, "interval": 0.2}
"""Percentage points by which a stored number may differ from the recomputed one."""
COUNTED = ("units", "data", "settings", "commits", "notes", *TOLERANCES, "sha256")
"""The fields of an evaluation that follow from its evidence."""


@dataclass(frozen=True)
class Row:
    """A stored row and its evidence."""

    result: Result
    evidence: Mapping[str, Evidence]  # of all seeds, by the name of the evaluation
    stale: Sequence[str] = ()  # why it is not what would be made today
    family: str = FAMILY  # of its page

    @property
    def name(self) -> str:
        """Name of the row."""
        return self.result.name

    @property
    def pairs(self) -> Evidence:
        """Evidence of the pair test."""
        return self.evidence[PAIRS]

    @property
    def margins(self) -> Margins:
        """Answers to the pair test."""
        return self.pairs.known_margins


def result_path(results: Path, track: str, folder: str, name: str) -> Path:
    """Path of a result file; ``folder``: a budget, or an evaluation that is stored by itself."""
    parent = results / track if folder == STORED_BUDGET else results / track / folder
    return parent / f"{name}.json"


def list_results(results: Path, track: str, folder: str = STORED_BUDGET) -> list[Path]:
    """List the result files of a track, by name."""
    return sorted(result_path(results, track, folder, "x").parent.glob("*.json"))


def make_row(
    runs: Sequence[SeedRun], evidence: Mapping[str, Sequence[Evidence]], **identity: Any
) -> Row:
    """Make a row from its runs, one for each seed.

    Args:
        evidence: name -> evidence of each run, in the order of ``runs``.
        identity: the other fields of ``Result``: name, page, page_hash, track, ...

    Raises:
        SpatialbenchError: the seeds were evaluated on different data.
    """
    joined = {name: Evidence.join(seeds) for name, seeds in evidence.items()}
    files = {name: schema.evidence_file(identity["name"], name) for name in joined}
    numbers = {name: _numbers(files[name], found) for name, found in joined.items()}
    seeds = [run.seed for run in runs]
    result = Result(
        schema.SCHEMA_VERSION, seeds=seeds, runs=[*runs], evaluations=numbers, **identity
    )
    return Row(result, joined)


def _numbers(file: str, evidence: Evidence) -> EvaluationResult:
    measures = list(evidence.ratios)
    bounds = {name: evidence.interval(name) for name in measures}
    return EvaluationResult(
        file=file,
        sha256=evidence.digest,
        units=evidence.units,
        data=evidence.data,
        settings=evidence.settings,
        commits=list(dict.fromkeys(evidence.commits)),
        value={name: _rounded(value) for name, value in evidence.values().items()},
        interval={
            name: pair and [round(bound, 3) for bound in pair] for name, pair in bounds.items()
        },
        by_seed={name: [*map(_rounded, evidence.seed_values(name).tolist())] for name in measures},
        groups={
            name: {label: _rounded(value) for label, value in evidence.group_values(name).items()}
            for name in (measures if evidence.labels else [])
        },
        notes=dict(evidence.notes),
    )


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def write_row(path: Path, row: Row) -> None:
    """Write the evidence and then the result, atomically; delete evidence of an earlier row.

    Raises:
        SpatialbenchError: they do not belong together, or the folder cannot be written.
    """
    check_row(path, row)
    for name, evidence in row.evidence.items():
        evidence.save(path.with_name(schema.evidence_file(row.name, name)))
    write_atomic(path, dump_json(row.result))
    kept = {found.file for found in row.result.evaluations.values()}
    for other in path.parent.glob(f"{row.name}.*.npz"):
        if other.name not in kept:
            other.unlink()


def read_result(path: Path) -> Result:
    """Read and validate a result file, without its evidence.

    Raises:
        SpatialbenchError: the field that is wrong, and what to do.
    """
    data = load_json(path, ADVICE)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != schema.SCHEMA_VERSION:
        raise SpatialbenchError(
            f"{path}: field 'schema_version': this spatialbench reads {schema.SCHEMA_VERSION}, got "
            f"{version}; make the row again: spatialbench run <page> --force"
        )
    result = parse(Result, data, str(path), ADVICE)
    if result.name != path.stem:
        raise SpatialbenchError(f"{path}: field 'name' says {result.name!r}; rename the file back")
    return result


def read_row(path: Path) -> Row:
    """Read a result file and its evidence, and recount.

    Raises:
        SpatialbenchError: a file is missing or damaged, or the numbers differ from the evidence.
    """
    result = read_result(path)
    evidence = {
        name: Evidence.load(path.with_name(found.file), ADVICE)
        for name, found in result.evaluations.items()
    }
    row = Row(result, evidence)
    check_row(path, row)
    return row


def check_row(path: Path, row: Row) -> None:
    """Recount: refuse the first number of the result that does not follow from its evidence."""
    seeds = {evidence.seeds for evidence in row.evidence.values()}
    if row.result.evaluations.keys() != row.evidence.keys() or seeds != {len(row.result.seeds)}:
        what = f"{path}: result and evidence hold different evaluations or seeds"
        raise SpatialbenchError(f"{what}; {ADVICE}")
    for name, evidence in row.evidence.items():
        stated = row.result.evaluations[name]
        found = _numbers(stated.file, evidence)
        for field in COUNTED:
            old, new = getattr(stated, field), getattr(found, field)
            different = _difference(old, new, TOLERANCES.get(field, 0))
            if different is not None:
                place, old, new = different
                raise SpatialbenchError(
                    f"{path}: field 'evaluations.{name}.{field}{place}' says {old}, but the "
                    f"evidence gives {new}: the file was edited, or {stated.file} belongs to "
                    f"another result; {ADVICE}"
                )


def _difference(stated: Any, found: Any, tolerance: float) -> tuple[str, Any, Any] | None:
    """First place at which two values, or nested lists or mappings of values, differ."""
    if isinstance(stated, dict) and isinstance(found, dict):
        if list(stated) != list(found):
            return "", ", ".join(stated), ", ".join(found)
        for key, value in stated.items():
            if (inner := _difference(value, found[key], tolerance)) is not None:
                return f".{key}{inner[0]}", *inner[1:]
        return None
    if isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        pairs = zip(stated, found, strict=True)
        same = all(_difference(old, new, tolerance) is None for old, new in pairs)
    elif isinstance(stated, float | int) and isinstance(found, float | int):
        same = abs(stated - found) <= tolerance
    else:
        same = stated == found
    return None if same else ("", stated, found)
