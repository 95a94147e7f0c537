"""The data sets that ``spatialbench data download`` knows, read from ``sources.yaml``."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("sources.yaml")
ROOT = Path("data")
"""Folder of the data sets, in the working folder, where the tracks look for them."""


@dataclass(frozen=True)
class Item:
    """One file of a data set; the head of ``sources.yaml`` explains the fields."""

    name: str
    path: str
    repository: str = ""
    revision: str = ""
    url: str = ""
    drive: str = ""
    size: int | None = None
    about: float | None = None
    sha256: str = ""
    md5: str = ""
    folder: str = ""
    files: int = 0

    @property
    def placed(self) -> str:
        """Path in the data set's folder at the end: of the file, or of the unpacked archive."""
        return self.folder or self.name

    @property
    def megabytes(self) -> float | None:
        """Size in MB (10^6 bytes), if known."""
        return self.about if self.size is None else self.size / 1e6

    @property
    def known_hash(self) -> str | None:
        """Hash that the source gives, as pooch writes it."""
        if self.sha256:
            return f"sha256:{self.sha256}"
        return f"md5:{self.md5}" if self.md5 else None

    @property
    def by_hand(self) -> str:
        """Command or address to fetch the file by hand."""
        if not self.repository:
            return self.url or f"https://drive.google.com/file/d/{self.drive}/view"
        pinned = "" if self.revision == "main" else f" --revision {self.revision}"
        files = f"--include '{self.path}'" if self.path.endswith("*") else f"'{self.path}'"
        return (
            f"hf download {self.repository} {files} --repo-type dataset{pinned} --local-dir FOLDER"
        )


@dataclass(frozen=True)
class CocoImages:
    """Images of COCO that a data set needs; the user's copy is linked to ``folder``."""

    folder: str
    parts: tuple[str, ...]
    otherwise: str = ""


@dataclass(frozen=True)
class DataSet:
    """A data set; the head of ``sources.yaml`` explains the fields."""

    name: str
    title: str
    homepage: str
    licence: str
    terms: str
    items: tuple[Item, ...]
    after: str
    coco: CocoImages | None = None
    check: bool = False

    @property
    def needed(self) -> list[str]:
        """Content of the folder of a complete data set."""
        names = [item.placed for item in self.items]
        return [*names, self.coco.folder] if self.coco else names


@cache
def data_sets() -> dict[str, DataSet]:
    """Return name -> data set, in the order of the file."""
    blocks: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {name: _data_set(name, **block) for name, block in blocks.items()}


def _data_set(name: str, files: list[dict[str, Any]], **block: Any) -> DataSet:
    source = block.pop("from", {})
    items = tuple(_item(**{"path": file["name"], **source, **file}) for file in files)
    coco = CocoImages(**block.pop("coco")) if "coco" in block else None
    return DataSet(name=name, items=items, coco=coco, **block)


def _item(path: str, url: str = "", **fields: Any) -> Item:
    return Item(path=path, url=url.format(path=path), **fields)
