"""The speed of each stage on this machine: ``python -m tools.throughput``.

Writes results/throughput.json. Nothing asserts a time. Every stage runs once to warm up and then
for some seconds; the rate is the median over repetitions. The last measurement is a whole
``spatialbench fit`` with an empty cache: its seconds by stage, and the share that is neither model
nor rendering.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule

from spatialbench.config.experiment import learns_from, resolve
from spatialbench.config.pages import discover, load_page
from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.image_batches import ImageBatch, ImageDataModule
from spatialbench.data.region_batches import RegionBatch, RegionDataModule
from spatialbench.data.rooms import load
from spatialbench.data.rooms.render import render
from spatialbench.data.rooms.scene import generate
from spatialbench.methods.base import Method
from spatialbench.methods.connected import ConnectedMethod
from spatialbench.methods.diva import Diva
from spatialbench.methods.r_sc_rla import RegionDistillation
from spatialbench.methods.refiner import Refiner
from spatialbench.models.timm_vfm import load_vfm
from spatialbench.results.run_folder import RunRecord
from spatialbench.training.build import build
from spatialbench.utils import provenance
from spatialbench.utils.cache import CACHE_VARIABLE
from spatialbench.utils.errors import SpatialbenchError, write_atomic

IMAGES = 512
"""Images that the stages after rendering work on."""


def rate(work: Callable[[], int], seconds: float) -> float:
    """Return the items a second of ``work``, which returns the number of items it has done."""
    work()
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 3:
        start = time.perf_counter()
        rates.append(work() / (time.perf_counter() - start))
    return round(statistics.median(rates), 1)


def rendering(size: int, seconds: float) -> float:
    """Return the images a second that one process lays out and renders."""
    indices = iter(range(10**9))

    def work() -> int:
        for _ in range(16):
            render(generate("train", next(indices)), size)
        return 16

    return rate(work, seconds)


def training_step(model: LightningModule, batches: Sequence[Any]) -> Callable[[], int]:
    """Make a step (forward, backward, optimiser) on the next batch, which returns its images."""
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-6, fused=True
    )
    steps = iter(range(10**9))

    def step() -> int:
        batch = batches[next(steps) % len(batches)]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.training_step(batch, 0)
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return len(batch["pixels"])

    return step


def training(page: Path, seconds: float) -> dict[str, float]:
    """Return images and pairs a second of a page's training step, if it has one, and of its test.

    The VFM's tokens are cached, as they are after the first epoch.
    """
    shrunk = {"data": {"train_images": IMAGES, "val_images": 1, "test_images": IMAGES}}
    resolved = resolve(page, overrides=shrunk)
    built = build(resolved)
    model, data = built.model, built.data
    assert isinstance(model, Method)
    assert isinstance(data, PairDataModule)
    data.setup("fit")
    batches = list(data.train_dataloader())
    if isinstance(model, ConnectedMethod):
        model.vfm.prepare(data.train_set.images)
    steps = iter(range(10**9))

    def test() -> int:
        number = next(steps) % len(batches)
        if number == 0:
            model.on_test_epoch_start()  # forgets the captions
        batch = batches[number]
        with torch.no_grad():
            model.predict_step(batch)
        return len(batch["pixels"])

    speed = {"test_images": rate(test, seconds)}
    if resolved.needs_training:
        pairs = sum(len(batch["captions"]) for batch in batches) / sum(
            len(batch["pixels"]) for batch in batches
        )
        speed["train_images"] = rate(training_step(model, batches), seconds)
        speed["train_pairs"] = round(speed["train_images"] * pairs, 1)
    return speed


def distillation(page: Path, seconds: float) -> dict[str, float]:
    """Return the speed of a page of regions: loader, training step, and the parts of a step.

    The crops of fixed regions are cached, as they are in training.
    """
    resolved = resolve(page, budget="smoke")  # few images, of the size of every budget
    built = build(resolved)
    model, data = built.model, built.data
    assert isinstance(data, RegionDataModule)
    assert isinstance(model, RegionDistillation | Refiner)
    data.setup("fit")
    if isinstance(model, RegionDistillation):
        model.start_from(
            Refiner(resolved.config["model"]["init_args"]["student"]).state_dict(), "a new Refiner"
        )
        model.setup("fit")
        model.prepare(data.region_set)
    speed = {"batch_images": float(data.region_batch)}
    batches: list[RegionBatch] = []

    def load() -> int:
        batches[:] = list(data.train_dataloader())
        return len(batches) * data.region_batch

    speed["loader_images"] = rate(load, 0)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-6, fused=True
    )
    steps = iter(range(10**9))

    def part(work: Callable[[RegionBatch], object]) -> float:
        """Return milliseconds a batch."""

        def batch() -> int:
            with torch.autocast("cpu", torch.bfloat16):
                work(batches[next(steps) % len(batches)])
            return 1000

        return round(1e6 / rate(batch, seconds / 3), 1)

    def step(batch: RegionBatch) -> None:
        model.training_step(batch, 0).backward()
        optimizer.step()
        optimizer.zero_grad()

    speed["step_ms"] = part(step)
    speed["train_images"] = round(1000 * data.region_batch / speed["step_ms"], 1)
    speed["student_forward_ms"] = part(lambda batch: model.dense(batch["pixels"]))
    if isinstance(model, RegionDistillation) and model.teacher is not None:
        teacher = model.teacher
        if model.scd.teacher != "none":
            speed["teacher_map_ms"] = part(lambda batch: teacher.dense(batch["pixels"]))
        if model.language == "image":
            speed["teacher_crops_cached_ms"] = part(model._crops)
            every = [data.region_set.all_crops(row)[1] for row in range(data.region_batch)]
            speed["teacher_crops_ms"] = part(lambda batch: teacher.crops(torch.cat(every)))
    return speed


def feedback(page: Path, seconds: float) -> dict[str, float]:
    """Return images a second of a page of images alone: loader, autoencoder, training step.

    The latents are cached, as they are in training.
    """
    resolved = resolve(page, budget="smoke")  # few images, of the size of every budget
    built = build(resolved)
    model, data = built.model, built.data
    assert isinstance(data, ImageDataModule)
    data.setup("fit")
    model.setup("fit")
    speed = {"batch_images": float(data.picture_batch)}
    batches: list[ImageBatch] = []

    def load() -> int:
        batches[:] = list(data.train_dataloader())
        return len(batches) * data.picture_batch

    speed["loader_images"] = rate(load, 0)
    if isinstance(model, Diva):
        model.prepare(data.image_set)
        encode = model.latents.diffusion.encode
        speed["encoded_images"] = rate(lambda: len(encode(batches[0]["pixels"])), seconds / 3)
    return {**speed, "train_images": rate(training_step(model, batches), seconds)}


def tokens(size: int, seconds: float) -> float:
    """Return images a second through the frozen VFM, without its cache."""
    vfm = load_vfm("rooms-vfm", size, cache=False)
    pixels = torch.from_numpy(load("train", 128, size).images[:]).permute(0, 3, 1, 2)

    def work() -> int:
        vfm.tokens(pixels)
        return len(pixels)

    return rate(work, seconds)


def whole_fit(page: Path, budget: str) -> dict[str, Any]:
    """Run ``spatialbench fit`` with an empty cache; return its seconds by stage and its scores.

    Raises:
        SpatialbenchError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="spatialbench-throughput-") as folder:
        arguments = ["fit", "--config", str(page), "--budget", budget, "--runs", folder]
        program = "import sys; from spatialbench.cli.main import main; sys.exit(main())"
        environment = {**os.environ, CACHE_VARIABLE: f"{folder}/cache"}
        if subprocess.run(
            [sys.executable, "-c", program, *arguments], env=environment, check=False
        ).returncode:
            raise SpatialbenchError(f"spatialbench {' '.join(arguments)} failed; see above")
        info = RunRecord.read(resolve(page, budget=budget, runs=Path(folder)).run_dir).info
    return {
        "command": f"spatialbench fit --config {page} --budget {budget}",
        "seconds": info["wall_seconds"],
        "neither_model_nor_rendering": info["overhead_share"],
        "accuracy": info["scores"],
    }


