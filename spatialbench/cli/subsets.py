"""``spatialbench subsets``: stored rows by the facts of the test's records."""

from pathlib import Path

from spatialbench.cli.parser import Parser
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


def subsets(argv: list[str]) -> int:
    """Run ``spatialbench subsets``."""
    parser = Parser("subsets", "stored rows by elevation, gap, size, depth, visibility, ...")
    parser.add("rows", "stored rows (default: all)", "ROW", nargs="*")
    parser.add("--than", "the row to compare with (default: the second of the table)", "ROW")
    parser.common("format", "track", "results", "benchmarks", budget="full")
    o = parser.parse_args(argv)
    results, benchmarks = Path(o.results), Path(o.benchmarks)
    rows = stored_rows(results, benchmarks, o.track, o.budget)
    known = {row.name for row in rows}
    for name in (*o.rows, o.than):  # before minutes of facts
        if name is not None and name not in known:
            raise no_rows(results, Today.read(benchmarks), o.track, o.budget, name)
    track = load_track(benchmarks / "tracks" / f"{o.track}.yaml")
    pages = [benchmarks / f"{row.name}.yaml" for row in rows]
    page = next((path for path in pages if path.is_file()), None)
    if page is None:
        raise SpatialbenchError(f"no page of a stored row is in {benchmarks}: --benchmarks FOLDER")
    resolved = resolve(page, track, o.budget)
    record_set, _ = test_set(resolved)
    facts = all_facts(record_set, *trained_on(resolved))
    print(subsets_table(rows, record_set, facts, o.rows, o.than, o.format))
    return 0


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
