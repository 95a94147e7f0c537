"""Does a repeated smoke run give what is stored?

Training a few steps leaves a model near chance, where counts tell little: exchanging "left" and "right" in the captions
leaves the accuracy of every relation inside its interval. So the check compares the margins record by record.

**The rule.** Let m be the stored margins of one seed and m' those of today's run, r(m) the root mean square of a
relation. The drift of a relation is r(m' - m) / r(m).

- Same hardware and versions: every record has the sign that it had, and no relation drifts by more than
  ``SAME_DRIFT``.
- Otherwise: no relation drifts by more than ``OTHER_DRIFT``; and every record whose sign changed had a margin of at
  most ``FLIP_MARGIN`` r(m), or else the change of the accuracy lies inside its paired 95 % interval.
- Measures (regions, dense quality, retrieval, image selection): no value moves by more than ``SAME_POINTS``, elsewhere
  ``OTHER_POINTS``.

Letters: S seeds, N records.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.config.pages import Page, Track
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.measures import Measures
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.evaluation.statistics import COLUMNS, paired_difference
from spatialbench.results.files import ResultOutcomes
from spatialbench.results.schema import MeasuresFile, Result
from spatialbench.results.run_folder import RunRecord
from spatialbench.training.collect import collect, load_measures, load_selection

Fit = Callable[[Resolved, bool], RunRecord]
"""Makes one run: ``spatialbench.training.fit.fit``."""

SAME_DRIFT = 0.01
"""A run on the same machine and versions repeats bit for bit; this is the rounding to float16, and room for threads."""
OTHER_DRIFT = 0.05
"""Measured on the six pages of rooms, smoke budget: another number of threads drifts by 0.002 at most, AVX2 in place of
AVX-512 by 0.004; left and right exchanged in the grammar by 0.31 to 0.42 on these two relations."""
FLIP_MARGIN = 0.1
SAME_POINTS, OTHER_POINTS, OTHER_PICTURES = 0.01, 2.0, 2
"""Percentage points by which a measure may move on the same machine and versions, and elsewhere: there so many pictures
may change their answer besides."""


@dataclass(frozen=True)
class Made:
    """A row made again, not stored: what ``results.write_result`` takes."""

    result: Result
    outcomes: ResultOutcomes
    measures: Measures | None
    selection: Measures | None


def make_again(
    page: Page, track: Track, budget: str, seeds: Sequence[int], runs: Path, fit: Fit
) -> Made:
    """The row of a page, from runs in the folder ``runs``; those that are there and finished are not run again.

    Raises:
        SpatialbenchError: a run failed, or the runs do not belong together.
    """
    records, outcomes = [], []
    for seed in seeds:
        resolved = resolve(page, track, budget, seed, runs=runs)
        start = resolved.init_from
        if start is not None and not RunRecord.read(start.run_dir).finished:
            fit(start, False)
        say(f"{budget} run of {resolved.label}")
        records.append(fit(resolved, False))
        outcomes.append(RunOutcomes.load(records[-1].outcomes))
    found = load_measures(page, records), load_selection(page, records)
    result = collect(page, track, budget, records, outcomes, *found)
    joined = [None if measures is None else Measures.join(measures) for measures in found]
    return Made(result, ResultOutcomes.join(outcomes), *joined)


def say(line: str) -> None:
    """A line for the person at the terminal."""
    print(line, file=sys.stderr, flush=True)


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


def compare(
    stored: Result, before: ResultOutcomes, fresh: Result, after: ResultOutcomes
) -> Comparison:
    """Applies the rule of this module.

    Args:
        stored, before: the stored row and its outcomes.
        fresh, after: the repeated run, the same seeds.
    """
    if stored.data_fingerprint != fresh.data_fingerprint or not np.array_equal(
        before.record_ids, after.record_ids
    ):
        text = f"other data: {fresh.data_fingerprint}, stored {stored.data_fingerprint}; if that is wanted, run it again"
        return Comparison(False, {}, 0, [text])
    same = same_environment(stored, fresh)
    old, new = before.margins.astype(np.float64), after.margins.astype(np.float64)
    drift = {
        relation: max(_drift(*pair) for pair in zip(old[:, chosen], new[:, chosen], strict=True))
        for relation in RELATIONS
        if (chosen := before.relation == relation).any()
    }
    flipped = np.sign(old) != np.sign(new)
    limit = SAME_DRIFT if same else OTHER_DRIFT
    problems = []
    over = sorted(
        (relation for relation in drift if not drift[relation] <= limit),
        key=lambda name: -drift[name],
    )
    if over:
        found = ", ".join(f"{relation} {drift[relation]:.3f}" for relation in over)
        problems.append(
            f"the margins drifted by more than {limit} ({found}): captions, data, weights or method changed"
        )
    if same and flipped.any():
        problems.append(
            f"{int(flipped.sum())} records are answered differently{_first(before, flipped)}"
        )
    if not same:
        problems += _large_flips(before, old, new, flipped)
    problems += _moved_measures(stored.measures, fresh.measures, same)
    problems += _moved_measures(stored.selection, fresh.selection, same)
    return Comparison(same, drift, int(flipped.sum()), problems)


def _moved_measures(
    stored: MeasuresFile | None, fresh: MeasuresFile | None, same: bool
) -> list[str]:
    """Measures that the repeated run lacks, or that moved too far."""
    if stored is None:
        return []
    if fresh is None:
        return [f"no measures, stored {', '.join(stored.value)}"]
    if fresh.data != stored.data:
        return [
            f"measured on other data: {fresh.data}, stored {stored.data}; if that is wanted, run it again"
        ]
    limit = SAME_POINTS if same else OTHER_POINTS + 100 * OTHER_PICTURES / stored.pictures
    moves = {
        name: fresh.value[name] - value
        for name, value in stored.value.items()
        if name in fresh.value
    }
    over = [f"{name} {move:+.2f}" for name, move in moves.items() if abs(move) > limit]
    lacking = [name for name in stored.value if name not in fresh.value]
    problems = (
        [f"the measures moved by more than {limit:.4g} points ({', '.join(over)})"] if over else []
    )
    return problems + ([f"the measures {', '.join(lacking)} are missing"] if lacking else [])


def same_environment(stored: Result, fresh: Result) -> bool:
    """Whether what has to be equal for runs to repeat exactly is equal: hardware, threads, versions of everything but
    this package. Packages that one of the two did not note yet tell nothing."""
    if len(stored.runs) != len(fresh.runs):
        return False
    for before, after in zip(stored.runs, fresh.runs, strict=True):
        noted = before.versions.keys() & after.versions.keys() - {"spatialbench"}
        if before.hardware != after.hardware or any(
            before.versions[k] != after.versions[k] for k in noted
        ):
            return False
    return True


def _drift(old: np.ndarray, new: np.ndarray) -> float:
    """r(new - old) / r(old); infinite when a scorer without any margin got one."""
    scale, change = np.sqrt(np.mean(old**2)), np.sqrt(np.mean((new - old) ** 2))
    return float(change / scale) if scale else (0.0 if change == 0 else float("inf"))


def _large_flips(
    before: ResultOutcomes, old: np.ndarray, new: np.ndarray, flipped: np.ndarray
) -> list[str]:
    """Sign changes of large margins, where they also move an accuracy out of its paired interval."""
    large = np.zeros_like(flipped)
    for relation in RELATIONS:
        chosen = before.relation == relation
        scale = (
            np.sqrt(np.mean(old[:, chosen] ** 2, axis=1, keepdims=True)) if chosen.any() else 0.0
        )
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
