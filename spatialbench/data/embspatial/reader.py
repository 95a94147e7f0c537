"""EmbSpatial-Bench and EmbSpatial-SFT: a JSON list, or the Hub's parquet, read in one streaming pass.

Source: Du et al., EmbSpatial-Bench (ACL 2024, arXiv 2406.05756); docs/adding_a_dataset.md has the schema.

A direction question gives one pair. A close or far question of N options gives up to N - 1, the answer against each
other option: nothing is known between two options that are not the answer. Scores count pairs, each as one.

A record boxes one instance of each name; that the picture holds another cannot be seen from the record and stays as
label noise. The other options of a question ("inside", "out of", ...) are never negatives: some are true.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from spatialbench.data.embspatial.statements import (
    Named,
    check_boxes,
    check_names,
    nested,
    read_objects,
    read_relation,
    read_statements,
    shows,
)
from spatialbench.data.image_cache import ImageTable, StaleCache, build, cache_key, discard, stored
from spatialbench.data.images import BadImage, Resize, encoded, visible_share
from spatialbench.data.problems import CheckReport, Rejected
from spatialbench.data.records import Record, RecordSet, elevation_tag, fingerprint
from spatialbench.data.relations import DEPTH_RELATIONS
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

FIELDS = (
    "question_id",
    "relation",
    "image",
    "answer_options",
    "answer",
    "objects",
    "data_source",
    "scene_id",
)
"""The fields that are read, of the bench and of SFT (which lacks answer_options and scene_id)."""

BATCH_ROWS = 32
"""Rows of a parquet file that are in memory at a time."""


@dataclass(frozen=True)
class Loaded:
    """A file as the task sees it.

    Attributes:
        record_set: the records and their pixels.
        report: what was kept and what was dropped.
        image_keys: sha1 of the encoded bytes of each row of ``record_set.images``.
    """

    record_set: RecordSet
    report: CheckReport
    image_keys: list[str]


def load(path: str | Path, size: int, resize: Resize = "squash", strict: bool = False) -> Loaded:
    """Reads a file and its images at ``size`` x ``size`` pixels; the images are decoded once and cached.

    Args:
        path: JSON list or parquet in EmbSpatial's schema.
        size: side of the square images in pixels.
        resize: how a picture is made square.
        strict: a damaged record is an error, and pairs in doubt (nested names, boxes that disagree with the
            relation) are dropped.

    Raises:
        SpatialbenchError: the file cannot be read or holds no usable record; with ``strict``, the first damaged record.
    """
    path = Path(path)
    key = cache_key(path, size, resize)
    entry = stored(key)
    try:
        if entry is not None:
            records, report = _read_some(path, entry.table, strict)
    except StaleCache:  # a picture beside the JSON was changed
        discard(key)
        entry = None
    if entry is None:
        with build(key, size, resize) as table:
            records, report = _read_some(path, table, strict)
        entry = stored(key)
        assert entry is not None
    used = sorted((item.row, sha1) for sha1, item in entry.table.entries.items() if item.row >= 0)
    record_set = RecordSet(
        f"embspatial/{path.stem}", entry.images, records, fingerprint(records, entry.digest)
    )
    return Loaded(record_set, report, [sha1 for _, sha1 in used])


def _read_some(path: Path, table: ImageTable, strict: bool) -> tuple[list[Record], CheckReport]:
    records, report = read(path, table, strict)
    if not records:
        firsts = [report.first_bad, *(count.first for count in report.counts.values())]
        why = next((f"for instance {line}" for line in firsts if line), "the list is empty")
        raise SpatialbenchError(f"no usable record among the {report.questions} of {path}: {why}")
    return records, report


def read(path: Path, table: ImageTable, strict: bool = False) -> tuple[list[Record], CheckReport]:
    """One pass over a file: the records, their images put into ``table``, and the account of what was dropped.

    Raises:
        SpatialbenchError: the file cannot be read; with ``strict``, the first damaged record.
    """
    report = CheckReport(path, strict)
    reader = _Reader(table, report, path.parent)
    with closing(raw_records(path)) as raws:
        for position, raw in enumerate(raws):
            reader.add(position, raw)
    report.images = len({record.image for record in reader.records})
    return reader.records, report


class _Reader:
    """The state of a pass: ids and statements seen so far, and the records."""

    def __init__(self, table: ImageTable, report: CheckReport, folder: Path) -> None:
        self.table, self.report, self.folder = table, report, folder
        self.records: list[Record] = []
        self.ids: set[str] = set()
        self.statements: set[tuple[str, str, str, str]] = set()

    def add(self, position: int, raw: Any) -> None:
        self.report.questions += 1
        name = f"record number {position + 1}"
        try:
            if not isinstance(raw, dict):
                raise Rejected("bad_record", f"a {type(raw).__name__}, not an object with fields")
            question_id = raw.get("question_id")
            if (
                isinstance(question_id, bool)
                or not isinstance(question_id, str | int)
                or question_id == ""
            ):
                raise Rejected("bad_record", "there is no question_id")
            name = f"record {str(question_id)!r}"
            if str(question_id) in self.ids:
                raise Rejected("duplicate_id", "the question_id was used before")
            self.ids.add(str(question_id))
            self._add_question(name, str(question_id), raw)
        except Rejected as rejected:
            self.report.note(rejected.kind, name, rejected.why)

    def _add_question(self, name: str, question_id: str, raw: dict[str, Any]) -> None:
        relation = read_relation(raw)
        objects = read_objects(raw)
        said = read_statements(raw, relation, objects)
        data = self._image_bytes(raw)
        try:
            sha1, image = self.table.look(data)
        except BadImage as error:
            raise Rejected("bad_image", str(error)) from error
        size = (image.width, image.height)
        check_boxes(objects, size)
        if not said.ordered:
            self.report.note(
                "object_order", name, "the answer's subject is not the first boxed object"
            )
        kept: list[tuple[int, Named, Named]] = []
        for option, subject, other in said.candidates:
            try:
                check_names(subject, other, said.options)
                self._check_pair(name, sha1, relation, subject, other)
                kept.append((option, subject, other))
            except Rejected as rejected:
                if len(said.candidates) == 1:
                    raise
                self.report.note(rejected.kind, name, rejected.why, whole=False)
        if not kept:
            return
        row = self.table.use(sha1, data)
        for option, subject, other in kept:
            record = Record(
                record_id=question_id if len(said.candidates) == 1 else f"{question_id}#{option}",
                image=row,
                subject=subject.name,
                relation=relation,
                object=other.name,
                boxes={item.name: item.box for item in reversed(objects)},
                image_size=size,
                source=str(raw.get("data_source") or "embspatial"),
                scene_id=str(raw.get("scene_id") or sha1),
                elevation=_elevation(relation, subject, other, image.height),
                weight=1 / len(kept),
            )
            self.records.append(record)
            self._count(name, record)
        self.report.kept += 1
        self.report.relations[relation] += 1

    def _image_bytes(self, raw: dict[str, Any]) -> bytes:
        try:
            return encoded(raw.get("image"), self.folder)
        except BadImage as error:
            raise Rejected("bad_image", str(error)) from error

    def _check_pair(
        self, name: str, sha1: str, relation: str, subject: Named, other: Named
    ) -> None:
        """What looks at names together, at boxes and at earlier pairs."""
        a, b = subject.name, other.name
        if nested(subject.key, other.key):
            self._doubt(
                "nested_names", name, f"one of the names {a!r} and {b!r} is a part of the other"
            )
        if relation not in DEPTH_RELATIONS and not shows(relation, subject.box, other.box):
            self._doubt(
                "box_disagrees",
                name,
                f"the box of {a!r} is not wholly {relation} of the box of {b!r}",
            )
        statement = (sha1, subject.key, relation, other.key)
        if statement in self.statements:
            raise Rejected(
                "duplicate_pair", f"{a!r} {relation} {b!r} was said of this image before"
            )
        self.statements.add(statement)

    def _doubt(self, kind: str, name: str, why: str) -> None:
        """Counts a pair that is in the full set and not in the strict one."""
        if self.report.strict:
            raise Rejected(kind, why)
        self.report.note(kind, name, why, whole=False)

    def _count(self, name: str, record: Record) -> None:
        self.report.pairs[record.relation] += 1
        if record.elevation:
            self.report.elevation[record.elevation] += 1
        boxes = (record.boxes[record.subject], record.boxes[record.object])
        share = min(visible_share(box, record.image_size, "crop") for box in boxes)
        if share < 0.5:
            kind = "cut_by_crop" if share > 1e-6 else "hidden_by_crop"  # touching edges, rounded
            self.report.note(
                kind, name, f"a centre crop leaves {100 * share:.0f} % of an object", whole=False
            )


def _elevation(relation: str, subject: Named, other: Named, height: int) -> str | None:
    if relation not in DEPTH_RELATIONS:
        return None
    near, far = (subject, other) if relation == "close" else (other, subject)
    return elevation_tag(near.box, far.box, height)


def raw_records(path: Path) -> Generator[Any]:
    """The records of a file as they stand in it, one at a time, with progress on the standard error.

    Raises:
        SpatialbenchError: the file is missing, neither a JSON list nor parquet, or damaged.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(256)
            stream.seek(0)
            yield from (
                _parquet_records(path)
                if start.startswith(b"PAR1")
                else _json_records(path, start, stream)
            )
    except OSError as error:
        raise SpatialbenchError(f"cannot read {path}: {error.strerror or error}") from error


