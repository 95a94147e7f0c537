"""``spatialbench reproduce``: repeat the run behind a stored row, and compare.

Page, track, budget and seed are the row's; the code is today's, and what changed in it since is
reported first. The evidence is compared record by record, by the rule of ``repeat.py``: on the same
machine with the same versions, every record is answered as it was.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.results.files import Row, read_row, result_path, write_row
from spatialbench.results.run_folder import Fit, RunRecord, clear
from spatialbench.results.schema import SeedRun
from spatialbench.results.stale import Today
from spatialbench.utils import provenance
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.verify.repeat import Comparison, compare, environment_changes, make_again


def reproduce(
    path: str | Path,
    seed: int | None = None,
    benchmarks: str | Path = "benchmarks",
    out: str | Path = "runs/reproduced",
    fit: Fit | None = None,
) -> int:
    """Repeat one seed of a stored row, and print what is the same; return 1 where it is not.

    A stopped run in ``out`` is resumed by the same code; a finished one is repeated.

    Args:
        path: the result file.
        seed: one of the row's; None: its first.
        benchmarks: the folder of the pages and tracks.
        out: a scratch folder: the run in ``out/runs``, the row in ``out/results``.
        fit: see ``make_again``.

    Raises:
        SpatialbenchError: a damaged row, a page or track that is gone, or an unknown seed.
    """
    path, out = Path(path), Path(out)
    stored = stored_seed(path, seed)
    today, result = Today.read(Path(benchmarks), audit=True), stored.result
    (run,) = result.runs
    page, track = today.pages.get(result.name), today.tracks.get(result.track)
    if page is None or track is None:
        gone = f"page {result.name}" if page is None else f"track {result.track}"
        raise SpatialbenchError(f"{path}: its {gone} is gone from {benchmarks}: {_checkout(run)}")
    changed = ", ".join(today.stale(result)) or "as they were"
    print(f"{path}, seed {run.seed}: {result.page} on {track.name}, budget {result.budget}")
    print(f"code: {_code(run)}\npage, track and captions: {changed}", flush=True)
    _clear_old(resolve(page, track, result.budget, run.seed, runs=out / "runs"))
    made = make_again(page, track, result.budget, result.seeds, out / "runs", fit)
    target = result_path(out / "results", track.name, result.budget, result.name)
    write_row(target, made)
    comparison = compare(stored, made)
    print("\n".join([*outcome(stored, made, comparison), f"written to {target}"]))
    return 1 if comparison.problems else 0


def stored_seed(path: Path, seed: int | None) -> Row:
    """Read one seed of a stored row, recounted: its run and its evidence.

    Raises:
        SpatialbenchError: the row is damaged, or has no such seed.
    """
    if not path.is_file():
        example = "give its file, as results/rooms/clip_finetune.json"
        raise SpatialbenchError(f"no stored row {path}: {example}")
    row = read_row(path)
    seeds = row.result.seeds
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise SpatialbenchError(f"{path}: has no seed {seed}, but {', '.join(map(str, seeds))}")
    place = seeds.index(seed)
    evidence = {name: found.seed(place) for name, found in row.evidence.items()}
    result = replace(row.result, seeds=[seed], runs=[row.result.runs[place]])
    return Row(result, evidence)


def _clear_old(resolved: Resolved) -> None:
    """Clear a finished run, or one of other code, and the runs that it starts from."""
    chain = [resolved]
    while chain[-1].init_from is not None:
        chain.append(chain[-1].init_from)
    records = [RunRecord.read(stage.run_dir) for stage in chain]
    now = provenance.commit()[0]
    if records[0].finished or any(record.info.get("commit", now) != now for record in records):
        for stage in chain:
            clear(stage.run_dir)


def _code(run: SeedRun) -> str:
    now, dirty = provenance.commit()
    if not run.commit:
        return "the row notes no commit"
    mark = " with changes that are not in it" if run.dirty else ""
    text = f"the row's is commit {run.commit[:10]}{mark}"
    changed = provenance.changed_since(run.commit)
    if changed is None:
        return f"{text}, which this checkout does not have"
    if not changed:
        return f"{text}, and no file of the package differs from it"
    names = ", ".join([*changed[:3], *(["..."] if len(changed) > 3 else [])])
    today = f"today's {now[:10]}{' with changes' if dirty else ''}"
    differ = f"{len(changed)} files of the package differ in {today} ({names})"
    return f"{text}; {differ}: {_checkout(run)}"


def _checkout(run: SeedRun) -> str:
    own = f"git checkout {run.commit[:10]} has the row's own"
    return own if run.commit else "the row notes no commit"


def outcome(stored: Row, made: Row, comparison: Comparison) -> list[str]:
    """Describe the result of a comparison, a line each."""
    changes = environment_changes(stored.result, made.result)
    lines = [f"environment: {'; '.join(changes) or 'the same machine and versions'}"]
    verdict = [f"not reproduced: {problem}" for problem in comparison.problems]
    if not comparison.drift:  # other data
        return lines + verdict
    old, new = (row.pairs.answers()[0].astype(float) for row in (stored, made))
    now, before = (row.pairs.values()["all"] for row in (made, stored))
    lines.append(f"All: {now:.2f} now, {before:.2f} stored")
    if np.array_equal(old, new):
        lines.append(f"records: all {len(old)} margins are equal")
        return lines + (verdict or ["reproduced exactly"])
    flips = f"{comparison.flips} of {len(old)} are answered differently"
    lines.append(f"records: {flips}; margins differ by {np.abs(old - new).max():.2g} at most")
    return lines + (verdict or [f"reproduced within the rule ({comparison.summary})"])
