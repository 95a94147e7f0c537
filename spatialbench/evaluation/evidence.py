"""Evidence: what an evaluation counted, unit by unit, and everything that follows from it.

The numerators and denominators of every measure are kept (formula (1) of ``ratio.py``), so units
can be resampled and any two rows compared on the same units.

Letters: S seeds, U units (records, images, image pairs), G groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from spatialbench.evaluation.bootstrap import Interval, Resampler, spread
from spatialbench.evaluation.ratio import Margins, Ratio, compact
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.npz import digest, npz_bytes

ADVICE = "run it again with --force"
_NOT_COMPARED = "cannot be compared; run them again on the same data"


@dataclass(frozen=True)
class Evidence:
    """The evidence of one row: named ratios, and a cluster for each unit.

    Attributes:
        clusters: str [U]. Units of one cluster (scene, image) are resampled together.
        ratios: measure -> ``Ratio``, in the order of the tables; those of ``margins``, if given.
        data: hash of the data. Rows that share it can be compared.
        settings: hash of the evaluation's settings and version.
        commits: of the code that evaluated, one for each seed.
        labels: names of the G groups, where all measures share them; else empty.
        margins: the answers behind the ratios, where there are any.
        notes: what the evaluation says about these data, for readers.

    Raises:
        SpatialbenchError: no measure, arrays that do not fit together, a ratio outside of [0, 1],
            a unit named twice, an unknown group, or a number that is not finite.
    """

    clusters: np.ndarray
    ratios: Mapping[str, Ratio]
    data: str
    settings: str = ""
    commits: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    margins: Margins | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.clusters.ndim != 1 or self.clusters.dtype.kind != "U":
            raise SpatialbenchError(
                f"clusters must be one name for each unit, got {self.clusters.shape}"
            )
        if self.margins is not None:
            _check_margins(self.margins, self.clusters)
            ratios = self.margins.ratios()
        else:
            ratios = {name: _checked(name, self.ratios[name], self.units) for name in self.ratios}
        if not ratios:
            raise SpatialbenchError("no measure has a value on these data")
        object.__setattr__(self, "ratios", ratios)
        counts = {name: len(ratio.numerator) for name, ratio in ratios.items()}
        if len(set(counts.values())) > 1:
            raise SpatialbenchError(f"the measures have different numbers of seeds: {counts}")
        if self.labels and set(self.group_counts.values()) != {len(self.labels)}:
            raise SpatialbenchError(
                f"{len(self.labels)} group names, but the measures have {self.group_counts} groups"
            )

    @classmethod
    def of(
        cls,
        clusters: Sequence[str],
        ratios: Mapping[str, tuple[np.ndarray, np.ndarray]],
        data: str,
        labels: Sequence[str] = (),
        notes: Mapping[str, str] | None = None,
    ) -> Self:
        """Build the evidence of one seed from [U, G] or [U] arrays.

        A measure without any denominator has no value and is left out.
        """
        seed = {
            name: Ratio(*(_with_seed(np.asarray(part)) for part in parts))
            for name, parts in ratios.items()
            if np.any(parts[1])
        }
        names = np.asarray(clusters, dtype=np.str_)
        return cls(names, seed, data, labels=tuple(labels), notes=notes or {})

    @classmethod
    def of_margins(
        cls,
        margins: Margins,
        clusters: np.ndarray,
        data: str,
        notes: Mapping[str, str] | None = None,
    ) -> Self:
        """Build evidence from answers to binary questions."""
        return cls(clusters, {}, data, margins=margins, notes=notes or {})

    @classmethod
    def join(cls, runs: Sequence[Evidence]) -> Evidence:
        """Join the seeds of one row. Margins become float16 that keeps every sign.

        Raises:
            SpatialbenchError: the seeds have different data or different measures.
        """
        first = runs[0]
        for other in runs[1:]:
            alike = (other.data, other.settings) == (first.data, first.settings)
            if not (alike and same_units(first, other)):
                raise SpatialbenchError(f"the seeds were evaluated on different data; {ADVICE}")
            if (other.group_counts, other.labels) != (first.group_counts, first.labels):
                raise SpatialbenchError(f"the seeds hold different measures; {ADVICE}")
        commits = tuple(commit for run in runs for commit in run.commits)
        if first.margins is not None:
            values = {
                scorer: compact(np.concatenate([run.answers(scorer) for run in runs]))
                for scorer in first.margins.values
            }
            return replace(first, margins=first.margins._replace(values=values), commits=commits)
        ratios = {
            name: Ratio(*map(np.concatenate, zip(*(run.ratios[name] for run in runs), strict=True)))
            for name in first.ratios
        }
        return replace(first, ratios=ratios, commits=commits)

    def seed(self, place: int) -> Evidence:
        """Evidence of one seed alone."""
        commits = self.commits[place : place + 1]
        if self.margins is not None:
            values = {name: answers[[place]] for name, answers in self.margins.values.items()}
            return replace(self, margins=self.margins._replace(values=values), commits=commits)
        ratios = {
            name: Ratio(*(part[[place]] for part in ratio)) for name, ratio in self.ratios.items()
        }
        return replace(self, ratios=ratios, commits=commits)

    def only(self, chosen: np.ndarray) -> Evidence:
        """Evidence of the chosen units (a mask, or rows in a new order); from margins only."""
        assert self.margins is not None, "only units with a name can be chosen"
        margins = self.margins._replace(
            units=self.margins.units[chosen],
            group=self.margins.group[chosen],
            values={name: answers[:, chosen] for name, answers in self.margins.values.items()},
        )
        return replace(self, clusters=self.clusters[chosen], margins=margins)

    def aligned(self, other: Evidence) -> Evidence:
        """Bring the units into the order of ``other``.

        Raises:
            SpatialbenchError: the two were not evaluated on the same units, groups and clusters.
        """
        aligned = self
        if self.margins is not None and other.margins is not None:
            mine, theirs = self.margins.units, other.margins.units
            if not np.array_equal(mine, theirs):
                if not np.array_equal(np.sort(mine), np.sort(theirs)):
                    raise SpatialbenchError(f"rows of different records {_NOT_COMPARED}")
                order = np.argsort(mine)
                aligned = self.only(order[np.searchsorted(mine[order], theirs)])
        if not same_units(aligned, other):
            raise SpatialbenchError(
                f"rows of the same records in different groups or scenes {_NOT_COMPARED}"
            )
        return aligned

    @property
    def seeds(self) -> int:
        """S."""
        return len(next(iter(self.ratios.values())).numerator)

    @property
    def units(self) -> int:
        """U."""
        return len(self.clusters)

    @property
    def group_counts(self) -> dict[str, int]:
        """Measure -> G. Two rows must agree on it to be compared."""
        return {name: ratio.numerator.shape[2] for name, ratio in self.ratios.items()}

    def answers(self, scorer: str = "") -> np.ndarray:
        """Margins of a scorer, float [S, U]."""
        assert self.margins is not None, "this evidence has no margins"
        return self.margins.values[scorer]

    def seed_values(self, measure: str) -> np.ndarray:
        """(1) of one measure, percent, float [S]; NaN where no unit counts."""
        return self.ratios[measure].seeds

    def values(self) -> dict[str, float]:
        """(1) of every measure, percent, mean over seeds."""
        return {name: float(np.mean(self.seed_values(name))) for name in self.ratios}

    def spread(self, measure: str) -> float | None:
        """Return the standard deviation over seeds in points; None for one seed or no value."""
        values = self.seed_values(measure)
        return spread(values.tolist()) if np.isfinite(values).all() else None

    def group_values(self, measure: str) -> dict[str, float]:
        """Label -> percent, mean over seeds; empty where the groups have no names."""
        means = self.ratios[measure].groups.mean(0).tolist()
        return dict(zip(self.labels, means, strict=True)) if self.labels else {}

    @cached_property
    def resampler(self) -> Resampler:
        """Draws of these clusters."""
        return Resampler(self.clusters)

    def interval(self, measure: str) -> Interval | None:
        """95 % interval over clusters and seeds, percent; None where no unit counts."""
        return self.resampler.interval(self.ratios[measure])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the content of a file."""
        arrays = {
            "clusters": self.clusters,
            "data": np.asarray(self.data),
            "settings": np.asarray(self.settings),
            "commits": np.asarray(self.commits, dtype=np.str_),
            "labels": np.asarray(self.labels, dtype=np.str_),
            "notes": np.asarray([*self.notes.items()], dtype=np.str_).reshape(-1, 2),
        }
        if self.margins is not None:
            arrays |= {
                "units": self.margins.units,
                "group": self.margins.group,
                "columns": np.asarray(self.margins.columns),
            }
            return arrays | {f"margins.{name}": m for name, m in self.margins.values.items()}
        for name, ratio in self.ratios.items():
            arrays |= {f"{name}.{part}": getattr(ratio, part) for part in Ratio._fields}
        return arrays

    @property
    def digest(self) -> str:
        """sha256 of the content."""
        return digest(self.arrays())

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        write_atomic(path, npz_bytes(self.arrays()))

    @classmethod
    def load(cls, path: Path, advice: str = ADVICE) -> Self:
        """Read and check a file.

        Raises:
            SpatialbenchError: it is missing, damaged, or something else; ``advice`` is the way out.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            evidence = cls._of_arrays(arrays)
            if evidence.arrays().keys() != arrays.keys():
                raise SpatialbenchError(f"unexpected arrays {sorted(arrays)}")
            return evidence
        except FileNotFoundError as error:
            raise SpatialbenchError(f"{path}: no such file; {advice}") from error
        except Exception as error:  # numpy and zipfile raise nearly anything on a damaged archive
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SpatialbenchError(
                f"{path}: not a readable evidence file ({reason}); {advice}"
            ) from error

    @classmethod
    def _of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        data, settings = (str(arrays[name].item()) for name in ("data", "settings"))
        commits, labels = (tuple(arrays[name].tolist()) for name in ("commits", "labels"))
        notes, margins, ratios = dict(arrays["notes"].tolist()), None, {}
        if "units" in arrays:
            values = {
                key.removeprefix("margins."): array
                for key, array in arrays.items()
                if key.startswith("margins.")
            }
            columns = tuple(arrays["columns"].tolist())
            margins = Margins(arrays["units"], arrays["group"], values, columns)
        else:
            measures = dict.fromkeys(key.rpartition(".")[0] for key in arrays if "." in key)
            ratios = {
                name: Ratio(*(arrays[f"{name}.{part}"] for part in Ratio._fields))
                for name in measures
            }
        return cls(arrays["clusters"], ratios, data, settings, commits, labels, margins, notes)


def same_units(a: Evidence, b: Evidence) -> bool:
    """Whether two rows were evaluated on the same units in the same order."""
    if not np.array_equal(a.clusters, b.clusters) or (a.margins is None) != (b.margins is None):
        return False
    if a.margins is None or b.margins is None:
        return True
    return np.array_equal(a.margins.units, b.margins.units) and np.array_equal(
        a.margins.group, b.margins.group
    )


def _check_margins(margins: Margins, clusters: np.ndarray) -> None:
    if len(np.unique(margins.units)) != len(margins.units):
        raise SpatialbenchError("a record id appears twice")
    strange = sorted(set(margins.group.tolist()) - set(margins.columns))
    if strange:
        known = ", ".join(margins.columns)
        raise SpatialbenchError(f"unknown group {strange[0]!r}; known: {known}")
    if not margins.units.shape == margins.group.shape == clusters.shape:
        raise SpatialbenchError("record ids, groups and clusters differ in length")
    for values in margins.values.values():
        if values.ndim != 2 or values.shape[1:] != clusters.shape:
            raise SpatialbenchError(f"margins {values.shape} of {len(clusters)} records")
        if not np.isfinite(values).all():
            raise SpatialbenchError("a margin is not a finite number")


def _checked(name: str, ratio: Ratio, units: int) -> Ratio:
    """float32 in C order, so that the same numbers are the same bytes."""
    above, below = (np.ascontiguousarray(part, dtype=np.float32) for part in ratio)
    if above.ndim != 3 or above.shape != below.shape or above.shape[1] != units or not len(above):
        raise SpatialbenchError(
            f"measure {name}: {above.shape} and {below.shape} are not both [seeds, {units}, groups]"
        )
    if not (np.isfinite(above).all() and np.isfinite(below).all()):
        raise SpatialbenchError(f"measure {name}: not a finite number; the training diverged")
    if (above < 0).any() or (above > below * (1 + 1e-6)).any():
        raise SpatialbenchError(f"measure {name}: a numerator is not between 0 and its denominator")
    if not below.any((1, 2)).all():
        raise SpatialbenchError(f"measure {name}: a seed without any denominator")
    return Ratio(above, below)


def _with_seed(part: np.ndarray) -> np.ndarray:
    """[U] or [U, G] -> [1, U, G]."""
    return (part[:, None] if part.ndim == 1 else part)[None]
