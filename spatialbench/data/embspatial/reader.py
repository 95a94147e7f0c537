"""EmbSpatial-Bench and EmbSpatial-SFT: a JSON list, or the Hub's parquet, read in one pass.

Source: Du et al., EmbSpatial-Bench (ACL 2024, arXiv 2406.05756); the schema is in
docs/adding_a_dataset.md.

A direction question gives one pair. A close or far question of N options gives up to N - 1: the
answer against each other option, since nothing is known between two options that are not the
answer. Every pair has the same weight in scores.

A record boxes one instance of each name. The image may contain another one; this cannot be seen
from the record and stays as label noise. The other options of a question ("inside", "out of", ...)
are never negatives: some of them are true.
"""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatialbench.data.account import Rejected
from spatialbench.data.embspatial import statements
from spatialbench.data.embspatial.check_report import CheckReport
from spatialbench.data.embspatial.raw_records import raw_records
from spatialbench.data.embspatial.statements import Named
from spatialbench.data.image_cache import ImageTable, StaleCache, build, cache_key, discard, stored
from spatialbench.data.images import BadImage, Resize, encoded, visible_share
from spatialbench.data.records import Record, RecordSet, elevation_tag, fingerprint
from spatialbench.data.relations import DEPTH_RELATIONS


@dataclass(frozen=True)
class Loaded:
    """The content of a file."""

    record_set: RecordSet
    report: CheckReport  # what was kept and what was dropped
    image_keys: list[str]  # sha1 of the encoded bytes of each row of ``record_set.images``


def load(path: str | Path, size: int, resize: Resize = "squash", strict: bool = False) -> Loaded:
    """Read a file and its images at ``size`` x ``size`` pixels; decoded images are cached.

    With ``strict`` the first damaged record is an error, and doubtful pairs (nested names, boxes
    that disagree with the relation) are dropped.

    Raises:
        SpatialbenchError: the file cannot be read or has no usable record; with ``strict``, the
            first damaged record.
    """
    path = Path(path)
    key = cache_key(path, size, resize)
    entry = stored(key, size)
    try:
        if entry is not None:
            records, report = _read_some(path, entry.table, strict)
    except StaleCache:  # an image beside the JSON was changed
        discard(key)
        entry = None
    if entry is None:
        with build(key, size, resize) as table:
            records, report = _read_some(path, table, strict)
        entry = stored(key, size)
        assert entry is not None
    used = sorted((item.row, sha1) for sha1, item in entry.table.entries.items() if item.row >= 0)
    data = fingerprint(records, entry.digest)
    record_set = RecordSet(f"embspatial/{path.stem}", entry.images, records, data)
    return Loaded(record_set, report, [sha1 for _, sha1 in used])


def _read_some(path: Path, table: ImageTable, strict: bool) -> tuple[list[Record], CheckReport]:
    records, report = read(path, table, strict)
    report.require(len(records), "record")
    return records, report


def check_file(path: str | Path, strict: bool = False) -> CheckReport:
    """Read a file as ``read`` does and decode every distinct image, but keep only the counts."""
    return read(Path(path), ImageTable(), strict)[1]


def read(path: Path, table: ImageTable, strict: bool = False) -> tuple[list[Record], CheckReport]:
    """Read a file in one pass: its records, their images in ``table``, and what was dropped.

    Raises:
        SpatialbenchError: the file cannot be read; with ``strict``, the first damaged record.
    """
    report = CheckReport(path, strict)
    with closing(raw_records(path)) as raws:
        records = _Reader(table, report, path.parent).read(raws)
    report.images = len({record.image for record in records})
    report.pairs.update(record.relation for record in records)
    report.elevation.update(record.elevation for record in records if record.elevation)
    return records, report


class _Reader:
    """The state of one pass: ids and statements seen so far, and the records."""

    def __init__(self, table: ImageTable, report: CheckReport, folder: Path) -> None:
        self.table, self.report, self.folder = table, report, folder
        self.records: list[Record] = []
        self.ids: set[str] = set()
        self.statements: set[tuple[str, str, str, str]] = set()

    def read(self, raws: Iterable[Any]) -> list[Record]:
        for position, raw in enumerate(raws, start=1):
            self.report.read += 1
            id_ = raw.get("question_id") if isinstance(raw, dict) else None
            named = isinstance(id_, str | int) and not isinstance(id_, bool) and id_ != ""
            with self.report.dropping(
                f"record {str(id_)!r}" if named else f"record number {position}"
            ):
                if not isinstance(raw, dict):
                    raise Rejected("bad_record", f"a {type(raw).__name__}, not an object")
                if not named:
                    raise Rejected("bad_record", "there is no question_id")
                if str(id_) in self.ids:
                    raise Rejected("duplicate_id", "the question_id was used before")
                self.ids.add(str(id_))
                self._add_question(str(id_), raw)
        return self.records

    def _add_question(self, question_id: str, raw: dict[str, Any]) -> None:
        name = f"record {question_id!r}"
        relation, objects = statements.read_relation(raw), statements.read_objects(raw)
        said = statements.read_statements(raw, relation, objects)
        try:
            data = encoded(raw.get("image"), self.folder)
            sha1, image = self.table.look_up(data)
        except BadImage as error:
            raise Rejected("bad_image", str(error)) from error
        size = (image.width, image.height)
        statements.check_boxes(objects, size)
        if not said.ordered:
            why = "the answer's subject is not the first boxed object"
            self.report.flag("object_order", name, why)
        kept: list[tuple[int, Named, Named]] = []
        for option, subject, other in said.candidates:
            with self.report.dropping(name):
                statements.check_names(subject, other, said.options)
                self._check_pair(name, sha1, relation, subject, other)
                kept.append((option, subject, other))
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
            self._flag_crop(name, record)
        self.report.kept += 1
        self.report.relations[relation] += 1

    def _check_pair(
        self, name: str, sha1: str, relation: str, subject: Named, other: Named
    ) -> None:
        a, b = subject.name, other.name
        if statements.nested(subject.key, other.key):
            why = f"one of the names {a!r} and {b!r} is a part of the other"
            self._doubt("nested_names", name, why)
        if relation not in DEPTH_RELATIONS and not statements.shows(
            relation, subject.box, other.box
        ):
            why = f"the box of {a!r} is not wholly {relation} of the box of {b!r}"
            self._doubt("box_disagrees", name, why)
        statement = (sha1, subject.key, relation, other.key)
        if statement in self.statements:
            why = f"{a!r} {relation} {b!r} was said of this image before"
            raise Rejected("duplicate_pair", why)
        self.statements.add(statement)

    def _doubt(self, kind: str, name: str, why: str) -> None:
        """Reject a doubtful pair in the strict set, and flag it in the full set."""
        if self.report.strict:
            raise Rejected(kind, why)
        self.report.flag(kind, name, why)

    def _flag_crop(self, name: str, record: Record) -> None:
        boxes = (record.boxes[record.subject], record.boxes[record.object])
        share = min(visible_share(box, record.image_size, "crop") for box in boxes)
        if share < 0.5:
            kind = "cut_by_crop" if share > 1e-6 else "hidden_by_crop"  # touching edges, rounded
            self.report.flag(kind, name, f"a centre crop leaves {100 * share:.0f} % of an object")


def _elevation(relation: str, subject: Named, other: Named, height: int) -> str | None:
    if relation not in DEPTH_RELATIONS:
        return None
    near, far = (subject, other) if relation == "close" else (other, subject)
    return elevation_tag(near.box, far.box, height)