def _json_records(path: Path, start: bytes, stream: BinaryIO) -> Iterator[Any]:
    text = start.removeprefix(b"\xef\xbb\xbf")
    stream.seek(len(start) - len(text))
    if not text.lstrip().startswith(b"["):
        hint = (
            "a Git LFS pointer; fetch the file itself"
            if text.startswith(b"version https://git-lfs")
            else ""
        )
        raise SpatialbenchError(
            f"{path}: {hint or 'neither a JSON list of records nor parquet'}; it starts with {bytes(text[:20])!r}"
        )
    records = ijson.items(stream, "item", use_float=True, buf_size=1 << 18)
    count, at = 0, 0.0
    with progress(f"reading {path.name}", path.stat().st_size / 1e6, "MB") as advance:
        while True:
            try:
                raw = next(records)
            except StopIteration:
                break
            except (ijson.JSONError, UnicodeDecodeError) as error:
                raise SpatialbenchError(
                    f"{path}: {_json_reason(str(error))} after {count} records"
                ) from error
            yield raw
            count += 1
            now = stream.tell() / 1e6
            advance(now - at)
            at = now


def _json_reason(message: str) -> str:
    """One line from the parser's message, which quotes the text around the error over several lines."""
    if "premature EOF" in message or "Incomplete" in message:
        return "the JSON ends early (a broken download?)"
    if "NaN" in message or "Infinity" in message:
        return "no valid JSON (NaN and Infinity are not JSON)"
    return f"no valid JSON ({message.splitlines()[0].strip()[:80]})"


def _parquet_records(path: Path) -> Iterator[Any]:
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        columns = [name for name in file.schema_arrow.names if name in FIELDS]
        with file, progress(f"reading {path.name}", file.metadata.num_rows, "records") as advance:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()
                advance(batch.num_rows)
    except pa.ArrowException as error:
        raise SpatialbenchError(
            f"{path}: damaged parquet ({str(error).splitlines()[0][:100]})"
        ) from error


def records_of(
    raws: Iterable[Any], table: ImageTable, name: str = "records", strict: bool = False
) -> list[Record]:
    """The records of rows that are in memory already, for instance of ``datasets``, with Pillow images or bytes.

    Raises:
        SpatialbenchError: ``strict``, and a record is damaged.
    """
    reader = _Reader(table, CheckReport(Path(name), strict), Path())
    for position, raw in enumerate(raws):
        reader.add(position, raw)
    return reader.records
