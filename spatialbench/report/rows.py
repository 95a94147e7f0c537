"""The rows of a table: read, checked and put in order; and the papers' own numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spatialbench.config.evaluations import evaluations_of
from spatialbench.config.pages import FAMILIES, Track
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.base import Evaluation
from spatialbench.evaluation.evidence import same_units
from spatialbench.evaluation.pairs import COLUMNS, PairEvaluation
from spatialbench.results.files import STORED_BUDGET, Row, list_results
from spatialbench.results.schema import PAIRS, Result
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean
from spatialbench.utils.typed_files import parse

REPORTED = "reported.yaml"
ADVICE = "see the head of results/reported.yaml for its form"
AGAIN = "make the old ones again: spatialbench run <pages> --force"


def check_printed(of: str, kind: str, printed: Mapping[str, float], known: Sequence[str]) -> None:
    """Refuse printed numbers with an unknown key, or that are not percentages."""
    for key, value in printed.items():
        if key not in known:
            raise ValueError(f"unknown {kind} {key!r} of {of}; known: {', '.join(known)}")
        if not 0 <= value <= 100:
            raise ValueError(f"{key} of {of} is {value}, not a percentage")


@dataclass(frozen=True)
class Reported:
    """The numbers that a paper prints for a method of ours; see results/reported.yaml."""

    name: str  # our page
    paper: str
    table: str
    row: str
    accuracy: dict[str, float]  # column -> percent, as printed
    trainable: float | None = None  # millions of trainable parameters, where printed

    def __post_init__(self) -> None:
        check_printed(self.name, "column", self.accuracy, COLUMNS)

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
    items = {"rows": reported_items(results, of_benchmarks=False)}
    return parse(_ReportedFile, items, str(results / REPORTED), ADVICE).rows


def reported_items(results: Path, of_benchmarks: bool) -> Any:
    """Return the items of results/reported.yaml about benchmarks, or those about rows.

    Raises:
        SpatialbenchError: it cannot be read, or is not YAML.
    """
    data = read_yaml(results / REPORTED, ADVICE)
    if not isinstance(data, list):
        return data
    return [x for x in data if (isinstance(x, dict) and "benchmark" in x) == of_benchmarks]


def read_yaml(path: Path, advice: str) -> Any:
    """Return the content of a YAML file; an empty list where there is none.

    Raises:
        SpatialbenchError: it cannot be read, or is not YAML; ``advice`` is the way out.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise SpatialbenchError(f"{path}: cannot be read ({reason}); {advice}") from error


def evaluation_classes(track: Track | None, budget: str) -> dict[str, type[Evaluation]]:
    """Return the classes behind a track's evaluations, by name, the pair test first."""
    specs = {} if track is None else evaluations_of(track, budget)
    return {PAIRS: PairEvaluation, **{name: spec.cls for name, spec in specs.items()}}


def read_rows(
    results: Path, benchmarks: Path, track: str, folder: str = STORED_BUDGET
) -> list[Row]:
    """Read the rows of a track, recounted, by family, the papers' order, and name.

    Args:
        folder: a budget, or an evaluation that is stored by itself.

    Raises:
        SpatialbenchError: a file is damaged, or the rows were not made on the same data.
    """
    today = Today.read(benchmarks)
    rows = [today.read_row(path) for path in list_results(results, track, folder)]
    check_comparable(results / track, rows)
    order, families = [paper.name for paper in read_papers(results)], list(FAMILIES)

    def place(row: Row) -> tuple[int, int, str]:
        return families.index(row.family), [*order, row.name].index(row.name), row.name

    return sorted(rows, key=place)


def by_family(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Family -> names of its rows."""
    families: dict[str, list[str]] = {}
    for row in rows:
        families.setdefault(row.family, []).append(row.name)
    return families


def stored_rows(results: Path, benchmarks: Path, track: str, folder: str) -> list[Row]:
    """Read the rows of a track, at least one.

    Raises:
        SpatialbenchError: no rows, a damaged row, rows of different data.
    """
    rows = read_rows(results, benchmarks, track, folder)
    if not rows:
        raise no_rows(results, Today.read(benchmarks), track, folder)
    return rows


def no_rows(
    results: Path, today: Today, track: str, budget: str, name: str = ""
) -> SpatialbenchError:
    """Error for a missing row, or for no rows: what was misspelt, or the command to run."""
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
    """Refuse rows of one table of different tracks, budgets, captions or data."""
    _check_results([row.result for row in rows], where)
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


def _check_results(results: Sequence[Result], where: Path) -> None:
    shared = {"tracks": "track", "budgets": "budget", "captions": "grammar"}
    fields = {
        what: [(r.name, getattr(r, field)) for r in results] for what, field in shared.items()
    }
    for name in dict.fromkeys(name for result in results for name in result.evaluations):
        some = [r for r in results if name in r.evaluations]
        fields[f"data of {name}"] = [(r.name, r.evaluations[name].data) for r in some]
    for what, pairs in fields.items():
        names: dict[str, list[str]] = {}
        for name, value in pairs:
            names.setdefault(value, []).append(name)
        if len(names) > 1:
            groups = "; ".join(f"{value}: {', '.join(some)}" for value, some in names.items())
            raise SpatialbenchError(
                f"{where}: rows of different {what} cannot share a table ({groups}); {AGAIN}"
            )
