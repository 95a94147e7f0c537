"""Pages and tracks: one YAML per experiment, one per set of controlled variables.

A page (``benchmarks/spatial_attn.yaml``) holds what is the method's own; a track (``benchmarks/tracks/rooms.yaml``)
holds what every row of a table shares: data, backbones, budgets, precision, seeds. What the two say together is in
``experiment.py``.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

PAGE_KEYS = ("seed_everything", "trainer", "model", "data", "budgets", "init_from")
TRACK_KEYS = ("name", "seeds", "trainer", "model", "data", "budgets", "regions", "selection")
LAYER_KEYS = ("trainer", "model", "data")
Config = dict[str, Any]


@dataclass(frozen=True)
class Page:
    """One experiment.

    Attributes:
        name: the file's stem; also the name of the row.
        path: the file.
        paper, command, cost, result: the header comment; empty where the header does not say.
        config: the parsed YAML.
        hash: hash of ``config``; comments and layout do not count.
    """

    name: str
    path: Path
    paper: str
    command: str
    cost: str
    result: str
    config: Config
    hash: str

    @property
    def init_from(self) -> Path | None:
        """The page whose finished weights are the start, or None."""
        name = self.config.get("init_from")
        return (
            None if name is None else self.path.parent / f"{str(name).removesuffix('.yaml')}.yaml"
        )


@dataclass(frozen=True)
class Track:
    """The controlled variables of one table: ``config`` holds its trainer, data and model blocks, ``budgets`` the named
    sizes laid over them, ``seeds`` the seeds of a stored row. ``regions`` and ``selection`` name what is measured
    beside the pairs, a region set and pairs of pictures, ``{class_path, init_args, budgets: {budget: init_args}}`` or
    None (``beside.py``). ``hash`` is a hash of the whole file."""

    name: str
    path: Path
    config: Config
    budgets: dict[str, Config]
    seeds: tuple[int, ...]
    hash: str
    regions: Config | None = None
    selection: Config | None = None


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with two repairs: ``1e-3`` is a number (PyYAML reads a string), and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
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
    """Parses YAML.

    Raises:
        SpatialbenchError: the text is not YAML; ``where`` and the line are in the message.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f" line {mark.line + 1}"
        raise SpatialbenchError(
            f"{where}{line}: not valid YAML: {getattr(error, 'problem', None) or error}"
        ) from error


def load_page(path: str | Path) -> Page:
    """Reads a page and its header comment.

    Raises:
        SpatialbenchError: missing file, bad YAML, unknown top-level key.
    """
    path = Path(path)
    text, config = _read_mapping(path, "page", PAGE_KEYS)
    model = config.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("class_path"), str):
        raise SpatialbenchError(f"page {path}: needs 'model: {{class_path: ..., init_args: ...}}'")
    for key in model:
        if key not in ("class_path", "init_args", "dict_kwargs"):
            raise SpatialbenchError(
                f"page {path}: unknown key 'model.{key}'{did_you_mean(key, ('class_path', 'init_args'))}"
            )
    _check_layers(config.get("budgets") or {}, f"page {path}: budgets")
    check_seed(config.get("seed_everything", 0), f"page {path}: seed_everything")
    return Page(path.stem, path, **_header(text), config=config, hash=content_hash(config))


def load_track(name: str | Path, near: Path | None = None) -> Track:
    """Reads a track, by its path, or by its name in ``tracks`` beside ``near`` (a page) or in ``benchmarks/tracks``.

    Raises:
        SpatialbenchError: unknown track, bad YAML, unknown key.
    """
    path = _track_path(str(name), near)
    _, config = _read_mapping(path, "track", TRACK_KEYS)
    budgets = config.get("budgets")
    if not isinstance(budgets, dict) or not budgets:
        raise SpatialbenchError(
            f"track {path}: needs 'budgets: {{name: {{trainer: ..., data: ...}}}}'"
        )
    _check_layers(budgets, f"track {path}: budgets")
    seeds = config.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds:
        raise SpatialbenchError(f"track {path}: seeds must be a list of integers, got {seeds!r}")
    for seed in seeds:
        check_seed(seed, f"track {path}: seeds")
    layers = {key: config.get(key) or {} for key in LAYER_KEYS}
    name = str(config.get("name", path.stem))
    beside = [
        _beside(key, kind, config.get(key), path, list(budgets)) for key, kind in _BESIDE.items()
    ]
    return Track(name, path, layers, budgets, tuple(seeds), content_hash(config), *beside)


_BESIDE = {"regions": "RegionSet", "selection": "SelectionSet"}


