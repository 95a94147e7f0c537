"""Parameters of classes along the inheritance chain, for defaults and for suggestions."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Mapping
from typing import Any

from spatialbench.config.aliases import ALIASES
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean


def import_class(class_path: str, where: str) -> type:
    """Import the class at a dotted path.

    Raises:
        SpatialbenchError: no such module or class; the message has ``where`` and the nearest name.
    """
    module_name, _, name = ALIASES.get(class_path, class_path).rpartition(".")
    if not module_name:
        raise SpatialbenchError(
            f"{where}: the class path {class_path!r} names no module; write package.module.Class"
        )
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        missing = getattr(error, "name", None) or module_name
        if missing and not f"{module_name}.".startswith(f"{missing}."):
            raise SpatialbenchError(
                f"{where}: importing {module_name!r} failed: {error}"
            ) from error
        parent = missing.rpartition(".")[0]
        hint = did_you_mean(missing, _submodules(parent))
        raise SpatialbenchError(
            f"{where}: no module {missing!r} for the class path {class_path!r}{hint}"
        ) from error
    found = getattr(module, name, None)
    if not isinstance(found, type):
        classes = [
            n
            for n, o in vars(module).items()
            if isinstance(o, type) and o.__module__ == module_name
        ]
        raise SpatialbenchError(
            f"{where}: no class {name!r} in {module_name!r}{did_you_mean(name, classes)}"
        )
    return found


def parameters(cls: type) -> dict[str, Any]:
    """Return parameter -> resolved type; walks the MRO while ``__init__`` has ``**kwargs``."""
    found: dict[str, Any] = {}
    for klass in cls.__mro__:
        init = vars(klass).get("__init__")
        if init is None or klass is object:
            continue
        hints = _hints(init)
        rest = False
        for parameter in list(inspect.signature(init).parameters.values())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = True
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                found.setdefault(parameter.name, hints.get(parameter.name, Any))
        if not rest:
            break
    return found


def prune(values: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """Return the part of ``values`` that ``cls`` takes; dataclasses are cut to their fields."""
    known = parameters(cls)
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            continue
        fields = _fields(known[key])
        if fields is not None and isinstance(value, Mapping):
            value = {name: inner for name, inner in value.items() if name in fields}
        kept[key] = value
    return kept


def unknown_key(values: Mapping[str, Any], cls: type) -> tuple[str, list[str]] | None:
    """Return the first key that ``cls`` does not take, dotted in a dataclass, and the known ones."""
    known = parameters(cls)
    for key, value in values.items():
        if key not in known:
            nested = [f"{name}.{field}" for name in known for field in _fields(known[name]) or []]
            return key, [*known, *nested]
        fields = _fields(known[key])
        if fields is not None and isinstance(value, Mapping):
            for name in value:
                if name not in fields and name not in ("class_path", "init_args"):
                    return f"{key}.{name}", [f"{key}.{field}" for field in fields]
    return None


def _fields(annotation: Any) -> list[str] | None:
    """Return the fields of a dataclass annotation, alone or in a union; None for other types."""
    for option in (annotation, *typing.get_args(annotation)):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return [field.name for field in dataclasses.fields(option) if field.init]
    return None


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError):  # an annotation that exists for the type checker only
        return {}


def _submodules(package: str) -> list[str]:
    try:
        paths = importlib.import_module(package).__path__
    except (ImportError, AttributeError, ValueError):
        return []
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(paths)]
