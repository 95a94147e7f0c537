"""Typed JSON and YAML: a dataclass declares what a file holds, and pydantic checks it."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spatialbench.utils.errors import SpatialbenchError

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")

EXPECTED = {
    "string_type": "str",
    "int_type": "int",
    "float_type": "float",
    "finite_number": "float",
    "bool_type": "bool",
    "list_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
}
"""Type of a pydantic error -> what was expected."""


def load_json(path: Path, advice: str) -> Any:
    """Parse a JSON file; refuse NaN, infinity and duplicate keys. Messages end with ``advice``.

    Raises:
        SpatialbenchError: missing, unreadable or truncated, with line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except FileNotFoundError as error:
        raise SpatialbenchError(f"{path}: no such file; {advice}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        message = f"{path}: not valid JSON ({error.msg}, {where}); {advice}"
        raise SpatialbenchError(message) from error
    except (OSError, ValueError) as error:
        raise SpatialbenchError(f"{path}: cannot be read ({error}); {advice}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"duplicate key {next(n for n in names if names.count(n) > 1)!r}")
    return dict(pairs)


def dump_json(value: Any) -> str:
    """Return indented JSON with a final newline; dataclasses become mappings."""
    options: Any = {"default": dataclasses.asdict, "ensure_ascii": False, "allow_nan": False}
    return json.dumps(value, indent=1, **options) + "\n"


def parse(cls: type[T], data: Any, where: str, advice: str) -> T:
    """Build the dataclass ``cls`` from JSON or YAML, without conversions except int to float.

    A field without a default is required, and no other field is allowed.

    Raises:
        SpatialbenchError: ``<where>: field 'a.b': expected ..., found ...; <advice>``.
    """
    from pydantic import ValidationError

    # strict mode takes mappings for dataclasses only from JSON; a date of YAML fits no field
    text = json.dumps([data], default=lambda value: [repr(value)])
    try:
        return _adapter(cls).validate_json(text)[0]  # type: ignore[arg-type]
    except ValidationError as error:
        errors = error.errors(include_url=False)
        unknown = [e for e in errors if e["type"] == "unexpected_keyword_argument"]
        problem = (unknown or errors)[0]  # an unknown field explains a missing one: a typo
        field = _field(data, problem)
        name = f"field {field!r}: " if field else ""
        raise SpatialbenchError(f"{where}: {name}{_complaint(problem)}; {advice}") from error


@cache
def _adapter(cls: type) -> TypeAdapter[list[Any]]:
    from pydantic import ConfigDict, TypeAdapter  # here, so that --help does not wait for it

    # pydantic takes a configuration for a list, not for a dataclass of the standard library
    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    return TypeAdapter(list[cls], config=config)  # type: ignore[valid-type]


def _field(data: Any, error: ErrorDetails) -> str:
    """Write where an error is as ``a.b[0]``, without the types of a union that pydantic adds."""
    text = ""
    for part in error["loc"][1:]:
        if isinstance(data, list) and isinstance(part, int):
            text, data = f"{text}[{part}]", data[part]
        elif isinstance(data, dict) and (part in data or error["type"] == "missing"):
            text, data = f"{text}.{part}", data.get(part)
    return text.removeprefix(".")


def _complaint(error: ErrorDetails) -> str:
    match error["type"]:
        case "missing":
            return "missing"
        case "unexpected_keyword_argument":
            return "unknown field"
        case "value_error":  # of __post_init__
            return str(error["ctx"]["error"])
    expected = EXPECTED.get(error["type"])
    shown = repr(error["input"])
    shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
    return f"expected {expected}, found {shown}" if expected else error["msg"]
