"""Rows of pages: fit, test and result file of every seed, one run after the other.

A finished run is used as it is, a stopped one is resumed, and a failed one does not stop the rest.
Pages named by ``init_from`` come before the pages that start from them.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from spatialbench.config.evaluations import evaluations_of
from spatialbench.config.experiment import Resolved, resolve
from spatialbench.config.pages import Page, Track, load_page, load_track
from spatialbench.results.curves import keep_curves
from spatialbench.results.files import STORED_BUDGET, read_row, result_path, write_row
from spatialbench.results.run_folder import RunRecord, is_current
from spatialbench.results.stale import stale_reasons, starts
from spatialbench.training.collect import collect
from spatialbench.utils.distributed import is_first_rank
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.say import say

Fit = Callable[[Resolved, bool], RunRecord]
"""Makes one run, as ``spatialbench.training.fit.fit`` does; True: from nothing."""


@dataclass
class PlannedRow:
    """A page of the plan and its runs, one for each seed.

    Attributes:
        wanted: False for a page that is only the start of another; it gets no result file.
        failure: why it failed.
    """

    page: Page
    runs: list[Resolved]
    wanted: bool = True
    failure: str = ""

    def path(self, out: Path) -> Path:
        """Path of the result file."""
        first = self.runs[0]
        return result_path(out, first.track.name, first.budget, self.page.name)


@dataclass
class Clock:
    """Estimates the remaining time from the runs so far."""

    total: int
    started: float = field(default_factory=time.monotonic)

    def line(self, remaining: Sequence[Resolved]) -> str:
        """Head of the next run: its number and name, the time passed and the time remaining."""
        done, passed = self.total - len(remaining), time.monotonic() - self.started
        line = f"[{done + 1}/{self.total}] {remaining[0].label}, {_duration(passed)} passed"
        if not done:
            return line
        return f"{line}, about {_duration(passed / done * len(remaining))} left"


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
    """Make the rows of pages.

    Args:
        pages: files; those named by their ``init_from`` are added in front.
        track: name or path.
        budget: a budget of the track; rows of ``full`` are those of the table.
        seeds: None: the track's own.
        out: folder of the result files.
        force: repeat finished runs, and write rows again that are current.
        runs: folder of the run folders.
        fit: makes one run; None: ``spatialbench.training.fit.fit``.

    Returns:
        The exit status: 0, or 1 when a page failed.

    Raises:
        SpatialbenchError: no page, one that cannot be read, or an unknown track, budget or seed;
            nothing was run.
        KeyboardInterrupt or spatialbench.training.callbacks.Interrupted: stopped; the same call
            resumes.
    """
    if not pages:
        raise SpatialbenchError("no page given: spatialbench run benchmarks/*.yaml")
    if fit is None:
        from spatialbench.training import fit as training

        fit = training.fit
    out, runs = Path(out), Path(runs)
    for folder in (out, runs):
        if folder.exists() and not folder.is_dir():
            raise SpatialbenchError(
                f"{folder} is a file; rows and runs need folders (--results, --runs)"
            )
    loaded = load_track(track, near=Path(pages[0]))
    plan = _plan(pages, loaded, budget, list(loaded.seeds if seeds is None else seeds), runs)
    if not force:
        plan = _without_current(plan, out)
    todo = [run for row in plan for run in row.runs if force or not _is_done(run)]
    clock = Clock(len(todo))
    try:
        for row in plan:
            _make(row, todo, clock, fit, force, out)
    except BaseException:
        done = clock.total - len(todo)
        say(f"stopped: {done} of {clock.total} runs done, everything so far is kept")
        raise
    failed = [row for row in plan if row.failure]
    for row in failed:
        say(f"failed: {row.page.name}: {row.failure}")
    return 1 if failed else 0


def _plan(
    pages: Sequence[str | Path], track: Track, budget: str, seeds: list[int], runs: Path
) -> list[PlannedRow]:
    """Return the rows in the order in which they can be made.

    Raises:
        SpatialbenchError: a mistake in what was typed or in a page, before any run.
    """
    if len(set(seeds)) != len(seeds) or not seeds:
        given = ",".join(map(str, seeds)) or "none"
        raise SpatialbenchError(f"seeds must be given, each once: got {given}")
    rows: dict[Path, PlannedRow] = {}

    def add(path: Path, wanted: bool) -> None:
        key = path.resolve()
        if key in rows:
            rows[key].wanted |= wanted
            return
        page = load_page(path)
        starts(page)  # refuses a circle
        if page.init_from is not None:
            add(page.init_from, wanted=False)
        resolved = [resolve(page, track, budget, seed, runs=runs) for seed in seeds]
        rows[key] = PlannedRow(page, resolved, wanted)

    for path in pages:
        add(Path(path), wanted=True)
    names = [row.page.name for row in rows.values()]
    for name in names:
        if names.count(name) > 1:
            raise SpatialbenchError(
                f"two pages have the name {name!r}; the row is named after the file: rename one"
            )
    return list(rows.values())


def _without_current(plan: list[PlannedRow], out: Path) -> list[PlannedRow]:
    """Drop rows that are current, and starts that nothing else needs."""
    kept: list[PlannedRow] = []
    for row in reversed(plan):  # a start comes before those that need it
        needed = {later.page.init_from.resolve() for later in kept if later.page.init_from}
        if row.wanted and _is_current(row, out):
            say(f"{row.page.name} is current: {row.path(out)}; --force makes it again")
            row.wanted = False
        if row.wanted or row.page.path.resolve() in needed:
            kept.append(row)
    return kept[::-1]


def _is_current(row: PlannedRow, out: Path) -> bool:
    """Whether the stored row has these seeds (or more), recounts, and is not stale."""
    path, first = row.path(out), row.runs[0]
    if not path.exists():
        return False
    try:
        result = read_row(path).result
    except SpatialbenchError as error:
        say(f"{error} -- it is made again now")
        return False
    seeds = {run.seed for run in row.runs}
    lacks = evaluations_of(first.track, first.budget).keys() - result.evaluations.keys()
    if seeds == set(result.seeds) and lacks and _are_finished(row):
        return False  # evaluated from the checkpoints, without training
    return seeds <= set(result.seeds) and not stale_reasons(result, row.page, first.track)


def _are_finished(row: PlannedRow) -> bool:
    try:
        records = [RunRecord.read(run.run_dir) for run in row.runs]
    except SpatialbenchError:
        return False
    return all(record.finished and record.has_pairs for record in records)


def _is_done(resolved: Resolved) -> bool:
    try:
        return is_current(resolved, RunRecord.read(resolved.run_dir))
    except SpatialbenchError:
        return False


def _make(
    row: PlannedRow, todo: list[Resolved], clock: Clock, fit: Fit, force: bool, out: Path
) -> None:
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
            _write(row, records, out)
    except SpatialbenchError as error:
        row.failure = str(error)
    except Exception as error:
        traceback.print_exc()
        row.failure = f"{type(error).__name__}: {error}"
    if row.failure:
        say(f"{row.page.name} failed, going on with the others: {row.failure}")
        todo[:] = [run for run in todo if run.page.name != row.page.name]


def _write(row: PlannedRow, records: Sequence[RunRecord], out: Path) -> None:
    name, first = row.page.name, row.runs[0]
    if not all(record.has_pairs for record in records):
        say(f"{name} has no pair test: no row is written")
        return
    path = row.path(out)
    made = collect(row.page, first.track, first.budget, records)
    write_row(path, made)
    keep_curves(path, made.result, [record.run_dir for record in records])
    commits = {
        (commit[:8] or "no commit") + (" (dirty)" if dirty else "")
        for commit, dirty in made.result.made
    }
    if len(commits) > 1:
        origin = ", ".join(sorted(commits))
        say(f"note: the seeds of {name} come from {origin}; --force makes them alike")
    say(f"{name}: All {made.pairs.values()['all']:.1f} %, written to {path}")


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
