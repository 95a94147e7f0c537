"""YAML files of the project: parsing, and checks that give one line."""

import re
from collections.abc import Collection
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean


class _Loader(yaml.SafeLoader):
    """YAML 1.1 in which ``1e-3`` is a number, not a string, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                message = f"the key {key!r} appears twice"
                raise ConstructorError(None, None, message, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_FLOAT = re.compile(r"^[-+]?(\d[\d_]*)?\.?\d+[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML; the message of an error has ``where`` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" line {mark.line + 1}"
        problem = getattr(error, "problem", None) or error
        raise SpatialbenchError(f"{where}{line}: not valid YAML: {problem}") from error


def check_keys(mapping: Any, known: Collection[str], where: str, prefix: str = "") -> None:
    """Refuse a value that is not a mapping, and an unknown key.

    Args:
        where: for messages, for instance ``page benchmarks/clip.yaml``.
        prefix: of the keys in messages, for instance ``budgets.smoke.``.
    """
    if not isinstance(mapping, dict):
        name = f"{where}: {prefix.rstrip('.')}" if prefix else where
        keys = ", ".join(known)
        raise SpatialbenchError(f"{name}: must be a mapping with the keys {keys}, got {mapping!r}")
    for key in mapping:
        if key not in known:
            near = did_you_mean(str(key), known)
            raise SpatialbenchError(f"unknown key {f'{prefix}{key}'!r} ({where}){near}")
