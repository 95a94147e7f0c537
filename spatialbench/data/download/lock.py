"""The lock file beside a data set: what every file was when it came, so that another one is noticed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.typed_files import load_json

NAME = "download.lock.json"
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """What stands in the folder.

    Attributes:
        source: repository and commit, or address; the folder it was taken from, where it was.
        size: in bytes; of a folder, of all its files.
        sha256: of the file, or of the archive that was unpacked; empty for a folder that was never an archive.
        files: how many a folder holds; 0 for a file.
        commit: of the Hub, where the manifest pins none.
    """

    source: str
    size: int
    sha256: str = ""
    files: int = 0
    commit: str = ""


class Lock:
    """The entries of a data set's folder, by name; written whole after each.

    Raises:
        SpatialbenchError: there is a lock file and it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.entries: dict[str, Entry] = {}
        if self.path.is_file():
            found = load_json(self.path, "remove it, and the files are recorded anew")
            try:
                self.entries = {name: Entry(**fields) for name, fields in found["files"].items()}
            except (KeyError, TypeError, AttributeError) as error:
                raise SpatialbenchError(
                    f"{self.path} is no lock file of spatialbench; remove it, and the files are recorded anew"
                ) from error

    def record(self, name: str, entry: Entry) -> None:
        """Raises:
        SpatialbenchError: it cannot be written.
        """
        self.entries[name] = entry
        files = {name: asdict(entry) for name, entry in sorted(self.entries.items())}
        write_atomic(self.path, json.dumps({"version": VERSION, "files": files}, indent=2) + "\n")


def measure(folder: Path) -> tuple[int, int]:
    """Number of files below a folder, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)
