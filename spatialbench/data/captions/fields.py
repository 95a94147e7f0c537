"""Fields of the benchmarks' files, each with a complaint that says what is missing where."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spatialbench.data.captions.caption_set import CaptionSet
from spatialbench.utils.typed_files import load_json


class Fields:
    """One record of a file.

    Args:
        owner: the benchmark, for messages.
        where: file and record, for messages.
        data: the record.

    Raises:
        SpatialbenchError: it is no object with fields.
    """

    def __init__(self, owner: CaptionSet, where: str, data: Any) -> None:
        self.owner, self.where = owner, where
        if not isinstance(data, dict):
            owner.refuse(where, f"a {type(data).__name__}, not an object with fields")
        self.data: dict[str, Any] = data

    def any(self, name: str) -> Any:
        """Raises SpatialbenchError: there is no such field."""
        if self.data.get(name) is None:
            self.owner.refuse(self.where, f"no field {name!r}")
        return self.data[name]

    def text(self, name: str) -> str:
        """A text that is not empty, as it stands in the file."""
        value = self.any(name)
        if not isinstance(value, str) or not value.strip():
            self.owner.refuse(self.where, f"field {name!r} is {value!r}, not a text")
        return value

    def number(self, name: str) -> float:
        value = self.any(name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            self.owner.refuse(self.where, f"field {name!r} is {value!r}, not a number")
        return value

    def texts(self, name: str, count: int | None = None) -> list[str]:
        """A list of texts, ``count`` of them."""
        value = self.any(name)
        right = isinstance(value, list) and all(
            isinstance(item, str) and item.strip() for item in value
        )
        if not right or count not in (None, len(value)):
            self.owner.refuse(
                self.where, f"field {name!r} is {str(value)[:60]!r}, not {count or 'some'} texts"
            )
        return value

    def inner(self, name: str) -> Fields:
        """A field that has fields."""
        return Fields(self.owner, f"{self.where}, {name}", self.any(name))


def listed(owner: CaptionSet, path: Path) -> list[Any]:
    """The items of a JSON file that holds a list.

    Raises:
        SpatialbenchError: it cannot be read or holds something else.
    """
    found = load_json(path, f"give {owner.source}")
    if not isinstance(found, list):
        owner.refuse(str(path), f"a {type(found).__name__}, not a list of records")
    return found


def lines(owner: CaptionSet, path: Path) -> Iterator[Fields]:
    """The records of a JSONL file, an object a line.

    Raises:
        SpatialbenchError: it cannot be read, or a line is no object.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        owner.refuse(str(path), f"cannot be read ({getattr(error, 'strerror', None) or error})")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            owner.refuse(
                f"{path} line {number}", f"not valid JSON ({error.msg}, column {error.colno})"
            )
        yield Fields(owner, f"{path} line {number}", data)
