"""Pages and tracks: one YAML per experiment, one per set of controlled variables.

A page (``benchmarks/spatial_attn.yaml``) holds what is the method's own. A track
(``benchmarks/tracks/rooms.yaml``) holds what all rows of a table share: data, backbones, budgets,
precision, seeds. ``experiment.py`` merges the two.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spatialbench.config.yaml_files import check_keys, parse_yaml
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

PAGE_KEYS = ("seed_everything", "trainer", "model", "data", "budgets", "init_from")
TRACK_KEYS = ("name", "seeds", "trainer", "model", "data", "budgets", "evaluations")
OLD_EVALUATIONS = {
    "regions": "spatialbench.evaluation.regions.RegionEvaluation",
    "selection": "spatialbench.evaluation.selection.ImageSelection",
}
"""Keys of older tracks, each the data set of an evaluation; read for one release."""
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
    """The controlled variables of one table.

    Attributes:
        config: the trainer, data and model blocks.
        budgets: named sizes, each laid over ``config``.
        seeds: of a stored row.
        hash: of the whole file.
        evaluations: name -> ``{class_path, init_args, budgets: {budget: init_args}}``, what is
            evaluated beside the pairs; see ``evaluations.py``.
    """

    name: str
    path: Path
    config: Config
    budgets: dict[str, Config]
    seeds: tuple[int, ...]
    hash: str
    evaluations: Mapping[str, Config] = field(default_factory=dict)


def load_page(path: str | Path) -> Page:
    """Read a page and its header comment.

    Raises:
        SpatialbenchError: missing file, bad YAML, unknown top-level key.
    """
    path = Path(path)
    text, config = _read_mapping(path, "page", PAGE_KEYS)
    model = config.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("class_path"), str):
        raise SpatialbenchError(f"page {path}: needs 'model: {{class_path: ..., init_args: ...}}'")
    check_keys(model, ("class_path", "init_args", "dict_kwargs"), f"page {path}", "model.")
    _check_layers(config.get("budgets") or {}, f"page {path}: budgets")
    check_seed(config.get("seed_everything", 0), f"page {path}: seed_everything")
    return Page(path.stem, path, **_header(text), config=config, hash=content_hash(config))


def load_track(name: str | Path, near: Path | None = None) -> Track:
    """Read a track, by path, or by name in ``tracks`` beside ``near`` or in ``benchmarks/tracks``.

    Args:
        near: the path of a page.

    Raises:
        SpatialbenchError: unknown track, bad YAML, unknown key.
    """
    path = _track_path(str(name), near)
    _, config = _read_mapping(path, "track", (*TRACK_KEYS, *OLD_EVALUATIONS))
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
    evaluations = _evaluations(config, path, list(budgets))
    return Track(name, path, layers, budgets, tuple(seeds), content_hash(config), evaluations)


def _evaluations(config: Config, path: Path, budgets: Sequence[str]) -> dict[str, Config]:
    """Check the evaluations of a track; those in the old form are brought into the new one."""
    blocks = config.get("evaluations") or {}
    if not isinstance(blocks, dict):
        raise SpatialbenchError(f"track {path}: evaluations must be a mapping from name to class")
    for name, block in blocks.items():
        _check_evaluation(f"evaluations.{name}", block, path, budgets)
    old = {}
    for name, class_path in OLD_EVALUATIONS.items():
        if (block := config.get(name)) is not None:
            _check_evaluation(name, block, path, budgets)
            sizes = block.get("budgets") or {}
            source = {key: block[key] for key in ("class_path", "init_args") if key in block}
            old[name] = {
                "class_path": class_path,
                "init_args": {"source": source},
                "budgets": {size: {"source": {"init_args": v}} for size, v in sizes.items()},
            }
    return {**old, **blocks}


def _check_evaluation(name: str, block: Any, path: Path, budgets: Sequence[str]) -> None:
    check_keys(block, ("class_path", "init_args", "budgets"), f"track {path}", f"{name}.")
    if not isinstance(block.get("class_path"), str):
        raise SpatialbenchError(f"track {path}: {name} needs 'class_path'")
    for budget in block.get("budgets") or {}:
        if budget not in budgets:
            near = did_you_mean(str(budget), budgets)
            raise SpatialbenchError(
                f"unknown budget {budget!r} (track {path}: {name}.budgets){near}"
            )


def discover(folder: str | Path = "benchmarks", pattern: str = "*.yaml") -> list[Page]:
    """Read the pages of a folder. There is no registry: a page exists when its file does."""
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
    check_keys(config, keys, f"{kind} {path}")
    for key in LAYER_KEYS:
        if not isinstance(config.get(key) or {}, dict):
            raise SpatialbenchError(
                f"{kind} {path}: {key!r} must be a mapping, got {config[key]!r}"
            )
    return text, config


def _near(path: Path, kind: str) -> str:
    """Suggest the file of that folder, or of ``benchmarks``, with the nearest name."""
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
        check_keys(layer, LAYER_KEYS, where, f"{name}.")


def check_seed(seed: Any, where: str) -> None:
    """Refuse a seed that is not an integer of 0 or more.

    Raises:
        SpatialbenchError: the seed, and where it stands.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise SpatialbenchError(f"{where} must be an explicit integer of 0 or more, got {seed!r}")


def _header(text: str) -> dict[str, str]:
    """Parse the header comment of a page: paper, command, cost and result."""
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
