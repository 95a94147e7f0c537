"""The rows of a table: read, checked, put in order; and the papers' own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.statistics import COLUMNS
from spatialbench.results.files import (
    STORED_BUDGET,
    Result,
    ResultOutcomes,
    list_results,
    read_outcomes,
    read_result,
)
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean
from spatialbench.utils.typed_files import parse

ADVICE = "see the head of results/reported.yaml for its form"


@dataclass(frozen=True)
class Reported:
    """A number that a paper prints for a method of ours; see results/reported.yaml.

    Attributes:
        name: our page.
        paper, table, row: where it stands.
        accuracy: column -> percent, as printed.
        trainable: millions of trainable parameters, where printed.
    """

    name: str
    paper: str
    table: str
    row: str
    accuracy: dict[str, float]
    trainable: float | None = None

    def __post_init__(self) -> None:
        for column, value in self.accuracy.items():
            if column not in COLUMNS:
                raise ValueError(
                    f"unknown column {column!r} of {self.name}; known: {', '.join(COLUMNS)}"
                )
            if not 0 <= value <= 100:
                raise ValueError(f"{column} of {self.name} is {value}, not a percentage")

    def column(self, name: str) -> float | None:
        """Percent as printed; macro, where not printed, is the mean of the six relations."""
        if (
            name == "macro"
            and name not in self.accuracy
            and all(relation in self.accuracy for relation in RELATIONS)
        ):
            return sum(self.accuracy[relation] for relation in RELATIONS) / len(RELATIONS)
        return self.accuracy.get(name)


@dataclass(frozen=True)
class _ReportedFile:
    rows: list[Reported]


def read_reported(path: Path) -> list[Reported]:
    """Reads the papers' numbers for methods of ours, in the order of the file.

    Raises:
        SpatialbenchError: missing file, bad YAML, a wrong field.
    """
    data = _load(path)
    own = [item for item in data if not _of_benchmark(item)] if isinstance(data, list) else data
    return parse(_ReportedFile, {"rows": own}, str(path), ADVICE).rows


def published_items(path: Path) -> list[Any]:
    """The items of the same file that are numbers of a benchmark of ``--evaluation``, as they stand there.

    Raises:
        SpatialbenchError: missing file or bad YAML.
    """
    data = _load(path)
    return [item for item in data if _of_benchmark(item)] if isinstance(data, list) else []


def _of_benchmark(item: Any) -> bool:
    return isinstance(item, dict) and "benchmark" in item


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except FileNotFoundError as error:
        raise SpatialbenchError(f"{path}: no such file; restore it from git") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpatialbenchError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); {ADVICE}"
        ) from error


@dataclass(frozen=True)
class Row:
    """A stored row.

    Attributes:
        stale: why it is not what would be made today; empty when it is.
    """

    result: Result
    outcomes: ResultOutcomes
    stale: list[str]


def read_rows(
    results: Path,
    benchmarks: Path,
    track: str,
    budget: str = STORED_BUDGET,
    order: Sequence[str] = (),
) -> list[Row]:
    """The stored rows of a track, recounted, in the order of the table.

    Args:
        results, benchmarks: folders.
        order: names that come first, in this order; the others follow by name.

    Raises:
        SpatialbenchError: a file is damaged, or the rows were not made on the same data and cannot share a table.
    """
    today = Today.read(benchmarks)
    rows = [read_row(path, today) for path in list_results(results, track, budget)]
    check_mergeable(results / track, [row.result for row in rows])
    place = {name: number for number, name in enumerate(dict.fromkeys(order))}
    return sorted(rows, key=lambda row: (place.get(row.result.name, len(place)), row.result.name))


def no_rows(
    results: Path, today: Today, track: str, budget: str, name: str = ""
) -> SpatialbenchError:
    """That there is no row (of this name): what was misspelt, or at which budgets there is one, or what makes it."""
    what = f"no row {name!r}" if name else "no rows"
    text = f"{what} of track {track} at budget {budget} in {results}"
    if track not in today.tracks:
        return SpatialbenchError(text + did_you_mean(Path(track).stem, today.tracks))
    budgets = today.tracks[track].budgets
    if budget not in budgets:
        return SpatialbenchError(text + did_you_mean(budget, budgets))
    stored = {one: [path.stem for path in list_results(results, track, one)] for one in budgets}
    others = [one for one, names in stored.items() if (name in names if name else names)]
    if others:
        return SpatialbenchError(f"{text}, but at {', '.join(others)}: --budget {others[0]}")
    if name and stored[budget]:
        return SpatialbenchError(text + did_you_mean(Path(name).stem, stored[budget]))
    return SpatialbenchError(
        f"{text}: spatialbench run benchmarks/*.yaml --track {track} --budget {budget}"
    )


def read_row(path: Path, today: Today) -> Row:
    """The row of one result file, recounted.

    Raises:
        SpatialbenchError: the file, or what lies beside it, is missing or damaged.
    """
    result = read_result(path)
    return Row(result, read_outcomes(path, result), today.stale(result))


def check_mergeable(where: Path, results: Sequence[Result]) -> None:
    """Rows of one table are made on the same records, images and captions.

    Raises:
        SpatialbenchError: they are not; names the odd ones out.
    """
    for field, what in (
        ("track", "tracks"),
        ("budget", "budgets"),
        ("data_fingerprint", "data"),
        ("grammar", "captions"),
    ):
        found: dict[str, list[str]] = {}
        for result in results:
            found.setdefault(getattr(result, field), []).append(result.name)
        if len(found) > 1:
            groups = "; ".join(f"{value}: {', '.join(names)}" for value, names in found.items())
            raise SpatialbenchError(
                f"{where}: rows of different {what} cannot share a table ({groups}); make the old ones again: "
                f"spatialbench run <pages> --track {results[0].track} --budget {results[0].budget} --force"
            )
