"""Do the stored results still hold? Hashes, recounts, the table file; and whether a smoke run repeats.

Training a few steps leaves a model near chance, where counts tell little: exchanging "left" and "right" in the captions
leaves the accuracy of every relation inside its interval. So the check compares the margins record by record.

**The rule.** Let m be the stored margins of one seed and m' those of today's run, r(m) the root mean square of a
relation. The drift of a relation is r(m' - m) / r(m).

- Same hardware and versions: every record has the sign that it had, and no relation drifts by more than
  ``SAME_DRIFT``.
- Otherwise: no relation drifts by more than ``OTHER_DRIFT``; and every record whose sign changed had a margin of at
  most ``FLIP_MARGIN`` r(m), or else the change of the accuracy lies inside its paired 95 % interval.

Letters: S seeds, N records.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from spatialbench.collect import collect
from spatialbench.errors import SpatialbenchError
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.evaluation.statistics import COLUMNS, bootstrap, paired_difference
from spatialbench.experiment import Resolved, resolve
from spatialbench.pages import Page, Track
from spatialbench.relations import RELATIONS
from spatialbench.report.readme import readme
from spatialbench.report.rows import check_mergeable
from spatialbench.results import Result, ResultOutcomes, list_results, read_outcomes, read_result, result_path
from spatialbench.runs import RunRecord
from spatialbench.stale import Today

SMOKE = "smoke"
SAME_DRIFT = 0.01
"""A run on the same machine and versions repeats bit for bit; this is the rounding to float16, and room for threads."""
OTHER_DRIFT = 0.05
"""Measured on the six pages of rooms, smoke budget: another number of threads drifts by 0.002 at most, AVX2 in place of
AVX-512 by 0.004; left and right exchanged in the grammar by 0.31 to 0.42 on these two relations."""
FLIP_MARGIN = 0.1
INTERVAL_TOLERANCE = 0.2
"""Percentage points by which a stored interval may differ from the recomputed one."""

Fit = Callable[[Resolved, bool], RunRecord]


def check_results(
    results: str | Path = "results", benchmarks: str | Path = "benchmarks", smoke: bool = True, fit: Fit | None = None
) -> list[str]:
    """Everything that is wrong with the stored results, one line each; empty when they hold.

    Args:
        results, benchmarks: folders.
        smoke: also repeat the smoke runs, which takes minutes.
        fit: makes one run; None: ``spatialbench.training.fit``.
    """
    results, benchmarks = Path(results), Path(benchmarks)
    try:
        today = Today.read(benchmarks)
    except SpatialbenchError as error:
        return [str(error)]
    problems = check_stored(results, today) + check_readme(results, benchmarks)
    return problems + (check_smoke(results, today, fit) if smoke else [])


# ----------------------------------------------------------------------------------------------------- what is stored


def check_stored(results: Path, today: Today) -> list[str]:
    """Every row of every budget: valid, recounted, current; rows of a table on the same data; no file without row."""
    problems = []
    for folder in sorted(path for path in results.glob("*") if any(path.rglob("*.outcomes.npz"))):
        if folder.name not in today.tracks:
            problems.append(f"{folder}: results of a track that is gone; delete them, or restore the track")
            continue
        for budget in today.tracks[folder.name].budgets:
            rows = []
            for path in list_results(results, folder.name, budget):
                found, result = check_row(path, today)
                problems += found
                rows += [] if result is None else [result]
            try:
                check_mergeable(folder, rows)
            except SpatialbenchError as error:
                problems.append(str(error))
        problems += [
            f"{path}: no result file names it; delete it"
            for path in sorted(folder.rglob("*.outcomes.npz"))
            if not path.with_name(path.name.replace(".outcomes.npz", ".json")).exists()
        ]
    return problems


def check_row(path: Path, today: Today) -> tuple[list[str], Result | None]:
    """The problems of one result file, and the result where it can be read."""
    try:
        result = read_result(path)
        outcomes = read_outcomes(path, result)
    except SpatialbenchError as error:
        return [str(error)], None
    problems = [f"{path}: stale, {reason}; spatialbench run {result.page}" for reason in today.stale(result)]
    bounds = bootstrap(outcomes.margins, outcomes.relation, outcomes.cluster)
    for column in COLUMNS:
        stated, found = result.interval[column], bounds[column]
        if (stated is None) != (found is None) or (
            stated and found and np.abs(np.subtract(stated, found)).max() > INTERVAL_TOLERANCE
        ):
            problems.append(f"{path}: field 'interval.{column}': says {stated} but the outcomes give {found}")
    return problems, result


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
        return [f"{results}: no stored smoke results; spatialbench run benchmarks/*.yaml --budget smoke --seeds 0"]
    if fit is None:
        from spatialbench import training

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
        return [f"{path}: no stored smoke result; spatialbench run {page.path} --track {track.name} --budget smoke"]
    stored = read_result(path)
    before = read_outcomes(path, stored)
    records, outcomes = [], []
    for seed in stored.seeds:
        resolved = resolve(page, track, SMOKE, seed, runs=runs)
        start = resolved.init_from
        if start is not None and not RunRecord.read(start.run_dir).finished:
            fit(start, False)
        say(f"smoke run of {resolved.label}")
        records.append(fit(resolved, False))
        outcomes.append(RunOutcomes.load(records[-1].outcomes))
    fresh = collect(page, track, SMOKE, records, outcomes)
    found = compare(stored, before, fresh, ResultOutcomes.join(outcomes))
    say(f"smoke run of {page.name}: {found.summary}")
    return [f"smoke run of {page.name} on {track.name}: {problem}" for problem in found.problems]


@dataclass(frozen=True)
class Comparison:
    """A repeated smoke run against the stored one.

    Attributes:
        same: whether hardware and versions are the same, hence the stricter rule.
        drift: relation -> r(m' - m) / r(m), the largest of the seeds.
        flips: records whose sign changed, over all seeds.
        problems: what breaks the rule, one line each.
    """

    same: bool
    drift: dict[str, float]
    flips: int
    problems: list[str]

    @property
    def summary(self) -> str:
        where = "same machine and versions" if self.same else "another machine or other versions"
        worst = max(self.drift, key=lambda relation: self.drift[relation], default="")
        largest = f", drift at most {self.drift[worst]:.3f} ({worst})" if worst else ""
        return f"{where}, {self.flips} records answered differently{largest}: {'red' if self.problems else 'green'}"


def compare(stored: Result, before: ResultOutcomes, fresh: Result, after: ResultOutcomes) -> Comparison:
    """Applies the rule of this module.

    Args:
        stored, before: the stored row and its outcomes.
        fresh, after: the repeated run, the same seeds.
    """
    if stored.data_fingerprint != fresh.data_fingerprint or not np.array_equal(before.record_ids, after.record_ids):
        text = (
            f"other data: {fresh.data_fingerprint}, stored {stored.data_fingerprint}; if that is wanted, run it again"
        )
        return Comparison(False, {}, 0, [text])
    same = environment(stored) == environment(fresh)
    old, new = before.margins.astype(np.float64), after.margins.astype(np.float64)
    drift = {
        relation: max(_drift(*pair) for pair in zip(old[:, chosen], new[:, chosen], strict=True))
        for relation in RELATIONS
        if (chosen := before.relation == relation).any()
    }
    flipped = np.sign(old) != np.sign(new)
    limit = SAME_DRIFT if same else OTHER_DRIFT
    problems = []
    over = sorted((relation for relation in drift if not drift[relation] <= limit), key=lambda name: -drift[name])
    if over:
        found = ", ".join(f"{relation} {drift[relation]:.3f}" for relation in over)
        problems.append(
            f"the margins drifted by more than {limit} ({found}): captions, data, weights or method changed"
        )
    if same and flipped.any():
        problems.append(f"{int(flipped.sum())} records are answered differently{_first(before, flipped)}")
    if not same:
        problems += _large_flips(before, old, new, flipped)
    return Comparison(same, drift, int(flipped.sum()), problems)


def environment(result: Result) -> list[object]:
    """What has to be equal for runs to repeat exactly: hardware, threads, versions of everything but this package."""
    return [
        [run.hardware, {name: version for name, version in run.versions.items() if name != "spatialbench"}]
        for run in result.runs
    ]


def _drift(old: np.ndarray, new: np.ndarray) -> float:
    """r(new - old) / r(old); infinite when a scorer without any margin got one."""
    scale, change = np.sqrt(np.mean(old**2)), np.sqrt(np.mean((new - old) ** 2))
    return float(change / scale) if scale else (0.0 if change == 0 else float("inf"))


def _large_flips(before: ResultOutcomes, old: np.ndarray, new: np.ndarray, flipped: np.ndarray) -> list[str]:
    """Sign changes of large margins, where they also move an accuracy out of its paired interval."""
    large = np.zeros_like(flipped)
    for relation in RELATIONS:
        chosen = before.relation == relation
        scale = np.sqrt(np.mean(old[:, chosen] ** 2, axis=1, keepdims=True)) if chosen.any() else 0.0
        large[:, chosen] = flipped[:, chosen] & (np.abs(old[:, chosen]) > FLIP_MARGIN * scale)
    if not large.any():
        return []
    difference = paired_difference(new, old, before.relation, before.cluster)
    return [
        f"{int(large.sum())} records with large margins are answered differently{_first(before, large)}, and "
        f"{column} moved by {difference.gain[column]:+.1f} points, outside of chance"
        for column in COLUMNS
        if difference.verdict(column) != "not distinguishable"
    ]


def _first(outcomes: ResultOutcomes, chosen: np.ndarray) -> str:
    place = int(np.flatnonzero(chosen.any(axis=0))[0])
    return f" (first: {outcomes.record_ids[place]}, {outcomes.relation[place]})"


def say(line: str) -> None:
    """A line for the person at the terminal."""
    print(line, file=sys.stderr, flush=True)
