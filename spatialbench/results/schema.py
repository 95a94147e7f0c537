"""The content of a result file: one row of the table, its provenance, and its numbers.

Letters: S seeds, U units.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

PAIRS = "pairs"
"""Name of the evaluation that every row of the table has."""
SCHEMA_VERSION = 4


@dataclass(frozen=True)
class Parameters:
    """Number of parameters, all and those that training changes."""

    total: int
    trainable: int


@dataclass(frozen=True)
class SeedRun:
    """One run: a page with one seed.

    Attributes:
        config_hash: hash of the complete configuration without the seed.
        commit, dirty: commit of the code, and whether the code differed from it.
        wall_seconds: stage -> seconds, and ``total``.
        peak_memory_mb, peak_gpu_memory_mb: largest memory of the process, 10^6 bytes.
        train_steps: optimiser steps.
        train_pairs: records seen in training, repeats counted; None: not counted.
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


@dataclass(frozen=True)
class EvaluationResult:
    """The numbers of one evaluation, and the evidence file beside the result.

    Attributes:
        file, sha256: the evidence file, and the digest of its content.
        units: U.
        data: hash of the data.
        settings: hash of the evaluation's settings and version.
        commits: of the code that evaluated, each once.
        value: measure -> percent, mean over seeds; None where no unit counts.
        interval: measure -> 95 % interval in percent, over clusters and seeds.
        by_seed: measure -> percent, float [S].
        groups: measure -> group -> percent, mean over seeds; empty where groups have no names.
        notes: what the evaluation says about these data.
    """

    file: str
    sha256: str
    units: int
    data: str
    settings: str
    commits: list[str]
    value: dict[str, float | None]
    interval: dict[str, list[float] | None]
    by_seed: dict[str, list[float | None]]
    groups: dict[str, dict[str, float | None]]
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.value:
            raise ValueError("value must have a measure")
        for name in ("interval", "by_seed"):
            if list(getattr(self, name)) != list(self.value):
                raise ValueError(f"{name} must have the measures of value")
        if any(bounds is not None and len(bounds) != 2 for bounds in self.interval.values()):
            raise ValueError("an interval has two bounds")
        if not self.file or Path(self.file).name != self.file:
            raise ValueError(f"the evidence must lie beside the result, got {self.file!r}")


@dataclass(frozen=True)
class Result:
    """One row.

    Attributes:
        name: stem of the page.
        page, page_hash: path of the page, and the hash of its content for this budget.
        track, track_hash: the controlled variables, for this budget.
        init_from: page -> hash, of every page that the weights start from.
        budget: ``full`` for the rows of the table.
        grammar: hash of the captions of the six relations.
        seeds: S.
        runs: one for each seed.
        evaluations: name -> numbers.
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
    parameters: Parameters
    seeds: list[int]
    runs: list[SeedRun]
    evaluations: dict[str, EvaluationResult]

    def __post_init__(self) -> None:
        seeds = [run.seed for run in self.runs]
        if not seeds or self.seeds != seeds or len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds {self.seeds} do not name the runs {seeds}, each once")
        if not self.evaluations:
            raise ValueError("evaluations must have one at least")
        for name, found in self.evaluations.items():
            if found.file != evidence_file(self.name, name):
                wanted = evidence_file(self.name, name)
                raise ValueError(f"evaluations.{name}.file must be {wanted}, got {found.file}")

    @property
    def pairs(self) -> EvaluationResult:
        """The pair test."""
        return self.evaluations[PAIRS]

    @property
    def made(self) -> list[tuple[str, bool]]:
        """Commit of the code of every run, and whether the code differed from it."""
        return [(run.commit, run.dirty) for run in self.runs]

    @property
    def command(self) -> str:
        """The command that makes the row again from nothing."""
        seeds = ",".join(map(str, self.seeds))
        where = ["--track", self.track, "--budget", self.budget, "--seeds", seeds]
        return shlex.join(["spatialbench", "run", self.page, *where, "--force"])


def evidence_file(row: str, evaluation: str) -> str:
    """Name of the evidence file beside the result of a row."""
    return f"{row}.{evaluation}.npz"
