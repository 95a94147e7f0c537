"""Parameters of classes along the inheritance chain, for defaults and for suggestions."""

import dataclasses
import importlib
import inspect
import pkgutil
import sys
import typing
from collections.abc import Mapping
from typing import Any

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

_DATA = "spatialbench.data"
ALIASES = {
    f"{_DATA}.coco.CocoRegions": f"{_DATA}.coco.coco_regions.CocoRegions",
    f"{_DATA}.coco.regions.CocoRegions": f"{_DATA}.coco.coco_regions.CocoRegions",
    f"{_DATA}.mmvp.Mmvp": f"{_DATA}.captions.mmvp.Mmvp",
    f"{_DATA}.rooms.regions.RoomsRegions": f"{_DATA}.rooms.room_regions.RoomsRegions",
}
"""Former class path -> class path, for one release. Hashes are of the text as written."""


def import_class(class_path: str, where: str) -> type:
    """Import the class at a dotted path; an error has ``where`` and the nearest name."""
    module_name, _, name = ALIASES.get(class_path, class_path).rpartition(".")
    if not module_name:
        raise SpatialbenchError(
            f"{where}: the class path {class_path!r} names no module; write package.module.Class"
        )
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        missing = getattr(error, "name", None) or module_name
        reason = f"importing {module_name!r} failed: {error}"
        if f"{module_name}.".startswith(f"{missing}."):
            near = did_you_mean(missing, _submodules(missing.rpartition(".")[0]))
            reason = f"no module {missing!r} for the class path {class_path!r}{near}"
        raise SpatialbenchError(f"{where}: {reason}") from error
    cls = getattr(module, name, None)
    if not isinstance(cls, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        near = did_you_mean(name, classes)
        raise SpatialbenchError(f"{where}: no class {name!r} in {module_name!r}{near}")
    return cls


def parameters(cls: type) -> dict[str, Any]:
    """Return parameter -> resolved type; walks the MRO while ``__init__`` has ``**kwargs``."""
    known: dict[str, Any] = {}
    for base in cls.__mro__:
        init = vars(base).get("__init__")
        if init is None or base is object:
            continue
        hints = _hints(init)
        own = list(inspect.signature(init).parameters.values())[1:]
        for parameter in own:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                known.setdefault(parameter.name, hints.get(parameter.name, Any))
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in own):
            break
    return known


def prune(values: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """Return the part of ``values`` that ``cls`` takes; dataclasses are cut to their fields."""
    known = parameters(cls)
    kept = {key: value for key, value in values.items() if key in known}
    for key, value in kept.items():
        if (fields := _fields(known[key])) and isinstance(value, Mapping):
            kept[key] = {name: inner for name, inner in value.items() if name in fields}
    return kept


def unknown_key(values: Mapping[str, Any], cls: type) -> tuple[str, list[str]] | None:
    """Return the first key that ``cls`` does not take, dotted in a dataclass, and known keys."""
    known = parameters(cls)
    for key, value in values.items():
        if key not in known:
            nested = [f"{name}.{field}" for name in known for field in _fields(known[name])]
            return key, [*known, *nested]
        if (fields := _fields(known[key])) and isinstance(value, Mapping):
            for name in value:
                if name not in (*fields, "class_path", "init_args"):
                    return f"{key}.{name}", [f"{key}.{field}" for field in fields]
    return None


def refuse_unknown(values: Mapping[str, Any], cls: type, where: str) -> None:
    """Refuse a key that ``cls`` does not take."""
    if bad := unknown_key(values, cls):
        name = "trainer" if cls.__name__ == "Trainer" else f"{cls.__module__}.{cls.__qualname__}"
        near = did_you_mean(*bad)
        raise SpatialbenchError(f"unknown key {bad[0]!r} for {name} ({where}){near}")


def _fields(annotation: Any) -> list[str]:
    """Return the fields of a dataclass, also of one in a union; none for other types."""
    for option in (annotation, *typing.get_args(annotation)):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return [field.name for field in dataclasses.fields(option) if field.init]
    return []


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError):  # an annotation that exists for the type checker only
        return {}


def _submodules(package: str) -> list[str]:
    paths = getattr(sys.modules.get(package), "__path__", [])
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(paths)]
