"""Evidence: what an evaluation counted, unit by unit, and everything that follows from it.

The numerators and denominators of every measure are kept (formula (1) of ``ratio.py``), so units
can be resampled and any two rows compared on the same units.

Letters: S seeds, U units (records, images, image pairs), G groups.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from spatialbench.evaluation.bootstrap import Interval, Resampler
from spatialbench.evaluation.ratio import Margins, Ratio, check_margins, checked, compact
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.npz import digest, npz_bytes

ADVICE = "run it again with --force"
_NOT_COMPARED = "cannot be compared; run them again on the same data"


@dataclass(frozen=True)
class Evidence:
    """The evidence of one row: named ratios, and a cluster for each unit.

    Raises:
        SpatialbenchError: no measure, arrays that do not fit together, a ratio outside of [0, 1],
            a unit named twice, an unknown group, or a number that is not finite.
    """

    clusters: np.ndarray  # str [U]; units of one cluster (scene, image) are resampled together
    ratios: Mapping[str, Ratio]  # by measure, as in the tables; those of ``margins``, if given
    data: str  # hash of the data; rows that share it can be compared
    settings: str = ""  # hash of the evaluation's settings and version
    commits: tuple[str, ...] = ()  # of the code that evaluated, one for each seed
    labels: tuple[str, ...] = ()  # names of the G groups, where all measures share them
    margins: Margins | None = None  # the answers behind the ratios, where there are any
    notes: Mapping[str, str] = field(default_factory=dict)  # about these data, for readers

    def __post_init__(self) -> None:
        if self.clusters.ndim != 1 or self.clusters.dtype.kind != "U":
            shape = self.clusters.shape
            raise SpatialbenchError(f"clusters must be one name for each unit, got {shape}")
        if self.margins is not None:
            check_margins(self.margins, self.clusters)
            ratios = self.margins.ratios()
        else:
            ratios = {name: checked(name, self.ratios[name], self.units) for name in self.ratios}
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
            name: Ratio(*(np.reshape(part, (1, len(part), -1)) for part in parts))
            for name, parts in ratios.items()
            if np.any(parts[1])
        }
        names = np.asarray(clusters, dtype=np.str_)
        return cls(names, seed, data, labels=tuple(labels), notes=notes or {})

    @classmethod
    def join(cls, runs: Sequence[Self]) -> Self:
        """Join the seeds of one row, which must have the same data and measures.

        Margins become float16 that keeps every sign. Notes that differ are left out.

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
        shared = set.intersection(*(set(run.notes.items()) for run in runs))
        notes = {name: text for name, text in first.notes.items() if (name, text) in shared}
        ratios, margins = first.ratios, first.margins
        if margins is not None:
            scorers = {name: [run.answers(name) for run in runs] for name in margins.values}
            values = {name: compact(np.concatenate(own)) for name, own in scorers.items()}
            margins = margins._replace(values=values)
        else:
            seeds = {name: [run.ratios[name] for run in runs] for name in ratios}
            ratios = {
                name: Ratio(*map(np.concatenate, zip(*own, strict=True)))
                for name, own in seeds.items()
            }
        return replace(first, ratios=ratios, margins=margins, commits=commits, notes=notes)

    def seed(self, place: int) -> Self:
        """Evidence of one seed alone."""
        ratios = {
            name: Ratio(*(part[[place]] for part in own)) for name, own in self.ratios.items()
        }
        margins = self.margins and self._margins(lambda answers: answers[[place]])
        return replace(
            self, ratios=ratios, margins=margins, commits=self.commits[place : place + 1]
        )

    def only(self, chosen: np.ndarray) -> Self:
        """Evidence of the chosen units (a mask, or rows in a new order); from margins only."""
        margins = self._margins(lambda answers: answers[:, chosen])
        margins = margins._replace(units=margins.units[chosen], group=margins.group[chosen])
        return replace(self, clusters=self.clusters[chosen], margins=margins)

    def _margins(self, change: Callable[[np.ndarray], np.ndarray]) -> Margins:
        """Margins with a function applied to the answers [S, U] of every scorer."""
        values = {name: change(answers) for name, answers in self.known_margins.values.items()}
        return self.known_margins._replace(values=values)

    def aligned(self, other: Self) -> Self:
        """Bring the units into the order of ``other``, which must have the same ones.

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
            what = "rows of the same records in different groups or scenes"
            raise SpatialbenchError(f"{what} {_NOT_COMPARED}")
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

    @property
    def known_margins(self) -> Margins:
        """The margins, of an evaluation that has them."""
        assert self.margins is not None, "this evidence has no margins"
        return self.margins

    def answers(self, scorer: str = "") -> np.ndarray:
        """Margins of a scorer, float [S, U]."""
        return self.known_margins.values[scorer]

    def seed_values(self, measure: str) -> np.ndarray:
        """(1) of one measure, percent, float [S]; NaN where no unit counts."""
        return self.ratios[measure].seeds

    def values(self) -> dict[str, float]:
        """(1) of every measure, percent, mean over seeds."""
        return {name: float(np.mean(self.seed_values(name))) for name in self.ratios}

    @cached_property
    def runs(self) -> int:
        """Number of runs: S, but 1 where all seeds gave the same, as where nothing is trained."""
        parts = [part for ratio in self.ratios.values() for part in ratio]
        return 1 if all((part == part[:1]).all() for part in parts) else self.seeds

    def spread(self, measure: str) -> float | None:
        """Return the standard deviation over runs (n - 1) in points; None for one, or no value."""
        values = self.seed_values(measure)
        known = self.runs > 1 and np.isfinite(values).all()
        return float(np.std(values, ddof=1)) if known else None

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
            units, group, values, columns = self.margins
            arrays |= {"units": units, "group": group, "columns": np.asarray(columns)}
            return arrays | {f"margins.{name}": answers for name, answers in values.items()}
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
            what = f"not a readable evidence file ({reason})"
            raise SpatialbenchError(f"{path}: {what}; {advice}") from error

    @classmethod
    def _of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        data, settings = (str(arrays[name].item()) for name in ("data", "settings"))
        commits, labels = (tuple(arrays[name].tolist()) for name in ("commits", "labels"))
        notes, margins, ratios = dict(arrays["notes"].tolist()), None, {}
        dotted = [name.rpartition(".") for name in arrays if "." in name]
        if "units" in arrays:
            values = {scorer: arrays[f"margins.{scorer}"] for _, _, scorer in dotted}
            columns = tuple(arrays["columns"].tolist())
            margins = Margins(arrays["units"], arrays["group"], values, columns)
        else:
            for name in dict.fromkeys(name for name, _, _ in dotted):
                ratios[name] = Ratio(*(arrays[f"{name}.{part}"] for part in Ratio._fields))
        return cls(arrays["clusters"], ratios, data, settings, commits, labels, margins, notes)


def same_units(a: Evidence, b: Evidence) -> bool:
    """Return whether two rows were evaluated on the same units in the same order."""
    if not np.array_equal(a.clusters, b.clusters) or (a.margins is None) != (b.margins is None):
        return False
    named = zip((a.margins or ())[:2], (b.margins or ())[:2], strict=True)  # units and groups
    return all(np.array_equal(mine, theirs) for mine, theirs in named)
