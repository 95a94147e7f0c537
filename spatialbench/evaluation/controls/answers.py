"""What a method answers on a test set, whole or by its text tower alone.

Letters: N records, M pictures, D joint width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from spatialbench.data.batches import evaluation_loader
from spatialbench.data.records import RecordSet
from spatialbench.evaluation.pairs import PairOutcomes
from spatialbench.utils.progress import progress

_CAPTIONS_AT_ONCE = 1024


class PairModel(Protocol):
    """What answers the pair task; a ``spatialbench.methods.base.Method`` is one."""

    @property
    def device(self) -> torch.device: ...

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """N captions -> int64 [N, L]."""

    def image(self, x: Tensor) -> Tensor:
        """uint8 [B, 3, s, s] -> unit norm [B, D]."""

    def text(self, tokens: Tensor) -> Tensor:
        """int64 [N, L] -> unit norm [N, D]."""

    def on_predict_epoch_start(self) -> None:
        """Forget the captions of another model's weights."""

    def predict_step(self, batch: Any) -> dict[str, Tensor]:
        """A batch of pairs -> record, positive and negative, [N] each."""


@torch.inference_mode()
def margins(model: PairModel, record_set: RecordSet, batch_images: int) -> np.ndarray:
    """float32 [N], s(image, caption) - s(image, negated caption), by the steps of a test.

    The method keeps the captions that it has encoded: of the same captions on the same pictures it says the same, to
    the last bit, whichever of the two is asked for first.

    Args:
        model: in eval mode.
        batch_images: pictures at once.
    """
    outcomes = PairOutcomes(expected=len(record_set.records)).to(model.device)
    with progress(f"scoring {record_set.name}", len(record_set.records), unit="records") as advance:
        for batch in evaluation_loader(record_set, batch_images):
            outcomes.update(**model.predict_step(move_data_to_device(batch, model.device)))
            advance(len(batch["captions"]))
    return outcomes.compute().margin


@torch.inference_mode()
def blind_margins(model: PairModel, record_set: RecordSet, batch_images: int) -> np.ndarray:
    """float32 [N]: the same with one picture for all records, the mean embedding of the set's pictures.

    Every distinct caption has one score, so that a statement and its exchange have margins of exactly opposite sign.
    """
    total: Tensor | None = None
    captions: dict[str, float] = {}
    for batch in evaluation_loader(record_set, batch_images):
        found = model.image(batch["pixels"].to(model.device)).sum(0)  # [D]
        total = found if total is None else total + found
        captions.update(dict.fromkeys([*batch["captions"], *batch["negated"]], 0.0))
    assert total is not None, "a test set has records"
    mean, names = F.normalize(total, dim=-1), list(captions)
    for start in range(0, len(names), _CAPTIONS_AT_ONCE):
        part = names[start : start + _CAPTIONS_AT_ONCE]
        captions.update(zip(part, (model.text(model.tokenize(part)) @ mean).tolist(), strict=True))
    pairs = [(captions[pair.caption], captions[pair.negated]) for pair in record_set.pairs()]
    return np.array([positive - negative for positive, negative in pairs], dtype=np.float32)
