"""YAML files of the project: parsing, and checks that give one line."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import yaml

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean


class _Loader(yaml.SafeLoader):
    """YAML 1.1 in which ``1e-3`` is a number, not a string, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _first in "-+.0123456789":
    _Loader.yaml_implicit_resolvers.setdefault(_first, []).insert(
        0, ("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)?\.?\d+[eE][-+]?\d+$"))
    )


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML.

    Raises:
        SpatialbenchError: the text is not YAML; the message has ``where`` and the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" line {mark.line + 1}"
        raise SpatialbenchError(
            f"{where}{line}: not valid YAML: {getattr(error, 'problem', None) or error}"
        ) from error


def check_keys(mapping: Any, known: Collection[str], where: str, prefix: str = "") -> None:
    """Refuse what is not a mapping, or has an unknown key.

    Args:
        where: for messages, for instance ``page benchmarks/clip.yaml``.
        prefix: of the keys in messages, for instance ``budgets.smoke.``.

    Raises:
        SpatialbenchError: the first unknown key, and the nearest known one.
    """
    if not isinstance(mapping, dict):
        name = f": {prefix.rstrip('.')}" if prefix else ""
        raise SpatialbenchError(
            f"{where}{name} must be a mapping with the keys {', '.join(known)}, got {mapping!r}"
        )
    for key in mapping:
        if key not in known:
            near = did_you_mean(str(key), known)
            raise SpatialbenchError(f"unknown key {f'{prefix}{key}'!r} ({where}){near}")
