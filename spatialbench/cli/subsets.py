"""Subsets of a track's test: the facts of its records, and the stored rows in each subset."""

from __future__ import annotations

import argparse
from pathlib import Path

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.config.pages import load_track
from spatialbench.config.signatures import prune
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.records import Record
from spatialbench.data.rooms.store import cache_folder
from spatialbench.evaluation.record_facts import all_facts
from spatialbench.report.rows import no_rows, stored_rows
from spatialbench.report.subsets import subsets_table
from spatialbench.results.stale import Today
from spatialbench.training.controls import test_set
from spatialbench.utils.errors import SpatialbenchError


def show(options: argparse.Namespace) -> None:
    """Print the tables; options: rows, than, track, budget, results, benchmarks and format."""
    results, benchmarks = Path(options.results), Path(options.benchmarks)
    rows = stored_rows(results, benchmarks, options.track, options.budget)
    asked = [*options.rows, *([options.than] if options.than else [])]
    for name in asked:  # before minutes of facts
        if all(row.name != name for row in rows):
            today = Today.read(benchmarks)
            raise no_rows(results, today, options.track, options.budget, name)
    track = load_track(benchmarks / "tracks" / f"{options.track}.yaml")
    pages = [benchmarks / f"{row.name}.yaml" for row in rows]
    page = next((path for path in pages if path.is_file()), None)
    if page is None:
        raise SpatialbenchError(f"no page of a stored row is in {benchmarks}: --benchmarks FOLDER")
    resolved = resolve(page, track, options.budget)
    record_set, _ = test_set(resolved)
    facts = all_facts(record_set, *trained_on(resolved))
    print(subsets_table(rows, record_set, facts, options.rows, options.than, options.format))


def trained_on(resolved: Resolved) -> tuple[list[Record] | None, str]:
    """Return the training records of a track; None and the reason where they are not rendered."""
    data = PairDataModule(**prune(resolved.data_arguments, PairDataModule))
    if data.source == "rooms":
        path = cache_folder(data.image_size) / "train" / "scenes.jsonl"
        rendered = path.read_bytes().count(b"\n") if path.is_file() else 0
        if rendered < data.train_images:
            return None, (
                f"{rendered} of {data.train_images} training images are rendered here; render them "
                f"by spatialbench data export --split train --limit {data.train_images} "
                f"--size {data.image_size} --out FILE.json"
            )
    elif data.train_path is None or not Path(data.train_path).is_file():
        return None, "the file that the track trains on is not here"
    data.setup_training()
    return list(data.train_set.records), ""
