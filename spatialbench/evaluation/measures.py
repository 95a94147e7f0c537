"""What is measured beside the pair table (regions, dense quality, retrieval), picture by picture and without a model.

Every measure is a mean of ratios: with numerators n and denominators d of M pictures and G groups (classes, or one),

    (1)  value = 100 / |P| sum_{g in P} ( sum_m n[m, g] / sum_m d[m, g] )        P the groups with sum_m d[m, g] > 0

Class-mean accuracy counts hits and regions by class, the intersection over union intersections and unions by class,
a mean over pictures has one group and d = 1, and d = 0 where a picture has no value. What is kept is n and d, so that
pictures can be drawn again and any two rows compared on the same ones.

Letters: S seeds, M pictures, G groups, C scenes, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from spatialbench.evaluation.statistics import BOOTSTRAP_SEED, LEVEL, RESAMPLES, Interval, draws
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.npz import digest, npz_bytes

VERSION = 1
"""Of what is measured and how; another version makes stored measures stale. One measure more leaves the others as they
are, so that rows made before it have a dash there."""
SELECTION_VERSION = 1
"""Likewise of image selection."""
TITLES: dict[str, str] = {
    "box_top1": "Boxes top-1",
    "box_top5": "Boxes top-5",
    "mask_top1": "Thing masks top-1",
    "mask_top5": "Thing masks top-5",
    "stuff_top1": "Stuff masks top-1",
    "stuff_top5": "Stuff masks top-5",
    "same_mask": "Same-mask AUC",
    "cluster": "k-means mIoU",
    "object_top1": "Objects top-1",
    "object_top5": "Objects top-5",
    "image_r1": "Image R@1",
    "image_r5": "Image R@5",
    "text_r1": "Text R@1",
    "text_r5": "Text R@5",
    "select_cls": "Selection, cls",
    "select_local": "Selection, cls + local",
}
"""Measure -> heading, in the order of the tables. All in percent, more is better."""
SELECTION = ("select_cls", "select_local")
"""Those of image selection, whose pictures are pairs: in files and tables of their own."""


class Ratio(NamedTuple):
    """Of one measure: numerator and denominator, float [S, M, G]."""

    numerator: np.ndarray
    denominator: np.ndarray


@dataclass(frozen=True)
class Measures:
    """The measures of one row.

    Attributes:
        scenes: str [M], the scene of each picture; pictures of one scene are drawn together.
        ratios: measure (a key of ``TITLES``) -> ``Ratio``, in the order of ``TITLES``.
        data: hash of the pictures, regions and captions.
        settings: hash of the track's settings and of ``VERSION``.
        commits: of the code that measured, one for each seed.
        labels: names of the G groups, where all measures share them and they have names; else empty.

    Raises:
        SpatialbenchError: no or unknown measures, arrays that do not fit together, or what is no ratio in [0, 1].
    """

    scenes: np.ndarray
    ratios: Mapping[str, Ratio]
    data: str
    settings: str = ""
    commits: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        strange = [name for name in self.ratios if name not in TITLES]
        if strange:
            raise SpatialbenchError(f"unknown measure {strange[0]!r}; known: {', '.join(TITLES)}")
        if not self.ratios:
            raise SpatialbenchError("no measure has a value on these pictures")
        if self.scenes.ndim != 1 or self.scenes.dtype.kind != "U":
            raise SpatialbenchError(
                f"scenes are {self.scenes.dtype} {self.scenes.shape}, not one name for each picture"
            )
        ratios = {
            name: _checked(name, self.ratios[name], self.pictures)
            for name in TITLES
            if name in self.ratios
        }
        object.__setattr__(self, "ratios", ratios)
        counts = {name: len(ratio.numerator) for name, ratio in ratios.items()}
        if len(set(counts.values())) > 1:
            raise SpatialbenchError(f"the measures have different numbers of seeds: {counts}")
        if self.labels and set(self.groups.values()) != {len(self.labels)}:
            raise SpatialbenchError(
                f"{len(self.labels)} names of groups, but the measures have {self.groups} of them"
            )

    @classmethod
    def of(
        cls,
        scenes: Sequence[str],
        ratios: Mapping[str, tuple[np.ndarray, np.ndarray]],
        data: str,
        labels: Sequence[str] = (),
    ) -> Self:
        """Of one seed, from [M, G] or [M] arrays; a measure without any denominator has no value and is left out."""
        joined = {
            name: Ratio(*(_three(np.asarray(part)) for part in parts))
            for name, parts in ratios.items()
            if np.any(parts[1])
        }
        return cls(np.asarray(scenes, dtype=np.str_), joined, data, labels=tuple(labels))

    @classmethod
    def join(cls, runs: Sequence[Measures]) -> Measures:
        """Puts the seeds of one row together.

        Raises:
            SpatialbenchError: they were measured on different pictures, or hold different measures.
        """
        first = runs[0]
        for other in runs[1:]:
            alike = (other.data, other.settings) == (first.data, first.settings)
            if not alike or not np.array_equal(other.scenes, first.scenes):
                raise SpatialbenchError(
                    "the seeds were measured on different data; run them again with --force"
                )
            if (other.groups, other.labels) != (first.groups, first.labels):
                raise SpatialbenchError(
                    "the seeds hold different measures; run them again with --force"
                )
        ratios = {
            name: Ratio(
                *(
                    np.concatenate([getattr(run.ratios[name], part) for run in runs])
                    for part in Ratio._fields
                )
            )
            for name in first.ratios
        }
        commits = tuple(commit for run in runs for commit in run.commits)
        return cls(first.scenes, ratios, first.data, first.settings, commits, first.labels)

    @property
    def seeds(self) -> int:
        """S."""
        return len(next(iter(self.ratios.values())).numerator)

    @property
    def pictures(self) -> int:
        """M."""
        return len(self.scenes)

    @property
    def groups(self) -> dict[str, int]:
        """Measure -> G: what two rows must have in common to be compared."""
        return {name: ratio.numerator.shape[2] for name, ratio in self.ratios.items()}

    def values(self) -> dict[str, float]:
        """(1) of every measure, the mean over seeds."""
        return {name: float(np.mean(self.seed_values(name))) for name in self.ratios}

    def seed_values(self, name: str) -> np.ndarray:
        """(1) of one measure, float [S]."""
        return _whole(self.ratios[name])

    def group_values(self, name: str) -> np.ndarray:
        """The terms of (1) of one measure, group by group, in percent: float [S, G]; NaN for a group without any."""
        above, below = (part.sum(1, dtype=np.float64) for part in self.ratios[name])
        with np.errstate(invalid="ignore", divide="ignore"):
            return 100 * above / below

    # ------------------------------------------------------------------------------------------------------ files
    def arrays(self) -> dict[str, np.ndarray]:
        """What a file holds."""
        found = {
            "scenes": self.scenes,
            "data": np.asarray(self.data),
            "settings": np.asarray(self.settings),
        }
        found["commits"] = np.asarray(self.commits, dtype=np.str_)
        if self.labels:
            found["labels"] = np.asarray(self.labels, dtype=np.str_)
        for name, ratio in self.ratios.items():
            found |= {f"{name}.{part}": getattr(ratio, part) for part in Ratio._fields}
        return found

    @property
    def digest(self) -> str:
        """Of the content."""
        return digest(self.arrays())

    def save(self, path: Path) -> None:
        """Writes the file in one step."""
        write_atomic(path, npz_bytes(self.arrays()))

    @classmethod
    def load(cls, path: Path, advice: str = "run it again with --force") -> Self:
        """Reads and checks a file.

        Raises:
            SpatialbenchError: it is missing, damaged, or not of this form.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            ratios = {
                name: Ratio(arrays[f"{name}.numerator"], arrays[f"{name}.denominator"])
                for name in dict.fromkeys(key.rpartition(".")[0] for key in arrays if "." in key)
            }
            data, settings = (str(arrays[name].item()) for name in ("data", "settings"))
            commits, labels = (
                tuple(arrays[name].tolist()) if name in arrays else ()
                for name in ("commits", "labels")
            )
            found = cls(arrays["scenes"], ratios, data, settings, commits, labels)
            if found.arrays().keys() != arrays.keys():
                raise SpatialbenchError(f"holds {sorted(arrays)}")
            return found
        except FileNotFoundError as error:
            raise SpatialbenchError(f"{path}: no such file; {advice}") from error
        except (OSError, ValueError, KeyError, EOFError) as error:
            reason = " ".join(str(error).split())
            raise SpatialbenchError(
                f"{path}: not a readable file of measures ({reason}); {advice}"
            ) from error
        except (
            Exception
        ) as error:  # zipfile.BadZipFile, and what a damaged archive makes numpy raise
            raise SpatialbenchError(
                f"{path}: damaged ({type(error).__name__}); {advice}"
            ) from error


