"""Large files through the data module: memory grows by the records, not by the file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.records import direction, jpeg, sft, text

RECORDS, IMAGES = 25_000, 300
PHRASES = {"left": "left of", "right": "at the right side of", "above": "above", "under": "beneath"}
THINGS = ("sofa", "lamp", "bed", "chair", "desk")
NAMES = [f"{colour} {thing}" for colour in ("red", "old", "round") for thing in THINGS]
PAIRS = [(a, b) for a in NAMES for b in NAMES if a.split()[1] != b.split()[1]]

MEASURE = """
import resource, sys
from spatialbench.data.datamodule import PairDataModule
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
arguments = {"image_size": 64, "val_images": 20, "batch_images": 40, "records_per_image": 4}
small, large = (PairDataModule("embspatial", train_path=path, **arguments) for path in sys.argv[1:])
for data in (small, large):  # a small file first: what is imported and allocated once
    before = peak()
    data.setup("fit")
    batches = sum(1 for _ in data.train_dataloader())
records = len(data.train_set.records) + len(data.val_set.records)
print(records, len(data.train_set.images), batches, peak() - before)
"""


def write_sft(path: Path, records: int) -> Path:
    """Write SFT's schema, with images of some 9 kB in base64 inside of the records."""
    padding = np.random.default_rng(0).bytes(6000)  # decoders ignore bytes after a JPEG's end
    images = [text(jpeg(image) + padding) for image in range(IMAGES)]
    with path.open("w") as stream:
        for row in range(records):
            (a, b), relation = PAIRS[row // IMAGES], list(PHRASES)[row % 4]
            raw = direction(f"q{row}", relation, a, b, image="IMAGE")
            raw = sft(raw, f"The {a} is {PHRASES[relation]} the {b}.")
            stream.write("[" if row == 0 else ",")
            stream.write(json.dumps(raw).replace("IMAGE", images[row % IMAGES]))
        stream.write("]")
    return path


def measure(small: Path, large: Path, least: float, most: float) -> tuple[int, ...]:
    """Check the growth in MB of a file of ``least`` MB; return records, images and batches."""
    assert large.stat().st_size / 1e6 > least
    cache = {"SPATIALBENCH_CACHE": str(small.parent), "PATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE, small, large]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=cache)
    *counts, grown = run.stdout.split()
    assert float(grown) < most, f"{grown} MB more"
    return tuple(map(int, counts))


def test_25_000_records_are_read_in_flat_memory(tmp_path: Path) -> None:
    small = write_sft(tmp_path / "small.json", 600)
    large = write_sft(tmp_path / "large.json", RECORDS)
    assert measure(small, large, 200, 90) == (RECORDS, IMAGES - 20, 7)


def test_distinct_images_of_a_parquet_are_read_in_flat_memory(tmp_path: Path) -> None:
    padding = np.random.default_rng(0).bytes(200_000)
    raws = [direction(f"q{i}", image=text(jpeg(i) + padding)) for i in range(200)]
    small, large = tmp_path / "small.parquet", tmp_path / "large.parquet"
    pq.write_table(pa.Table.from_pylist(raws[:60]), small)
    pq.write_table(pa.Table.from_pylist(raws), large, row_group_size=200, compression="none")
    assert measure(small, large, 50, 40) == (200, 180, 4)
