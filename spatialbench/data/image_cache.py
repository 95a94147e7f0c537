"""The distinct pictures of a source at one size, kept on disk and addressed by content.

An entry is a folder ``<cache>/images/<key>`` with ``images.npy`` (uint8 [M, S, S, 3], opened memory-mapped) and
``index.json`` (sha1 of the encoded bytes -> row, width, height). It is written into a temporary folder and renamed
when complete: a killed build leaves no entry, and the next start builds it again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from spatialbench.data.images import Resize, decode, fit
from spatialbench.utils.cache import ABANDONED_SECONDS, CACHE_VARIABLE, cache_root
from spatialbench.utils.errors import SpatialbenchError, write_atomic


@dataclass
class Entry:
    """A distinct image: width and height of the original in pixels, and its row; -1 until a record needs it."""

    width: int
    height: int
    row: int = -1


class StaleCache(Exception):
    """A cache entry does not hold an image that its source file holds."""


class ImageTable:
    """The distinct images of one source, by the sha1 of their encoded bytes.

    Rows are given in the order in which records first need an image. This class only counts: the table of
    :func:`build` also writes the pixels, and the one of :func:`stored` found them written.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.rows = 0
        self._last: tuple[str, Image.Image] | None = None

    def look(self, data: bytes) -> tuple[str, Entry]:
        """The image's key and entry; decoded on the first sight only.

        Raises:
            BadImage: it cannot be decoded.
        """
        key = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if key not in self.entries:
            picture = self.first_sight(data)
            self.entries[key] = Entry(*picture.size)
            self._last = (key, picture)
        return key, self.entries[key]

    def use(self, key: str, data: bytes) -> int:
        """The row of an image that a record needs, given when it has none yet."""
        entry = self.entries[key]
        if entry.row < 0:
            if (
                self._last is None or self._last[0] != key
            ):  # an earlier record with this image was dropped
                self._last = (key, decode(data))
            self.write(self._last[1])
            entry.row = self.rows
            self.rows += 1
        return entry.row

    def first_sight(self, data: bytes) -> Image.Image:
        return decode(data)

    def write(self, picture: Image.Image) -> None:
        """Called once per row, in the order of the rows."""


class _Writer(ImageTable):
    """Writes each row at the end of a file, so that memory stays flat."""

    def __init__(self, stream: BinaryIO, size: int, resize: Resize) -> None:
        super().__init__()
        self.stream, self.size, self.resize = stream, size, resize
        self.digest = hashlib.sha256()
        self.stream.write(self._header())

    def _header(self) -> bytes:
        header = io.BytesIO()
        shape = (self.rows, self.size, self.size, 3)
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        return header.getvalue()

    def write(self, picture: Image.Image) -> None:
        pixels = fit(picture, self.size, self.resize).tobytes()
        self.digest.update(pixels)
        self.stream.write(pixels)

    def finish(self) -> None:
        """Writes the header again, now with the number of rows; numpy leaves room for the first axis to grow."""
        header = self._header()
        assert len(header) + self.rows * self.size**2 * 3 == self.stream.tell()
        self.stream.seek(0)
        self.stream.write(header)
        self.stream.flush()
        os.fsync(self.stream.fileno())


class _Stored(ImageTable):
    """The table of a complete entry: every image is known, none is decoded."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        super().__init__()
        self.entries = entries

    def first_sight(self, data: bytes) -> Image.Image:
        decode(data)  # a bad image never had an entry
        raise StaleCache

    def write(self, picture: Image.Image) -> None:
        raise StaleCache


def cache_key(source: Path, size: int, resize: Resize) -> str:
    """The name of the cache entry of a source file at a size: a hash of the file's content, not of its name.

    Raises:
        SpatialbenchError: the file cannot be read.
    """
    try:
        with source.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SpatialbenchError(f"cannot read {source}: {error.strerror or error}") from error
    return hashlib.sha256(f"v1 {content} {size} {resize}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Stored:
    """A complete cache entry: its table, its pixels uint8 [M, S, S, 3] and the sha256 of the pixels."""

    table: ImageTable
    images: np.ndarray
    digest: str


def stored(key: str) -> Stored | None:
    """Opens the cache entry ``key``; None where there is none, or not a whole one."""
    folder = cache_root() / "images" / key
    try:
        index = json.loads((folder / "index.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        entries = {sha1: Entry(**entry) for sha1, entry in index["entries"].items()}
        digest = str(index["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if len(images) != index["rows"]:
        return None
    return Stored(_Stored(entries), images, digest)


@contextmanager
def build(key: str, size: int, resize: Resize) -> Iterator[ImageTable]:
    """Yields a table that writes its rows; when the block ends without an error they are the cache entry ``key``.

    Raises:
        SpatialbenchError: the cache cannot be written.
    """
    parent = cache_root() / "images"
    folder: Path | None = None
    try:
        parent.mkdir(exist_ok=True)
        _remove_abandoned(parent, key)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=f".{key}."))
        with (folder / "images.npy").open("wb") as stream:
            table = _Writer(stream, size, resize)
            yield table
            table.finish()
        entries = {sha1: asdict(entry) for sha1, entry in table.entries.items()}
        index = {"rows": table.rows, "digest": table.digest.hexdigest(), "entries": entries}
        write_atomic(folder / "index.json", json.dumps(index))
        folder.chmod(0o755)  # mkdtemp's 0700 would hide a shared cache from its other users
        if stored(key) is None:  # else another process was faster
            discard(key)
            folder.rename(parent / key)
    except OSError as error:  # a damaged source is a SpatialbenchError already
        raise SpatialbenchError(
            f"cannot write the image cache in {parent.parent}: {error.strerror or error}; "
            f"make room there or set {CACHE_VARIABLE} to another folder"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def discard(key: str) -> None:
    """Removes the cache entry ``key`` if there is one."""
    shutil.rmtree(cache_root() / "images" / key, ignore_errors=True)


def _remove_abandoned(parent: Path, key: str) -> None:
    for folder in parent.glob(f".{key}.*"):
        newest = max((path.stat().st_mtime for path in [folder, *folder.glob("*")]), default=0.0)
        if time.time() - newest > ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
