"""Rows of pages: fit, test and result file of every seed, one run after the other.

A finished run is used as it is, a stopped one is resumed, and a failed one does not stop the rest.
Pages named by ``init_from`` come before the pages that start from them.
"""

from __future__ import annotations

import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from spatialbench.config.evaluations import evaluations_of
from spatialbench.config.experiment import Resolved, resolve
from spatialbench.config.pages import Page, Track, load_page, load_track
from spatialbench.results.curves import curves_path, keep_curves
from spatialbench.results.files import STORED_BUDGET, read_row, result_path, write_row
from spatialbench.results.run_folder import RunRecord, is_current
from spatialbench.results.schema import Result
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

    def records(self) -> list[RunRecord] | None:
        """Read the run folders; None where one is damaged."""
        try:
            return [RunRecord.read(run.run_dir) for run in self.runs]
        except SpatialbenchError:
            return None


@dataclass
class Clock:
    """Estimates the remaining time from the runs so far: of the same page if any, else of all."""

    total: int
    started: float = field(default_factory=time.monotonic)
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def remaining(self, runs: Sequence[Resolved]) -> float | None:
        """Estimate the seconds that ``runs`` will take; None before the first run has ended."""
        known = [value for values in self.seconds.values() for value in values]
        if not known:
            return None
        means = {name: sum(values) / len(values) for name, values in self.seconds.items()}
        return sum(means.get(run.page.name, sum(known) / len(known)) for run in runs)

    def line(self, number: int, runs: Sequence[Resolved]) -> str:
        """Head of a run: its number and name, the time passed and the time remaining."""
        line = f"[{number}/{self.total}] {runs[0].label}, {self._passed()} passed"
        remaining = self.remaining(runs)
        return line if remaining is None else f"{line}, about {_duration(remaining)} left"

    def _passed(self) -> str:
        return _duration(time.monotonic() - self.started)


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
        if row.wanted and (result := _current(row, out)):
            say(f"{row.page.name} is current: {row.path(out)}; --force makes it again")
            _keep_missing_curves(row, result, out)
            row.wanted = False
        if row.wanted or row.page.path.resolve() in needed:
            kept.append(row)
    return kept[::-1]


def _current(row: PlannedRow, out: Path) -> Result | None:
    """Return the stored row if it has these seeds (or more), recounts, and is not stale."""
    path, first = row.path(out), row.runs[0]
    if not path.exists():
        return None
    try:
        result = read_row(path).result
    except SpatialbenchError as error:
        say(f"{error} -- it is made again now")
        return None
    seeds = {run.seed for run in row.runs}
    lacks = evaluations_of(first.track, first.budget).keys() - result.evaluations.keys()
    if seeds == set(result.seeds) and lacks and _are_finished(row):
        return None  # evaluated from the checkpoints, without training
    stale = not seeds <= set(result.seeds) or stale_reasons(result, row.page, first.track)
    return None if stale else result


def _are_finished(row: PlannedRow) -> bool:
    records = row.records() or []
    return bool(records) and all(record.finished and record.has_pairs for record in records)


def _keep_missing_curves(row: PlannedRow, result: Result, out: Path) -> None:
    """Keep the curves of a stored row that has none, where just its own run folders are there."""
    path, records = row.path(out), row.records()
    if curves_path(path).exists() or records is None:
        return
    fields = ("seed", "config_hash", "commit")
    here = [tuple(record.info.get(name) for name in fields) for record in records]
    own = here == [tuple(getattr(run, name) for name in fields) for run in result.runs]
    if own and keep_curves(path, result, [record.run_dir for record in records]):
        say(f"{row.page.name}: wrote {curves_path(path)}")


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
                say(clock.line(clock.total - len(todo) + 1, todo))
                begun = time.monotonic()
                records.append(fit(run, force))
                clock.seconds[row.page.name].append(time.monotonic() - begun)
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
