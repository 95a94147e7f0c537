"""Check that a repeated run gives what is stored.

A few training steps leave a model near chance, where accuracies tell little: with "left" and
"right" swapped in the captions, the accuracy of every relation stays inside its interval. So the
pair test is compared by its margins, record by record.

**The rule.** Let m be the stored margins of one seed, m' those of today's run, and r(m) the root
mean square over a relation. The drift of a relation is r(m' - m) / r(m).

- Same hardware and versions: every record keeps its sign, and no relation drifts by more than
  ``SAME_DRIFT``.
- Otherwise: no relation drifts by more than ``OTHER_DRIFT``; and every record whose sign changed
  had a margin of at most ``FLIP_MARGIN`` r(m), or else the change of the accuracy lies inside its
  paired 95 % interval.
- Other evaluations: no value moves by more than ``SAME_POINTS``, elsewhere ``OTHER_POINTS`` and
  ``OTHER_UNITS`` units.

Letters: S seeds, N records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from spatialbench.config.experiment import resolve
from spatialbench.config.pages import Page, Track
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.evidence import Evidence, same_units
from spatialbench.evaluation.statistics import verdict
from spatialbench.results.files import Row
from spatialbench.results.run_folder import Fit, RunRecord
from spatialbench.results.schema import PAIRS, Result
from spatialbench.training.collect import collect
from spatialbench.utils.say import say

SAME_DRIFT = 0.01
"""The same machine and versions repeat bit for bit; this covers float16 rounding and threads."""
OTHER_DRIFT = 0.05
"""Measured on six pages of rooms, smoke budget: another number of threads drifts by 0.002 at most,
AVX2 in place of AVX-512 by 0.004, and left and right swapped by 0.31 to 0.42 on these relations."""
FLIP_MARGIN = 0.1
SAME_POINTS, OTHER_POINTS, OTHER_UNITS = 0.01, 2.0, 2
"""Points by which a value may move; on another machine, so many units may change besides."""


def make_again(
    page: Page, track: Track, budget: str, seeds: Sequence[int], runs: Path, fit: Fit | None
) -> Row:
    """Make the row of a page from runs in the folder ``runs``; finished ones are used as they are.

    ``fit`` makes one run; None: ``spatialbench.training.fit.fit``.

    Raises:
        SpatialbenchError: a run failed, or the runs do not belong together.
    """
    if fit is None:
        from spatialbench.training import fit as training

        fit = partial(training.fit, show=False)
    records = []
    for seed in seeds:
        resolved = resolve(page, track, budget, seed, runs=runs)
        start = resolved.init_from
        if start is not None and not RunRecord.read(start.run_dir).finished:
            fit(start, False)
        say(f"{budget} run of {resolved.label}")
        records.append(fit(resolved, False))
    return collect(page, track, budget, records)


@dataclass(frozen=True)
class Comparison:
    """A repeated run compared with the stored one."""

    same: bool  # whether hardware and versions are the same, hence the stricter rule
    drift: dict[str, float]  # relation -> r(m' - m) / r(m), the largest of the seeds
    flips: int  # records whose sign changed, over all seeds
    problems: list[str]  # violations of the rule, one line each

    @property
    def summary(self) -> str:
        """The comparison in one line."""
        where = "same machine and versions" if self.same else "another machine or other versions"
        worst = max(self.drift, key=lambda relation: self.drift[relation], default="")
        largest = f", drift at most {self.drift[worst]:.3f} ({worst})" if worst else ""
        color = "red" if self.problems else "green"
        return f"{where}, {self.flips} records answered differently{largest}: {color}"


def compare(stored: Row, fresh: Row) -> Comparison:
    """Apply the rule of this module to the same seeds of a stored and a repeated row."""
    before, after = stored.pairs, fresh.pairs
    if before.data != after.data or not same_units(before, after):
        return Comparison(False, {}, 0, [_other_data(before, after)])
    same = not environment_changes(stored.result, fresh.result)
    old, new = (row.answers().astype(np.float64) for row in (before, after))
    group = before.known_margins.group
    drift = {
        relation: max(_drift(*pair) for pair in zip(old[:, chosen], new[:, chosen], strict=True))
        for relation in RELATIONS
        if (chosen := group == relation).any()
    }
    flipped = np.sign(old) != np.sign(new)
    limit = SAME_DRIFT if same else OTHER_DRIFT
    over = sorted((name for name in drift if not drift[name] <= limit), key=lambda n: -drift[n])
    problems = []
    if over:
        shown = ", ".join(f"{name} {drift[name]:.3f}" for name in over)
        what = f"the margins drifted by more than {limit} ({shown})"
        problems.append(f"{what}: captions, data, weights or method changed")
    if same and flipped.any():
        first = _first(before, flipped)
        problems.append(f"{int(flipped.sum())} records are answered differently{first}")
    if not same:
        problems += _large_flips(before, after, flipped)
    for name, evidence in stored.evidence.items():
        if name != PAIRS:
            problems += _moved(name, evidence, fresh.evidence.get(name), same)
    return Comparison(same, drift, int(flipped.sum()), problems)


def _moved(name: str, stored: Evidence, fresh: Evidence | None, same: bool) -> list[str]:
    """Values of an evaluation that the repeated run lacks, or that moved too far."""
    if fresh is None:
        return [f"no evaluation {name}, stored {', '.join(stored.ratios)}"]
    if fresh.data != stored.data:
        return [f"{name}: {_other_data(stored, fresh)}"]
    limit = SAME_POINTS if same else OTHER_POINTS + 100 * OTHER_UNITS / stored.units
    before, after = stored.values(), fresh.values()
    missing = [measure for measure in before if measure not in after]
    moves = {measure: after[measure] - before[measure] for measure in before if measure in after}
    over = [f"{measure} {move:+.2f}" for measure, move in moves.items() if abs(move) > limit]
    problems = [f"{name} moved by more than {limit:.4g} points ({', '.join(over)})"] if over else []
    return problems + ([f"{name} lacks {', '.join(missing)}"] if missing else [])


def _other_data(stored: Evidence, fresh: Evidence) -> str:
    return f"other data: {fresh.data}, stored {stored.data}; if that is wanted, run it again"


def environment_changes(stored: Result, fresh: Result) -> list[str]:
    """List hardware, threads and versions of other packages that differ between the runs.

    What only one of the two noted does not count.
    """
    changes = []
    for before, after in zip(stored.runs, fresh.runs, strict=True):
        old, new = ({**run.hardware, **run.versions} for run in (before, after))
        both = [name for name in new if name in old and name != "spatialbench"]
        changes += [f"{k} {new[k]}, was {old[k]}" for k in both if new[k] != old[k]]
    return list(dict.fromkeys(changes))


def _drift(old: np.ndarray, new: np.ndarray) -> float:
    """r(new - old) / r(old); infinite when a scorer without any margin got one."""
    scale, change = np.sqrt(np.mean(old**2)), np.sqrt(np.mean((new - old) ** 2))
    return float(change / scale) if scale else (0.0 if change == 0 else float("inf"))


def _large_flips(before: Evidence, after: Evidence, flipped: np.ndarray) -> list[str]:
    """Sign changes of large margins, where they move an accuracy out of its paired interval."""
    old, group = before.answers().astype(np.float64), before.known_margins.group
    large = np.zeros_like(flipped)
    for relation in set(group.tolist()):
        chosen = group == relation
        scale = np.sqrt(np.mean(old[:, chosen] ** 2, axis=1, keepdims=True))
        large[:, chosen] = flipped[:, chosen] & (np.abs(old[:, chosen]) > FLIP_MARGIN * scale)
    if not large.any():
        return []
    start = f"{int(large.sum())} records with large margins are answered differently"
    problems = []
    for column, ratio in before.ratios.items():
        gain, interval = before.resampler.difference(after.ratios[column], ratio)
        if verdict(interval) != "not distinguishable":
            moved = f"{column} moved by {gain:+.1f} points, outside of chance"
            problems.append(f"{start}{_first(before, large)}, and {moved}")
    return problems


def _first(evidence: Evidence, chosen: np.ndarray) -> str:
    margins, place = evidence.known_margins, int(np.flatnonzero(chosen.any(axis=0))[0])
    return f" (first: {margins.units[place]}, {margins.group[place]})"
