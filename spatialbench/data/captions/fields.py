"""Typed fields of a benchmark's files; an error says which field is wrong in which record."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spatialbench.data.captions.caption_set import CaptionSet
from spatialbench.utils.typed_files import load_json


class Fields:
    """One record of a file; the benchmark ``owner`` and ``where`` (file, record) are for messages.

    Raises:
        SpatialbenchError: the record is no object, or a field is missing or of another type.
    """

    def __init__(self, owner: CaptionSet, where: str, data: Any) -> None:
        self.owner, self.where = owner, where
        if not isinstance(data, dict):
            owner.refuse(where, f"a {type(data).__name__}, not an object with fields")
        self.data: dict[str, Any] = data

    def any(self, name: str) -> Any:
        """Return a field of any type."""
        if self.data.get(name) is None:
            self.owner.refuse(self.where, f"no field {name!r}")
        return self.data[name]

    def text(self, name: str) -> str:
        """Return a text that is not empty."""
        value = self.any(name)
        return value if _is_text(value) else self._refuse(name, value, "a text")

    def number(self, name: str) -> float:
        """Return a finite number."""
        value = self.any(name)
        right = isinstance(value, int | float) and not isinstance(value, bool)
        return value if right and math.isfinite(value) else self._refuse(name, value, "a number")

    def texts(self, name: str, count: int | None = None) -> list[str]:
        """Return a list of texts, ``count`` of them."""
        value = self.any(name)
        right = isinstance(value, list) and all(map(_is_text, value))
        if right and count in (None, len(value)):
            return value
        return self._refuse(name, str(value)[:60], f"{count or 'some'} texts")

    def inner(self, name: str) -> "Fields":
        """Return a field that has fields."""
        return Fields(self.owner, f"{self.where}, {name}", self.any(name))

    def _refuse(self, name: str, value: Any, wanted: str) -> Any:
        self.owner.refuse(self.where, f"field {name!r} is {value!r}, not {wanted}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def records(owner: CaptionSet, path: Path, part: str) -> Iterator[tuple[str, Fields]]:
    """Yield (``part``-number, fields) of each record of a JSON list, counted as read."""
    for number, data in enumerate(listed(owner, path)):
        owner.account.read += 1
        yield f"{part}-{number}", Fields(owner, f"{path} record {number}", data)


def listed(owner: CaptionSet, path: Path) -> list[Any]:
    """Return the list that a JSON file holds, or raise a SpatialbenchError."""
    items = load_json(path, f"give {owner.source}")
    if not isinstance(items, list):
        owner.refuse(str(path), f"a {type(items).__name__}, not a list of records")
    return items


def lines(owner: CaptionSet, path: Path) -> Iterator[Fields]:
    """Yield the records of a JSONL file, or raise a SpatialbenchError for a wrong line."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        owner.refuse(str(path), f"cannot be read ({getattr(error, 'strerror', None) or error})")
    for number, text in enumerate(content.split("\n"), start=1):
        where = f"{path} line {number}"
        if text.strip():
            try:
                data = json.loads(text)
            except json.JSONDecodeError as error:
                owner.refuse(where, f"not valid JSON ({error.msg}, column {error.colno})")
            yield Fields(owner, where, data)
