"""Typed reading of JSON and YAML: a dataclass says what a file holds; a wrong file is refused with the field's name.

Knows what our files need and no more: dataclasses, ``str | int | float | bool | None``, lists, mappings, unions.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from spatialbench.utils.errors import SpatialbenchError

T = TypeVar("T")


def load_json(path: Path, advice: str) -> Any:
    """Parses a JSON file; NaN and infinity, which JSON does not have, and a key given twice are refused.

    Raises:
        SpatialbenchError: missing, unreadable or truncated, with line and column; ``advice`` says what to do.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
    except FileNotFoundError as error:
        raise SpatialbenchError(f"{path}: no such file; {advice}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise SpatialbenchError(
            f"{path}: not valid JSON ({error.msg}, {where}); {advice}"
        ) from error
    except (OSError, ValueError) as error:
        raise SpatialbenchError(f"{path}: cannot be read ({error}); {advice}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"{next(name for name in names if names.count(name) > 1)!r} stands there twice"
        )
    return found


def dump_json(value: Any) -> str:
    """Indented JSON with a final newline; dataclasses become mappings. The same value gives the same bytes."""
    plain = (
        dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
    )
    return json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def parse(cls: type[T], data: Any, where: str, advice: str) -> T:
    """Builds the dataclass ``cls`` from plain data; every field must be there (or have a default), and no other.

    Args:
        where: what the message names, usually the file.
        advice: what the user can do, the end of the message.

    Raises:
        SpatialbenchError: ``<where>: field 'a.b': expected ..., found ...; <advice>``.
    """
    try:
        return _convert(cls, data, "")
    except _Mismatch as error:
        field = f"field {error.field!r}: " if error.field else ""
        raise SpatialbenchError(f"{where}: {field}{error.message}; {advice}") from error


class _Mismatch(Exception):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


def _convert(kind: Any, data: Any, field: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, data, field)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _union(arguments, data, field)
    if origin in (list, Sequence):
        if not isinstance(data, list):
            raise _Mismatch(field, f"expected a list, found {_shown(data)}")
        return [
            _convert(arguments[0], item, f"{field}[{index}]") for index, item in enumerate(data)
        ]
    if origin in (dict, Mapping):
        if not isinstance(data, dict):
            raise _Mismatch(field, f"expected a mapping, found {_shown(data)}")
        return {
            _key(key, field): _convert(arguments[1], item, _join(field, key))
            for key, item in data.items()
        }
    return _scalar(kind, data, field)


def _scalar(kind: Any, data: Any, field: str) -> Any:
    if kind is types.NoneType and data is None:
        return None
    if (
        kind is float
        and isinstance(data, int | float)
        and not isinstance(data, bool)
        and math.isfinite(data)
    ):
        return float(data)
    if kind in (int, str, bool) and type(data) is kind:
        return data
    raise _Mismatch(field, f"expected {getattr(kind, '__name__', kind)}, found {_shown(data)}")


def _union(kinds: tuple[Any, ...], data: Any, field: str) -> Any:
    failures = []
    for kind in kinds:
        try:
            return _convert(kind, data, field)
        except _Mismatch as error:
            failures.append(error)
    raise max(failures, key=lambda error: len(error.field))  # the alternative that fitted furthest


def _dataclass(kind: Any, data: Any, field: str) -> Any:
    if not isinstance(data, dict):
        raise _Mismatch(field, f"expected a mapping, found {_shown(data)}")
    hints = _hints(kind)
    fields = {known.name: known for known in dataclasses.fields(kind)}
    for key in data:
        if key not in fields:
            raise _Mismatch(_join(field, key), "unknown field")
    for name, known in fields.items():
        required = (
            known.default is dataclasses.MISSING and known.default_factory is dataclasses.MISSING
        )
        if required and name not in data:
            raise _Mismatch(_join(field, name), "missing")
    try:
        return kind(
            **{
                name: _convert(hints[name], data[name], _join(field, name))
                for name in fields
                if name in data
            }
        )
    except ValueError as error:  # __post_init__ has the last word
        raise _Mismatch(field, str(error)) from error


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _key(key: Any, field: str) -> str:
    if not isinstance(key, str):
        raise _Mismatch(field, f"expected names as keys, found {key!r}")
    return key


def _join(field: str, name: Any) -> str:
    return f"{field}.{name}" if field else str(name)


def _shown(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 40 else text[:37] + "..."
