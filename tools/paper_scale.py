"""Spatial attention at the paper's sizes on this machine's GPU: ``python -m tools.paper_scale``.

ViT-L/14 at 336 pixels with DINOv2 ViT-L/14, and ViT-B/16 with DINOv2 ViT-B/14, with random weights
on synthetic records in EmbSpatial's schema: the cost of a step does not depend on the weights.
Every variant is a ``spatialbench fit`` of some steps in its own process, which reports its speed
(training/speed.py). Writes results/paper_scale.json and a table beside it. Nothing asserts a time;
a variant that does not fit into memory is a line with the error.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from spatialbench.config.experiment import resolve
from spatialbench.data.embspatial.embspatial_export import export
from spatialbench.data.records import Box, Record, RecordSet, fingerprint
from spatialbench.results.run_folder import RunRecord
from spatialbench.utils import provenance
from spatialbench.utils.cache import CACHE_VARIABLE
from spatialbench.utils.errors import SpatialbenchError, write_atomic

COLOURS = ("red", "green", "blue", "black", "white", "brown", "grey", "old")
THINGS = (
    *("sofa", "lamp", "bed", "chair", "table", "shelf", "stool"),
    *("desk", "door", "plant", "clock", "rug", "sink"),
)
VALIDATION = 8
CACHED = 512
"""Images of the variants with cached tokens: 28 MB each at L/14 and 336 pixels."""
COLUMNS = {
    "images_per_second": "images/s",
    "peak_gpu_memory_mb": "GPU memory, MB",
    "peak_memory_mb": "memory, MB",
    "tflop_per_image": "TFLOP an image",
    "mfu": "MFU",
}


@dataclass(frozen=True)
class Size:
    """Student and VFM of one size.

    Attributes:
        batch: images of a plain step.
        large: images of a step in chunks of ``batch``, and as many pairs; 4096 in the poster.
    """

    student: str
    vfm: str
    pixels: int
    batch: int
    large: int = 4096


SIZES = {
    "L/14@336": Size("ViT-L-14-336-quickgelu:random", "vit_large_patch14_dinov2:random", 336, 32),
    "B/16": Size("ViT-B-16-quickgelu:random", "vit_base_patch14_dinov2:random", 224, 128),
    "rooms": Size("rooms-student", "rooms-vfm", 96, 8, 32),  # a check of everything, on any machine
}


@dataclass(frozen=True)
class Variant:
    """One line of the table."""

    size: str
    name: str
    steps: int
    flags: dict[str, Any] = field(default_factory=dict)

    def arguments(self, data: Path, track: str) -> list[str]:
        """Return the arguments of ``spatialbench fit``."""
        size = SIZES[self.size]
        flags: dict[str, Any] = {
            "trainer.max_steps": self.steps,
            "trainer.limit_val_batches": 0,
            "trainer.enable_checkpointing": "false",
            "data.source": "embspatial",
            "data.train_path": data / f"{size.pixels}.json",
            "data.path": data / f"{size.pixels}_test.json",
            "data.image_size": size.pixels,
            "data.train_images": size.large,
            "data.val_images": VALIDATION,
            "data.batch_images": size.batch,
            "data.records_per_image": 1,
            "data.eval_batch_images": size.batch,
            "model.init_args.student": size.student,
            "model.init_args.vfm": size.vfm,
            "model.init_args.cache": "false",
            "model.init_args.finetuning.chunk_images": 0,
            **self.flags,
        }
        page = ["fit", "--config", "benchmarks/spatial_attn.yaml", "--track", track]
        page += ["--budget", "smoke"]
        return [*page, *(f"--{name}={value}" for name, value in flags.items())]


def variants(size: str) -> list[Variant]:
    """Return plain, compiled, checkpointed, with cached tokens, and the large batch in chunks."""
    ours = SIZES[size]
    settings = "model.init_args.finetuning."
    cached = {"model.init_args.cache": "true", "data.train_images": min(CACHED, ours.large)}
    compiled, chunked = {f"{settings}compile": "true"}, {f"{settings}chunk_images": ours.batch}
    large = {"data.batch_images": ours.large, **chunked, f"{settings}chunk_captions": 1024}
    return [
        Variant(size, "plain", 15),
        Variant(size, "compiled", 15, compiled),
        Variant(size, "checkpointed blocks", 15, {f"{settings}checkpointing": "true"}),
        Variant(size, "VFM cached", 15, cached),
        Variant(size, "VFM cached, compiled", 15, {**cached, **compiled}),
        Variant(size, f"batch {ours.large} in chunks", 5, large),
        Variant(size, f"batch {ours.large} in chunks, compiled", 5, {**large, **compiled}),
    ]


def write_records(folder: Path, pixels: int, images: int) -> None:
    """Write images of random patches with a record each, to train and to test on."""
    names = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    files = ((f"{pixels}.json", images + VALIDATION, 0), (f"{pixels}_test.json", 64, 1))
    for name, count, seed in files:
        draw = np.random.default_rng(seed)
        patches = draw.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        repeat = np.arange(pixels) * 8 // pixels
        sides = Box(1, 1, pixels / 4, pixels / 4), Box(pixels / 2, 1, pixels / 4, pixels / 4)
        records = []
        for row in range(count):
            a, b = (names[number] for number in draw.choice(len(names), 2, replace=False))
            boxes = {a: sides[0], b: sides[1]}
            where = (pixels, pixels), "synthetic", f"{row}"
            records.append(Record(f"{seed}-{row}", row, a, "left", b, boxes, *where))
        made: Any = _Enlarged(patches, repeat)
        export(RecordSet("synthetic", made, records, fingerprint(records, name)), folder / name)


class _Enlarged:
    """Images that are enlarged when they are read."""

    def __init__(self, patches: np.ndarray, repeat: np.ndarray) -> None:
        self.patches, self.repeat = patches, repeat
        self.shape = (len(patches), len(repeat), len(repeat), 3)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.patches[row][self.repeat][:, self.repeat]


def measure(variant: Variant, folder: Path, track: str) -> dict[str, Any]:
    """Run a variant; return the speed that it reports, or its ``error``."""
    arguments = variant.arguments(folder, track)
    print("spatialbench " + " ".join(arguments), flush=True)
    program = "import sys; from spatialbench.cli.main import main; sys.exit(main())"
    environment = {**os.environ, CACHE_VARIABLE: str(folder / "cache")}
    runs = folder / "runs" / f"{variant.size}-{variant.name}".replace("/", "-").replace(" ", "_")
    command = [sys.executable, "-c", program, *arguments, "--runs", str(runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    shown = " ".join(arguments).replace(str(folder), "FOLDER")
    line = {"size": variant.size, "variant": variant.name, "command": f"spatialbench {shown}"}
    if done.returncode:
        error = (done.stderr.strip().splitlines() or ["it ended without a message"])[-1]
        return {**line, "error": error}
    (run_dir,) = (path.parent for path in runs.glob("**/run.json"))
    info = RunRecord.read(run_dir).info
    for path in runs.glob("**/last.ckpt"):  # gigabytes each
        path.unlink()
    return {**line, "speed": info["speed"], "seconds": info["wall_seconds"]}


def table(measured: Sequence[dict[str, Any]]) -> str:
    """Return the measurements as a Markdown table."""
    lines = [f"| size | variant | {' | '.join(COLUMNS.values())} |"]
    lines += ["|---|---|" + "---:|" * len(COLUMNS)]
    for each in measured:
        speed = each.get("speed", {})
        cells = [f"{speed[name]:.4g}" if name in speed else "" for name in COLUMNS]
        if "error" in each:
            cells[0] = each["error"].replace("|", " ")
        lines.append(f"| {each['size']} | {each['variant']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the chosen variants and write the files after each."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, default=Path("results/paper_scale.json"))
    parser.add_argument("--track", default="embspatial_dryrun")
    parser.add_argument("--sizes", nargs="+", default=["L/14@336", "B/16"], choices=list(SIZES))
    parser.add_argument("--only", default="", help="variants whose name contains this")
    arguments = parser.parse_args(argv)
    every = [variant for size in arguments.sizes for variant in variants(size)]
    chosen = [variant for variant in every if arguments.only in variant.name]
    if not chosen:
        raise SpatialbenchError(f"--only {arguments.only!r}: no variant has that in its name")
    resolve("benchmarks/spatial_attn.yaml", arguments.track, "smoke")  # a wrong name now
    origin: dict[str, Any] = {"versions": provenance.versions(), "hardware": provenance.hardware()}
    origin["commit"] = provenance.commit()[0]
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="spatialbench-paper-scale-") as folder:
        for size in dict.fromkeys(each.size for each in chosen):
            write_records(Path(folder), SIZES[size].pixels, SIZES[size].large)
        for variant in chosen:
            measured.append(measure(variant, Path(folder), arguments.track))
            content = {"made_by": "python -m tools.paper_scale", **origin, "found": measured}
            write_atomic(arguments.out, json.dumps(content, indent=2) + "\n")
            write_atomic(arguments.out.with_suffix(".md"), table(measured))
    print(table(measured))


if __name__ == "__main__":
    main()
