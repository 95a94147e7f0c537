"""Per-record outcomes on disk: every table, interval and comparison derives from these.

Files are npz without pickles and without timestamps: the same outcomes give the same bytes.

Letters: N records, S seeds.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from spatialbench.data.records import Record
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.scores import Outcomes, Scores, count
from spatialbench.utils.errors import SpatialbenchError, write_atomic


@dataclass(frozen=True)
class RunOutcomes:
    """What one run (one page, one seed) answered: ``outcomes.npz`` of a run folder.

    Attributes:
        record_ids: str [N], unique.
        relation: str [N], one of ``RELATIONS``.
        cluster: str [N], scene (or image) of the record: the unit of the bootstrap.
        positive: float32 [N], s(image, caption).
        negative: float32 [N], s(image, negated caption).
    """

    record_ids: np.ndarray
    relation: np.ndarray
    cluster: np.ndarray
    positive: np.ndarray
    negative: np.ndarray

    @classmethod
    def of(cls, outcomes: Outcomes, records: Sequence[Record]) -> Self:
        """Joins collected scores with their records.

        Raises:
            SpatialbenchError: a record of the set has no outcome, or an outcome no record.
        """
        if not np.array_equal(outcomes.record, np.arange(len(records))):
            raise SpatialbenchError(
                f"{len(outcomes.record)} outcomes for {len(records)} records; evaluation must see every record exactly "
                "once: no drop_last, no limit_test_batches"
            )
        return cls(
            record_ids=np.asarray([record.record_id for record in records], dtype=np.str_),
            relation=np.asarray([record.relation for record in records], dtype=np.str_),
            cluster=np.asarray(
                [record.scene_id or f"image {record.image}" for record in records], dtype=np.str_
            ),
            positive=outcomes.positive.astype(np.float32),
            negative=outcomes.negative.astype(np.float32),
        )

    @property
    def margin(self) -> np.ndarray:
        """float32 [N]: positive - negative."""
        return self.positive - self.negative

    def scores(self) -> Scores:
        return count(self.margin, self.relation)

    def save(self, path: Path) -> None:
        """Writes the file in one step."""
        names = ("record_ids", "relation", "cluster", "positive", "negative")
        write_atomic(path, npz_bytes({name: getattr(self, name) for name in names}))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads and checks the file.

        Raises:
            SpatialbenchError: it is missing, damaged, or not of this form.
        """
        arrays = read_npz(
            path,
            {"record_ids": "U", "relation": "U", "cluster": "U", "positive": "f", "negative": "f"},
            advice="delete the run folder and run it again",
        )
        check_records(path, arrays["record_ids"], arrays["relation"], arrays["cluster"])
        for name in ("positive", "negative"):
            if arrays[name].shape != arrays["record_ids"].shape:
                raise SpatialbenchError(
                    f"{path}: {name} is not one number per record; run it again"
                )
        return cls(**arrays)


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A compressed npz; the same arrays give the same bytes (numpy stamps members with 1980-01-01)."""
    assert all(array.dtype.kind != "O" for array in arrays.values()), "objects would be pickled"
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def read_npz(path: Path, kinds: Mapping[str, str], advice: str) -> dict[str, np.ndarray]:
    """Reads exactly the arrays ``kinds`` (name -> numpy kind, ``U`` text, ``f`` float) of an npz; no pickles.

    Raises:
        SpatialbenchError: the file is missing, damaged, or holds other arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise SpatialbenchError(f"{path}: no such file; {advice}") from error
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise SpatialbenchError(
            f"{path}: not a readable outcomes file ({error}); {advice}"
        ) from error
    if set(arrays) != set(kinds):
        raise SpatialbenchError(
            f"{path}: holds {sorted(arrays)}, expected {sorted(kinds)}; {advice}"
        )
    for name, kind in kinds.items():
        if arrays[name].dtype.kind != kind:
            raise SpatialbenchError(f"{path}: {name} has the type {arrays[name].dtype}; {advice}")
    return arrays


def check_records(
    path: Path, record_ids: np.ndarray, relation: np.ndarray, cluster: np.ndarray
) -> None:
    """Refuses repeated record ids, unknown relations and arrays that do not fit together."""
    if record_ids.ndim != 1 or not record_ids.shape == relation.shape == cluster.shape:
        raise SpatialbenchError(
            f"{path}: record_ids, relation and cluster differ in length; run it again"
        )
    if len(np.unique(record_ids)) != len(record_ids):
        raise SpatialbenchError(f"{path}: a record id stands there twice; run it again")
    strange = sorted(set(relation.tolist()) - set(RELATIONS))
    if strange:
        raise SpatialbenchError(
            f"{path}: unknown relation {strange[0]!r}; one of {', '.join(RELATIONS)}"
        )


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 of names, types, shapes and contents: independent of the compression around them."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        state.update(array.tobytes())
    return state.hexdigest()
