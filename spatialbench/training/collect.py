"""From finished run folders to a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spatialbench.config.pages import Page, Track
from spatialbench.evaluation.measures import Measures
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.results.files import ResultOutcomes, make_result
from spatialbench.results.schema import Parameters, Result, SeedRun
from spatialbench.results.run_folder import RunRecord
from spatialbench.results.stale import ancestors, grammar_hash, page_hash, track_hash
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.typed_files import parse


def load_measures(page: Page, records: Sequence[RunRecord]) -> list[Measures] | None:
    """What the runs of one page measured beside the pairs, one for each of ``records``; None where none did.

    Raises:
        SpatialbenchError: some did and some did not, or a file is damaged.
    """
    return _load(page, records, [record.measures for record in records])


def load_selection(page: Page, records: Sequence[RunRecord]) -> list[Measures] | None:
    """Image selection of the runs of one page; see :func:`load_measures`."""
    return _load(page, records, [record.selection for record in records])


def _load(page: Page, records: Sequence[RunRecord], paths: Sequence[Path]) -> list[Measures] | None:
    """The files of the runs of one page.

    Raises:
        SpatialbenchError: some did and some did not, or a file is damaged.
    """
    seeds: dict[bool, list[str]] = {True: [], False: []}
    for record, path in zip(records, paths, strict=True):
        seeds[path.exists()].append(str(record.info.get("seed", record.run_dir.name)))
    if not seeds[True]:
        return None
    if seeds[False]:
        raise SpatialbenchError(
            f"page {page.name}: {paths[0].name} is there for seed {', '.join(seeds[True])} but not for seed "
            f"{', '.join(seeds[False])}; run them again with --force"
        )
    return [Measures.load(path) for path in paths]


def collect(
    page: Page,
    track: Track,
    budget: str,
    records: Sequence[RunRecord],
    outcomes: Sequence[RunOutcomes],
    measures: Sequence[Measures] | None = None,
    selection: Sequence[Measures] | None = None,
) -> Result:
    """The row of finished runs of one page.

    Args:
        records: one for each seed.
        outcomes: of each of ``records``.
        measures, selection: of each of ``records``, one seed each; None: not measured.

    Raises:
        SpatialbenchError: the runs do not belong together, or a run.json lacks something.
    """
    for name in ("data_fingerprint", "config_hash", "total_parameters", "trainable_parameters"):
        found = {str(record.info.get(name)) for record in records}
        if len(found) > 1:
            raise SpatialbenchError(
                f"page {page.name}: the seeds differ in {name} ({', '.join(sorted(found))}); "
                "run them again with --force"
            )
    info = records[0].info
    return make_result(
        [_seed_run(record, one) for record, one in zip(records, outcomes, strict=True)],
        ResultOutcomes.join(outcomes),
        None if measures is None else Measures.join(measures),
        None if selection is None else Measures.join(selection),
        name=page.name,
        page=_shown(page.path),
        page_hash=page_hash(page, budget),
        track=track.name,
        track_hash=track_hash(track, budget, page),
        init_from=ancestors(page, budget, track),
        budget=budget,
        grammar=grammar_hash(),
        data_fingerprint=str(info.get("data_fingerprint", "")),
        parameters=Parameters(
            int(info.get("total_parameters", 0)), int(info.get("trainable_parameters", 0))
        ),
    )


_KEPT = (
    *("seed", "config_hash", "commit", "dirty", "versions", "hardware", "wall_seconds"),
    *("peak_memory_mb", "peak_gpu_memory_mb", "train_steps", "train_pairs"),
)


def _seed_run(record: RunRecord, outcomes: RunOutcomes) -> SeedRun:
    """What a result keeps of run.json; the counts come from the outcomes themselves."""
    scores = outcomes.scores()
    data: dict[str, Any] = {
        "train_pairs": None,
        **{key: record.info[key] for key in _KEPT if key in record.info},
    }
    data["relations"] = {name: vars(count) for name, count in scores.relations.items()}
    data |= {"micro": round(scores.micro, 4), "macro": round(scores.macro, 4)}
    return parse(SeedRun, data, f"{record.run_dir / 'run.json'}", "run it again with --force")


def _shown(path: Path) -> str:
    """Relative to the working folder where it lies below it: a result names no one's home folder."""
    absolute = path.resolve()
    return (
        absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else Path(path.name)
    ).as_posix()
