"""Rows of pages: fit, test and result file of every seed, one run after the other.

A finished run is used as it is, a stopped one is resumed, and a failed one does not stop the rest.
Pages named by ``init_from`` come before the pages that start from them.
"""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from spatialbench.config.evaluations import evaluations_of
from spatialbench.config.experiment import Resolved, resolve
from spatialbench.config.pages import Page, Track, load_page, load_track
from spatialbench.results.curves import keep_curves
from spatialbench.results.files import STORED_BUDGET, read_row, result_path, write_row
from spatialbench.results.run_folder import Fit, RunRecord, is_current
from spatialbench.results.stale import stale_reasons, starts
from spatialbench.training import fit as training
from spatialbench.training.collect import collect
from spatialbench.utils.distributed import is_first_rank
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.say import say


@dataclass
class PlannedRow:
    """A page of the plan and its runs, one for each seed."""

    page: Page
    runs: list[Resolved]
    path: Path  # of the result file
    wanted: bool  # False for a page that is only the start of another: it gets no result file
    failure: str = ""


@dataclass
class Clock:
    """Estimates the remaining time from the runs so far."""

    total: int
    started: float = field(default_factory=time.monotonic)

    def line(self, remaining: Sequence[Resolved]) -> str:
        """Head of the next run: its number and name, the time passed and the time remaining."""
        done, passed = self.total - len(remaining), time.monotonic() - self.started
        line = f"[{done + 1}/{self.total}] {remaining[0].label}, {_duration(passed)} passed"
        rest = passed / done * len(remaining) if done else 0
        return f"{line}, about {_duration(rest)} left" if done else line


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def run(
    pages: Sequence[str | Path],
    track: str | Path = "rooms",
    budget: str = STORED_BUDGET,
    seeds: Sequence[int] | None = None,
    out: str | Path = "results",
    force: bool = False,
    runs: str | Path = "runs",
    fit: Fit = training.fit,
) -> int:
    """Make the rows of pages; return the exit status, 1 when a page failed.

    Args:
        pages: files; those named by their ``init_from`` are added in front.
        track: name or path; ``seeds``: None: the track's own.
        out: folder of the result files; ``runs``: of the run folders.
        force: repeat finished runs, and write rows again that are current.

    Raises:
        SpatialbenchError: a mistake in what was typed or in a page; nothing was run.
        KeyboardInterrupt or Interrupted: stopped; the same call resumes.
    """
    return make(plan_rows(pages, track, budget, seeds, Path(out), Path(runs)), force, fit)


def make(plan: list[PlannedRow], force: bool = False, fit: Fit = training.fit) -> int:
    """Make planned rows, of one track or of several; see :func:`run`."""
    plan = plan if force else _without_current(plan)
    todo = [run for row in plan for run in row.runs if force or not is_current(run, _record(run))]
    clock = Clock(len(todo))
    try:
        for row in plan:
            _make(row, todo, clock, fit, force)
    except BaseException:
        done = clock.total - len(todo)
        say(f"stopped: {done} of {clock.total} runs done, everything so far is kept")
        raise
    failed = [row for row in plan if row.failure]
    for row in failed:
        say(f"failed: {row.page.name}: {row.failure}")
    return 1 if failed else 0


