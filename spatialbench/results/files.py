"""Result files: made, written, read, and recounted from the evidence beside them.

``results/<track>/<row>.json`` holds a :class:`Result`; ``<row>.<evaluation>.npz`` beside it the
evidence of each evaluation, so that any two rows can be compared unit by unit. A file whose numbers
do not follow from its evidence is refused. Rows of another budget than ``full``, and evaluations
stored by themselves, have a folder of their own: ``results/<track>/smoke/<row>.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatialbench.evaluation.evidence import Evidence
from spatialbench.results.schema import (
    PAIRS,
    SCHEMA_VERSION,
    EvaluationResult,
    Result,
    SeedRun,
    evidence_file,
)
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.typed_files import dump_json, load_json, parse

STORED_BUDGET = "full"
"""The budget of the rows of the table."""
ADVICE = "restore it from git, or make it again: spatialbench run <page> --force"
TOLERANCES = {"value": 1e-3, "by_seed": 1e-3, "groups": 1e-3, "interval": 0.2}
"""Percentage points by which a stored number may differ from the recomputed one."""


@dataclass(frozen=True)
class Row:
    """A stored row and its evidence.

    Attributes:
        evidence: name of an evaluation -> evidence of all seeds.
        stale: why it is not what would be made today; empty when it is.
    """

    result: Result
    evidence: Mapping[str, Evidence]
    stale: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Name of the row."""
        return self.result.name

    @property
    def pairs(self) -> Evidence:
        """Evidence of the pair test."""
        return self.evidence[PAIRS]


def result_path(results: Path, track: str, folder: str, name: str) -> Path:
    """Path of a result file.

    Args:
        folder: a budget, or the name of an evaluation that is stored by itself.
    """
    parent = results / track if folder == STORED_BUDGET else results / track / folder
    return parent / f"{name}.json"


def list_results(results: Path, track: str, folder: str = STORED_BUDGET) -> list[Path]:
    """List the result files of a track, by name."""
    return sorted(result_path(results, track, folder, "x").parent.glob("*.json"))


def make_row(
    runs: Sequence[SeedRun], evidence: Mapping[str, Sequence[Evidence]], **identity: Any
) -> Row:
    """Make a row from its runs.

    Args:
        runs: one for each seed.
        evidence: name -> evidence of each run, in the order of ``runs``.
        identity: the other fields of ``Result``: name, page, page_hash, track, ...

    Raises:
        SpatialbenchError: the seeds were evaluated on different data.
    """
    joined = {name: Evidence.join(seeds) for name, seeds in evidence.items()}
    evaluations = {
        name: _numbers(evidence_file(identity["name"], name), found)
        for name, found in joined.items()
    }
    seeds = [run.seed for run in runs]
    result = Result(
        schema_version=SCHEMA_VERSION,
        seeds=seeds,
        runs=list(runs),
        evaluations=evaluations,
        **identity,
    )
    return Row(result, joined)


def _numbers(file: str, evidence: Evidence) -> EvaluationResult:
    names = list(evidence.ratios)
    bounds = {name: evidence.interval(name) for name in names}
    return EvaluationResult(
        file=file,
        sha256=evidence.digest,
        units=evidence.units,
        data=evidence.data,
        settings=evidence.settings,
        commits=list(dict.fromkeys(evidence.commits)),
        value={name: _rounded(value) for name, value in evidence.values().items()},
        interval={
            name: None if pair is None else [round(bound, 3) for bound in pair]
            for name, pair in bounds.items()
        },
        by_seed={
            name: [_rounded(v) for v in evidence.seed_values(name).tolist()] for name in names
        },
        groups={
            name: {label: _rounded(v) for label, v in evidence.group_values(name).items()}
            for name in (names if evidence.labels else [])
        },
        notes=dict(evidence.notes),
    )


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def write_row(path: Path, row: Row) -> None:
    """Write the evidence and then the result, each atomically; delete evidence of an earlier row.

    Raises:
        SpatialbenchError: they do not belong together, or the folder cannot be written.
    """
    check_row(path, row)
    for name, evidence in row.evidence.items():
        evidence.save(path.with_name(evidence_file(row.name, name)))
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
    if version != SCHEMA_VERSION:
        raise SpatialbenchError(
            f"{path}: field 'schema_version': this spatialbench reads {SCHEMA_VERSION}, got "
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
    """Recount: every number of the result follows from its evidence.

    Raises:
        SpatialbenchError: the first number that does not.
    """
    if row.result.evaluations.keys() != row.evidence.keys():
        raise SpatialbenchError(f"{path}: result and evidence hold different evaluations; {ADVICE}")
    for name, evidence in row.evidence.items():
        stated = row.result.evaluations[name]
        if evidence.seeds != len(row.result.seeds):
            _refuse(
                path, stated.file, f"{name}: seeds", row.result.seeds, f"{evidence.seeds} seeds"
            )
        found = _numbers(stated.file, evidence)
        for field in ("units", "data", "settings", "commits", "notes"):
            if getattr(stated, field) != getattr(found, field):
                where = f"evaluations.{name}.{field}"
                _refuse(path, stated.file, where, getattr(stated, field), getattr(found, field))
        for field, tolerance in TOLERANCES.items():
            difference = _difference(getattr(stated, field), getattr(found, field), tolerance)
            if difference is not None:
                place, old, new = difference
                _refuse(path, stated.file, f"evaluations.{name}.{field}{place}", old, new)
        if stated.sha256 != found.sha256:
            where = f"evaluations.{name}.sha256"
            _refuse(path, stated.file, where, stated.sha256, found.sha256)


def _difference(stated: Any, found: Any, tolerance: float) -> tuple[str, Any, Any] | None:
    """First place at which two numbers, or nested lists or mappings of numbers, differ."""
    if isinstance(stated, dict) and isinstance(found, dict):
        if list(stated) != list(found):
            return "", ", ".join(stated), ", ".join(found)
        pairs = [(f".{key}", stated[key], found[key]) for key in stated]
    elif isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        inner = zip(stated, found, strict=True)
        return next(
            (("", stated, found) for a, b in inner if _difference(a, b, tolerance) is not None),
            None,
        )
    else:
        numbers = isinstance(stated, float | int) and isinstance(found, float | int)
        same = abs(stated - found) <= tolerance if numbers else stated == found
        return None if same else ("", stated, found)
    for place, a, b in pairs:
        difference = _difference(a, b, tolerance)
        if difference is not None:
            return place + difference[0], *difference[1:]
    return None


def _refuse(path: Path, file: str, field: str, stated: object, found: object) -> None:
    raise SpatialbenchError(
        f"{path}: field {field!r} says {stated}, but the evidence gives {found}: the file was "
        f"edited, or {file} belongs to another result; {ADVICE}"
    )
