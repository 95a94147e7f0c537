"""CV-Bench: questions about photos with boxed objects, turned into statements (Tong et al. 2024).

    test_2d.parquet  test_3d.parquet

with the columns idx, task, image, question, choices, answer, source. ``image`` is {bytes, path}; an
answer of "(A)" is the first choice. Three of the four tasks become pairs about the names in the
question; the false caption swaps the first two of them:

    Relation   "The A is left of the B."
    Depth      "The A is closer to the camera than the B."
    Distance   "The A is closer to the X than the B."        A and B are swapped

Count gives no pair; it is dropped and counted. Boxes are drawn on the images. An object that the
question describes as boxed is "the table in the red box" in captions, too.

Source: the dataset card of nyu-visionx/CV-Bench; arXiv 2406.16860.
"""

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
_OBJECT = r"the (.+?)(?:\s*\((?:annotated|highlighted) by (?:a|the) (\w+) box\))?"
_QUESTIONS = {
    task: re.compile(pattern, re.I | re.S)
    for task, pattern in {
        "Relation": rf".*?relative positions of {_OBJECT} and {_OBJECT} in the image.*",
        "Depth": rf".*?closer to the camera[^,]*, {_OBJECT} or {_OBJECT}\s*\?.*",
        "Distance": rf".*?closer to {_OBJECT}, {_OBJECT} or {_OBJECT}\s*\?.*",
    }.items()
}
_BATCH = 64  # rows, with their images


class CvBench(CaptionSet):
    """Relation, Depth and Distance; the encoded images stay in memory (0.4 GB)."""

    name = "cvbench"
    source = "the parquet files of the Hub's dataset nyu-visionx/CV-Bench"

    def read(self) -> None:
        """Read the parquet files."""
        self._sources: list[str] = []  # of each record
        for name in ("test_2d.parquet", "test_3d.parquet"):
            path = self.file(name)
            for number, data in enumerate(self._table(path)):
                self.account.read += 1
                self._add(Fields(self, f"{path} row {number}", data))

    def _table(self, path: Path) -> Iterator[dict[str, Any]]:
        try:
            with pq.ParquetFile(path) as file:
                missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
                if missing:
                    self.refuse(str(path), f"no column {missing[0]!r}")
                for batch in file.iter_batches(_BATCH, columns=list(COLUMNS)):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            self.refuse(str(path), f"no readable parquet ({str(error).splitlines()[0][:100]})")

    def _add(self, fields: Fields) -> None:
        task, record = fields.text("task"), f"idx {fields.any('idx')}"
        question, choices = fields.text("question"), fields.texts("choices")
        if task not in _QUESTIONS:
            reason = "counting, which has no pair" if task == "Count" else f"unknown task {task!r}"
            return self.account.drop(reason, record, question)
        match = re.fullmatch(r"\(?([A-Z])\)?", fields.text("answer").strip())  # "(B)"
        true = ord(match[1]) - ord("A") if match else len(choices)
        if true >= len(choices):
            why = f"answer {fields.text('answer')!r} names none of the {len(choices)} choices"
            self.refuse(fields.where, why)
        captions = _captions(task, question, choices, true)
        if captions is None:
            reason = f"{task}, a question or choice of an unknown form"
            return self.account.drop(reason, record, f"{question} {choices}")
        if captions[0] == captions[1]:
            return self.account.drop("both objects have one name", record, question)
        relation = choices[true] if task == "Relation" else task.lower()
        self._sources.append(fields.text("source"))
        try:
            data = encoded(fields.any("image"), self.folder)
        except BadImage as error:
            self.refuse(fields.where, str(error))
        image = self.image_bytes(f"{self.name} {record}", data)
        self.add(record, task.lower(), relation, image, captions)

    def measures(self) -> list[Measure]:
        """Return each task, and the mean over sources of Relation, as CV-Bench's 2D average."""
        measures = [micro(task.lower(), task, self.rows(task.lower())) for task in _QUESTIONS]
        rows = self.rows("relation")
        sources = [self._sources[row] for row in rows]
        measures.append(macro("relation_sources", "Relation, mean of sources", rows, sources))
        return [measure for measure in measures if measure.units]


def _captions(task: str, question: str, choices: list[str], true: int) -> tuple[str, str] | None:
    """Return the true and the swapped caption, or None if the question has an unknown form.

    The choices are places for Relation, else the names of the last two objects of the question.
    """
    match, phrase = _QUESTIONS[task].fullmatch(question), None
    if match is None:
        return None
    names, colours = list(match.groups(default="")[::2]), match.groups(default="")[1::2]
    boxed = [f"{a} in the {c} box" if c else a for a, c in zip(names, colours, strict=True)]
    if task == "Relation":
        phrase, first = PHRASES.get(choices[true].lower()), 0
    elif sorted(choices) == sorted(names[-2:]):
        phrase = f"closer to the {'camera' if task == 'Depth' else boxed[0]} than"
        first = true if choices == names[-2:] else 1 - true
    if phrase is None:
        return None
    subject, other = boxed[-2 + first], boxed[-1 - first]
    return f"The {subject} is {phrase} the {other}.", f"The {other} is {phrase} the {subject}."