def plan_rows(
    pages: Sequence[str | Path],
    track: Track | str | Path,
    budget: str,
    seeds: Sequence[int] | None,
    out: Path,
    runs: Path,
) -> list[PlannedRow]:
    """Return the rows in the order in which they can be made; see :func:`run`."""
    if not pages:
        raise SpatialbenchError("no page given: spatialbench run benchmarks/*.yaml")
    for folder in (out, runs):
        if folder.exists() and not folder.is_dir():
            what = f"{folder} is a file; rows and runs need folders"
            raise SpatialbenchError(f"{what} (--results, --runs)")
    loaded = track if isinstance(track, Track) else load_track(track, near=Path(pages[0]))
    seeds = loaded.seeds if seeds is None else seeds
    if len(set(seeds)) != len(seeds) or not seeds:
        given = ",".join(map(str, seeds)) or "none"
        raise SpatialbenchError(f"seeds must be given, each once: got {given}")
    wanted, rows = {Path(path).resolve() for path in pages}, {}
    for path in pages:
        last = load_page(path)
        for page in [*reversed(starts(last)), last]:
            key = page.path.resolve()
            if key not in rows:
                resolved = [resolve(page, loaded, budget, seed, runs=runs) for seed in seeds]
                target = result_path(out, loaded.name, budget, page.name)
                rows[key] = PlannedRow(page, resolved, target, key in wanted)
    names = [row.page.name for row in rows.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        what = f"two pages have the name {twice!r}"
        raise SpatialbenchError(f"{what}; the row is named after the file: rename one")
    return list(rows.values())


def _without_current(plan: list[PlannedRow]) -> list[PlannedRow]:
    """Drop rows that are current, and starts that nothing else needs."""
    kept: list[PlannedRow] = []
    for row in reversed(plan):  # a start comes before those that need it
        needed = {later.page.init_from.resolve() for later in kept if later.page.init_from}
        if row.wanted and _is_current(row):
            say(f"{row.page.name} is current: {row.path}; --force makes it again")
            row.wanted = False
        if row.wanted or row.page.path.resolve() in needed:
            kept.append(row)
    return kept[::-1]


def _is_current(row: PlannedRow) -> bool:
    """Return whether the stored row has these seeds (or more), recounts, and is not stale."""
    if not row.path.exists():
        return False
    try:
        result = read_row(row.path).result
    except SpatialbenchError as error:
        say(f"{error} -- it is made again now")
        return False
    first, seeds = row.runs[0], {run.seed for run in row.runs}
    lacks = evaluations_of(first.track, first.budget).keys() - result.evaluations.keys()
    if lacks and seeds == set(result.seeds):
        records = [_record(run) for run in row.runs]
        if all(record.finished and record.has_pairs for record in records):
            return False  # evaluated from the checkpoints, without training
    return seeds <= set(result.seeds) and not stale_reasons(result, row.page, first.track)


def _record(run: Resolved) -> RunRecord:
    """Read the record of a run; a damaged one counts as not finished."""
    try:
        return RunRecord.read(run.run_dir)
    except SpatialbenchError:
        return RunRecord(run.run_dir, {})


def _make(row: PlannedRow, todo: list[Resolved], clock: Clock, fit: Fit, force: bool) -> None:
    """Make the runs of a row and its result file; note a failure in the row. ``todo`` shrinks."""
    try:
        records = []
        for run in row.runs:
            if run in todo:
                say(clock.line(todo))
                records.append(fit(run, force))
                todo.remove(run)
            else:
                say(f"{run.label} is finished: {run.run_dir}")
                records.append(RunRecord.read(run.run_dir))
        if row.wanted and is_first_rank():  # under DDP every rank goes through the plan
            _write(row, records)
    except SpatialbenchError as error:
        row.failure = str(error)
    except Exception as error:
        traceback.print_exc()
        row.failure = f"{type(error).__name__}: {error}"
    if row.failure:
        say(f"{row.page.name} failed, going on with the others: {row.failure}")
        todo[:] = [run for run in todo if run not in row.runs]


def _write(row: PlannedRow, records: Sequence[RunRecord]) -> None:
    name, first = row.page.name, row.runs[0]
    if not all(record.has_pairs for record in records):
        say(f"{name} has no pair test: no row is written")
        return
    made = collect(row.page, first.track, first.budget, records)
    write_row(row.path, made)
    keep_curves(row.path, made.result, [record.run_dir for record in records])
    commits = {
        (commit[:8] or "no commit") + (" (dirty)" if dirty else "")
        for commit, dirty in made.result.made
    }
    if len(commits) > 1:
        origin = ", ".join(sorted(commits))
        say(f"note: the seeds of {name} come from {origin}; --force makes them alike")
    say(f"{name}: All {made.pairs.values()['all']:.1f} %, written to {row.path}")
