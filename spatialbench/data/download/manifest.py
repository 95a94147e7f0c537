"""What ``spatialbench data download`` can bring: the form of ``sources.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("sources.yaml")


@dataclass(frozen=True)
class Hub:
    """A data set repository of the Hugging Face Hub: files of ``path``, which may end in ``/*``, at a revision."""

    repository: str
    revision: str
    path: str

    @property
    def by_hand(self) -> str:
        pinned = "" if self.revision == "main" else f" --revision {self.revision}"
        files = f"--include '{self.path}'" if self.path.endswith("*") else f"'{self.path}'"
        return (
            f"hf download {self.repository} {files} --repo-type dataset{pinned} --local-dir FOLDER"
        )


@dataclass(frozen=True)
class Https:
    """A file behind an address; ``path`` is where it stands in a copy of its source."""

    url: str
    path: str

    @property
    def by_hand(self) -> str:
        return self.url


@dataclass(frozen=True)
class Drive:
    """A file of Google Drive by its id."""

    key: str
    path: str

    @property
    def by_hand(self) -> str:
        return f"https://drive.google.com/file/d/{self.key}/view"


@dataclass(frozen=True)
class Item:
    """One file of a data set.

    Attributes:
        name: where it stands in the data set's folder.
        source: where it comes from.
        size: in bytes, where it is known exactly.
        about: in MB (10^6 bytes), where it is known to that only.
        sha256, md5: hex digits; empty where no source gives them.
        rows: records in the file; another number is told, not refused.
        folder: of an archive, the folder that its content becomes.
        files: of a whole folder of a Hub repository, how many files it has; 0 for a file.
    """

    name: str
    source: Hub | Https | Drive
    size: int | None = None
    about: float | None = None
    sha256: str = ""
    md5: str = ""
    rows: int | None = None
    folder: str = ""
    files: int = 0

    @property
    def placed(self) -> str:
        """What stands in the folder in the end: the file, or what an archive became."""
        return self.folder or self.name

    @property
    def megabytes(self) -> float | None:
        return self.about if self.size is None else self.size / 1e6


@dataclass(frozen=True)
class Pictures:
    """Pictures of COCO that a data set needs and that are not brought: the user's copy is linked.

    Attributes:
        folder: where the data set's adapter looks for them, below its folder.
        parts: folders of COCO that hold them; with more than one, the pictures named in the files are linked singly.
        otherwise: another way to get them.
    """

    folder: str
    parts: tuple[str, ...]
    otherwise: str = ""


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        name: on the command line, and of its folder.
        title, homepage, licence, terms: what is told before anything is loaded.
        items: its files.
        after: the next command, with ``{name}`` and ``{folder}``.
        pictures: those that the user has to bring.
        check: its files go through ``spatialbench data check``.
    """

    name: str
    title: str
    homepage: str
    licence: str
    terms: str
    items: tuple[Item, ...]
    after: str
    pictures: Pictures | None = None
    check: bool = False


@cache
def data_sets() -> dict[str, DataSet]:
    """Name -> data set, in the order of the file."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {name: _data_set(name, block) for name, block in found.items()}


def _data_set(name: str, block: dict[str, Any]) -> DataSet:
    items = tuple(_item(fields, block.get("from", {})) for fields in block["files"])
    pictures = Pictures(**block["pictures"]) if "pictures" in block else None
    plain = {key: value for key, value in block.items() if key not in ("from", "files", "pictures")}
    return DataSet(name=name, items=items, pictures=pictures, **plain)


def _item(fields: dict[str, Any], common: dict[str, str]) -> Item:
    """A file; where its source is not named, it has the name of the file."""
    fields = dict(fields)
    path = fields.pop("path", fields["name"])
    source: Hub | Https | Drive
    if "drive" in fields:
        source = Drive(fields.pop("drive"), path)
    elif "hub" in common:
        source = Hub(common["hub"], common["revision"], path)
    else:
        source = Https(common["url"].format(path=path), path)
    return Item(source=source, **fields)
