"""A row from finished run folders."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from spatialbench.config.evaluations import evaluations_of
from spatialbench.config.pages import Page, Track
from spatialbench.evaluation.evidence import Evidence
from spatialbench.results.files import Row, make_row
from spatialbench.results.run_folder import RunRecord
from spatialbench.results.schema import PAIRS, Parameters, SeedRun
from spatialbench.results.stale import ancestors, grammar_hash, page_hash, track_hash
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.typed_files import parse

AGAIN = "run them again with --force"


def collect(page: Page, track: Track, budget: str, records: Sequence[RunRecord]) -> Row:
    """Make the row of finished runs of one page, one for each seed.

    Raises:
        SpatialbenchError: the runs do not belong together, or a file is damaged.
    """
    for name in ("config_hash", "total_parameters", "trainable_parameters"):
        values = {str(record.info.get(name)) for record in records}
        if len(values) > 1:
            what = f"page {page.name}: the seeds differ in {name} ({', '.join(sorted(values))})"
            raise SpatialbenchError(f"{what}; {AGAIN}")
    info = records[0].info
    parameters = (int(info.get(f"{kind}_parameters", 0)) for kind in ("total", "trainable"))
    return make_row(
        [_seed_run(record) for record in records],
        _evidence(page, track, budget, records),
        parameters=Parameters(*parameters),
        **identity(page, track, budget),
    )


def identity(page: Page, track: Track, budget: str) -> dict[str, Any]:
    """Return the fields of a result that say what it is a result of."""
    return {
        "name": page.name,
        "page": _shown(page.path),
        "page_hash": page_hash(page, budget),
        "track": track.name,
        "track_hash": track_hash(track, budget, page),
        "init_from": ancestors(page, budget, track),
        "budget": budget,
        "grammar": grammar_hash(),
    }


def _evidence(
    page: Page, track: Track, budget: str, records: Sequence[RunRecord]
) -> dict[str, list[Evidence]]:
    """Load the pair test and the track's evaluations, in the order of the track."""
    gathered = {}
    for name in (PAIRS, *evaluations_of(track, budget)):
        seeds: dict[bool, list[str]] = {True: [], False: []}
        for record in records:
            seeds[record.evidence(name).exists()].append(str(record.info.get("seed")))
        if seeds[True] and seeds[False]:
            some, others = (", ".join(seeds[there]) for there in (True, False))
            what = (
                f"page {page.name}: {name}.npz is there for seed {some} but not for seed {others}"
            )
            raise SpatialbenchError(f"{what}; {AGAIN}")
        if seeds[True]:
            gathered[name] = [Evidence.load(record.evidence(name)) for record in records]
    return gathered


def _seed_run(record: RunRecord) -> SeedRun:
    kept = {f.name: record.info[f.name] for f in fields(SeedRun) if f.name in record.info}
    where = str(record.run_dir / "run.json")
    return parse(SeedRun, {"train_pairs": None, **kept}, where, "run it again with --force")


def _shown(path: Path) -> str:
    """Path relative to the working folder: a result names nobody's home folder."""
    path, here = path.resolve(), Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else Path(path.name)).as_posix()
