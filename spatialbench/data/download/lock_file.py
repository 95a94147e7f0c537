"""The lock file beside a data set: size and hash of each file when it came."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spatialbench.utils.errors import write_atomic
from spatialbench.utils.typed_files import dump_json, load_json, parse

NAME = "download.lock.json"


@dataclass(frozen=True)
class Entry:
    """One file or folder as it came: ``size`` in bytes, ``files`` in a folder, 0 for a file.

    ``sha256`` is that of the file or archive, empty for a folder that came unpacked. ``commit`` is
    that of the Hub if the manifest names a branch.
    """

    source: str
    size: int
    sha256: str = ""
    files: int = 0
    commit: str = ""


@dataclass(frozen=True)
class _Records:
    version: int
    files: dict[str, Entry]


def read_records(folder: Path) -> dict[str, Entry]:
    """Return name -> entry of a data set's folder; empty if nothing is recorded.

    Raises:
        SpatialbenchError: the file is damaged.
    """
    path, advice = folder / NAME, "remove it, and the files are recorded anew"
    if not path.is_file():
        return {}
    return dict(parse(_Records, load_json(path, advice), str(path), advice).files)


def record(folder: Path, name: str, entry: Entry) -> None:
    """Add or replace one entry.

    Raises:
        SpatialbenchError: the file is damaged or cannot be written.
    """
    entries = {**read_records(folder), name: entry}
    write_atomic(folder / NAME, dump_json(_Records(1, dict(sorted(entries.items())))))
