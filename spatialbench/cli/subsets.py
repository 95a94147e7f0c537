"""``spatialbench subsets``: the records of a track with their facts, and the stored rows in each subset."""

from __future__ import annotations

import argparse
from pathlib import Path

from spatialbench.cli.controls import test_set
from spatialbench.config.experiment import Resolved, resolve
from spatialbench.config.pages import load_track
from spatialbench.config.signatures import prune
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.records import Record, RecordSet
from spatialbench.evaluation import subsets as facts
from spatialbench.evaluation.subsets import Fact
from spatialbench.report.stored_rows import no_rows
from spatialbench.report.subsets import subsets_table
from spatialbench.report.table import stored_rows
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError


def run(options: argparse.Namespace) -> None:
    """Prints the tables.

    Args:
        options: rows, than, track, budget, results, benchmarks and format, as ``spatialbench.cli.trust`` parses
            them.

    Raises:
        SpatialbenchError: no such row, or the rows were scored on other records than the track has today.
    """
    rows = stored_rows(
        Path(options.results), Path(options.benchmarks), options.track, options.budget
    )
    today = Today.read(Path(options.benchmarks))
    for name in dict.fromkeys(
        [*options.rows, *([options.than] if options.than else [])]
    ):  # before minutes of facts
        if all(row.result.name != name for row in rows):
            raise no_rows(Path(options.results), today, options.track, options.budget, name)
    track = load_track(Path(options.benchmarks) / "tracks" / f"{options.track}.yaml")
    plain = next(
        (row for row in rows if (Path(options.benchmarks) / f"{row.result.name}.yaml").is_file()),
        None,
    )
    if plain is None:
        raise SpatialbenchError(
            f"no page of a stored row is in {options.benchmarks}: --benchmarks FOLDER"
        )
    resolved = resolve(
        Path(options.benchmarks) / f"{plain.result.name}.yaml", track, options.budget
    )
    record_set, _ = test_set(resolved)
    print(
        subsets_table(
            rows,
            record_set,
            facts_of(record_set, resolved),
            options.rows,
            options.than,
            options.format,
        )
    )


def facts_of(record_set: RecordSet, resolved: Resolved) -> list[Fact]:
    """Every fact of a track's test records, those that they do not have among them."""
    records = record_set.records
    trained, why = trained_on(resolved)
    by_boxes = [facts.elevation(records), facts.gap(records), facts.size(records)]
    return [*by_boxes, *facts.of_scenes(record_set), facts.pairs(records, trained, why)]


def trained_on(resolved: Resolved) -> tuple[list[Record] | None, str]:
    """The records that a track trains on; None, and why, where they would have to be rendered first."""
    data = PairDataModule(**prune(resolved.data_arguments, PairDataModule))
    if data.source == "rooms":
        there = _rendered("train", data.image_size)
        if there < data.train_images:
            return None, (
                f"{there} of {data.train_images} pictures of training are rendered here; spatialbench data export "
                f"--split train --limit {data.train_images} --size {data.image_size} --out FILE.json renders them"
            )
    elif data.train_path is None or not Path(data.train_path).is_file():
        return None, "the file that the track trains on is not here"
    data.setup_training()
    return list(data.train_set.records), ""


def _rendered(split: str, size: int) -> int:
    """Pictures of a split of the rooms that are in the cache."""
    from spatialbench.data.rooms.store import cache_folder

    path = cache_folder(size) / split / "scenes.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0
