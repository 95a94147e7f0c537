"""The result file: made, written, read, and recounted from what lies beside it.

``results/<track>/<name>.json`` holds a :class:`Result`; ``<name>.outcomes.npz`` beside it the margin of every record
and seed, so that any two rows can be compared record by record; ``<name>.measures.npz``, where regions, dense quality
and retrieval were measured, their :class:`Measures` of all seeds, and ``<name>.selection.npz`` those of image selection
(``result_measures.py``). A file whose numbers do not follow from these is refused. Rows of another budget than ``full``
live in a folder of their own: ``results/<track>/smoke/<name>.json``.

Letters: S seeds, N records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spatialbench.evaluation.measures import Measures
from spatialbench.evaluation.outcomes import RunOutcomes, check_records
from spatialbench.evaluation.scores import Scores, count
from spatialbench.evaluation.statistics import COLUMNS, accuracy, bootstrap
from spatialbench.results.measures import (
    ADVICE,
    KINDS,
    apart,
    disagree,
    file_name,
    load,
    measures_file,
    recount,
    selection_file,
    shown,
)
from spatialbench.results.row_schema import ADDED, SCHEMA_VERSION, OutcomesFile, Result, SeedRun
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.npz import digest, npz_bytes, read_npz
from spatialbench.utils.typed_files import dump_json, load_json, parse

STORED_BUDGET = "full"
"""The budget of the rows of the table."""


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
                    raise SpatialbenchError(
                        "the seeds were scored on different records; run them again with --force"
                    )
        margins = compact(np.stack([run.margin for run in runs]))
        return cls(first.record_ids, first.relation, first.cluster, margins)

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            name: getattr(self, name) for name in ("record_ids", "relation", "cluster", "margins")
        }

    def scores(self) -> list[Scores]:
        """Counts by relation of each seed."""
        return [count(row, self.relation) for row in self.margins]

    def aligned(self, other: ResultOutcomes) -> np.ndarray:
        """The margins in the order of the records of ``other``, float16 [S, N].

        Raises:
            SpatialbenchError: the two were not made on the same records, or not in the same relations and scenes.
        """
        order = np.arange(len(self.record_ids))
        if not np.array_equal(self.record_ids, other.record_ids):
            mine, theirs = np.argsort(self.record_ids), np.argsort(other.record_ids)
            if not np.array_equal(self.record_ids[mine], other.record_ids[theirs]):
                raise SpatialbenchError(
                    "rows of different records cannot be compared; make them again on the same data"
                )
            order[theirs] = mine
        for name, what in (("relation", "relations"), ("cluster", "scenes")):
            if not np.array_equal(getattr(self, name)[order], getattr(other, name)):
                raise SpatialbenchError(
                    f"rows of the same records in different {what} cannot be compared; make them again on the same data"
                )
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


def make_result(
    runs: Sequence[SeedRun],
    outcomes: ResultOutcomes,
    measures: Measures | None = None,
    selection: Measures | None = None,
    **identity: Any,
) -> Result:
    """A row from its runs and outcomes: adds accuracy, measures, intervals and the files beside it.

    Args:
        runs: one for each seed, in the order of ``outcomes.margins``.
        measures, selection: of the same seeds in the same order, where there are any.
        identity: the other fields of ``Result``: name, page, page_hash, track, ...
    """
    margins = outcomes.margins.astype(np.float32)
    found = accuracy(margins, outcomes.relation)
    bounds = bootstrap(margins, outcomes.relation, outcomes.cluster)
    return Result(
        schema_version=SCHEMA_VERSION,
        **identity,
        seeds=[run.seed for run in runs],
        accuracy={
            name: None if np.isnan(value) else round(value, 4) for name, value in found.items()
        },
        interval={
            name: None if pair is None else [round(bound, 3) for bound in pair]
            for name, pair in bounds.items()
        },
        outcomes=OutcomesFile(
            f"{identity['name']}.outcomes.npz", digest(outcomes.arrays()), len(outcomes.record_ids)
        ),
        runs=list(runs),
        measures=measures_file(identity["name"], measures),
        selection=selection_file(identity["name"], selection),
    )


def write_result(
    path: Path,
    result: Result,
    outcomes: ResultOutcomes,
    measures: Measures | None = None,
    selection: Measures | None = None,
) -> None:
    """Writes outcomes, measures and result, each in one step, the result last; measures of an earlier row go.

    Raises:
        SpatialbenchError: they do not belong together, or the folder cannot be written.
    """
    _recount(path, result, outcomes)
    beside = dict(zip(KINDS, (measures, selection), strict=True))
    for kind, found in beside.items():
        if (found is None) != (getattr(result, kind) is None):
            raise SpatialbenchError(
                f"{path}: field {kind!r}: the result and its {kind} must be given together"
            )
        if found is not None:
            recount(path, result, kind, found)
    write_atomic(path.with_name(result.outcomes.file), npz_bytes(outcomes.arrays()))
    for kind, found in beside.items():
        if found is not None:
            found.save(path.with_name(file_name(result.name, kind)))
    write_atomic(path, dump_json(result))
    for kind, found in beside.items():
        if found is None:
            path.with_name(file_name(result.name, kind)).unlink(missing_ok=True)


def read_result(path: Path) -> Result:
    """Reads and validates a result file (not what lies beside it); of an earlier version without what that lacked.

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
    if type(version) is int and 1 <= version < SCHEMA_VERSION:
        for field, added in ADDED.items():
            if version < added and field in data:
                raise SpatialbenchError(
                    f"{path}: field {field!r}: unknown in schema_version {version}; {ADVICE}"
                )
        data = {**data, "schema_version": SCHEMA_VERSION}
    result = parse(Result, data, str(path), ADVICE)
    if result.schema_version != SCHEMA_VERSION:
        raise SpatialbenchError(
            f"{path}: field 'schema_version': expected 1 to {SCHEMA_VERSION}, found {version}; {ADVICE}"
        )
    if result.name != path.stem:
        raise SpatialbenchError(
            f"{path}: field 'name': says {result.name!r}; give the file back its name"
        )
    for kind in ("outcomes", *KINDS):
        stated, wanted = getattr(result, kind), file_name(result.name, kind)
        if stated is not None and stated.file != wanted:
            raise SpatialbenchError(
                f"{path}: field '{kind}.file': expected {wanted}, found {stated.file}; {ADVICE}"
            )
    return result


