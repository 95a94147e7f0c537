"""``spatialbench reproduce``: the run that made a stored row once more, and whether it gives what is stored.

The page, the track, the budget and the seed are the row's; the code is today's, and what of it has changed since is
said first. What comes out is held against the stored outcomes record by record, by the rule of ``repeat.py``: on the
same machine with the same versions every record is answered as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.evaluation.statistics import accuracy
from spatialbench.results.files import (
    ResultOutcomes,
    read_outcomes,
    read_result,
    result_path,
    write_result,
)
from spatialbench.results.measures import KINDS, load
from spatialbench.results.schema import Result, SeedRun
from spatialbench.results.run_folder import RunRecord, clear
from spatialbench.results.stale import Today
from spatialbench.utils import provenance
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.verify.repeat import Comparison, Fit, Made, compare, make_again, same_environment

SHOWN = 3
"""Changed files that are named."""


@dataclass(frozen=True)
class Stored:
    """One seed of a stored row, as if it were all of it."""

    result: Result
    outcomes: ResultOutcomes

    @property
    def run(self) -> SeedRun:
        return self.result.runs[0]


def reproduce(
    path: str | Path,
    seed: int | None = None,
    benchmarks: str | Path = "benchmarks",
    out: str | Path = "runs/reproduced",
    fit: Fit | None = None,
) -> int:
    """Makes one seed of a stored row again and prints what is the same and what is not.

    A stopped run in ``out`` goes on where the same code left it; a finished one is run again.

    Args:
        path: the result file.
        seed: one of the row's; None: its first.
        benchmarks: the folder of the pages and tracks.
        out: a scratch folder: the run in ``out/runs``, the row in ``out/results``.
        fit: makes one run; None: ``spatialbench.training.fit.fit``.

    Returns:
        The exit status: 0 when it came out, 1 when not.

    Raises:
        SpatialbenchError: a damaged row, a page or track that is gone, a seed that the row does not have.
    """
    if not Path(path).is_file():
        raise SpatialbenchError(
            f"no stored row {path}: give its file, as results/rooms/clip_finetune.json"
        )
    today = Today.read(Path(benchmarks))
    stored = stored_seed(Path(path), seed)
    result = stored.result
    page, track = today.pages.get(result.name), today.tracks.get(result.track)
    if page is None or track is None:
        gone = f"page {result.name}" if page is None else f"track {result.track}"
        raise SpatialbenchError(
            f"{path}: its {gone} is gone from {benchmarks}: {_checkout(stored.run)}"
        )
    print(f"{path}, seed {stored.run.seed}: {result.page} on {track.name}, budget {result.budget}")
    print("\n".join(circumstances(stored, today.stale(result))), flush=True)
    runs = Path(out) / "runs"
    _begin(resolve(page, track, result.budget, stored.run.seed, runs=runs))
    made = make_again(page, track, result.budget, result.seeds, runs, fit or _fit())
    row = result_path(Path(out) / "results", track.name, result.budget, result.name)
    write_result(row, made.result, made.outcomes, made.measures, made.selection)
    found = compare(result, stored.outcomes, made.result, made.outcomes)
    print("\n".join([*outcome(stored, made, found), f"written to {row}"]))
    return 1 if found.problems else 0


def _fit() -> Fit:
    from spatialbench.training import fit as training

    return partial(training.fit, show=False)


def stored_seed(path: Path, seed: int | None) -> Stored:
    """One seed of a stored row, recounted.

    Raises:
        SpatialbenchError: the row is damaged, or has no such seed.
    """
    result = read_result(path)
    outcomes = read_outcomes(path, result)
    seed = result.seeds[0] if seed is None else seed
    if seed not in result.seeds:
        raise SpatialbenchError(
            f"{path}: has no seed {seed}, but {', '.join(map(str, result.seeds))}"
        )
    place = result.seeds.index(seed)
    beside: dict[str, Any] = {kind: _one_seed(path, result, kind, place) for kind in KINDS}
    margins = outcomes.margins[[place]]
    means = accuracy(margins, outcomes.relation)
    alone = replace(
        result,
        **beside,
        seeds=[seed],
        runs=[result.runs[place]],
        accuracy={name: None if np.isnan(value) else value for name, value in means.items()},
    )
    return Stored(alone, replace(outcomes, margins=margins))


def _one_seed(path: Path, result: Result, kind: str, place: int) -> object:
    """What a row says of its measures, with the values of one seed."""
    measures = load(path, result, kind)
    if measures is None:
        return None
    values = {name: float(measures.seed_values(name)[place]) for name in measures.ratios}
    return replace(getattr(result, kind), value=values)


def _begin(resolved: Resolved) -> None:
    """Removes a finished run, or one of other code, from the scratch folder, and the runs that it starts from."""
    chain: list[Resolved] = []
    one: Resolved | None = resolved
    while one is not None:
        chain.append(one)
        one = one.init_from
    records = [RunRecord.read(one.run_dir) for one in chain]
    now = provenance.commit()[0]
    if records[0].finished or any(record.info.get("commit", now) != now for record in records):
        for one in chain:
            clear(one.run_dir)


# --------------------------------------------------------------------------------------------------- what is printed


def circumstances(stored: Stored, stale: Sequence[str]) -> list[str]:
    """What of the code, the page and the track is not as it was; one line each."""
    page = ", ".join(stale) if stale else "as they were"
    return [f"code: {_code(stored.run)}", f"page, track and captions: {page}"]


def _code(run: SeedRun) -> str:
    now, dirty = provenance.commit()
    if not run.commit:
        return "the row notes no commit"
    text = f"the row's is commit {run.commit[:10]}{' with changes that are not in it' if run.dirty else ''}"
    changed = provenance.changed_since(run.commit)
    if changed is None:
        return f"{text}, which this checkout does not have"
    if not changed:
        return f"{text}, and no file of the package differs from it"
    names = ", ".join(changed[:SHOWN]) + (", ..." if len(changed) > SHOWN else "")
    today = f"today's {now[:10]}{' with changes' if dirty else ''}"
    return (
        f"{text}; {len(changed)} files of the package differ in {today} ({names}): {_checkout(run)}"
    )


def _checkout(run: SeedRun) -> str:
    return (
        f"git checkout {run.commit[:10]} has the row's own"
        if run.commit
        else "the row notes no commit"
    )


def outcome(stored: Stored, made: Made, found: Comparison) -> list[str]:
    """Whether it came out, and how far; one line each."""
    lines = [f"environment: {_environment(stored.result, made.result)}"]
    before, after = stored.outcomes, made.outcomes
    if not np.array_equal(before.record_ids, after.record_ids):
        return [*lines, *(f"did not come out: {problem}" for problem in found.problems)]
    n, old, new = len(before.record_ids), before.margins[0], after.margins[0]
    flipped = np.flatnonzero(np.sign(old) != np.sign(new))
    means = [result.accuracy["all"] or 0.0 for result in (made.result, stored.result)]
    lines.append(f"All: {means[0]:.2f} now, {means[1]:.2f} stored")
    if np.array_equal(old, new):
        lines.append(f"records: all {n} margins are equal")
    elif not len(flipped):
        moved = np.abs(old.astype(float) - new).max()
        lines.append(f"records: all {n} are answered alike; margins differ by {moved:.2g} at most")
    else:
        first = flipped[0]
        lines.append(
            f"records: {len(flipped)} of {n} are answered differently, first {before.record_ids[first]} "
            f"({before.relation[first]}): margin {new[first]:+.3g}, stored {old[first]:+.3g}"
        )
    if found.problems:
        return [*lines, *(f"did not come out: {problem}" for problem in found.problems)]
    exact = np.array_equal(old, new)
    return [*lines, "came out exactly" if exact else f"came out within the rule ({found.summary})"]


def _environment(before: Result, after: Result) -> str:
    if same_environment(before, after):
        return "the same machine and versions"
    old, new = before.runs[0], after.runs[0]
    pairs = {**{key: (old.hardware.get(key), value) for key, value in new.hardware.items()}}
    pairs |= {
        key: (old.versions[key], value)
        for key, value in new.versions.items()
        if key in old.versions
    }
    changed = [f"{key} {now}, was {was}" for key, (was, now) in pairs.items() if was != now]
    return "; ".join(changed) or "differs in what the row did not note"
