"""Scoring of the pair task: the cosine of an image with a caption and with its hard negative.

Letters: N pairs, M distinct images of a batch, S side of an image in pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from lightning import LightningModule
from torch import Tensor

from spatialbench.data.batches import Batch
from spatialbench.evaluation.pairs import Outcomes, PairOutcomes, score

_CAPTIONS_AT_ONCE = 1024


class PairScoring(LightningModule):
    """The validation, test and predict steps of a module that embeds images and captions.

    Attributes:
        free_captions: whether any sentence can be scored; false: only those of the grammar.
        test_outcomes: of the last ``test``; None before.
    """

    free_captions: ClassVar[bool] = True
    image: Callable[[Tensor], Tensor]
    text: Callable[[Tensor], Tensor]
    tokenize: Callable[[Sequence[str]], Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.outcomes = PairOutcomes()
        self.test_outcomes: Outcomes | None = None
        self._text_rows: dict[str, Tensor] = {}  # caption -> float32 [D], of this evaluation

    def scores(self, x: Tensor, image: Tensor, captions: Sequence[str]) -> Tensor:
        """Return the scores of pairs, float32 [N]: cosines, unless a method says otherwise.

        Scoring is in float32 even where training is not: bfloat16 rounding is as large as the
        difference between a caption and its negation.

        Args:
            x: uint8 [M, 3, S, S].
            image: int64 [N], the row of ``x`` of every caption.
        """
        if not captions:  # a rank may get an empty batch
            return x.new_zeros(0, dtype=torch.float32)
        with torch.autocast(self.device.type, enabled=False):
            return self.pair_scores(self.pair_features(x), image, captions)

    def pair_features(self, x: Tensor) -> Tensor:
        """Return what the pair test reads of images uint8 [M, 3, S, S]: here embeddings [M, D]."""
        return self.image(x)

    def pair_scores(self, features: Tensor, image: Tensor, captions: Sequence[str]) -> Tensor:
        """Score captions against rows of features, or of a mean of features: float32 [N]."""
        return (features[image] * self.encoded(captions)).sum(-1)

    def encoded(self, captions: Sequence[str]) -> Tensor:
        """Embed captions [N, D], each once per evaluation."""
        new = [caption for caption in dict.fromkeys(captions) if caption not in self._text_rows]
        for start in range(0, len(new), _CAPTIONS_AT_ONCE):
            part = new[start : start + _CAPTIONS_AT_ONCE]
            self._text_rows.update(zip(part, self.text(self.tokenize(part)), strict=True))
        return torch.stack([self._text_rows[caption] for caption in captions])

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Tensor]:
        """Return record int64 [N] and the scores positive and negative, float32 [N]."""
        captions = [*batch["captions"], *batch["negated"]]
        scores = self.scores(batch["pixels"], batch["image"].repeat(2), captions)
        positive, negative = scores.tensor_split(2)
        return {"record": batch["record"], "positive": positive, "negative": negative}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the outcomes of a batch."""
        self.outcomes.update(**self.predict_step(batch))

    test_step = validation_step

    def on_validation_epoch_start(self) -> None:
        """Forget the last evaluation."""
        self.outcomes.reset()
        self._text_rows.clear()

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        """Log the accuracies."""
        self._log_scores("val", partial=True)

    def on_test_epoch_end(self) -> None:
        """Log the accuracies and keep the outcomes."""
        self.test_outcomes = self._log_scores("test", partial=False)

    def records_source(self) -> Any:
        """Return the trainer's data module, whose records a method is trained and scored on."""
        data = getattr(self.trainer, "datamodule", None)
        assert data is not None, "a method is trained and scored on a data module's records"
        return data

    def _log_scores(self, stage: str, partial: bool) -> Outcomes:
        data = self.records_source()
        records = (data.val_set if stage == "val" else data.test_set).records
        outcomes = self.outcomes.compute()
        scores = score(outcomes, [record.relation for record in records], partial=partial)
        for column, accuracy in scores.items():
            if accuracy == accuracy:  # NaN: a relation without records
                shown = column == "all"
                self.log(f"{stage}/{column}", accuracy, prog_bar=shown, rank_zero_only=True)
        self.on_validation_epoch_start()  # frees memory
        return outcomes
