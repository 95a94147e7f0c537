"""The audit's rows: two pages on a track of the rooms with each flaw laid over it, none first."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from spatialbench.config.flaws import FILE, PAGES, audited, read_flaws
from spatialbench.config.pages import load_track
from spatialbench.results.files import AUDIT
from spatialbench.results.run_folder import Fit
from spatialbench.training import fit as training
from spatialbench.training.plan import PlannedRow, make, plan_rows
from spatialbench.utils.errors import SpatialbenchError

_FIT = partial(training.fit, show=False)


def audit(
    results: str | Path,
    benchmarks: str | Path,
    track: str,
    budget: str,
    seeds: Sequence[int] | None = None,
    runs: str | Path = "runs",
    force: bool = False,
    fit: Fit = _FIT,
) -> int:
    """Make the rows in ``results/audit``, with the pair test alone; see ``plan.run``.

    Raises:
        SpatialbenchError: the track has no flaws; see also ``plan.run``.
    """
    pages = {name: Path(benchmarks) / f"{name}.yaml" for name in PAGES}
    base = load_track(track, near=pages[PAGES[0]])
    flaws = read_flaws(Path(benchmarks))
    tracks = audited({base.name: base}, flaws)
    if not tracks:
        what = f"no audit of track {base.name}: {Path(benchmarks) / FILE} has the flaws of the"
        raise SpatialbenchError(f"{what} rooms; give a track whose data.source is rooms")
    where = budget, seeds, Path(results) / AUDIT, Path(runs)
    plan: list[PlannedRow] = []
    for flaw in flaws:
        if flaw.trained:
            own = [pages[name] for name in flaw.pages]
            plan += plan_rows(own, tracks[f"{base.name}+{flaw.name}"], *where)
    return make(plan, force, fit)
