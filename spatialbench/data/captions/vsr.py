"""VSR: captions that people found true or false of photos of COCO (Liu et al. 2023).

    random/{train,dev,test}.jsonl   zeroshot/test.jsonl   also in ``splits`` or ``data/splits``
    images/<image>                                        also in ``data``

A line is {image, caption, label, relation, ...}. The fields ``subj`` and ``obj`` of the zero-shot
files lack letters ("orse", "andbag"), so names are read from the caption, "The A is <relation> the
B." VSR asks whether one caption is true; a cosine needs a threshold for that. Pairs need none:

    derived     a true caption of a test file whose relation has an opposite, against that opposite
    annotated   in all of ``random``, a true and a false caption of the same image and the same two
                objects, in the order of the files; each caption is in one pair at most

Not everyone sees a contradiction in the opposites of distance ("near", "far from"): such derived
pairs have a measure of their own. "Left of the dog" may be the dog's left, which adds noise.

Source: cambridgeltl/visual-spatial-reasoning @ b27a0af, data/; arXiv 2205.00363.
"""

import re
from itertools import zip_longest
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
"""Relation -> a relation that cannot hold at the same time."""
SOFT = {"near": "far from", "far from": "near"}
SOFT |= {"close to": "far away from", "far away from": "close to"}
"""The same for distance."""
RANDOM, ZEROSHOT, SOFT_PART, ANNOTATED = "random", "zeroshot", "distance", "annotated"


class Line(NamedTuple):
    """A caption that is ``true`` of its image or not; ``verb`` is "is " or empty."""

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
        """Derive pairs from both test files, then pair the captions of ``random``."""
        train, dev, test = (self._lines(RANDOM, name) for name in ("train", "dev", "test"))
        self._derive(RANDOM, test)
        self._derive(ZEROSHOT, self._lines(ZEROSHOT, "test"))
        self._annotated(train + dev + test)

    def _lines(self, split: str, name: str) -> list[Line]:
        folders = ("", "splits/", "data/splits/")
        path = self.file(*(f"{folder}{split}/{name}.jsonl" for folder in folders))
        kept = []
        for number, fields in enumerate(lines(self, path), start=1):
            self.account.read += 1
            record, label = f"{split}/{name}-{number}", fields.number("label")
            if label not in (0, 1):
                self.refuse(fields.where, f"label {label} is neither 0 nor 1")
            relation, caption = fields.text("relation"), fields.text("caption")
            form = rf"The (.+?) (is )?{re.escape(relation)} (?:the )?(.+?)\.?"
            match = re.fullmatch(form, caption)
            if match is None:
                self.account.drop("not of the form 'The A is <relation> the B.'", record, caption)
                continue
            subject, verb, other = match.groups(default="")
            names = (subject, verb, relation, other)
            kept.append(Line(record, fields.text("image"), *names, caption, label == 1))
        return kept

    def _derive(self, split: str, test: list[Line]) -> None:
        for line in test:
            opposite = SAFE.get(line.relation) or SOFT.get(line.relation)
            if line.true and opposite:
                part = split if line.relation in SAFE else SOFT_PART
                false = f"The {line.subject} {line.verb}{opposite} the {line.object}."
                self._pair(f"{line.record}+{part}", part, line, false)
            elif split == ZEROSHOT:  # ``_annotated`` accounts for those of ``random``
                false_caption = "a false caption, which derives nothing"
                reason = "a true caption without an opposite" if line.true else false_caption
                self.account.drop(reason, line.record, line.caption)

    def _annotated(self, whole: list[Line]) -> None:
        groups: dict[tuple[str, frozenset[str]], tuple[list[Line], list[Line]]] = {}
        for line in whole:
            key = (line.image, frozenset((line.subject, line.object)))
            groups.setdefault(key, ([], []))[line.true].append(line)
        derived = {record.record.partition("+")[0] for record in self.records}
        for false_lines, true_lines in groups.values():
            for true, false in zip_longest(true_lines, false_lines):
                if true and false:
                    self._pair(f"{true.record}+{false.record}", ANNOTATED, true, false.caption)
                elif (alone := true or false).record not in derived:
                    reason = "in no pair: no opposite, no partner on its image"
                    self.account.drop(reason, alone.record, alone.caption)

    def _pair(self, record: str, part: str, line: Line, false: str) -> None:
        inner = self.folder / "data" / "images"
        folder = inner if inner.is_dir() else self.folder / "images"
        image = self.image(folder / Path(line.image).name)
        self.add(record, part, line.relation, image, [line.caption, false], line.image)

    def measures(self) -> list[Measure]:
        """Return the mean over pairs of each part, and over relations of the derived ones."""
        measures = []
        for part, title in (
            (RANDOM, "random test, derived"),
            (ZEROSHOT, "zero-shot test, derived"),
            (SOFT_PART, "both tests, derived, distance"),
            (ANNOTATED, "random, annotated"),
        ):
            rows = self.rows(part)
            measures.append(micro(f"{part}_pair", title, rows))
            if part in (RANDOM, ZEROSHOT):
                mean = f"{title}, mean of relations"
                measures.append(macro(f"{part}_macro", mean, rows, self.relations(rows)))
        return [measure for measure in measures if measure.units]
