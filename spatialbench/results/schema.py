"""The content of a result file: one row of the table, its provenance, and its numbers.

Letters: S seeds, U units.
"""

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
    """One run: a page with one seed."""

    seed: int
    config_hash: str  # of the complete configuration without the seed
    commit: str  # of the code that trained
    dirty: bool  # whether the code differed from it
    versions: dict[str, str]
    hardware: dict[str, str | int | float | None]
    wall_seconds: dict[str, float]  # by stage, and ``total``
    peak_memory_mb: float  # of the process, 10^6 bytes
    peak_gpu_memory_mb: float
    train_steps: int  # of the optimiser
    train_pairs: int | None  # records seen in training, repeats counted; None: not counted


@dataclass(frozen=True)
class EvaluationResult:
    """The numbers of one evaluation, and the evidence file beside the result."""

    file: str  # with the evidence
    sha256: str  # of its content
    units: int  # U
    data: str  # hash of the data
    settings: str  # hash of the evaluation's settings and version
    commits: list[str]  # of the code that evaluated, each once
    value: dict[str, float | None]  # by measure: percent, mean over seeds; None: no unit counts
    interval: dict[str, list[float] | None]  # 95 % interval in percent, over clusters and seeds
    by_seed: dict[str, list[float | None]]  # percent, float [S]
    groups: dict[str, dict[str, float | None]]  # measure -> group, if named -> percent
    notes: dict[str, str] = field(default_factory=dict)  # about these data

    def __post_init__(self) -> None:
        if not self.value:
            raise ValueError("value must have a measure")
        for name in ("interval", "by_seed"):
            if list(getattr(self, name)) != list(self.value):
                raise ValueError(f"{name} must have the measures of value")
        if any(bounds is not None and len(bounds) != 2 for bounds in self.interval.values()):
            raise ValueError("an interval has two bounds")


@dataclass(frozen=True)
class Result:
    """One row."""

    schema_version: int
    name: str  # stem of the page
    page: str  # path of the page
    page_hash: str  # of its content for this budget
    track: str
    track_hash: str  # of the controlled variables for this budget
    init_from: dict[str, str]  # hash of every page that the weights start from, by name
    budget: str  # ``full`` for the rows of the table
    grammar: str  # hash of the captions of the six relations
    parameters: Parameters
    seeds: list[int]
    runs: list[SeedRun]  # one for each seed
    evaluations: dict[str, EvaluationResult]

    def __post_init__(self) -> None:
        seeds = [run.seed for run in self.runs]
        if not seeds or self.seeds != seeds or len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds {self.seeds} do not name the runs {seeds}, each once")
        if not self.evaluations:
            raise ValueError("evaluations must have one at least")
        for name, found in self.evaluations.items():
            wanted = evidence_file(self.name, name)
            if found.file != wanted or Path(wanted).name != wanted:
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
        """The command that makes the row again: from nothing; of the audit, if it is stale."""
        track, flaw, _ = self.track.partition("+")
        where = ["--track", track, "--budget", self.budget]
        where += ["--seeds", ",".join(map(str, self.seeds))]
        words = ["audit", *where] if flaw else ["run", self.page, *where, "--force"]
        return shlex.join(["spatialbench", *words])


def evidence_file(row: str, evaluation: str) -> str:
    """Name of the evidence file beside the result of a row."""
    return f"{row}.{evaluation}.npz"
