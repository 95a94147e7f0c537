"""Per-record outcomes on disk: every table, interval and comparison derives from these.

Files are npz without pickles and without timestamps: the same outcomes give the same bytes.

Letters: N records, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from spatialbench.data.records import Record
from spatialbench.data.relations import RELATIONS
from spatialbench.evaluation.scores import Outcomes, Scores, count
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.npz import npz_bytes, read_npz


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
