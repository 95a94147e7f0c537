"""The base of methods whose image tower learns from the error of a frozen generative model.

Letters: B images of G pixels a side.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.data.image_batches import ImageDataset, images_of
from spatialbench.methods.base import Method
from spatialbench.methods.parts.reconstructions import IMAGES, NAME, Panel, draw


class GenerativeMethod(Method, ABC):
    """A student that is compared with its start, and shown in ``reconstructions.png``."""

    leaves = (NAME,)

    _start: SimpleNamespace | None = None
    """The image tower that training started from: no submodule, so neither trained nor saved."""

    def keep_start(self) -> None:
        """Keep a copy of the image tower as it is now."""
        visual = copy.deepcopy(self.student.visual).eval().requires_grad_(False)
        self._start = SimpleNamespace(visual=visual)

    @abstractmethod
    def embedding(self, x: Tensor, model: Any = None) -> Tensor:
        """Embed images uint8 [B, 3, G, G] by the student or ``model``: [B, D], not normalised."""

    @abstractmethod
    def distance(self) -> Tensor:
        """Return the L2 distance of the image tower's weights from the start."""

    @abstractmethod
    def panels(self, x: Tensor) -> list[Panel]:
        """Return the columns of the image in the run folder for images uint8 [B, 3, G, G]."""

    @abstractmethod
    def finish_stage(self) -> None:
        """Drop what only training needs."""

    @torch.no_grad()
    def drift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the L2 distance of the weights from the start, and the mean cosine of embeddings.

        Images are uint8 [B, 3, G, G]; the cosine is in float32.
        """
        with torch.autocast(self.device.type, enabled=False):
            now, before = self.embedding(x), self.embedding(x, self._start)
        return self.distance(), F.cosine_similarity(now, before, dim=-1).mean()

    def log_drift(self, x: Tensor) -> None:
        """Log the drift in the steps that the trainer logs."""
        trainer = getattr(self, "_trainer", None)
        if self._start is None or trainer is None:
            return
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            weights, cosine = self.drift(x)
            self.log("drift/weights", weights, batch_size=len(x))
            self.log("drift/cosine", cosine, batch_size=len(x))

    def on_fit_start(self) -> None:
        """Check that there are images, and move the start to the device."""
        images_of(self.trainer)
        if self._start is not None:
            self._start.visual.to(self.device)

    def on_fit_end(self) -> None:
        """Draw ``reconstructions.png`` and finish the stage."""
        if self.trainer.is_global_zero:
            # Lightning has moved the module back to the CPU by now, but not the start
            self.to(self.trainer.strategy.root_device)
            self.draw(images_of(self.trainer), Path(self.trainer.default_root_dir) / NAME)
        self.finish_stage()

    @torch.no_grad()
    def draw(self, pictures: ImageDataset, path: Path) -> None:
        """Draw the panels of the first images of a set; see ``panels``."""
        rows = range(min(IMAGES, len(pictures)))
        x = torch.stack([pictures.whole(row) for row in rows]).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            draw(self.panels(x), path)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the global generators for the length of a context, then restore them."""
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
