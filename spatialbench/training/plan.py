"""Pages x seeds: fit, test and result file, in order, one after the other.

What is finished is used as it is, what was stopped goes on from its last checkpoint, what fails does not stop the rest.
Pages named by ``init_from`` come before the pages that start from them.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from spatialbench.config.evaluations import selection_settings
from spatialbench.config.experiment import Resolved, resolve
from spatialbench.config.pages import Page, Track, load_page, load_track
from spatialbench.evaluation.measures import Measures
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.results.curves import curves_path, keep_curves
from spatialbench.results.files import (
    STORED_BUDGET,
    ResultOutcomes,
    read_measures,
    read_outcomes,
    read_result,
    read_selection,
    result_path,
    write_result,
)
from spatialbench.results.schema import Result
from spatialbench.results.run_folder import RunRecord, measured, selected
from spatialbench.results.stale import stale_reasons, starts
from spatialbench.training.collect import collect, load_measures, load_selection
from spatialbench.utils.errors import SpatialbenchError

Fit = Callable[[Resolved, bool], RunRecord]
"""``spatialbench.training.fit.fit``: trains, tests and writes the run folder; resumes; ``force`` starts from nothing."""


@dataclass
class Row:
    """A page of the plan and its runs, one for each seed."""

    page: Page
    runs: list[Resolved]
    wanted: bool = True  # False: only the start of another page; no result file
    failure: str = ""


@dataclass
class Clock:
    """Time passed and time left, from the runs so far: of the same page where there are some, else of all."""

    total: int
    started: float = field(default_factory=time.monotonic)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def left(self, runs: Sequence[Resolved]) -> float | None:
        """Seconds that ``runs`` will take; None before the first run has ended."""
        known = [value for values in self.seconds.values() for value in values]
        if not known:
            return None
        means = {name: sum(values) / len(values) for name, values in self.seconds.items()}
        return sum(means.get(run.page.name, sum(known) / len(known)) for run in runs)

    def line(self, number: int, runs: Sequence[Resolved]) -> str:
        """What stands above a run: its number, its name, time passed and left."""
        left = self.left(runs)
        parts = [
            f"[{number}/{self.total}] {runs[0].label}",
            f"{_duration(time.monotonic() - self.started)} passed",
        ]
        return ", ".join([*parts, *([] if left is None else [f"about {_duration(left)} left"])])


def run(
    pages: Sequence[str | Path],
    track: str | Path = "rooms",
    budget: str = STORED_BUDGET,
    seeds: Sequence[int] | None = None,
    out: str | Path = "results",
    force: bool = False,
    runs: str | Path = "runs",
    fit: Fit | None = None,
) -> int:
    """Makes the rows of pages.

    Args:
        pages: files; those named by their ``init_from`` are added in front.
        track: name or path.
        budget: as the track names them; rows of ``full`` are those of the table.
        seeds: None: the track's own.
        out: folder of the result files.
        force: run again what is finished, and write again rows that are current.
        runs: folder of the run folders.
        fit: makes one run; None: ``spatialbench.training.fit.fit``.

    Returns:
        The exit status: 0, or 1 when a page failed.

    Raises:
        SpatialbenchError: no page, one that cannot be read, or an unknown track, budget or seed; nothing was run.
        KeyboardInterrupt or spatialbench.training.callbacks.Interrupted: stopped; the same call goes on from there.
    """
    if not pages:
        raise SpatialbenchError("no page given: spatialbench run benchmarks/*.yaml")
    if fit is None:
        from spatialbench.training import fit as training

        fit = training.fit
    for folder in (out, runs):
        if Path(folder).exists() and not Path(folder).is_dir():
            raise SpatialbenchError(
                f"{folder} is a file; rows and runs need folders (--results, --runs)"
            )
    near = Path(pages[0])
    loaded = load_track(track, near=near)
    plan = _plan(pages, loaded, budget, list(loaded.seeds if seeds is None else seeds), Path(runs))
    if not force:
        plan = _without_current(plan, Path(out))
    todo = [one for row in plan for one in row.runs if force or not _finished(one)]
    clock = Clock(len(todo))
    try:
        for row in plan:
            _row(row, todo, clock, fit, force, Path(out))
    except BaseException:
        say(
            f"stopped: {clock.total - len(todo)} of {clock.total} runs done, everything so far is kept"
        )
        raise
    failures = [f"{row.page.name}: {row.failure}" for row in plan if row.failure]
    for failure in failures:
        say(f"failed: {failure}")
    return 1 if failures else 0


def _plan(
    pages: Sequence[str | Path], track: Track, budget: str, seeds: list[int], runs: Path
) -> list[Row]:
    """The rows in the order in which they can be made.

    Raises:
        SpatialbenchError: something that was typed is wrong, or written in a page: told before hours of other runs.
    """
    if len(set(seeds)) != len(seeds) or not seeds:
        raise SpatialbenchError(
            f"seeds must be given, each once: found {','.join(map(str, seeds)) or 'none'}"
        )
    rows: dict[Path, Row] = {}

    def add(path: Path, wanted: bool) -> None:
        key = path.resolve()
        if key in rows:
            rows[key].wanted |= wanted
            return
        page = load_page(path)
        starts(page)  # refuses a circle
        if page.init_from is not None:
            add(page.init_from, wanted=False)
        rows[key] = Row(
            page, [resolve(page, track, budget, seed, runs=runs) for seed in seeds], wanted
        )

    for path in pages:
        add(Path(path), wanted=True)
    names = [row.page.name for row in rows.values()]
    for name in names:
        if names.count(name) > 1:
            raise SpatialbenchError(
                f"two pages have the name {name!r}; the row is named after the file: rename one"
            )
    return list(rows.values())


def _without_current(plan: list[Row], out: Path) -> list[Row]:
    """Drops rows whose stored result is what would be made today, and starts that nothing else needs."""
    kept: list[Row] = []
    for row in reversed(plan):  # a start comes before those that need it
        needed = any(
            later.page.init_from is not None and _same(later.page.init_from, row.page)
            for later in kept
        )
        if row.wanted and (result := _current(row, out)):
            say(f"{row.page.name} is current: {_path(row, out)}; --force makes it again")
            _keep_missing_curves(row, result, out)
            row.wanted = False
        if row.wanted or needed:
            kept.append(row)
    return kept[::-1]


def _same(path: Path, page: Page) -> bool:
    return path.resolve() == page.path.resolve()


def _path(row: Row, out: Path) -> Path:
    first = row.runs[0]
    return result_path(out, first.track.name, first.budget, row.page.name)


def _current(row: Row, out: Path) -> Result | None:
    """The stored row, where it has these seeds (or more), today's hashes, and outcomes that bear it out."""
    path = _path(row, out)
    if not path.exists():
        return None
    try:
        result = read_result(path)
        read_outcomes(path, result)
        read_measures(path, result)
        read_selection(path, result)
    except SpatialbenchError as error:
        say(f"{error} -- it is made again now")
        return None
    seeds = {one.seed for one in row.runs}
    if seeds == set(result.seeds) and result.selection is None and _can_be_selected(row):
        return None
    stale = not seeds <= set(result.seeds) or stale_reasons(result, row.page, row.runs[0].track)
    return None if stale else result


