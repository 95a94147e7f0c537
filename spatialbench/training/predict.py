"""A user's own pictures and captions: which of a caption and its negation lies closer to the picture?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from spatialbench.data.user_image import predict_set
from spatialbench.data.relations import parse
from spatialbench.evaluation.outcomes import RunOutcomes
from spatialbench.methods.base import Method
from spatialbench.results.run_folder import read_checkpoint
from spatialbench.training.build import Built
from spatialbench.training.score import load_weights, test


@dataclass(frozen=True)
class Verdict:
    """A caption and its negation before a picture.

    Attributes:
        image: the file, or the record's id.
        caption, negated: the two sentences.
        positive, negative: their cosines with the picture, in [-1, 1].
    """

    image: str
    caption: str
    negated: str
    positive: float
    negative: float

    @property
    def verdict(self) -> str:
        """``caption``, ``negated caption`` or ``tie``: which one the model holds for true."""
        if self.positive == self.negative:
            return "tie"
        return "caption" if self.positive > self.negative else "negated caption"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def predict(
    built: Built, checkpoint: Path | None, images: Sequence[str], captions: Sequence[str]
) -> list[Verdict]:
    """Every caption before every picture.

    Args:
        built: a :class:`Method` and its datamodule, which says how pictures are resized.
        checkpoint: the weights; None: those the model starts from.
        images: picture files.
        captions: sentences of the grammar.

    Raises:
        SpatialbenchError: a picture cannot be read, a caption is not of the grammar, the weights do not fit.
    """
    model = built.model
    assert isinstance(model, Method)
    data: Any = built.data
    sets = [predict_set(image, captions, data.image_size, data.resize) for image in images]
    if checkpoint is not None:
        load_weights(model, read_checkpoint(checkpoint), checkpoint)
    model.eval()
    sentences = [parse(caption) for caption in captions]
    texts = [s.caption for s in sentences] + [s.negated.caption for s in sentences]
    verdicts = []
    with torch.inference_mode():
        embedded = model.text(model.tokenize(texts))  # [2 C, D]
        for path, record_set in zip(images, sets, strict=True):
            pixels = torch.tensor(np.array(record_set.images[:1])).permute(
                0, 3, 1, 2
            )  # [1, 3, S, S]
            scores = (model.image(pixels) @ embedded.T)[0].tolist()
            for number, sentence in enumerate(sentences):
                positive, negative = scores[number], scores[number + len(sentences)]
                verdicts.append(
                    Verdict(path, sentence.caption, sentence.negated.caption, positive, negative)
                )
    return verdicts


def predict_records(built: Built, checkpoint: Path | None) -> Iterator[dict[str, Any]]:
    """Every record of the test set: its id, relation, captions, scores and verdict."""
    outcomes: RunOutcomes = test(built, checkpoint)[0]
    data: Any = built.data
    for record, positive, negative in zip(
        data.test_set.records, outcomes.positive, outcomes.negative, strict=True
    ):
        sentence = record.statement
        verdict = Verdict(
            record.record_id,
            sentence.caption,
            sentence.negated.caption,
            float(positive),
            float(negative),
        )
        values = verdict.as_json()
        yield {"record_id": values.pop("image"), "relation": record.relation, **values}


def show(verdicts: Sequence[Verdict]) -> None:
    """Prints the verdicts as a table."""
    table = Table(show_lines=True)
    for column in ("image", "caption", "score", "verdict"):
        table.add_column(column, justify="right" if column == "score" else "left")
    for verdict in verdicts:
        both = f"{verdict.caption}\n{verdict.negated}"
        mark = {"caption": "true\nfalse", "negated caption": "false\ntrue", "tie": "tie\ntie"}[
            verdict.verdict
        ]
        table.add_row(verdict.image, both, f"{verdict.positive:.4f}\n{verdict.negative:.4f}", mark)
    Console(width=max(100, Console().width)).print(table)
