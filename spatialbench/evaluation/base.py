"""The interface of an evaluation, and of the model that it evaluates."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from spatialbench.data.images import Resize
from spatialbench.evaluation.evidence import Evidence
from spatialbench.models.towers import Attend, Tokens


class Model(Protocol):
    """A model to evaluate; every ``spatialbench.Method`` is one.

    Letters: B images, S pixels a side, C captions, D width of the joint space, L patches.
    """

    image_size: int
    free_captions: ClassVar[bool]
    """True if its pair scores take any sentence; false: only those of ``data/relations.py``."""

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""

    @property
    def resize_mode(self) -> Resize:
        """Resize mode with which the model's preprocessing makes an image square."""

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Captions -> int64 [C, context]."""

    def text(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [C, context] -> unit norm [C, D]."""

    def image(self, x: Tensor) -> Tensor:
        """Images uint8 [B, 3, S, S], S the ``image_size`` -> unit norm [B, D]."""

    def dense(self, x: Tensor, attend: Attend | None = None) -> Tensor:
        """Images uint8 [B, 3, S, S] of any size -> unit norm [B, h, w, D]; see ``Method.dense``."""

    def visual_tokens(self, x: Tensor) -> Tokens:
        """Images uint8 [B, 3, S, S] -> cls [B, D] and local [B, L, D], not normalised."""

    def pair_features(self, x: Tensor) -> Tensor:
        """Images uint8 [B, 3, S, S] -> what the pair test reads of them, [B, ...]."""

    def pair_scores(self, features: Tensor, image: Tensor, captions: Sequence[str]) -> Tensor:
        """Features, or their mean, row of each caption int64 [C] -> scores float32 [C]."""

    def predict_step(self, batch: Any) -> dict[str, Tensor]:
        """Batch of pairs -> record, positive and negative, [N] each."""

    def on_predict_epoch_start(self) -> None:
        """Forget cached caption embeddings."""


class Details(NamedTuple):
    """Further numbers of one run of an evaluation."""

    columns: Mapping[str, Mapping[str, str]] = {}  # heading -> measure -> text
    lines: Sequence[str] = ()  # below the table
    facts: Mapping[str, Any] = {}  # in JSON


class Evaluation(ABC):
    """A kind of number: runs a model and returns evidence.

    A subclass is all that a new kind of number takes. A track lists it by class path and name; it
    then has intervals, paired tests, a table, a section of the report and a stored file.
    """

    name: ClassVar[str]  # the default name, in tracks and on the command line
    version: ClassVar[int] = 1  # raised when the numbers change meaning; stored ones become stale
    title: ClassVar[str]  # heading of the table
    explanation: ClassVar[str] = ""  # Markdown below the heading
    columns: ClassVar[Mapping[str, str]] = {}  # measure -> heading, in the order of the tables
    unit: ClassVar[str] = "images"  # what is counted, in the plural
    by_group: ClassVar[bool] = False  # a column for each group, and a line for each measure

    @abstractmethod
    def run(self, model: Model) -> Evidence:
        """Evaluate a model in eval mode. Always in float32.

        Raises:
            SpatialbenchError: data that cannot be read, or a score that is not finite.
        """

    def details(self, evidence: Evidence) -> Details:
        """Return what the table of one run shows beside values and intervals; default: nothing."""
        return Details()

    @classmethod
    def headings(
        cls, measures: Sequence[str], notes: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Measure -> heading, in the order of the tables; a measure without one goes by its name.

        ``notes``: of the evidence, for evaluations whose measures depend on the data.
        """
        known = [name for name in cls.columns if name in measures]
        return {name: cls.columns.get(name, name) for name in dict.fromkeys([*known, *measures])}