def _keep_missing_curves(row: Row, result: Result, out: Path) -> None:
    """Keeps the curves of a stored row that has none, where the folders of just its runs are still there."""
    path = _path(row, out)
    if curves_path(path).exists():
        return
    try:
        records = [RunRecord.read(one.run_dir) for one in row.runs]
    except SpatialbenchError:
        return
    there = [
        tuple(record.info.get(name) for name in ("seed", "config_hash", "commit"))
        for record in records
    ]
    own = there == [(run.seed, run.config_hash, run.commit) for run in result.runs]
    if own and keep_curves(path, result, [record.run_dir for record in records]):
        say(f"{row.page.name}: wrote {curves_path(path)}")


def _can_be_selected(row: Row) -> bool:
    """Whether a stored row that lacks the image selection of its track gets it from its run folders, untrained."""
    first = row.runs[0]
    if not selection_settings(first.track, first.budget):
        return False
    try:
        records = [RunRecord.read(one.run_dir) for one in row.runs]
    except SpatialbenchError:
        return False
    return all(record.finished and record.outcomes.exists() for record in records)


def _finished(resolved: Resolved) -> bool:
    """Whether nothing is left to do: trained, tested, and measured as the track asks today."""
    try:
        record = RunRecord.read(resolved.run_dir)
    except SpatialbenchError:
        return False
    return record.finished and measured(resolved, record) and selected(resolved, record)


def _row(row: Row, todo: list[Resolved], clock: Clock, fit: Fit, force: bool, out: Path) -> None:
    """Makes the runs of a row and its result file; notes a failure in the row. ``todo`` shrinks."""
    try:
        records = []
        for one in row.runs:
            if one in todo:
                say(clock.line(clock.total - len(todo) + 1, todo))
                begun = time.monotonic()
                records.append(fit(one, force))
                clock.seconds[row.page.name].append(time.monotonic() - begun)
                todo.remove(one)
            else:
                say(f"{one.label} is finished: {one.run_dir}")
                records.append(RunRecord.read(one.run_dir))
        if row.wanted and _is_first_rank():
            _write(row, records, out)
    except SpatialbenchError as error:
        row.failure = str(error)
    except Exception as error:
        traceback.print_exc()
        row.failure = f"{type(error).__name__}: {error}"
    if row.failure:
        say(f"{row.page.name} failed, going on with the others: {row.failure}")
        todo[:] = [one for one in todo if one.page.name != row.page.name]


def _write(row: Row, records: Sequence[RunRecord], out: Path) -> None:
    path = _path(row, out)
    if not all(record.outcomes.exists() for record in records):
        say(f"{row.page.name} has no pair test: no row is written")
        return
    outcomes = [RunOutcomes.load(record.outcomes) for record in records]
    found = load_measures(row.page, records), load_selection(row.page, records)
    result = collect(row.page, row.runs[0].track, row.runs[0].budget, records, outcomes, *found)
    joined = [None if measures is None else Measures.join(measures) for measures in found]
    write_result(path, result, ResultOutcomes.join(outcomes), *joined)
    keep_curves(path, result, [record.run_dir for record in records])
    commits = {
        (one.commit[:8] or "no commit") + (" (dirty)" if one.dirty else "") for one in result.runs
    }
    if len(commits) > 1:
        say(
            f"note: the seeds of {row.page.name} come from {', '.join(sorted(commits))}; --force makes them alike"
        )
    say(f"{row.page.name}: All {result.accuracy['all']:.1f} %, written to {path}")


def _is_first_rank() -> bool:
    """Under DDP every rank goes through the plan together; one of them writes."""
    from spatialbench.utils.distributed import (
        is_first_rank,  # here, so that what trains nothing does not wait for torch
    )

    return is_first_rank()


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _tell(note: str) -> None:
    if note:
        say(f"note: {note}")


def say(line: str) -> None:
    """A line for the person at the terminal; the standard output is for results."""
    print(line, file=sys.stderr, flush=True)
