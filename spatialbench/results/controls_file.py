"""The stored controls of a track: ``results/<track>/controls/<page>.json`` and, beside it, the margin of every record.

A file whose numbers do not follow from the margins, or with an exact control that does not hold, is refused.

Letters: K controls, N records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spatialbench.evaluation.controls.row import OWN, ControlRow, Made, check, row_of
from spatialbench.evaluation.outcomes import check_records
from spatialbench.results.files import compact
from spatialbench.results.row_schema import OutcomesFile
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.npz import digest, npz_bytes, read_npz
from spatialbench.utils.typed_files import dump_json, load_json, parse

SCHEMA_VERSION = 1
FOLDER = "controls"
KINDS = {"record_ids": "U", "relation": "U", "cluster": "U", "names": "U", "margins": "f"}
TOLERANCE = 0.05  # points: of a recomputed interval


@dataclass(frozen=True)
class ControlsFile:
    """The controls of one page on a track.

    Attributes:
        name, page, page_hash, track, track_hash, init_from, budget, grammar, data_fingerprint: as in ``Result``.
        seed: of the page's run.
        command, commit, dirty, versions: what wrote the file.
        outcomes: the file beside.
        absent: control -> why these records cannot have it.
        rows: the controls.
    """

    schema_version: int
    name: str
    page: str
    page_hash: str
    track: str
    track_hash: str
    init_from: dict[str, str]
    budget: str
    grammar: str
    data_fingerprint: str
    seed: int
    command: str
    commit: str
    dirty: bool
    versions: dict[str, str]
    outcomes: OutcomesFile
    absent: dict[str, str]
    rows: list[ControlRow]


@dataclass(frozen=True)
class Margins:
    """What every control answered.

    Attributes:
        record_ids, relation, cluster: str [N].
        names: str [K].
        margins: float16 [K, N], the signs those of the scores.
    """

    record_ids: np.ndarray
    relation: np.ndarray
    cluster: np.ndarray
    names: np.ndarray
    margins: np.ndarray

    @classmethod
    def of(
        cls, made: Sequence[Made], record_ids: np.ndarray, relation: np.ndarray, cluster: np.ndarray
    ) -> Margins:
        names = np.asarray([each.name for each in made], dtype=np.str_)
        return cls(
            record_ids, relation, cluster, names, compact(np.stack([each.margins for each in made]))
        )

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in KINDS}

    def row(self, made: ControlRow | Made) -> ControlRow:
        """The control of that name, from the margins."""
        places = dict(zip(self.names.tolist(), self.margins.astype(np.float32), strict=True))
        if made.name not in places:
            raise SpatialbenchError(f"there are no margins of the control {made.name}")
        again = Made(made.name, made.page, made.about, places[made.name], made.expected)
        return row_of(again, places.get(OWN), self.relation, self.cluster)


def controls_path(results: Path, track: str, name: str) -> Path:
    return results / track / FOLDER / f"{name}.json"


def write_controls(path: Path, file: ControlsFile, margins: Margins) -> None:
    """Writes margins and file, each in one step.

    Raises:
        BrokenControl: an exact control does not hold; nothing is written.
    """
    _recount(path, file, margins)
    write_atomic(path.with_name(file.outcomes.file), npz_bytes(margins.arrays()))
    write_atomic(path, dump_json(file))


def read_controls(path: Path) -> ControlsFile:
    """Reads, validates and recounts a file.

    Raises:
        BrokenControl: an exact control does not hold.
        SpatialbenchError: it is damaged, or its numbers are not those of the margins beside it.
    """
    advice = "write it again: spatialbench controls --write"
    file = parse(ControlsFile, load_json(path, advice), str(path), advice)
    if file.schema_version != SCHEMA_VERSION:
        raise SpatialbenchError(
            f"{path}: schema_version {file.schema_version}, expected {SCHEMA_VERSION}; {advice}"
        )
    if (file.name, file.outcomes.file) != (path.stem, beside(path.stem)):
        raise SpatialbenchError(
            f"{path}: it is of {file.name} and {file.outcomes.file}; give the file its name back"
        )
    arrays = read_npz(path.with_name(file.outcomes.file), KINDS, advice)
    check_records(path, arrays["record_ids"], arrays["relation"], arrays["cluster"])
    margins = Margins(**arrays)
    if margins.margins.shape != (len(margins.names), len(margins.record_ids)):
        raise SpatialbenchError(
            f"{path}: {margins.margins.shape} margins of {len(margins.names)} controls; {advice}"
        )
    _recount(path, file, margins)
    return file


def beside(name: str) -> str:
    """The file of margins of a page's controls."""
    return f"{name}.controls.npz"


def outcomes_file(name: str, margins: Margins) -> OutcomesFile:
    return OutcomesFile(beside(name), digest(margins.arrays()), len(margins.record_ids))


def _recount(path: Path, file: ControlsFile, margins: Margins) -> None:
    """Raises unless digest, counts and intervals are those of the margins, and every exact control holds."""
    if file.outcomes != outcomes_file(file.name, margins):
        raise SpatialbenchError(
            f"{path}: {file.outcomes.file} is of another file; spatialbench controls --write"
        )
    for row in file.rows:
        again = margins.row(row)
        for field in ("relations", "accuracy", "interval", "differences"):
            if not _alike(getattr(row, field), getattr(again, field)):
                raise SpatialbenchError(
                    f"{path}: {row.name}, field {field!r}: the margins give other numbers: the file was edited, or "
                    f"{file.outcomes.file} belongs to another; spatialbench controls --write"
                )
    check(file.rows, f"{path}: ")


def _alike(stated: object, found: object) -> bool:
    """Equal, numbers of intervals up to ``TOLERANCE``."""
    if isinstance(stated, dict) and isinstance(found, dict):
        return stated.keys() == found.keys() and all(
            _alike(stated[key], found[key]) for key in stated
        )
    if isinstance(stated, list) and isinstance(found, list):
        return len(stated) == len(found) and all(map(_alike, stated, found))
    if isinstance(stated, float) and isinstance(found, float):
        return abs(stated - found) <= TOLERANCE
    return stated == found
