"""A benchmark in small for the tests of training and command line: noise, and a tiny student."""

import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from spatialbench.config.experiment import Resolved
from spatialbench.data.embspatial.embspatial_export import export
from spatialbench.data.records import Box, Record, RecordSet, fingerprint
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.evidence import Evidence
from spatialbench.methods.clip import Clip
from spatialbench.results.run_folder import read_checkpoint
from spatialbench.training import callbacks
from spatialbench.training.fit import fit
from tests.support.images import Noise

STUDENT = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
BOXES = {relation: (20, 2) if relation in ("right", "under") else (2, 20) for relation in RELATIONS}

PAGE = """\
# A method in small.
#   spatialbench fit --config {name}.yaml
# Cost  a second      Result  results/tiny/{name}.json
model:
  class_path: {cls}
{rest}"""

TRACK = """\
name: tiny
seeds: [0, 1]
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: -1
  max_steps: 6
  check_val_every_n_epoch: null
  val_check_interval: 3
data:
  source: embspatial
  train_path: {folder}/train.json
  path: {folder}/test.json
  image_size: 32
  train_images: 15
  val_images: 3
  batch_images: 6
  records_per_image: 2
model:
  student: {folder}/tiny-student.json
  finetuning: {{lr: 1.0e-2, warmup_steps: 1}}
budgets:
  quick: {{}}
  smoke: {{trainer: {{max_steps: 2}}}}
"""


class SendsCtrlC:
    """Counts training steps in ``seen``, and sends Ctrl-C in the step ``stop_at``; 0: never."""

    seen, stop_at = 0, 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        type(self).seen += 1
        if type(self).seen == type(self).stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().training_step(batch, batch_idx)  # type: ignore[misc]


class Stopping(SendsCtrlC, Clip):
    """CLIP that is interrupted."""


class Other(L.LightningModule):
    """A module with a task and data of its own, as the pages of pretrain have."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)
        self.error = float("nan")

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.error = float(self.layer(batch).square().mean())
        self.log("val/error", self.error)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])

    def finish(self) -> dict[str, float]:
        return {"error": self.error}


class OtherData(L.LightningDataModule):
    """Constant batches."""

    def __init__(self, size: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.size = size

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        return torch.utils.data.DataLoader(torch.ones(self.size, 2), batch_size=2)

    val_dataloader = train_dataloader


def record_set(name: str, images: int, seed: int) -> RecordSet:
    """Make noise with a record of every relation in each image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    records = []
    for image, relation in itertools.product(range(images), RELATIONS):
        first, second = ("sofa", "lamp") if image % 2 else ("lamp", "sofa")
        upright, scene = relation in ("above", "under"), f"{name}-{image}"
        boxes = [Box(4, p, 8, 8) if upright else Box(p, 4, 8, 8) for p in BOXES[relation]]
        named = dict(zip((first, second), boxes, strict=True))
        words = f"{scene}-{relation}", image, first, relation, second
        records.append(Record(*words, named, (32, 32), "noise", scene))
    return RecordSet(name, pixels, records, fingerprint(records, name))


def page(
    folder: Path, name: str, cls: str = "spatialbench.methods.clip.Clip", rest: str = ""
) -> Path:
    """Write a page."""
    path = folder / f"{name}.yaml"
    path.write_text(PAGE.format(name=name, cls=cls, rest=rest))
    return path


def benchmark(folder: Path) -> Path:
    """Write the student, the data, the track ``tiny`` and the page ``clip``."""
    (folder / "tracks").mkdir(parents=True)
    (folder / "tiny-student.json").write_text(json.dumps(STUDENT))
    (folder / "tracks" / "tiny.yaml").write_text(TRACK.format(folder=folder))
    export(record_set("train", 18, 0), folder / "train.json")
    export(record_set("test", 4, 1), folder / "test.json")
    page(folder, "clip")
    return folder


def pictures(folder: Path) -> Path:
    """Write six images of noise without captions, and return the benchmark's folder."""
    (folder / "pictures").mkdir()
    noise = Noise(6, 40)
    for row in range(6):
        noise.image(row).save(folder / "pictures" / f"{row}.png")
    return folder


def edit_track(folder: Path, *pairs: tuple[str, str]) -> None:
    """Replace texts in the track."""
    track = folder / "tracks" / "tiny.yaml"
    text = track.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    track.write_text(text)


def state(resolved: Resolved) -> dict[str, Tensor]:
    """Return the weights of the last checkpoint of a run."""
    return read_checkpoint(resolved.run_dir / "last.ckpt")["state_dict"]


def same(run: Resolved, other: Resolved) -> bool:
    """Return whether two runs ended with the same weights, bit for bit."""
    states = [state(each) for each in (run, other)]
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def parts(resolved: Resolved) -> set[str]:
    """Return the first parts of the names of the weights of a run."""
    return {name.split(".")[0] for name in state(resolved)}


def logged(resolved: Resolved, name: str) -> dict[int, float]:
    """Return step -> value of a name in metrics.jsonl."""
    text = (resolved.run_dir / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def ends_alike_after_ctrl_c(run: Resolved, cls: type[SendsCtrlC], stop_at: int = 4) -> None:
    """Fit a run; fit it again with Ctrl-C in a step and a resume; both must end alike, bit for bit.

    Weights, reconstructions, evidence, and the drift from the weights before the interruption.
    """
    drawing = run.run_dir / "reconstructions.png"
    record = fit(run, show=False)
    whole = {name: value.clone() for name, value in state(run).items()}
    drawn = drawing.read_bytes() if drawing.exists() else None
    drift = logged(run, "drift/weights")
    evidence = {path.name: Evidence.load(path).digest for path in run.run_dir.glob("*.npz")}
    cls.seen, cls.stop_at = 0, stop_at
    with pytest.raises(callbacks.Interrupted) as stopped:
        fit(run, force=True, show=False)
    assert stopped.value.step == stop_at
    assert not drawing.exists()
    middle = state(run)
    assert middle.keys() == whole.keys()
    moved = any(not torch.equal(value, whole[name]) for name, value in middle.items())
    assert moved == (stop_at < record.info["train_steps"])
    assert fit(run, show=False).info["train_steps"] == cls.seen == record.info["train_steps"]
    assert all(torch.equal(value, whole[name]) for name, value in state(run).items())
    assert (drawing.read_bytes() if drawing.exists() else None) == drawn
    again = logged(run, "drift/weights")
    shared = drift.keys() & again.keys()
    assert [drift[step] for step in shared] == [again[step] for step in shared]
    assert bool(shared) == bool(drift)
    for name, digest in evidence.items():
        assert Evidence.load(run.run_dir / name).digest == digest
