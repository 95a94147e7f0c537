"""Checks of arguments, whose types are checked only where they come from YAML."""

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from spatialbench.utils.errors import SpatialbenchError

Settings = TypeVar("Settings")


def settings_of(kind: type[Settings], value: Settings | Mapping[str, Any] | None) -> Settings:
    """Return settings from themselves, a checkpoint's hyper-parameters, or None (the defaults)."""
    return kind(**value) if isinstance(value, Mapping) else value or kind()


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise a SpatialbenchError unless ``value`` is in ``choices``, a ``Literal`` of strings."""
    if value not in get_args(choices):
        raise SpatialbenchError(f"{name} is {value!r}; one of {', '.join(get_args(choices))}")


def check_choices(settings: object, prefix: str) -> None:
    """Check every field of a dataclass whose type is a ``Literal``; see ``check_choice``."""
    for name, kind in get_type_hints(type(settings)).items():
        if get_origin(kind) is Literal:
            check_choice(f"{prefix}.{name}", getattr(settings, name), kind)