class MeasureResampler:
    """Draws scenes once, for every row that is to be compared on these pictures.

    Args:
        scenes: str [M].
        resamples: B.
        seed: the same seed gives the same draws.
    """

    def __init__(
        self, scenes: np.ndarray, resamples: int = RESAMPLES, seed: int = BOOTSTRAP_SEED
    ) -> None:
        names, self.codes = np.unique(scenes, return_inverse=True)
        self.count, self.seed = len(names), seed
        self.weights = draws((seed, 0), len(names), resamples)

    def samples(self, ratio: Ratio, row: int = 0) -> np.ndarray:
        """(1) of every resample, float [B]; ``row``: number of the row, which draws its seeds for itself."""
        above, below = (self._sums(part) for part in ratio)
        found = _value(above, below)  # [B, S]
        seeds = found.shape[1]
        if seeds == 1:
            return found[:, 0]
        drawn = draws((self.seed, 1, row), seeds, len(self.weights))
        return (found * drawn).sum(1) / seeds

    def interval(self, ratio: Ratio, level: float = LEVEL) -> Interval:
        """Percentile interval of a measure."""
        return _interval(self.samples(ratio), level)

    def difference(
        self, a: Ratio, b: Ratio, rows: tuple[int, int] = (0, 1), level: float = LEVEL
    ) -> tuple[float, Interval]:
        """Row ``a`` minus row ``b`` in percentage points, and its paired interval; ``rows``: numbers in ``samples``."""
        gain = float(np.mean(_whole(a)) - np.mean(_whole(b)))
        return gain, _interval(self.samples(a, rows[0]) - self.samples(b, rows[1]), level)

    def _sums(self, part: np.ndarray) -> np.ndarray:
        """float [S, M, G] -> sums of every resample, float [B, S, G]."""
        seeds, _, groups = part.shape
        by_scene = np.zeros((self.count, seeds, groups))
        np.add.at(by_scene, self.codes, part.transpose(1, 0, 2))
        return (self.weights @ by_scene.reshape(self.count, -1)).reshape(-1, seeds, groups)


