"""The result file: one row of the table, where it comes from, and the outcomes behind it.

``results/<track>/<name>.json`` holds a :class:`Result`; ``<name>.outcomes.npz`` beside it the margin of every record
and seed, so that any two rows can be compared record by record. A file whose numbers do not follow from its outcomes is
refused. Rows of another budget than ``full`` live in a folder of their own: ``results/<track>/smoke/<name>.json``.

Letters: S seeds, N records.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spatialbench.errors import SpatialbenchError, write_atomic
from spatialbench.evaluation.outcomes import RunOutcomes, check_records, digest, npz_bytes, read_npz
from spatialbench.evaluation.scores import Count, Scores, count
from spatialbench.evaluation.statistics import COLUMNS, accuracy, bootstrap, spread
from spatialbench.relations import RELATIONS
from spatialbench.schema import dump_json, load_json, parse

SCHEMA_VERSION = 1
ADVICE = "restore it from git, or make it again: spatialbench run <page> --force"
STORED_BUDGET = "full"
"""The budget of the rows of the table."""


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters: all of the model, and those that training changes."""

    total: int
    trainable: int


@dataclass(frozen=True)
class SeedRun:
    """One run: a page with one seed.

    Attributes:
        config_hash: hash of the complete configuration without the seed.
        commit, dirty: of the code that made it; dirty: tracked files differed from the commit.
        wall_seconds: stage -> seconds, and ``total``.
        peak_memory_mb: largest resident memory of the process, 10^6 bytes; peak_gpu_memory_mb: likewise on the GPU.
        train_steps: optimiser steps. train_pairs: records presented in training, repeats counted; None: not counted.
        relations: relation -> counts, all six.
        micro, macro: percent, All and the mean of the relations.
    """

    seed: int
    config_hash: str
    commit: str
    dirty: bool
    versions: dict[str, str]
    hardware: dict[str, str | int | float | None]
    wall_seconds: dict[str, float]
    peak_memory_mb: float
    peak_gpu_memory_mb: float
    train_steps: int
    train_pairs: int | None
    relations: dict[str, Count]
    micro: float
    macro: float

    def __post_init__(self) -> None:
        if list(self.relations) != list(RELATIONS):
            raise ValueError(f"relations must be {', '.join(RELATIONS)} in this order, found {list(self.relations)}")
        for relation, counts in self.relations.items():
            if counts.n < 0 or counts.correct < 0 or counts.ties < 0 or counts.correct + counts.ties > counts.n:
                raise ValueError(f"relations.{relation}: {counts.correct} right and {counts.ties} ties of {counts.n}")


@dataclass(frozen=True)
class OutcomesFile:
    """The file beside the result, the digest of its content, and its number of records."""

    file: str
    sha256: str
    records: int


@dataclass(frozen=True)
class Result:
    """One row.

    Attributes:
        schema_version: of this file's form.
        name: of the row, the stem of the page.
        page: the page's path. page_hash: of what the page says for this budget.
        track, track_hash: the controlled variables, likewise for this budget.
        init_from: page -> hash of the pages whose weights were the start, all the way back.
        budget: ``full`` for the rows of the table.
        grammar: hash of the captions of the six relations.
        data_fingerprint: of the test records and their images.
        runs: one for each seed, by seed.
        accuracy: column -> percent, mean over seeds; None for a relation without records.
        interval: column -> 95 % interval in percent (bootstrap over scenes and seeds).
    """

    schema_version: int
    name: str
    page: str
    page_hash: str
    track: str
    track_hash: str
    init_from: dict[str, str]
    budget: str
    grammar: str
    data_fingerprint: str
    parameters: Parameters
    seeds: list[int]
    accuracy: dict[str, float | None]
    interval: dict[str, list[float] | None]
    outcomes: OutcomesFile
    runs: list[SeedRun]

    def __post_init__(self) -> None:
        if not self.runs or self.seeds != [run.seed for run in self.runs] or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {self.seeds} do not name the runs {[run.seed for run in self.runs]}, each once")
        for field in ("accuracy", "interval"):
            if list(getattr(self, field)) != list(COLUMNS):
                raise ValueError(f"{field} must have the columns {', '.join(COLUMNS)}")
        if any(bounds is not None and len(bounds) != 2 for bounds in self.interval.values()):
            raise ValueError("an interval has two bounds")
        if Path(self.outcomes.file).name != self.outcomes.file:
            raise ValueError(f"the outcomes file must lie beside the result, found {self.outcomes.file!r}")

    @property
    def n(self) -> int:
        """Records of the test."""
        return self.outcomes.records

    @property
    def counts(self) -> dict[str, int]:
        """Records by relation."""
        return {relation: found.n for relation, found in self.runs[0].relations.items()}

    def spread(self) -> dict[str, float | None]:
        """Column -> standard deviation over seeds in percentage points; None for one seed or no records."""
        rows = [Scores(run.relations).accuracy() for run in self.runs]
        spreads = {column: spread([row[column] for row in rows]) for column in COLUMNS}
        return {column: None if self.accuracy[column] is None else spreads[column] for column in COLUMNS}


