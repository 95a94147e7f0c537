"""A user's own images and captions: is an image closer to a caption or to its negation?"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from spatialbench.data.records import Record
from spatialbench.data.user_image import predict_set
from spatialbench.evaluation.pairs import Outcomes, answer
from spatialbench.methods.base import Method
from spatialbench.results.run_folder import read_checkpoint
from spatialbench.training.build import Built
from spatialbench.training.score import load_weights, test

MARKS = {"caption": "true\nfalse", "negated caption": "false\ntrue", "tie": "tie\ntie"}


@dataclass(frozen=True)
class Verdict:
    """A caption and its negation for an image."""

    image: str  # the file, or the record's id
    caption: str
    negated: str
    positive: float  # cosine of image and caption, in [-1, 1]
    negative: float  # cosine of image and negated caption

    @property
    def verdict(self) -> str:
        """The sentence that the model prefers: ``caption``, ``negated caption`` or ``tie``."""
        if self.positive == self.negative:
            return "tie"
        return "caption" if self.positive > self.negative else "negated caption"

    def as_json(self) -> dict[str, Any]:
        """Return all fields and the verdict."""
        return {**asdict(self), "verdict": self.verdict}


def _verdicts(records: Sequence[Record], outcomes: Outcomes, image: str = "") -> list[Verdict]:
    """Verdicts on records; ``image``: empty: the record's id."""
    scores = outcomes.positive.tolist(), outcomes.negative.tolist()
    return [
        Verdict(image or r.record_id, r.statement.caption, r.statement.negated.caption, *both)
        for r, *both in zip(records, *scores, strict=True)
    ]


def predict(
    built: Built, checkpoint: Path | None, images: Sequence[str], captions: Sequence[str]
) -> list[Verdict]:
    """Judge every caption, a sentence of the grammar, for every image file.

    Args:
        built: a :class:`Method` and its datamodule, which says how images are resized.
        checkpoint: the weights; None: those that the model starts from.

    Raises:
        SpatialbenchError: an unreadable image, a caption that is not of the grammar, weights that
            do not fit, or a score that is not finite.
    """
    model = built.model
    assert isinstance(model, Method)
    data: Any = built.data
    sets = [predict_set(image, captions, data.image_size, data.resize) for image in images]
    if checkpoint is not None:
        load_weights(model, read_checkpoint(checkpoint), checkpoint)
    model.eval()
    model.on_predict_epoch_start()
    verdicts: list[Verdict] = []
    for path, record_set in zip(images, sets, strict=True):
        with torch.inference_mode():
            outcomes = answer(model, record_set, batch_images=1)
        verdicts += _verdicts(record_set.records, outcomes, path)
    return verdicts


def predict_records(built: Built, checkpoint: Path | None) -> Iterator[dict[str, Any]]:
    """Yield the id, relation, captions, scores and verdict of every record of the test set."""
    test(built, checkpoint)
    data: Any = built.data
    outcomes: Any = built.model.test_outcomes
    records = data.test_set.records
    for record, verdict in zip(records, _verdicts(records, outcomes), strict=True):
        values = verdict.as_json()
        yield {"record_id": values.pop("image"), "relation": record.relation, **values}


def show(verdicts: Sequence[Verdict]) -> None:
    """Print the verdicts as a table."""
    table = Table(show_lines=True)
    for column in ("image", "caption", "score", "verdict"):
        table.add_column(column, justify="right" if column == "score" else "left")
    for verdict in verdicts:
        captions = f"{verdict.caption}\n{verdict.negated}"
        scores = f"{verdict.positive:.4f}\n{verdict.negative:.4f}"
        table.add_row(verdict.image, captions, scores, MARKS[verdict.verdict])
    Console(width=max(100, Console().width)).print(table)