def main() -> None:
    """Measure everything and write the file after each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/throughput.json"))
    parser.add_argument("--seconds", type=float, default=10.0, help="of every stage")
    parser.add_argument("--benchmarks", type=Path, default=Path("benchmarks"))
    parser.add_argument("--fit", default="spatial_attn", help="the page of the whole fit")
    parser.add_argument("--budget", default="quick", help="the budget of the whole fit")
    arguments = parser.parse_args()
    page = arguments.benchmarks / f"{arguments.fit}.yaml"
    load_page(page)  # a wrong name now, not after the minutes of the stages
    torch.manual_seed(0)
    size = 96
    measured: dict[str, Any] = {
        "made_by": "python -m tools.throughput",
        "unit": "per second",
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "render_images_one_process": rendering(size, arguments.seconds),
        "vfm_token_images": tokens(size, arguments.seconds),
        "pages": {},
    }
    for each in discover(arguments.benchmarks):
        kind = learns_from(each.config.get("data") or {})
        work = {"pairs": training, "images": feedback, "regions": distillation}[kind]
        measured["pages"][each.name] = work(each.path, arguments.seconds)
        print(each.name, measured["pages"][each.name], flush=True)
    write_atomic(arguments.out, json.dumps(measured, indent=2) + "\n")
    measured["fit"] = whole_fit(page, arguments.budget)
    write_atomic(arguments.out, json.dumps(measured, indent=2) + "\n")
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