@dataclass(frozen=True)
class ResultOutcomes:
    """The outcomes behind a row.

    Attributes:
        record_ids, relation, cluster: str [N], as in ``RunOutcomes``.
        margins: float16 [S, N], s(image, caption) - s(image, negated caption); the sign is that of the float32 margin.
    """

    record_ids: np.ndarray
    relation: np.ndarray
    cluster: np.ndarray
    margins: np.ndarray

    @classmethod
    def join(cls, runs: Sequence[RunOutcomes]) -> ResultOutcomes:
        """Puts the seeds of one page together.

        Raises:
            SpatialbenchError: the runs were scored on different records.
        """
        first = runs[0]
        for other in runs[1:]:
            for name in ("record_ids", "relation", "cluster"):
                if not np.array_equal(getattr(first, name), getattr(other, name)):
                    raise SpatialbenchError("the seeds were scored on different records; run them again with --force")
        margins = compact(np.stack([run.margin for run in runs]))
        return cls(first.record_ids, first.relation, first.cluster, margins)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in ("record_ids", "relation", "cluster", "margins")}

    def scores(self) -> list[Scores]:
        """Counts by relation of each seed."""
        return [count(row, self.relation) for row in self.margins]

    def aligned(self, other: ResultOutcomes) -> np.ndarray:
        """The margins in the order of the records of ``other``, float16 [S, N].

        Raises:
            SpatialbenchError: the two were not made on the same records.
        """
        if np.array_equal(self.record_ids, other.record_ids):
            return self.margins
        mine, theirs = np.argsort(self.record_ids), np.argsort(other.record_ids)
        if not np.array_equal(self.record_ids[mine], other.record_ids[theirs]):
            raise SpatialbenchError("rows of different records cannot be compared; make them again on the same data")
        order = np.empty_like(mine)
        order[theirs] = mine
        return self.margins[:, order]


def compact(margins: np.ndarray) -> np.ndarray:
    """float16 of the same shape that keeps every sign: what float16 would round to zero gets its smallest number."""
    small = margins.astype(np.float16)
    lost = (small == 0) & (margins != 0)
    small[lost] = np.copysign(np.finfo(np.float16).smallest_subnormal, margins[lost])
    return small


def result_path(results: Path, track: str, budget: str, name: str) -> Path:
    """``results/<track>/<name>.json`` for the stored rows, ``results/<track>/<budget>/<name>.json`` for the others."""
    folder = results / track if budget == STORED_BUDGET else results / track / budget
    return folder / f"{name}.json"


def make_result(runs: Sequence[SeedRun], outcomes: ResultOutcomes, **identity: Any) -> Result:
    """A row from its runs and outcomes: adds accuracy, intervals and the file beside it.

    Args:
        runs: one for each seed, in the order of ``outcomes.margins``.
        identity: the other fields of ``Result``: name, page, page_hash, track, ...
    """
    margins = outcomes.margins.astype(np.float32)
    found = accuracy(margins, outcomes.relation)
    bounds = bootstrap(margins, outcomes.relation, outcomes.cluster)
    return Result(
        schema_version=SCHEMA_VERSION,
        **identity,
        seeds=[run.seed for run in runs],
        accuracy={name: None if np.isnan(value) else round(value, 4) for name, value in found.items()},
        interval={name: None if pair is None else [round(bound, 3) for bound in pair] for name, pair in bounds.items()},
        outcomes=OutcomesFile(f"{identity['name']}.outcomes.npz", digest(outcomes.arrays()), len(outcomes.record_ids)),
        runs=list(runs),
    )