def read_outcomes(path: Path, result: Result) -> ResultOutcomes:
    """Reads the outcomes beside the result file ``path`` and recounts them.

    Raises:
        SpatialbenchError: they are missing or damaged, belong to another result, or the result's numbers do not follow
            from them.
    """
    file = path.with_name(result.outcomes.file)
    arrays = read_npz(
        file, {"record_ids": "U", "relation": "U", "cluster": "U", "margins": "f"}, ADVICE
    )
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


def read_measures(path: Path, result: Result) -> Measures | None:
    """Reads the measures beside the result file ``path`` and recounts them; None for a row without.

    Raises:
        SpatialbenchError: see ``result_measures.load``.
    """
    return load(path, result, "measures")


def read_selection(path: Path, result: Result) -> Measures | None:
    """Reads image selection beside the result file, likewise."""
    return load(path, result, "selection")


def _recount(path: Path, result: Result, outcomes: ResultOutcomes) -> None:
    """Raises unless digest, counts, averages, accuracies and intervals of ``result`` are those of ``outcomes``."""
    refuse = partial(disagree, path, "outcomes", result.outcomes.file)
    for index, (run, scores) in enumerate(zip(result.runs, outcomes.scores(), strict=True)):
        for relation, counts in scores.relations.items():
            if run.relations[relation] != counts:
                refuse(f"runs[{index}].relations.{relation}", run.relations[relation], counts)
        for field, found in (("micro", scores.micro), ("macro", scores.macro)):
            if abs(getattr(run, field) - found) > 1e-3:
                refuse(f"runs[{index}].{field}", getattr(run, field), round(found, 4))
    for column, value in accuracy(outcomes.margins, outcomes.relation).items():
        stated = result.accuracy[column]
        if (stated is None) != bool(np.isnan(value)) or (
            stated is not None and abs(stated - value) > 1e-3
        ):
            refuse(f"accuracy.{column}", stated, round(value, 4))
    content = digest(outcomes.arrays())
    if result.outcomes.records != len(outcomes.record_ids):
        refuse("outcomes.records", result.outcomes.records, len(outcomes.record_ids))
    if result.outcomes.sha256 != content:
        refuse("outcomes.sha256", result.outcomes.sha256, content)
    bounds = bootstrap(outcomes.margins, outcomes.relation, outcomes.cluster)
    for column in COLUMNS:
        if apart(result.interval[column], bounds[column]):
            refuse(f"interval.{column}", result.interval[column], shown(bounds[column]))


def list_results(results: Path, track: str, budget: str = STORED_BUDGET) -> list[Path]:
    """The result files of a track, by name."""
    folder = result_path(results, track, budget, "x").parent
    return sorted(folder.glob("*.json"))
