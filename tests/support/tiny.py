"""A benchmark in small for the tests of training and command line: pictures of noise, a student of two blocks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor

from spatialbench.data.embspatial.embspatial_export import export
from spatialbench.data.records import Box, Record, RecordSet, fingerprint
from spatialbench.data.relations import RELATIONS
from spatialbench.methods.base import Batch, Method

STUDENT = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
BOXES = {
    "left": (2, 20),
    "right": (20, 2),
    "above": (2, 20),
    "under": (20, 2),
    "close": (2, 20),
    "far": (2, 20),
}

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


class Stopping(Method):
    """CLIP that gets Ctrl-C in the step after which ``stop_at`` batches were seen; ``stop_at`` 0 is plain CLIP."""

    stop_at = 0
    seen = 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        type(self).seen += 1
        if type(self).seen == type(self).stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return self.finetuning_loss(batch)


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

    def finish(self, run_dir: Path) -> dict[str, float]:
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
    """Noise with a record of every relation in each picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    records = []
    for image in range(images):
        for relation in RELATIONS:
            first, second = ("sofa", "lamp") if image % 2 else ("lamp", "sofa")
            a, b = BOXES[relation]
            upright = relation in ("above", "under")
            boxes = {
                first: Box(4, a, 8, 8) if upright else Box(a, 4, 8, 8),
                second: Box(4, b, 8, 8) if upright else Box(b, 4, 8, 8),
            }
            key = f"{name}-{image}-{relation}"
            records.append(
                Record(
                    key, image, first, relation, second, boxes, (32, 32), "noise", f"{name}-{image}"
                )
            )
    return RecordSet(name, pixels, records, fingerprint(records, name))


def page(
    folder: Path, name: str, cls: str = "spatialbench.methods.clip.Clip", rest: str = ""
) -> Path:
    """Writes a page."""
    path = folder / f"{name}.yaml"
    path.write_text(PAGE.format(name=name, cls=cls, rest=rest))
    return path


def benchmark(folder: Path) -> Path:
    """Writes the student, the data, the track ``tiny`` and the page ``clip``."""
    (folder / "tracks").mkdir(parents=True)
    (folder / "tiny-student.json").write_text(json.dumps(STUDENT))
    (folder / "tracks" / "tiny.yaml").write_text(TRACK.format(folder=folder))
    export(record_set("train", 18, 0), folder / "train.json")
    export(record_set("test", 4, 1), folder / "test.json")
    page(folder, "clip")
    return folder
