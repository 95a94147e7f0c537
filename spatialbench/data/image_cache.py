"""The distinct images of a source at one size, cached on disk under a key of their content.

An entry is a folder ``<cache>/images/<key>`` with ``images.u8`` (uint8 [M, S, S, 3], opened as a
memory map) and ``index.json`` (sha1 of the encoded bytes -> row, width, height). It is written into
a temporary folder and renamed when complete, so a killed build leaves no entry.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from spatialbench.data.images import Resize, decode, fit
from spatialbench.utils.cache import CACHE_VARIABLE, cache_root, staging
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.hub import digest


@dataclass
class Entry:
    """A distinct image: its stored width and height in pixels; its row, -1 until it is used."""

    width: int
    height: int
    row: int = -1


class StaleCache(Exception):
    """The source refers to an image that its cache entry does not hold."""


class ImageTable:
    """The distinct images of one source, by the sha1 of their encoded bytes.

    Rows are numbered in the order in which records first use an image; ``write`` gets each image
    that takes the next row. The table of :func:`stored` is ``complete``.

    Raises:
        StaleCache: a complete table does not have an image.
    """

    def __init__(
        self,
        write: Callable[[Image.Image], object] = lambda image: None,
        complete: dict[str, Entry] | None = None,
    ) -> None:
        self.entries = complete or {}
        self.complete = complete is not None
        self.write, self.rows = write, 0
        self._last: tuple[str, Image.Image] | None = None

    def look_up(self, data: bytes) -> tuple[str, Entry]:
        """Return the key and the entry of an image; only a new one is decoded.

        Raises:
            BadImage: it cannot be decoded.
        """
        key = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if key not in self.entries:
            image = decode(data)
            if self.complete:  # only a bad image has no entry
                raise StaleCache
            self.entries[key] = Entry(*image.size)
            self._last = (key, image)
        return key, self.entries[key]

    def use(self, key: str, data: bytes) -> int:
        """Return the row of an image that a record needs, and write it on its first use."""
        entry = self.entries[key]
        if entry.row < 0:
            if self.complete:
                raise StaleCache
            if self._last is None or self._last[0] != key:  # an earlier record was dropped
                self._last = (key, decode(data))
            self.write(self._last[1])
            entry.row = self.rows
            self.rows += 1
        return entry.row


def cache_key(source: Path, size: int, resize: Resize) -> str:
    """Hash the content of a source file, not its name, with size and resize.

    Raises:
        SpatialbenchError: the file cannot be read.
    """
    return hashlib.sha256(f"v2 {digest(source)} {size} {resize}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Stored:
    """A complete cache entry: its table, pixels uint8 [M, S, S, 3], and the pixels' sha256."""

    table: ImageTable
    images: np.ndarray
    digest: str


def stored(key: str, size: int) -> Stored | None:
    """Open the cache entry ``key``; None where there is none, or an incomplete one."""
    folder = cache_root() / "images" / key
    with suppress(OSError, ValueError, KeyError, TypeError):
        index = json.loads((folder / "index.json").read_text())
        images = np.memmap(folder / "images.u8", np.uint8, "r").reshape(-1, size, size, 3)
        entries = {sha1: Entry(**entry) for sha1, entry in index["entries"].items()}
        if len(images) == index["rows"]:
            return Stored(ImageTable(complete=entries), images, str(index["digest"]))
    return None


@contextmanager
def build(key: str, size: int, resize: Resize) -> Iterator[ImageTable]:
    """Yield a table whose rows become the cache entry ``key`` if the block ends without error."""
    parent, state = cache_root() / "images", hashlib.sha256()
    try:
        with staging(parent / key) as folder:
            with (folder / "images.u8").open("wb") as stream:

                def write(image: Image.Image) -> None:
                    pixels = fit(image, size, resize).tobytes()
                    state.update(pixels)
                    stream.write(pixels)

                table = ImageTable(write)
                yield table
                stream.flush()
                os.fsync(stream.fileno())
            entries = {sha1: asdict(entry) for sha1, entry in table.entries.items()}
            index = {"rows": table.rows, "digest": state.hexdigest(), "entries": entries}
            write_atomic(folder / "index.json", json.dumps(index))
            folder.chmod(0o755)  # 0700 would hide a shared cache from its other users
            if stored(key, size) is None:  # else another process was faster
                discard(key)
                folder.rename(parent / key)
    except OSError as error:  # a damaged source is a SpatialbenchError already
        where = f"{parent.parent}: {error.strerror or error}; make room or change {CACHE_VARIABLE}"
        raise SpatialbenchError(f"cannot write the image cache in {where}") from error


def discard(key: str) -> None:
    """Remove the cache entry ``key`` if there is one."""
    shutil.rmtree(cache_root() / "images" / key, ignore_errors=True)
