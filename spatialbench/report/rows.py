"""The rows of a table: read, checked and put in order; and the papers' own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from spatialbench.config.evaluations import evaluations_of
from spatialbench.config.pages import Track
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.evidence import same_units
from spatialbench.evaluation.pairs import COLUMNS, PairEvaluation
from spatialbench.results.files import STORED_BUDGET, Row, list_results, read_row
from spatialbench.results.schema import PAIRS, Result
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean
from spatialbench.utils.typed_files import parse

ADVICE = "see the head of results/reported.yaml for its form"
AGAIN = "make the old ones again: spatialbench run <pages> --force"


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
                known = ", ".join(COLUMNS)
                raise ValueError(f"unknown column {column!r} of {self.name}; known: {known}")
            if not 0 <= value <= 100:
                raise ValueError(f"{column} of {self.name} is {value}, not a percentage")

    def column(self, name: str) -> float | None:
        """Percent as printed; macro, where not printed, is the mean of the six relations."""
        if name == "macro" and name not in self.accuracy and set(RELATIONS) <= set(self.accuracy):
            return sum(self.accuracy[relation] for relation in RELATIONS) / len(RELATIONS)
        return self.accuracy.get(name)


@dataclass(frozen=True)
class _ReportedFile:
    rows: list[Reported]


def read_papers(results: Path) -> list[Reported]:
    """Read the papers' numbers in results/reported.yaml; none where there is no such file.

    Raises:
        SpatialbenchError: bad YAML, a wrong field.
    """
    path = results / "reported.yaml"
    data = reported_items(path) if path.exists() else []
    own = [item for item in data if not _of_benchmark(item)] if isinstance(data, list) else data
    return parse(_ReportedFile, {"rows": own}, str(path), ADVICE).rows


def published_items(path: Path) -> list[Any]:
    """Return the items of results/reported.yaml that are numbers of a benchmark.

    Raises:
        SpatialbenchError: bad YAML.
    """
    data = reported_items(path)
    return [item for item in data if _of_benchmark(item)] if isinstance(data, list) else []


def _of_benchmark(item: Any) -> bool:
    return isinstance(item, dict) and "benchmark" in item


def reported_items(path: Path) -> Any:
    """Return the content of results/reported.yaml.

    Raises:
        SpatialbenchError: it cannot be read, or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise SpatialbenchError(f"{path}: cannot be read ({reason}); {ADVICE}") from error


def evaluation_classes(track: Track | None, budget: str) -> dict[str, type[Evaluation]]:
    """Return the classes behind a track's evaluations, by name, the pair test first."""
    specs = {} if track is None else evaluations_of(track, budget)
    return {PAIRS: PairEvaluation, **{name: spec.cls for name, spec in specs.items()}}


def read_rows(
    results: Path,
    benchmarks: Path,
    track: str,
    folder: str = STORED_BUDGET,
    order: Sequence[str] = (),
) -> list[Row]:
    """Read the rows of a track, recounted, in the order of the table.

    Args:
        folder: a budget, or an evaluation that is stored by itself.
        order: names that come first, in this order; the others follow by name.

    Raises:
        SpatialbenchError: a file is damaged, or the rows were not made on the same data.
    """
    today = Today.read(benchmarks)
    rows = [read_stored(path, today) for path in list_results(results, track, folder)]
    check_comparable(results / track, rows)
    place = {name: number for number, name in enumerate(dict.fromkeys(order))}
    return sorted(rows, key=lambda row: (place.get(row.name, len(place)), row.name))


def stored_rows(results: Path, benchmarks: Path, track: str, folder: str) -> list[Row]:
    """Read the rows of a track in the order of the papers' numbers, one at least.

    Raises:
        SpatialbenchError: no rows, a damaged row, rows of different data.
    """
    order = [paper.name for paper in read_papers(results)]
    rows = read_rows(results, benchmarks, track, folder, order)
    if not rows:
        raise no_rows(results, Today.read(benchmarks), track, folder)
    return rows


def read_stored(path: Path, today: Today) -> Row:
    """Read one row, recounted, and note why it is stale.

    Raises:
        SpatialbenchError: the file, or the evidence beside it, is missing or damaged.
    """
    row = read_row(path)
    return replace(row, stale=today.stale(row.result))


def no_rows(
    results: Path, today: Today, track: str, budget: str, name: str = ""
) -> SpatialbenchError:
    """Say that there is no row (of this name): what was misspelt, or what makes it."""
    what = f"no row {name!r}" if name else "no rows"
    text = f"{what} of track {track} at budget {budget} in {results}"
    if track not in today.tracks:
        return SpatialbenchError(text + did_you_mean(Path(track).stem, today.tracks))
    budgets = today.tracks[track].budgets
    if budget not in budgets:
        return SpatialbenchError(text + did_you_mean(budget, budgets))
    stored = {size: [path.stem for path in list_results(results, track, size)] for size in budgets}
    others = [size for size, names in stored.items() if (name in names if name else names)]
    if others:
        return SpatialbenchError(f"{text}, but at {', '.join(others)}: --budget {others[0]}")
    if name and stored[budget]:
        return SpatialbenchError(text + did_you_mean(Path(name).stem, stored[budget]))
    command = f"spatialbench run benchmarks/*.yaml --track {track} --budget {budget}"
    return SpatialbenchError(f"{text}: {command}")


def check_comparable(where: Path, rows: Sequence[Row]) -> None:
    """Refuse rows of one table that were not evaluated on the same data.

    Raises:
        SpatialbenchError: the rows that differ from the others.
    """
    check_results_comparable(where, [row.result for row in rows])
    for name in dict.fromkeys(name for row in rows for name in row.evidence):
        with_evidence = [row for row in rows if name in row.evidence]
        first = with_evidence[0].evidence[name]
        for row in with_evidence[1:]:
            other = row.evidence[name]
            shared = first.group_counts.keys() & other.group_counts.keys()
            groups = all(first.group_counts[key] == other.group_counts[key] for key in shared)
            units = other.margins is not None or same_units(first, other)
            if not (groups and units and first.labels == other.labels):
                raise SpatialbenchError(
                    f"{where}: {name} of {row.name} and {with_evidence[0].name} have the same hash "
                    f"of data, but not the same {'groups' if units else 'units'}; {AGAIN}"
                )


def check_results_comparable(where: Path, results: Sequence[Result]) -> None:
    """Refuse results of different tracks, budgets, captions or data.

    Raises:
        SpatialbenchError: the results that differ from the others.
    """
    fields = {field: [(r.name, getattr(r, field)) for r in results] for field in _SHARED}
    for name in dict.fromkeys(name for result in results for name in result.evaluations):
        some = [r for r in results if name in r.evaluations]
        fields[f"data of {name}"] = [(r.name, r.evaluations[name].data) for r in some]
    for field, pairs in fields.items():
        found: dict[str, list[str]] = {}
        for name, value in pairs:
            found.setdefault(value, []).append(name)
        if len(found) > 1:
            groups = "; ".join(f"{value}: {', '.join(names)}" for value, names in found.items())
            what = _SHARED.get(field, field)
            raise SpatialbenchError(
                f"{where}: rows of different {what} cannot share a table ({groups}); {AGAIN}"
            )


_SHARED = {"track": "tracks", "budget": "budgets", "grammar": "captions"}