def _whole(ratio: Ratio) -> np.ndarray:
    """(1) of all pictures, float [S]."""
    above, below = (part.sum(1, dtype=np.float64)[None] for part in ratio)
    return _value(above, below)[0]


def _value(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """(1): sums [..., G] -> [...]; NaN where no group has a denominator."""
    present = below > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * np.where(present, above / below, 0).sum(-1) / present.sum(-1)


def _interval(samples: np.ndarray, level: float) -> Interval:
    tail = 100 * (1 - level) / 2
    return Interval(*np.percentile(samples[np.isfinite(samples)], [tail, 100 - tail]).tolist())


def _checked(name: str, ratio: Ratio, pictures: int) -> Ratio:
    """float32 in C order, so that the same numbers are the same bytes; refuses what is no ratio in [0, 1]."""
    above, below = (np.ascontiguousarray(part, dtype=np.float32) for part in ratio)
    if (
        above.ndim != 3
        or above.shape != below.shape
        or above.shape[1] != pictures
        or not len(above)
    ):
        raise SpatialbenchError(
            f"measure {name}: {above.shape} and {below.shape} are not [seeds, {pictures}, groups] alike"
        )
    if not (np.isfinite(above).all() and np.isfinite(below).all()):
        raise SpatialbenchError(f"measure {name}: not a finite number; the training diverged")
    if (above < 0).any() or (above > below * (1 + 1e-6)).any():
        raise SpatialbenchError(f"measure {name}: a numerator is not between 0 and its denominator")
    if not below.any((1, 2)).all():
        raise SpatialbenchError(f"measure {name}: a seed without any denominator")
    return Ratio(above, below)


def _three(part: np.ndarray) -> np.ndarray:
    """[M] or [M, G] -> [1, M, G]."""
    return (part[:, None] if part.ndim == 1 else part)[None]
