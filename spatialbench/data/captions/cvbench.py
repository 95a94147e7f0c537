"""CV-Bench: questions about photos with objects marked by boxes, here as statements (Tong et al. 2024).

    test_2d.parquet  test_3d.parquet   in the folder; or one test.parquet, as in older revisions

with the columns idx, task, image, question, choices, answer, source. ``image`` is {bytes, path}; answer is "(A)" for
the first of the choices. Three of the four tasks become pairs, of the names in the question:

    Relation   "The A is left of the B."                     against the objects exchanged
    Depth      "The A is closer to the camera than the B."   against the objects exchanged
    Distance   "The A is closer to the X than the B."        against A and B exchanged

Count has no pair and is left out, counted. Boxes are drawn on the pictures and the questions say so; an object that the
question says is in a box is "the table in the red box" here, too.

Source: the dataset card of nyu-visionx/CV-Bench; arXiv 2406.16860.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from spatialbench.data.captions.caption_set import CaptionSet, Measure, macro, micro
from spatialbench.data.captions.fields import Fields
from spatialbench.data.images import BadImage, encoded

COLUMNS = ("idx", "task", "image", "question", "choices", "answer", "source")
PHRASES = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
PHRASES |= {"in front": "in front of", "behind": "behind"}
"""Choice of Relation -> the words between subject and object."""
TASKS = ("Relation", "Depth", "Distance")
_BOX = r"(?:\s*\((?:annotated|highlighted) by (?:a|the) (\w+) box\))?"
_OBJECT = rf"the (.+?){_BOX}"
_QUESTIONS = {
    "Relation": re.compile(
        rf".*?relative positions of {_OBJECT} and {_OBJECT} in the image.*", re.I | re.S
    ),
    "Depth": re.compile(
        rf".*?closer to the camera[^,]*, {_OBJECT} or {_OBJECT}\s*\?.*", re.I | re.S
    ),
    "Distance": re.compile(rf".*?closer to {_OBJECT}, {_OBJECT} or {_OBJECT}\s*\?.*", re.I | re.S),
}
_BATCH = 64  # rows, with their pictures


class CvBench(CaptionSet):
    """Relation, Depth and Distance. The encoded pictures are held in memory: as much as the files, 0.4 GB."""

    name = "cvbench"
    source = "the parquet files of the Hub's dataset nyu-visionx/CV-Bench"

    def read(self) -> None:
        self._sources: list[str] = []  # of each record
        old = self.folder / "test.parquet"
        for path in (
            [old] if old.is_file() else [self.file(f"test_{kind}.parquet") for kind in ("2d", "3d")]
        ):
            for number, data in enumerate(self._table(path)):
                self.account.read += 1
                self._add(Fields(self, f"{path} row {number}", data))

    def _table(self, path: Path) -> Iterator[dict[str, Any]]:
        try:
            with pq.ParquetFile(path) as file:
                missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
                if missing:
                    self.refuse(
                        str(path),
                        f"no column {missing[0]!r}; there are {', '.join(file.schema_arrow.names)}",
                    )
                for batch in file.iter_batches(_BATCH, columns=list(COLUMNS)):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            self.refuse(str(path), f"no readable parquet ({str(error).splitlines()[0][:100]})")

    def _add(self, fields: Fields) -> None:
        task, record = fields.text("task"), f"idx {fields.any('idx')}"
        question, choices = fields.text("question"), fields.texts("choices")
        if task not in TASKS:
            reason = (
                "counting, which has no pair" if task == "Count" else f"the unknown task {task!r}"
            )
            self.account.drop(reason, record, question)
            return
        place = self._answer(fields, choices)
        names = _QUESTIONS[task].fullmatch(question)
        captions = (
            None
            if names is None
            else _captions(task, list(names.groups(default="")), choices, place)
        )
        if captions is None:
            self.account.drop(
                f"{task}, a question or choice of an unknown form", record, f"{question} {choices}"
            )
        elif captions[0] == captions[1]:
            self.account.drop("both objects have one name", record, question)
        else:
            relation = choices[place] if task == "Relation" else task.lower()
            self._sources.append(fields.text("source"))
            self.add(record, task.lower(), relation, self._picture(fields, record), captions)

    def _answer(self, fields: Fields, choices: list[str]) -> int:
        """The place of the choice that "(B)" names."""
        match = re.fullmatch(r"\(?([A-Z])\)?", fields.text("answer").strip())
        place = -1 if match is None else ord(match[1]) - ord("A")
        if not 0 <= place < len(choices):
            self.refuse(
                fields.where,
                f"answer {fields.data['answer']!r} names none of the {len(choices)} choices",
            )
        return place

    def _picture(self, fields: Fields, record: str) -> int:
        try:
            data = encoded(fields.any("image"), self.folder)
        except BadImage as error:
            self.refuse(fields.where, str(error))
        return self.picture_bytes(hashlib.sha256(data).hexdigest(), f"{self.name} {record}", data)

    def measures(self) -> list[Measure]:
        """Each task; of Relation also the mean of its two sources, as CV-Bench averages its 2D tasks."""
        found = [micro(task.lower(), task, self.rows(task.lower())) for task in TASKS]
        rows = self.rows("relation")
        found.append(
            macro(
                "relation_sources",
                "Relation, mean of sources",
                rows,
                [self._sources[r] for r in rows],
            )
        )
        return [measure for measure in found if measure.units]


def _captions(
    task: str, groups: list[str], choices: list[str], place: int
) -> tuple[str, str] | None:
    """The true caption and the one with the objects exchanged; None where the choices are not what the question asks.

    Args:
        groups: name and colour of the box, "" without one, of two objects; of Distance, of three.
        choices: of Relation places, else the names of the last two objects in their order.
        place: of the true one in ``choices``.
    """
    plain = groups[::2]
    named = [
        name if not colour else f"{name} in the {colour} box"
        for name, colour in zip(plain, groups[1::2], strict=True)
    ]
    if task == "Relation":
        phrase = PHRASES.get(choices[place].lower())
        return (
            None
            if phrase is None
            else _exchanged(f"The {{}} is {phrase} the {{}}.", named[0], named[1])
        )
    if choices not in (plain[-2:], plain[:-3:-1]):
        return None
    nearer = place if choices == plain[-2:] else 1 - place
    to = "camera" if task == "Depth" else named[0]
    return _exchanged(
        f"The {{}} is closer to the {to} than the {{}}.", named[-2 + nearer], named[-1 - nearer]
    )


def _exchanged(form: str, a: str, b: str) -> tuple[str, str]:
    return form.format(a, b), form.format(b, a)
