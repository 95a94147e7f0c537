"""VSR, Visual Spatial Reasoning: captions that people found true or false of photos of COCO (Liu et al. 2023).

    random/{train,dev,test}.jsonl   zeroshot/test.jsonl   in the folder, in its ``splits`` or in ``data/splits``
    images/<image>                                        in the folder or in its ``data``

A line is {image, caption, label, relation, ...}. Its votes are strings ("[2, 9]"), which nothing here reads. The fields
``subj`` and ``obj`` of the zero-shot files lack letters ("orse", "andbag"), so names are read from the caption, "The
A is <relation> the B." VSR asks whether one caption is true, which a cosine does not say without a threshold; here

    derived     a true caption of a test file whose relation has an opposite, against that opposite: both cannot hold
    annotated   in all of ``random``, a true and a false caption of the same picture and the same two objects, in the
                order of the files; each caption stands in one pair at most

Opposites of distance are no contradictions to everyone ("near", "far from"): derived, but in a number of their own.
"Left of the dog" may be the dog's left; such frames of reference are noise here.

Source: cambridgeltl/visual-spatial-reasoning @ b27a0af, data/; arXiv 2205.00363.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from spatialbench.data.captions.caption_set import CaptionSet, Measure, macro, micro
from spatialbench.data.captions.fields import lines

_BOTH_WAYS = {
    "left of": "right of",
    "at the left side of": "at the right side of",
    "above": "below",
    "in front of": "behind",
    "inside": "outside",
    "facing": "facing away from",
}
SAFE = _BOTH_WAYS | {b: a for a, b in _BOTH_WAYS.items()}
SAFE |= {"over": "under", "under": "over", "beneath": "above", "ahead of": "behind"}
"""Relation -> one that cannot hold where it does."""
SOFT = {
    "near": "far from",
    "far from": "near",
    "close to": "far away from",
    "far away from": "close to",
}
RANDOM, ZEROSHOT, SOFT_PART, ANNOTATED = "random", "zeroshot", "distance", "annotated"


class Line(NamedTuple):
    """One caption, ``true`` of its ``image`` or not; ``verb`` is "is " where the sentence has that."""

    record: str
    image: str
    subject: str
    verb: str
    relation: str
    object: str
    caption: str
    true: bool


class Vsr(CaptionSet):
    """Derived and annotated pairs."""

    name = "vsr"
    source = "VSR's splits (cambridgeltl/visual-spatial-reasoning, data/) beside the folder images"

    def read(self) -> None:
        whole: list[Line] = []
        for split, names in ((RANDOM, ("train", "dev", "test")), (ZEROSHOT, ("test",))):
            for name in names:
                found = self._lines(split, name)
                if split == RANDOM:
                    whole += found
                if name == "test":
                    self._derive(split, found)
        self._annotated(whole)

    def _lines(self, split: str, name: str) -> list[Line]:
        path = self.file(
            *(f"{folder}{split}/{name}.jsonl" for folder in ("", "splits/", "data/splits/"))
        )
        found = []
        for number, fields in enumerate(lines(self, path), start=1):
            self.account.read += 1
            record, label = f"{split}/{name}-{number}", fields.number("label")
            if label not in (0, 1):
                self.refuse(fields.where, f"label {label} is neither 0 nor 1")
            relation, caption = fields.text("relation"), fields.text("caption")
            match = re.fullmatch(
                rf"The (.+?) (is )?{re.escape(relation)} (?:the )?(.+?)\.?", caption
            )
            if match is None:
                self.account.drop("not of the form 'The A is <relation> the B.'", record, caption)
                continue
            subject, verb, other = match.groups(default="")
            found.append(
                Line(
                    record,
                    fields.text("image"),
                    subject,
                    verb,
                    relation,
                    other,
                    caption,
                    label == 1,
                )
            )
        return found

    def _derive(self, split: str, found: list[Line]) -> None:
        for line in found:
            opposite = SAFE.get(line.relation) or SOFT.get(line.relation)
            if line.true and opposite:
                part = split if line.relation in SAFE else SOFT_PART
                false = f"The {line.subject} {line.verb}{opposite} the {line.object}."
                self._pair(f"{line.record}+{part}", part, line, false)
            elif split == ZEROSHOT:  # those of ``random`` come to their end in ``_annotated``
                reason = (
                    "a true caption without an opposite"
                    if line.true
                    else "a false caption, which derives nothing"
                )
                self.account.drop(reason, line.record, line.caption)

    def _annotated(self, found: list[Line]) -> None:
        groups: dict[tuple[str, frozenset[str]], list[Line]] = {}
        for line in found:
            groups.setdefault((line.image, frozenset((line.subject, line.object))), []).append(line)
        derived = {record.record.partition("+")[0] for record in self.records}
        for group in groups.values():
            true, false = (
                [line for line in group if line.true is wanted] for wanted in (True, False)
            )
            for one, other in zip(true, false, strict=False):
                self._pair(f"{one.record}+{other.record}", ANNOTATED, one, other.caption)
            for line in (true if len(true) > len(false) else false)[min(len(true), len(false)) :]:
                if line.record not in derived:
                    self.account.drop(
                        "in no pair: no opposite, no partner on its picture",
                        line.record,
                        line.caption,
                    )

    def _pair(self, record: str, part: str, line: Line, false: str) -> None:
        path = self._images() / Path(line.image).name
        self.add(record, part, line.relation, self.picture(path), [line.caption, false], line.image)

    def _images(self) -> Path:
        inner = self.folder / "data" / "images"
        return inner if inner.is_dir() else self.folder / "images"

    def measures(self) -> list[Measure]:
        """Of each part the mean over pairs; of the derived ones also over relations."""
        found = []
        for part, title in (
            (RANDOM, "random test, derived"),
            (ZEROSHOT, "zero-shot test, derived"),
            (SOFT_PART, "both tests, derived, distance"),
            (ANNOTATED, "random, annotated"),
        ):
            rows = self.rows(part)
            if rows:
                found.append(micro(f"{part}_pair", title, rows))
            if rows and part in (RANDOM, ZEROSHOT):
                groups = [self.records[row].relation for row in rows]
                found.append(macro(f"{part}_macro", f"{title}, mean of relations", rows, groups))
        return found
