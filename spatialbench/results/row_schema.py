"""What a result file holds: one row of the table, where it comes from, and what was counted.

Letters: S seeds, N records, M pictures.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.measures import TITLES
from spatialbench.evaluation.scores import Count, Scores
from spatialbench.evaluation.statistics import COLUMNS, spread

SCHEMA_VERSION = 3
"""Version 2 added ``measures``, version 3 ``selection``; an earlier file is read as one without."""
ADDED = {"measures": 2, "selection": 3}
"""Field -> the version that added it."""


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
        commit, dirty: of the code that made it; dirty: what ran differed from the commit.
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
            raise ValueError(
                f"relations must be {', '.join(RELATIONS)} in this order, found {list(self.relations)}"
            )
        for relation, counts in self.relations.items():
            if (
                counts.n < 0
                or counts.correct < 0
                or counts.ties < 0
                or counts.correct + counts.ties > counts.n
            ):
                raise ValueError(
                    f"relations.{relation}: {counts.correct} right and {counts.ties} ties of {counts.n}"
                )


@dataclass(frozen=True)
class OutcomesFile:
    """The file beside the result, the digest of its content, and its number of records."""

    file: str
    sha256: str
    records: int


@dataclass(frozen=True)
class MeasuresFile:
    """The file of measures beside the result, and what it comes to.

    Attributes:
        file: its name. sha256: digest of its content.
        pictures: M. data: hash of the pictures, regions and captions.
        settings: hash of the track's settings; commits: of the code that measured, each once.
        value: measure -> percent, mean over seeds.
        interval: measure -> 95 % interval in percent (bootstrap over scenes and seeds).
    """

    file: str
    sha256: str
    pictures: int
    data: str
    settings: str
    commits: list[str]
    value: dict[str, float]
    interval: dict[str, list[float]]

    def __post_init__(self) -> None:
        if not self.value or list(self.value) != [name for name in TITLES if name in self.value]:
            raise ValueError(
                f"value must have some of {', '.join(TITLES)} in this order, found {list(self.value)}"
            )
        if list(self.interval) != list(self.value):
            raise ValueError(
                f"interval must have the measures of value, found {list(self.interval)}"
            )
        if any(len(bounds) != 2 for bounds in self.interval.values()):
            raise ValueError("an interval has two bounds")
        if not self.file or Path(self.file).name != self.file:
            raise ValueError(
                f"the file of measures must lie beside the result, found {self.file!r}"
            )


@dataclass(frozen=True)
class SelectionFile(MeasuresFile):
    """The file of image selection beside the result: ``pictures`` is the number of pairs.

    Attributes:
        patterns: measure -> pattern -> percent, mean over seeds.
    """

    patterns: dict[str, dict[str, float]]

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [list(found) for found in self.patterns.values()]
        if list(self.patterns) != list(self.value) or any(found != names[0] for found in names):
            raise ValueError(
                "patterns must have the measures of value, and all of them the same patterns"
            )


@dataclass(frozen=True)
class Result:
    """One row.

    Attributes:
        schema_version: of this form, ``SCHEMA_VERSION``, whatever the version of the file it was read from.
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
        measures: regions, dense quality and retrieval; None where they were not measured.
        selection: image selection, likewise.
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
    measures: MeasuresFile | None = None
    selection: SelectionFile | None = None

    def __post_init__(self) -> None:
        if (
            not self.runs
            or self.seeds != [run.seed for run in self.runs]
            or len(set(self.seeds)) != len(self.seeds)
        ):
            raise ValueError(
                f"seeds {self.seeds} do not name the runs {[run.seed for run in self.runs]}, each once"
            )
        for field in ("accuracy", "interval"):
            if list(getattr(self, field)) != list(COLUMNS):
                raise ValueError(f"{field} must have the columns {', '.join(COLUMNS)}")
        if any(bounds is not None and len(bounds) != 2 for bounds in self.interval.values()):
            raise ValueError("an interval has two bounds")
        if not self.outcomes.file or Path(self.outcomes.file).name != self.outcomes.file:
            raise ValueError(
                f"the outcomes file must lie beside the result, found {self.outcomes.file!r}"
            )

    @property
    def n(self) -> int:
        """Records of the test."""
        return self.outcomes.records

    @property
    def made(self) -> list[tuple[str, bool]]:
        """Commit of the code of every run, and whether tracked files differed from it."""
        return [(run.commit, run.dirty) for run in self.runs]

    @property
    def command(self) -> str:
        """What makes the row again, from nothing."""
        seeds = ",".join(map(str, self.seeds))
        where = ["--track", self.track, "--budget", self.budget, "--seeds", seeds]
        return shlex.join(["spatialbench", "run", self.page, *where, "--force"])

    @property
    def counts(self) -> dict[str, int]:
        """Records by relation."""
        return {relation: found.n for relation, found in self.runs[0].relations.items()}

    def spread(self) -> dict[str, float | None]:
        """Column -> standard deviation over seeds in percentage points; None for one seed or no records."""
        rows = [Scores(run.relations).accuracy() for run in self.runs]
        spreads = {column: spread([row[column] for row in rows]) for column in COLUMNS}
        return {
            column: None if self.accuracy[column] is None else spreads[column] for column in COLUMNS
        }