def write_result(path: Path, result: Result, outcomes: ResultOutcomes) -> None:
    """Writes outcomes and result, each in one step, the result last.

    Raises:
        SpatialbenchError: the two do not belong together, or the folder cannot be written.
    """
    _recount(path, result, outcomes)
    write_atomic(path.with_name(result.outcomes.file), npz_bytes(outcomes.arrays()))
    write_atomic(path, dump_json(result))


def read_result(path: Path) -> Result:
    """Reads and validates a result file (not its outcomes).

    Raises:
        SpatialbenchError: which field is wrong, and what to do.
    """
    data = load_json(path, ADVICE)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SpatialbenchError(
            f"{path}: field 'schema_version': {version} is newer than this spatialbench reads ({SCHEMA_VERSION}); "
            "update spatialbench"
        )
    result = parse(Result, data, str(path), ADVICE)
    if result.schema_version != SCHEMA_VERSION:
        raise SpatialbenchError(f"{path}: field 'schema_version': expected {SCHEMA_VERSION}, found {version}; {ADVICE}")
    if result.name != path.stem:
        raise SpatialbenchError(f"{path}: field 'name': says {result.name!r}; give the file back its name")
    return result


def read_outcomes(path: Path, result: Result) -> ResultOutcomes:
    """Reads the outcomes beside the result file ``path`` and recounts them.

    Raises:
        SpatialbenchError: they are missing or damaged, belong to another result, or the result's numbers do not follow
            from them.
    """
    file = path.with_name(result.outcomes.file)
    arrays = read_npz(file, {"record_ids": "U", "relation": "U", "cluster": "U", "margins": "f"}, ADVICE)
    check_records(file, arrays["record_ids"], arrays["relation"], arrays["cluster"])
    outcomes = ResultOutcomes(**arrays)
    if outcomes.margins.shape != (len(result.seeds), len(outcomes.record_ids)):
        raise SpatialbenchError(
            f"{file}: margins of the shape {outcomes.margins.shape} for {len(result.seeds)} seeds and "
            f"{len(outcomes.record_ids)} records; {ADVICE}"
        )
    if not np.isfinite(outcomes.margins).all():
        raise SpatialbenchError(f"{file}: a margin is not a finite number; {ADVICE}")
    _recount(path, result, outcomes)
    return outcomes


def _recount(path: Path, result: Result, outcomes: ResultOutcomes) -> None:
    """Raises unless digest, counts, averages and accuracies of ``result`` are those of ``outcomes``."""

    def refuse(field: str, stated: object, found: object) -> None:
        raise SpatialbenchError(
            f"{path}: field {field!r}: says {stated} but the outcomes give {found}: the file was edited, or "
            f"{result.outcomes.file} belongs to another result; {ADVICE}"
        )

    for index, (run, scores) in enumerate(zip(result.runs, outcomes.scores(), strict=True)):
        for relation, counts in scores.relations.items():
            if run.relations[relation] != counts:
                refuse(f"runs[{index}].relations.{relation}", run.relations[relation], counts)
        for field, found in (("micro", scores.micro), ("macro", scores.macro)):
            if abs(getattr(run, field) - found) > 1e-3:
                refuse(f"runs[{index}].{field}", getattr(run, field), round(found, 4))
    for column, value in accuracy(outcomes.margins, outcomes.relation).items():
        stated = result.accuracy[column]
        if (stated is None) != bool(np.isnan(value)) or (stated is not None and abs(stated - value) > 1e-3):
            refuse(f"accuracy.{column}", stated, round(value, 4))
    content = digest(outcomes.arrays())
    if result.outcomes.records != len(outcomes.record_ids):
        refuse("outcomes.records", result.outcomes.records, len(outcomes.record_ids))
    if not re.fullmatch("[0-9a-f]{64}", result.outcomes.sha256) or result.outcomes.sha256 != content:
        refuse("outcomes.sha256", result.outcomes.sha256, content)


def list_results(results: Path, track: str, budget: str = STORED_BUDGET) -> list[Path]:
    """The result files of a track, by name."""
    folder = result_path(results, track, budget, "x").parent
    return sorted(folder.glob("*.json"))
