"""What was measured beside the pairs, in the result of a row: made from a file of measures, and recounted from it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from spatialbench.evaluation.measures import MeasureResampler, Measures
from spatialbench.results.row_schema import MeasuresFile, Result, SelectionFile
from spatialbench.utils.errors import SpatialbenchError

ADVICE = "restore it from git, or make it again: spatialbench run <page> --force"
KINDS = ("measures", "selection")
"""Fields of a result that a file beside it bears out: ``<row>.measures.npz``, ``<row>.selection.npz``."""


INTERVAL_TOLERANCE = 0.2
"""Percentage points by which a stored interval may differ from the recomputed one."""


def file_name(row: str, kind: str) -> str:
    """The file of the outcomes, or of one of ``KINDS``, beside the result of a row."""
    return f"{row}.{kind}.npz"


def measures_file(row: str, measures: Measures | None) -> MeasuresFile | None:
    """What regions, dense quality and retrieval come to."""
    return None if measures is None else MeasuresFile(**_fields(row, "measures", measures))


def selection_file(row: str, measures: Measures | None) -> SelectionFile | None:
    """What image selection comes to, by pattern, too."""
    if measures is None:
        return None
    return SelectionFile(**_fields(row, "selection", measures), patterns=patterns(measures))


def patterns(measures: Measures) -> dict[str, dict[str, float]]:
    """Measure -> name of a group -> percent, mean over seeds."""
    found = {name: measures.group_values(name).mean(0) for name in measures.ratios}
    return {
        name: {
            label: round(float(value), 4)
            for label, value in zip(measures.labels, values, strict=True)
        }
        for name, values in found.items()
    }


def _fields(row: str, kind: str, measures: Measures) -> dict[str, Any]:
    draws = MeasureResampler(measures.scenes)
    return {
        "file": file_name(row, kind),
        "sha256": measures.digest,
        "pictures": measures.pictures,
        "data": measures.data,
        "settings": measures.settings,
        "commits": list(dict.fromkeys(measures.commits)),
        "value": {name: round(value, 4) for name, value in measures.values().items()},
        "interval": {
            name: [round(bound, 3) for bound in draws.interval(ratio)]
            for name, ratio in measures.ratios.items()
        },
    }


def load(path: Path, result: Result, kind: str) -> Measures | None:
    """Reads the file of one of ``KINDS`` beside the result file ``path`` and recounts it; None for a row without.

    Raises:
        SpatialbenchError: it is missing or damaged, belongs to another result, or the result's numbers do not follow
            from it.
    """
    stated: MeasuresFile | None = getattr(result, kind)
    if stated is None:
        return None
    measures = Measures.load(path.with_name(stated.file), ADVICE)
    recount(path, result, kind, measures)
    return measures


def recount(path: Path, result: Result, kind: str, measures: Measures) -> None:
    """Raises unless digest, seeds, pictures, values and intervals are those of ``measures``."""
    stated: MeasuresFile = getattr(result, kind)
    refuse = partial(disagree, path, "measures", stated.file)
    if measures.seeds != len(result.seeds):
        refuse("seeds", result.seeds, f"{measures.seeds} seeds")
    for field in ("pictures", "data", "settings"):
        if getattr(stated, field) != getattr(measures, field):
            refuse(f"{kind}.{field}", getattr(stated, field), getattr(measures, field))
    found = measures.values()
    if list(stated.value) != list(found):
        refuse(f"{kind}.value", ", ".join(stated.value), ", ".join(found))
    for name, value in found.items():
        if abs(stated.value[name] - value) > 1e-3:
            refuse(f"{kind}.value.{name}", stated.value[name], round(value, 4))
    if isinstance(stated, SelectionFile):
        for name, groups in patterns(measures).items():
            if list(groups) != list(stated.patterns[name]):
                refuse(
                    f"{kind}.patterns.{name}", ", ".join(stated.patterns[name]), ", ".join(groups)
                )
            for pattern, value in groups.items():
                if abs(stated.patterns[name][pattern] - value) > 1e-3:
                    refuse(
                        f"{kind}.patterns.{name}.{pattern}", stated.patterns[name][pattern], value
                    )
    if stated.sha256 != measures.digest:
        refuse(f"{kind}.sha256", stated.sha256, measures.digest)
    draws = MeasureResampler(measures.scenes)
    for name, ratio in measures.ratios.items():
        if apart(stated.interval[name], interval := draws.interval(ratio)):
            refuse(f"{kind}.interval.{name}", stated.interval[name], shown(interval))


def apart(stated: Sequence[float] | None, found: Sequence[float] | None) -> bool:
    """Whether a stored interval is not the recomputed one."""
    if stated is None or found is None:
        return (stated is None) != (found is None)
    return (
        max(abs(one - other) for one, other in zip(stated, found, strict=True)) > INTERVAL_TOLERANCE
    )


def shown(interval: Sequence[float] | None) -> list[float] | None:
    """An interval as a result file has it."""
    return None if interval is None else [round(bound, 3) for bound in interval]


def disagree(
    path: Path, what: str, file: str, field: str, stated: object, found: object
) -> NoReturn:
    """Raises: a result says one thing and the file beside it another."""
    raise SpatialbenchError(
        f"{path}: field {field!r}: says {stated} but the {what} give {found}: the file was edited, or {file} belongs "
        f"to another result; {ADVICE}"
    )
