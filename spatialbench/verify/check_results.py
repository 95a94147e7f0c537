"""Check of the stored results: hashes, recounts, the table, and repeated smoke runs."""

import multiprocessing
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from spatialbench.config.pages import Page, Track
from spatialbench.report.readme import readme
from spatialbench.report.rows import check_comparable
from spatialbench.results.curves import curves_path, read_curves
from spatialbench.results.files import AUDIT, Row, list_results, read_result, read_row, result_path
from spatialbench.results.run_folder import Fit
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress
from spatialbench.utils.provenance import commit
from spatialbench.utils.say import say
from spatialbench.verify.repeat import compare, make_again

SMOKE = "smoke"


def check_results(
    results: str | Path = "results",
    benchmarks: str | Path = "benchmarks",
    smoke: bool = True,
    fit: Fit | None = None,
    pages: Sequence[str] = (),
    processes: int = 1,
    sample: int = 0,
) -> list[str]:
    """List everything that is wrong with the stored results, one line each.

    Args:
        smoke: also repeat the smoke runs, which takes minutes, in ``processes`` processes.
        fit: see ``make_again``.
        sample: how many smoke runs are repeated, drawn by the commit, so that all have their turn;
            0: all.
        pages: names or paths; only their results are checked. Empty: all results and the table.

    Raises:
        SpatialbenchError: no folder of results, or an unknown page.
    """
    results, benchmarks = Path(results), Path(benchmarks)
    if not results.is_dir():
        what = f"no results in {results}, which is no folder"
        raise SpatialbenchError(f"{what}; give --results FOLDER")
    try:
        today = Today.read(benchmarks)
    except SpatialbenchError as error:
        return [str(error)]
    if pages:
        today = today.only(pages)
        problems = _check_pages(results, today)
    else:
        problems = check_stored(results, today) + check_readme(results, benchmarks)
        problems += check_stored(results / AUDIT, Today.read(benchmarks, audit=True))
    return problems + (check_smoke(results, today, fit, processes, sample) if smoke else [])


def _check_pages(results: Path, today: Today) -> list[str]:
    problems = []
    files = [path for track in today.tracks for path in sorted((results / track).rglob("*.json"))]
    for page in today.pages.values():
        own = [path for path in files if path.stem == page.name]
        if not own:
            problems.append(f"{results}: no row of page {page.name}; spatialbench run {page.path}")
        for path in own:
            problems += check_row(path, today)[0]
    return problems


def check_stored(results: Path, today: Today) -> list[str]:
    """Check the results of every track: valid, recounted, current, comparable, no stray files."""
    problems = []
    for track in sorted(path for path in results.glob("*") if _holds_rows(path)):
        if track.name == AUDIT:  # a folder of results of its own
            continue
        if track.name not in today.tracks:
            gone = "results of a track that is gone; delete them, or restore the track"
            problems.append(f"{track}: {gone}")
            continue
        for folder in (track, *sorted(path for path in track.iterdir() if path.is_dir())):
            checked = [check_row(path, today) for path in sorted(folder.glob("*.json"))]
            problems += [problem for found, _ in checked for problem in found]
            try:
                check_comparable(folder, [row for _, row in checked if row is not None])
            except SpatialbenchError as error:
                problems.append(str(error))
        problems += _strays(track)
    return problems


def _strays(track: Path) -> list[str]:
    """Files of evidence and curves that no result names."""
    named: set[Path] = set()
    for path in track.rglob("*.json"):
        try:
            evaluations = read_result(path).evaluations.values()
            named |= {curves_path(path), *(path.with_name(found.file) for found in evaluations)}
        except SpatialbenchError:  # told by check_row; nothing beside a damaged file is a stray
            named |= set(path.parent.glob(f"{path.stem}.*"))
    strays = [path for path in _evidence_files(track) if path not in named]
    return [f"{path}: no result file names it; delete it" for path in strays]


def _holds_rows(folder: Path) -> bool:
    return any(folder.rglob("*.json")) or bool(_evidence_files(folder))


def _evidence_files(track: Path) -> list[Path]:
    return sorted([*track.rglob("*.npz"), *track.rglob("*.curves.jsonl")])


def check_row(path: Path, today: Today) -> tuple[list[str], Row | None]:
    """Return the problems of one result file, and the row where it can be read."""
    try:
        row = today.read_row(path)
        read_curves(path, row.result)
    except SpatialbenchError as error:
        return [str(error)], None
    return [f"{path}: stale, {reason}; {row.result.command}" for reason in row.stale], row


def check_readme(results: Path, benchmarks: Path) -> list[str]:
    """Check that results/README.md is what ``make table`` would write now."""
    path = results / "README.md"
    try:
        wanted = readme(results, benchmarks)
    except SpatialbenchError as error:
        return [f"{path}: cannot be made: {error}"]
    if not path.exists() or path.read_text(encoding="utf-8") != wanted:
        return [f"{path} is not what the result files give; make table"]
    return []


def check_smoke(
    results: Path, today: Today, fit: Fit | None = None, processes: int = 1, sample: int = 0
) -> list[str]:
    """Repeat the smoke runs of all pages, or a sample, on tracks with stored ones; compare."""
    tracks = [name for name in today.tracks if list_results(results, name, SMOKE)]
    if not tracks:
        command = "spatialbench run benchmarks/*.yaml --budget smoke --seeds 0"
        return [f"{results}: no stored smoke results; {command}"]
    work = [(today.tracks[name], page) for name in tracks for page in today.pages.values()]
    if 0 < sample < len(work):
        work = random.Random(commit()[0]).sample(work, sample)
    problems = []
    with (
        tempfile.TemporaryDirectory(prefix="spatialbench-smoke-") as runs,
        progress("smoke runs", len(work), "runs", interval=30) as advance,
    ):
        repeat = partial(_repeat, results=results, fit=fit, runs=Path(runs))
        for found in _spread(repeat, work, processes):
            problems += found
            advance(1)
    return problems


Work = tuple[Track, Page]


def _spread(
    repeat: Callable[[Work], list[str]], work: Sequence[Work], processes: int
) -> Iterator[list[str]]:
    """Yield the outcomes in the order of the work."""
    if processes <= 1:
        yield from map(repeat, work)
        return
    fresh = multiprocessing.get_context("spawn")  # a fork would copy the threads of torch
    with ProcessPoolExecutor(processes, fresh) as pool:
        yield from pool.map(repeat, work)


def _repeat(work: Work, results: Path, fit: Fit | None, runs: Path) -> list[str]:
    track, page = work
    start = f"smoke run of {page.name} on {track.name}"
    try:
        problems = _compare_again(page, track, results, fit, runs / str(os.getpid()))
    except SpatialbenchError as error:
        problems = [str(error)]
    return [f"{start}: {problem}" for problem in problems]


def _compare_again(
    page: Page, track: Track, results: Path, fit: Fit | None, runs: Path
) -> list[str]:
    path = result_path(results, track.name, SMOKE, page.name)
    if not path.exists():
        command = f"spatialbench run {page.path} --track {track.name} --budget {SMOKE}"
        return [f"{path}: no stored smoke result; {command}"]
    stored = read_row(path)
    fresh = make_again(page, track, SMOKE, stored.result.seeds, runs, fit)
    comparison = compare(stored, fresh)
    say(f"smoke run of {page.name}: {comparison.summary}")
    return comparison.problems
