"""What a benchmark of captions yields: pictures, and of every record the true caption and those that are not.

Letters: M records, K captions of a record, P distinct pictures, S pixels a side, U units, G groups.
"""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np

from spatialbench.data.captions.image_files import content, decoded, square
from spatialbench.data.images import Resize
from spatialbench.utils.errors import SpatialbenchError

Corners = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the original picture, y down."""


@dataclass(frozen=True)
class Picture:
    """One distinct picture, or one distinct part of one.

    Attributes:
        name: for messages.
        source: its file, or its encoded bytes.
        crop: the part that is shown; None for all of it. What lies outside of the picture is black, as in Pillow.
    """

    name: str
    source: Path | bytes
    crop: Corners | None = None

    def content(self) -> bytes:
        """The encoded bytes.

        Raises:
            SpatialbenchError: the file cannot be read.
        """
        return self.source if isinstance(self.source, bytes) else content(self.source)

    def pixels(self, data: bytes, size: int, resize: Resize, advice: str) -> np.ndarray:
        """uint8 [S, S, 3] of its content ``data``.

        Raises:
            SpatialbenchError: it is no picture.
        """
        picture = decoded(self.name, data, advice)
        return square(picture if self.crop is None else picture.crop(self.crop), size, resize)


@dataclass(frozen=True)
class CaptionRecord:
    """One picture and what is said of it.

    Attributes:
        record: unique in its set.
        part: the file or the subset that it comes from.
        relation: what the tables put together.
        picture: row in ``CaptionSet.pictures``.
        captions: K, the true one, its opposite (the other caption of the pair), and any others, all of them false.
        cluster: records that share it are not independent; the unit of the bootstrap.
    """

    record: str
    part: str
    relation: str
    picture: int
    captions: tuple[str, ...]
    cluster: str


@dataclass(frozen=True)
class Measure:
    """A number of a benchmark, the mean over groups of the share of units that are right.

        (1)  c_i = 1 where the true caption of record i scores highest, 1/k where k captions tie for that, 0 else
        (2)  c_u = prod_{i in u} c_i
        (3)  value = 100 / |G| sum_g mean_{u in g} c_u

    A tie is a draw among those that tie, in expectation: one half for two captions, so that a constant scorer gets
    exactly the chance.

    Attributes:
        name: in JSON and in results/reported.yaml.
        title: in the table.
        units: U tuples of rows of records that must all be right; for most measures a record each.
        groups: U, the group of each unit: one for a mean over units (micro), the relations for macro.
        options: how many captions (1) compares, from the first on; None for all.
        chance: percent of a scorer that guesses.
    """

    name: str
    title: str
    units: Sequence[tuple[int, ...]]
    groups: Sequence[str]
    options: int | None = 2
    chance: float = 50.0


def micro(
    name: str, title: str, rows: Iterable[int], options: int | None = 2, chance: float = 50.0
) -> Measure:
    """The mean over records."""
    units = [(row,) for row in rows]
    return Measure(name, title, units, [""] * len(units), options, chance)


def macro(name: str, title: str, rows: Sequence[int], groups: Sequence[str]) -> Measure:
    """The mean over groups of pair accuracy; ``groups`` is as long as ``rows``."""
    return Measure(name, title, [(row,) for row in rows], groups)


@dataclass
class Noted:
    """How often, and the first one: ``<record>: <why>``."""

    count: int = 0
    first: str = ""


@dataclass
class Account:
    """What became of the records of a benchmark: each is kept, or dropped for one reason.

    Attributes:
        read: records that the files hold.
        dropped: reason -> those left out.
        flagged: reason -> those kept that are worth knowing of.
    """

    read: int = 0
    dropped: dict[str, Noted] = field(default_factory=dict)
    flagged: dict[str, Noted] = field(default_factory=dict)

    def drop(self, reason: str, record: str, why: str) -> None:
        _note(self.dropped, reason, f"{record}: {why}")

    def flag(self, reason: str, record: str, why: str) -> None:
        _note(self.flagged, reason, f"{record}: {why}")

    def lines(self) -> list[str]:
        """For people: a line for every reason, with the first record it was met at."""
        found = [("dropped", self.dropped), ("kept", self.flagged)]
        return [
            f"{noted.count} {what}: {reason} (first {textwrap.shorten(noted.first, 80, placeholder=' ...')})"
            for what, reasons in found
            for reason, noted in reasons.items()
        ]


def _note(reasons: dict[str, Noted], reason: str, first: str) -> None:
    noted = reasons.setdefault(reason, Noted())
    noted.count += 1
    noted.first = noted.first or first


class CaptionSet(ABC):
    """A downloaded benchmark of captions. A subclass reads the files into records and says what is measured.

    Args:
        path: the folder.

    Attributes:
        name: as ``--evaluation`` has it.
        source: what the folder is, for messages.
        records: M.
        pictures: P, each once.
        account: of what was read, kept and dropped.

    Raises:
        SpatialbenchError: a file, a field or a picture is missing or wrong; one line.
    """

    name: ClassVar[str]
    source: ClassVar[str]

    def __init__(self, path: str) -> None:
        self.folder = Path(path)
        self.records: list[CaptionRecord] = []
        self.pictures: list[Picture] = []
        self.account = Account()
        self._rows: dict[Any, int] = {}
        if not self.folder.is_dir():
            raise SpatialbenchError(f"no folder {self.folder}; give {self.source}")
        self.read()
        if not self.records:
            lines = "; ".join(self.account.lines()) or "its files are empty"
            raise SpatialbenchError(
                f"{self.folder}: {self.name} has no usable record ({lines}); give {self.source}"
            )
        self._check_pictures()

    @abstractmethod
    def read(self) -> None:
        """Reads the files; every record goes through ``add`` or ``account.drop`` once."""

    @abstractmethod
    def measures(self) -> list[Measure]:
        """The benchmark's own numbers, and pair accuracy where that is another."""

    def add(
        self,
        record: str,
        part: str,
        relation: str,
        picture: int,
        captions: Sequence[str],
        cluster: str = "",
    ) -> None:
        """Keeps a record.

        Args:
            cluster: the picture's file, where it is left out.
        """
        own = cluster or self.pictures[picture].name
        self.records.append(CaptionRecord(record, part, relation, picture, tuple(captions), own))

    def picture(self, path: Path, crop: Corners | None = None) -> int:
        """The row of a file, or of a part of it."""
        return self._row((path, crop), Picture(str(path), path, crop))

    def picture_bytes(self, key: str, name: str, data: bytes) -> int:
        """The row of encoded bytes whose hash is ``key``."""
        return self._row(key, Picture(name, data))

    def rows(self, *parts: str) -> list[int]:
        """The records of these parts, of all where none is named."""
        return [row for row, record in enumerate(self.records) if not parts or record.part in parts]

    def file(self, *names: str) -> Path:
        """The first of these files that the folder has.

        Raises:
            SpatialbenchError: there is none.
        """
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise SpatialbenchError(f"no file {names[0]} in {self.folder}; give {self.source}")

    def refuse(self, where: str, why: str) -> NoReturn:
        """Raises SpatialbenchError: a file is not of the published form."""
        raise SpatialbenchError(f"{where}: {why}; give {self.source}")

    def _row(self, key: Any, picture: Picture) -> int:
        if key not in self._rows:
            self._rows[key] = len(self.pictures)
            self.pictures.append(picture)
        return self._rows[key]

    def _check_pictures(self) -> None:
        files = dict.fromkeys(
            picture.source for picture in self.pictures if isinstance(picture.source, Path)
        )
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise SpatialbenchError(
                f"no picture {missing[0]} ({len(missing)} missing); give {self.source}"
            )
