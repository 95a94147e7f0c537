"""A benchmark of captions: its images, records with true and false captions, and measures.

Letters: M records, K captions of a record, P distinct images, S pixels a side, U units, G groups.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
import torchvision.transforms.functional as TF
from PIL import Image

from spatialbench.data.account import Account
from spatialbench.data.images import BadImage, Resize, decode, file_bytes, fit
from spatialbench.utils.errors import SpatialbenchError

Corners = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the original image, y down."""


@dataclass(frozen=True)
class ImageSource:
    """One distinct image, or one distinct crop of an image."""

    name: str  # for messages
    source: Path | bytes  # its file, or its encoded bytes
    crop: Corners | None = None  # the part that is shown, black outside of the image; None: all

    def content(self) -> bytes:
        """Return the encoded bytes; raise a SpatialbenchError if the file cannot be read."""
        source = self.source
        return source if isinstance(source, bytes) else file_bytes(source, "the image ")

    def pixels(self, data: bytes, size: int, resize: Resize, advice: str) -> np.ndarray:
        """Decode its content ``data`` to uint8 [S, S, 3].

        Raises:
            SpatialbenchError: it is no image; give ``advice``.
        """
        try:
            image = decode(data)
        except BadImage as error:
            raise SpatialbenchError(f"{self.name}: {error}; give {advice}") from error
        return square(image if self.crop is None else image.crop(self.crop), size, resize)


def square(image: Image.Image, size: int, resize: Resize) -> np.ndarray:
    """Resize to uint8 [S, S, 3], pixel for pixel as torchvision and open_clip do."""
    if resize != "crop":
        return fit(image, size, resize)
    shorter = TF.resize(image, size, TF.InterpolationMode.BICUBIC)
    return np.asarray(TF.center_crop(shorter, [size, size]))


@dataclass(frozen=True)
class CaptionRecord:
    """One image and its captions."""

    record: str  # unique in its set
    part: str  # the file or the subset that it comes from
    relation: str  # the group of the record in tables
    image: int  # row in ``CaptionSet.images``
    captions: tuple[str, ...]  # K: the true one, its opposite, other false ones
    cluster: str  # unit of the bootstrap; records that share it are not independent


@dataclass(frozen=True)
class Measure:
    """A number of a benchmark, the mean over groups of the share of correct units.

        (1)  c_i = 1 where the true caption of record i scores highest, 1/k in a tie of k, else 0
        (2)  c_u = prod_{i in u} c_i
        (3)  value = 100 / |G| sum_g mean_{u in g} c_u

    A tie counts as a random choice, in expectation: one half for two captions. A constant scorer
    therefore gets exactly the chance level.
    """

    name: str  # key in JSON and in results/reported.yaml
    title: str  # row of the table
    units: Sequence[tuple[int, ...]]  # U tuples of rows that must all be right; usually of one row
    groups: Sequence[str]  # U, the group of each unit: one for micro, relations for macro
    options: int | None = 2  # number of captions that (1) compares, from the first on; None: all
    chance: float = 50.0  # percent of a scorer that guesses


def micro(
    name: str, title: str, rows: Sequence[int], options: int | None = 2, chance: float = 50.0
) -> Measure:
    """Return the mean over records."""
    return Measure(name, title, [(row,) for row in rows], [""] * len(rows), options, chance)


def macro(name: str, title: str, rows: Sequence[int], groups: Sequence[str]) -> Measure:
    """Return the mean over groups of pair accuracy; ``groups`` has the group of each row."""
    return Measure(name, title, [(row,) for row in rows], groups)


class CaptionSet(ABC):
    """A downloaded benchmark of captions; a subclass reads its files and defines its measures.

    Raises:
        SpatialbenchError: a file, a field or an image is missing or wrong.
    """

    name: ClassVar[str]  # value of ``--evaluation``
    source: ClassVar[str]  # what the folder must be, for messages

    def __init__(self, path: str) -> None:
        self.folder = Path(path)
        self.records: list[CaptionRecord] = []  # M
        self.images: list[ImageSource] = []  # P, each once
        self.account = Account(self.folder)
        self._rows: dict[Any, int] = {}
        if not self.folder.is_dir():
            raise SpatialbenchError(f"no folder {self.folder}; give {self.source}")
        self.read()
        self.account.require(len(self.records), "record", f"; give {self.source}")
        files = dict.fromkeys(image.source for image in self.images)
        check_images([file for file in files if isinstance(file, Path)], self.source)

    @abstractmethod
    def read(self) -> None:
        """Read the files; every record goes through ``add`` or ``account.drop`` once."""

    @abstractmethod
    def measures(self) -> list[Measure]:
        """Return the benchmark's own numbers, and pair accuracy where that is another one."""

    def add(
        self,
        record: str,
        part: str,
        relation: str,
        image: int,
        captions: Sequence[str],
        cluster: str = "",
    ) -> None:
        """Keep a record; its cluster is the image's file unless another one is given."""
        own = cluster or self.images[image].name
        self.records.append(CaptionRecord(record, part, relation, image, tuple(captions), own))

    def image(self, path: Path, crop: Corners | None = None) -> int:
        """Return the row of an image file, or of a crop of it."""
        return self._row((path, crop), ImageSource(str(path), path, crop))

    def image_bytes(self, name: str, data: bytes) -> int:
        """Return the row of an image in memory."""
        return self._row(data, ImageSource(name, data))

    def rows(self, *parts: str) -> list[int]:
        """Return the rows of the records of these parts; of all records if none is named."""
        return [row for row, record in enumerate(self.records) if not parts or record.part in parts]

    def relations(self, rows: Iterable[int]) -> list[str]:
        """Return the relation of each record."""
        return [self.records[row].relation for row in rows]

    def file(self, *names: str) -> Path:
        """Return the first of these files that the folder has, or raise a SpatialbenchError."""
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise SpatialbenchError(f"no file {names[0]} in {self.folder}; give {self.source}")

    def refuse(self, where: str, why: str) -> NoReturn:
        """Raise SpatialbenchError: a file is not in the published form."""
        raise SpatialbenchError(f"{where}: {why}; give {self.source}")

    def _row(self, key: Any, image: ImageSource) -> int:
        if key not in self._rows:
            self._rows[key] = len(self.images)
            self.images.append(image)
        return self._rows[key]


def check_images(files: Sequence[Path], source: str) -> None:
    """Raise a SpatialbenchError if image files are missing; it says to give ``source``."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise SpatialbenchError(f"no image {missing[0]} ({len(missing)} missing); give {source}")