def _beside(name: str, kind: str, block: Any, path: Path, budgets: Sequence[str]) -> Config | None:
    if block is None:
        return None
    known = ("class_path", "init_args", "budgets")
    for key in block if isinstance(block, dict) else [None]:
        if key not in known:
            raise SpatialbenchError(
                f"unknown key {f'{name}.{key}'!r} (track {path}){did_you_mean(str(key), known)}"
            )
    if not isinstance(block.get("class_path"), str):
        raise SpatialbenchError(f"track {path}: {name} needs 'class_path', a {kind}")
    for budget in block.get("budgets") or {}:
        if budget not in budgets:
            raise SpatialbenchError(
                f"unknown budget {budget!r} (track {path}: {name}.budgets){did_you_mean(str(budget), budgets)}"
            )
    return block


def discover(folder: str | Path = "benchmarks", pattern: str = "*.yaml") -> list[Page]:
    """The pages of a folder, by name. No registry: a page exists when its file does."""
    return [load_page(path) for path in sorted(Path(folder).glob(pattern))]


def content_hash(value: Any) -> str:
    """16 hex digits of the SHA-256 of the canonical JSON of ``value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_mapping(path: Path, kind: str, keys: Sequence[str]) -> tuple[str, Config]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpatialbenchError(f"no such {kind}: {path}{_near(path, kind)}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise SpatialbenchError(f"cannot read the {kind} {path}: {reason}") from error
    config = parse_yaml(text, f"{kind} {path}")
    if not isinstance(config, dict):
        raise SpatialbenchError(f"{kind} {path}: must be a mapping with the keys {', '.join(keys)}")
    for key in config:
        if key not in keys:
            raise SpatialbenchError(
                f"unknown key {key!r} ({kind} {path}){did_you_mean(str(key), keys)}"
            )
    for key in LAYER_KEYS:
        if not isinstance(config.get(key) or {}, dict):
            raise SpatialbenchError(
                f"{kind} {path}: {key!r} must be a mapping, got {config[key]!r}"
            )
    return text, config


def _near(path: Path, kind: str) -> str:
    """The file of that folder, or of ``benchmarks``, whose name is alike; what the folder is called tells nothing."""
    usual = Path("benchmarks/tracks" if kind == "track" else "benchmarks")
    folders = [folder for folder in (usual, path.parent) if folder.is_dir()]
    names = {found.stem: found for folder in folders for found in sorted(folder.glob("*.y*ml"))}
    near = difflib.get_close_matches(path.stem, names, n=1)
    if near:
        return f": did you mean '{names[near[0]]}'?"
    return "; 'spatialbench list' shows the pages" if kind == "page" else ""


def _track_path(name: str, near: Path | None) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    folders = [Path("benchmarks/tracks")]
    if near is not None:
        folders = [parent / "tracks" for parent in list(near.absolute().parents)[:2]] + folders
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = [path.stem for folder in folders for path in sorted(folder.glob("*.yaml"))]
    if not known:
        raise SpatialbenchError(
            f"unknown track {name!r}: no tracks folder beside the page; give --track PATH.yaml"
        )
    raise SpatialbenchError(f"unknown track {name!r}{did_you_mean(name, dict.fromkeys(known))}")


def _check_layers(budgets: Any, where: str) -> None:
    if not isinstance(budgets, dict):
        raise SpatialbenchError(
            f"{where}: must be a mapping from budget to settings, got {budgets!r}"
        )
    for name, layer in budgets.items():
        if not isinstance(layer, dict):
            raise SpatialbenchError(
                f"{where}.{name}: must be a mapping with the keys {', '.join(LAYER_KEYS)}"
            )
        for key in layer:
            if key not in LAYER_KEYS:
                raise SpatialbenchError(
                    f"unknown key {key!r} ({where}.{name}){did_you_mean(key, LAYER_KEYS)}"
                )


def check_seed(seed: Any, where: str) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise SpatialbenchError(f"{where} must be an explicit integer of 0 or more, got {seed!r}")


def _header(text: str) -> dict[str, str]:
    """The comment lines on top of a page: paper (prose), command (``spatialbench ...``), Cost and Result."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    command = next((line for line in lines if line.startswith("spatialbench ")), "")
    before = lines[: lines.index(command)] if command else lines
    paper = " ".join(line for line in before if line and not re.match(r"(Cost|Result)\s", line))
    joined = "   ".join(lines)
    cost = re.search(r"\bCost\s+(.+?)(?:\s{2,}|$)", joined)
    result = re.search(r"\bResult\s+(\S+)", joined)
    return {
        "paper": paper,
        "command": command,
        "cost": cost[1].strip() if cost else "",
        "result": result[1] if result else "",
    }
