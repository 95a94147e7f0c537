"""What can be wrong with a record, and the account that is kept of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from spatialbench.data.relations import RELATIONS
from spatialbench.utils.errors import SpatialbenchError

BAD: dict[str, str] = {
    "bad_record": "a field is missing or of another type",
    "duplicate_id": "the question_id was used before",
    "unknown_relation": "the relation is none of the six",
    "bad_answer": "the answer is out of range, or does not state the relation of two boxed objects",
    "names_not_boxes": "the options and the boxed objects have different names",
    "bad_box": "not four finite numbers x, y, w, h inside the image",
    "bad_image": "missing, truncated or no image",
}
"""Damage: the question is dropped, and ``strict`` makes the first one an error."""

FILTERS: dict[str, str] = {
    "placeholder_name": "an object is called unknown, object, misc, ...",
    "duplicate_options": "two options have one name",
    "same_name": "both objects have one name",
    "duplicate_pair": "the same statement about the same image was read before",
}
"""Sound records that make no usable pair: the question or the single pair is dropped, strict or not."""

FLAGS: dict[str, str] = {
    "nested_names": "one name is a part of the other, as table and coffee table (kept; dropped with strict)",
    "box_disagrees": "the boxes do not show the relation (kept; dropped with strict)",
    "object_order": "the answer's subject is not the first boxed object (kept)",
    "cut_by_crop": "a centre crop leaves less than half of an object (kept)",
    "hidden_by_crop": "a centre crop leaves nothing of an object (kept)",
}
"""Worth knowing, kept; the crops are those of ``resize: crop`` and are counted whatever the resize is."""

KINDS: dict[str, str] = BAD | FILTERS | FLAGS


class Rejected(Exception):
    """A question or a pair that cannot be used: the kind, a key of ``KINDS``, and one line that says why."""

    def __init__(self, kind: str, why: str) -> None:
        assert kind in KINDS, kind
        super().__init__(why)
        self.kind = kind
        self.why = why


@dataclass
class Count:
    """How often a kind was met: whole questions, single pairs of questions that were kept, and the first one."""

    questions: int = 0
    pairs: int = 0
    first: str = ""


@dataclass
class CheckReport:
    """The account of one file in EmbSpatial's schema.

    Attributes:
        path: the file.
        strict: whether damage was an error.
        questions: questions read.
        kept: questions that gave at least one pair.
        relations: relation -> questions kept.
        pairs: relation -> pairs, one per direction question and up to N - 1 per close or far question of N options.
        counts: kind (a key of ``KINDS``) -> how often.
        images: distinct images of the kept questions.
        elevation: tag -> pairs of close and far with it (records.elevation_tag).
        first_bad: one line about the first damaged record; empty when there is none.
    """

    path: Path
    strict: bool = False
    questions: int = 0
    kept: int = 0
    relations: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(RELATIONS, 0)))
    pairs: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(RELATIONS, 0)))
    counts: dict[str, Count] = field(default_factory=lambda: {kind: Count() for kind in KINDS})
    images: int = 0
    elevation: Counter[str] = field(default_factory=Counter)
    first_bad: str = ""

    @property
    def bad(self) -> int:
        """Damaged questions, all of them dropped."""
        return sum(self.counts[kind].questions for kind in BAD)

    @property
    def elevation_baseline(self) -> float | None:
        """Accuracy in [0, 1] of "higher in the picture = farther" on the unambiguous close and far pairs."""
        decided = self.elevation["consistent"] + self.elevation["counter"]
        return self.elevation["consistent"] / decided if decided else None

    @property
    def dropped(self) -> int:
        """Questions and single pairs that were dropped, for whatever reason."""
        return sum(self.counts[kind].questions + self.counts[kind].pairs for kind in BAD | FILTERS)

    def note(self, kind: str, record: str, why: str, whole: bool = True) -> None:
        """Counts a question (``whole``) or a single pair under ``kind``.

        Raises:
            SpatialbenchError: ``strict``, and the kind is damage.
        """
        count = self.counts[kind]
        if whole:
            count.questions += 1
        else:
            count.pairs += 1
        line = f"{self.path}: {record}: {why}"
        count.first = count.first or line
        if kind in BAD:
            self.first_bad = self.first_bad or line
            if self.strict:
                raise SpatialbenchError(
                    f"{line}; repair or remove the record, or read without strict to drop it"
                )

    def summary(self) -> str:
        """One line: what was kept and what was dropped, why, and the first damaged record."""
        line = f"{self.path}: {self.kept} of {self.questions} questions kept, {self.pairs.total()} pairs"
        line += f" on {self.images} images"
        dropped = {kind: self.counts[kind] for kind in BAD | FILTERS}
        parts = [
            f"{kind} {count.questions + count.pairs}"
            for kind, count in dropped.items()
            if count.first
        ]
        line += f"; dropped: {', '.join(parts)}" if parts else ""
        return line + (
            f"; first bad record: {self.first_bad.removeprefix(f'{self.path}: ')}"
            if self.first_bad
            else ""
        )
