"""Do the stored results still hold? Hashes, recounts, the table file; and whether a smoke run repeats."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from spatialbench.config.pages import Page, Track
from spatialbench.report.controls import problems as check_controls
from spatialbench.report.measures import check_measured_alike
from spatialbench.report.readme import readme
from spatialbench.report.stored_rows import check_mergeable
from spatialbench.results.curves import curves_path, read_curves
from spatialbench.results.files import (
    list_results,
    read_outcomes,
    read_result,
    result_path,
)
from spatialbench.results.measures import KINDS, file_name, load
from spatialbench.results.schema import Result
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.verify.repeat import Fit, compare, make_again, say

SMOKE = "smoke"


def check_results(
    results: str | Path = "results",
    benchmarks: str | Path = "benchmarks",
    smoke: bool = True,
    fit: Fit | None = None,
    pages: Sequence[str] = (),
) -> list[str]:
    """Everything that is wrong with the stored results, one line each; empty when they hold.

    Args:
        results, benchmarks: folders.
        smoke: also repeat the smoke runs, which takes minutes.
        fit: makes one run; None: ``spatialbench.training.fit.fit``.
        pages: names or paths: only their rows, none: all, the controls and the table.

    Raises:
        SpatialbenchError: no folder of results, or an unknown page.
    """
    results, benchmarks = Path(results), Path(benchmarks)
    if not results.is_dir():
        raise SpatialbenchError(
            f"no results in {results}, which is no folder; give --results FOLDER"
        )
    try:
        today = Today.read(benchmarks)
    except SpatialbenchError as error:
        return [str(error)]
    if pages:
        today = today.only(pages)
        problems = [
            problem for path in _rows_of(results, today) for problem in check_row(path, today)[0]
        ]
        problems += _without_row(results, today)
    else:
        problems = (
            check_stored(results, today)
            + check_controls(results, today)
            + check_readme(results, benchmarks)
        )
    return problems + (check_smoke(results, today, fit) if smoke else [])


def _rows_of(results: Path, today: Today) -> list[Path]:
    """The result files of the pages of ``today``, of every track and budget."""
    budgets = [(track.name, budget) for track in today.tracks.values() for budget in track.budgets]
    found = [path for track, budget in budgets for path in list_results(results, track, budget)]
    return [path for path in found if path.stem in today.pages]


def _without_row(results: Path, today: Today) -> list[str]:
    there = {path.stem for path in _rows_of(results, today)}
    missing = [page for page in today.pages.values() if page.name not in there]
    return [
        f"{results}: no row of page {page.name}; spatialbench run {page.path}" for page in missing
    ]


# ----------------------------------------------------------------------------------------------------- what is stored


def check_stored(results: Path, today: Today) -> list[str]:
    """Every row of every budget: valid, recounted, current; rows of a table on the same data; no file without row."""
    problems = []
    for folder in sorted(path for path in results.glob("*") if _beside(path)):
        if folder.name not in today.tracks:
            problems.append(
                f"{folder}: results of a track that is gone; delete them, or restore the track"
            )
            continue
        for budget in today.tracks[folder.name].budgets:
            rows = []
            for path in list_results(results, folder.name, budget):
                found, result = check_row(path, today)
                problems += found
                rows += [] if result is None else [result]
            try:
                check_mergeable(folder, rows)
                for kind in KINDS:
                    check_measured_alike(folder, rows, kind)
            except SpatialbenchError as error:
                problems.append(str(error))
        problems += _strays(folder)
    return problems


def _strays(folder: Path) -> list[str]:
    """Outcomes without a result file, measures (or selection) without a result file that has some."""
    named: set[Path] = set()
    for path in folder.rglob("*.json"):
        named.add(path.with_name(f"{path.stem}.outcomes.npz"))
        try:
            result = read_result(path)
        except SpatialbenchError:
            result = None  # told by check_row; nothing beside a damaged file is to be deleted
        there = [kind for kind in KINDS if result is None or getattr(result, kind) is not None]
        named.add(curves_path(path))
        named |= {path.with_name(file_name(path.stem, kind)) for kind in there}
    return [
        f"{path}: no result file names it; delete it"
        for path in _beside(folder)
        if path not in named
    ]


def _beside(folder: Path) -> list[Path]:
    """The files that lie beside results."""
    endings = *(f"{kind}.npz" for kind in ("outcomes", *KINDS)), "curves.jsonl"
    return sorted(path for ending in endings for path in folder.rglob(f"*.{ending}"))


def check_row(path: Path, today: Today) -> tuple[list[str], Result | None]:
    """The problems of one result file, and the result where it can be read."""
    try:
        result = read_result(path)
    except SpatialbenchError as error:
        return [str(error)], None
    try:
        read_outcomes(path, result)
        for kind in KINDS:
            load(path, result, kind)
        read_curves(path, result)
    except SpatialbenchError as error:
        return [str(error)], result
    return [f"{path}: stale, {reason}; {result.command}" for reason in today.stale(result)], result


def check_readme(results: Path, benchmarks: Path) -> list[str]:
    """Whether results/README.md is what ``make table`` would write now."""
    path = results / "README.md"
    try:
        wanted = readme(results, benchmarks)
    except SpatialbenchError as error:
        return [f"{path}: cannot be made: {error}"]
    if not path.exists() or path.read_text(encoding="utf-8") != wanted:
        return [f"{path} is not what the result files give; make table"]
    return []


# ---------------------------------------------------------------------------------------------------------- smoke runs


def check_smoke(results: Path, today: Today, fit: Fit | None = None) -> list[str]:
    """Repeats the smoke run of every page on every track that has stored smoke results, and compares."""
    tracks = [name for name in today.tracks if list_results(results, name, SMOKE)]
    if not tracks:
        return [
            f"{results}: no stored smoke results; spatialbench run benchmarks/*.yaml --budget smoke --seeds 0"
        ]
    if fit is None:
        from spatialbench.training import fit as training

        fit = partial(training.fit, show=False)
    problems = []
    with tempfile.TemporaryDirectory(prefix="spatialbench-smoke-") as folder:
        for name in tracks:
            for page in today.pages.values():
                try:
                    problems += _repeat(results, page, today.tracks[name], fit, Path(folder))
                except SpatialbenchError as error:
                    problems.append(f"smoke run of {page.name} on {name}: {error}")
    return problems


def _repeat(results: Path, page: Page, track: Track, fit: Fit, runs: Path) -> list[str]:
    path = result_path(results, track.name, SMOKE, page.name)
    if not path.exists():
        return [
            f"{path}: no stored smoke result; spatialbench run {page.path} --track {track.name} --budget smoke"
        ]
    stored = read_result(path)
    before = read_outcomes(path, stored)
    made = make_again(page, track, SMOKE, stored.seeds, runs, fit)
    found = compare(stored, before, made.result, made.outcomes)
    say(f"smoke run of {page.name}: {found.summary}")
    return [f"smoke run of {page.name} on {track.name}: {problem}" for problem in found.problems]
