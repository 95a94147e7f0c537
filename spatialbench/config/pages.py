"""Pages and tracks: one YAML per experiment, one per set of controlled variables.

A page (``benchmarks/spatial_attn.yaml``) holds what is the method's own. A track
(``benchmarks/tracks/rooms.yaml``) holds what all rows of a table share: data, backbones, budgets,
precision, seeds. ``experiment.py`` merges the two.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from spatialbench.config.yaml_files import check_keys, parse_yaml
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

PAGE_KEYS = ("family", "seed_everything", "trainer", "model", "data", "budgets", "init_from")
TRACK_KEYS = ("name", "seeds", "front", "trainer", "model", "data", "budgets", "evaluations")
FAMILIES = {
    "reference": "Zero-shot",
    "pairs": "Trained on pairs",
    "enhanced": "Enhanced without pairs",
    "readouts": "Readouts, which parse the caption",
    "privileged": "Privileged: boxes of named objects, or true labels",
    "controls": "Controls",
}
"""Family of a page -> its heading, in the order of the tables. Rows are ranked within a family."""
FAMILY = "pairs"
"""The family of a page that names none."""
RESERVED = ("pairs", "controls")
"""Names that no evaluation of a track may have."""
FORMER = {
    "regions": "spatialbench.evaluation.regions.RegionEvaluation",
    "selection": "spatialbench.evaluation.selection.ImageSelection",
}
"""Keys of older tracks, each the data set of an evaluation; read for one release."""
LAYER_KEYS = ("trainer", "model", "data")
Config = dict[str, Any]


@dataclass(frozen=True)
class Page:
    """One experiment. Paper, command, cost and result are of the header, empty if not given."""

    name: str  # the file's stem, and the name of the row
    path: Path
    paper: str
    command: str
    cost: str
    result: str
    config: Config  # the parsed YAML, without ``family``
    hash: str  # of ``config``; comments and layout do not count
    family: str = FAMILY  # one of ``FAMILIES``; where its row stands in the tables, in no hash

    @property
    def init_from(self) -> Path | None:
        """The page whose finished weights are the start, or None."""
        name = self.config.get("init_from")
        return name and self.path.parent / f"{str(name).removesuffix('.yaml')}.yaml"


@dataclass(frozen=True)
class Track:
    """The controlled variables of one table.

    ``evaluations`` are those beside the pairs, by name: ``{class_path, init_args, budgets: {budget:
    init_args}}``; see ``evaluations.py``.
    """

    name: str
    path: Path
    config: Config  # the trainer, data and model blocks
    budgets: dict[str, Config]  # named sizes, each laid over ``config``
    seeds: tuple[int, ...]  # of a stored row
    hash: str  # of the whole file but ``front``
    evaluations: Mapping[str, Config] = field(default_factory=dict)
    front: tuple[str, ...] = ()  # the rows of the table in README.md, by page


def load_page(path: str | Path) -> Page:
    """Read a page and its header comment.

    Raises:
        SpatialbenchError: missing file, bad YAML, unknown top-level key or family.
    """
    path = Path(path)
    text, config = read_mapping(path, "page", PAGE_KEYS)
    family = config.pop("family", FAMILY)
    if family not in FAMILIES:
        near = did_you_mean(str(family), FAMILIES)
        raise SpatialbenchError(f"unknown family {family!r} (page {path}){near}")
    model = config.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("class_path"), str):
        raise SpatialbenchError(f"page {path}: needs 'model: {{class_path: ..., init_args: ...}}'")
    check_keys(model, ("class_path", "init_args", "dict_kwargs"), f"page {path}", "model.")
    _check_layers(config.get("budgets") or {}, f"page {path}: budgets")
    check_seed(config.get("seed_everything", 0), f"page {path}: seed_everything")
    head, page_hash = _header(text), content_hash(config)
    return Page(path.stem, path, **head, config=config, hash=page_hash, family=family)


def load_track(name: str | Path, near: Path | None = None) -> Track:
    """Read a track by path, or by name in ``tracks`` near a page or in ``benchmarks/tracks``.

    Raises:
        SpatialbenchError: unknown track, bad YAML, unknown key.
    """
    path = _track_path(str(name), near)
    _, config = read_mapping(path, "track", (*TRACK_KEYS, *FORMER))
    front = config.pop("front", None) or []
    if not isinstance(front, list):
        raise SpatialbenchError(f"track {path}: front must be a list of pages, got {front!r}")
    budgets = config.get("budgets")
    if not budgets:
        raise SpatialbenchError(f"track {path}: needs 'budgets: {{name: {{trainer: ...}}}}'")
    _check_layers(budgets, f"track {path}: budgets")
    seeds = config.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds:
        raise SpatialbenchError(f"track {path}: seeds must be a list of integers, got {seeds!r}")
    for seed in seeds:
        check_seed(seed, f"track {path}: seeds")
    layers = {key: config.get(key) or {} for key in LAYER_KEYS}
    name = str(config.get("name", path.stem))
    evaluations = _evaluations(config, path, list(budgets))
    track_hash, shown = content_hash(config), tuple(map(str, front))
    return Track(name, path, layers, budgets, tuple(seeds), track_hash, evaluations, shown)


def _evaluations(config: Config, path: Path, budgets: Sequence[str]) -> dict[str, Config]:
    """Check the evaluations of a track; convert those of the former form."""
    blocks = config.get("evaluations") or {}
    if not isinstance(blocks, dict):
        raise SpatialbenchError(f"track {path}: evaluations must be a mapping from name to class")
    for name, block in blocks.items():
        if not re.fullmatch("[a-z][a-z0-9_]*", str(name)) or name in RESERVED:
            names = f"lower-case letters, digits and _, and not {' or '.join(RESERVED)}"
            where = f"track {path}: evaluations.{name}"
            raise SpatialbenchError(f"{where}: the name of an evaluation is of {names}")
        _check_evaluation(f"evaluations.{name}", block, path, budgets)
    former = {}
    for name, class_path in FORMER.items():
        if (block := config.get(name)) is None:
            continue
        _check_evaluation(name, block, path, budgets)
        sizes = (block.get("budgets") or {}).items()
        own = {size: {"source": {"init_args": values}} for size, values in sizes}
        arguments = {"source": {key: block[key] for key in block if key != "budgets"}}
        former[name] = {"class_path": class_path, "init_args": arguments, "budgets": own}
    return {**former, **blocks}


def _check_evaluation(name: str, block: Any, path: Path, budgets: Sequence[str]) -> None:
    check_keys(block, ("class_path", "init_args", "budgets"), f"track {path}", f"{name}.")
    if not isinstance(block.get("class_path"), str):
        raise SpatialbenchError(f"track {path}: {name} needs 'class_path'")
    for budget in block.get("budgets") or {}:
        if budget not in budgets:
            near = did_you_mean(str(budget), budgets)
            where = f"track {path}: {name}.budgets"
            raise SpatialbenchError(f"unknown budget {budget!r} ({where}){near}")


def discover(folder: str | Path = "benchmarks", pattern: str = "*.yaml") -> list[Page]:
    """Read the pages of a folder. There is no registry: a page exists when its file does."""
    return [load_page(path) for path in sorted(Path(folder).glob(pattern))]


def content_hash(value: Any) -> str:
    """Return 16 hex digits of the SHA-256 of the canonical JSON of ``value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_mapping(path: Path, kind: str, keys: Sequence[str]) -> tuple[str, Config]:
    """Read the text and the top-level mapping of a page, a track or another layer."""
    where = f"{kind} {path}"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpatialbenchError(f"no such {kind}: {path}{_near(path, kind)}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise SpatialbenchError(f"cannot read the {where}: {reason}") from error
    config = parse_yaml(text, where)
    check_keys(config, keys, where)
    for key in LAYER_KEYS:
        if not isinstance(config.get(key) or {}, dict):
            raise SpatialbenchError(f"{where}: {key!r} must be a mapping, got {config[key]!r}")
    return text, config


def _near(path: Path, kind: str) -> str:
    """Suggest the file of that folder, or of ``benchmarks``, with the nearest name."""
    usual = Path("benchmarks/tracks" if kind == "track" else "benchmarks")
    folders = [folder for folder in (usual, path.parent) if folder.is_dir()]
    names = {file.stem: file for folder in folders for file in sorted(folder.glob("*.y*ml"))}
    near = difflib.get_close_matches(path.stem, names, n=1)
    if near:
        return f": did you mean '{names[near[0]]}'?"
    return "; 'spatialbench list' shows the pages" if kind == "page" else ""


def _track_path(name: str, near: Path | None) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    parents = [] if near is None else list(near.absolute().parents)[:2]
    folders = [*(parent / "tracks" for parent in parents), Path("benchmarks/tracks")]
    paths = [path for folder in folders for path in sorted(folder.glob("*.yaml"))]
    for path in paths:
        if path.stem == name:
            return path
    hint = did_you_mean(name, dict.fromkeys(path.stem for path in paths))
    raise SpatialbenchError(f"unknown track {name!r}{hint or '; give --track PATH.yaml'}")


def _check_layers(budgets: Any, where: str) -> None:
    if not isinstance(budgets, dict):
        raise SpatialbenchError(f"{where}: must map budgets to settings, got {budgets!r}")
    for name, layer in budgets.items():
        check_keys(layer, LAYER_KEYS, where, f"{name}.")


def check_seed(seed: Any, where: str) -> None:
    """Refuse a seed that is not an integer of 0 or more."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise SpatialbenchError(f"{where} must be an explicit integer of 0 or more, got {seed!r}")


def _header(text: str) -> dict[str, str]:
    """Parse the header comment of a page: paper, command, cost and result."""
    comments = takewhile(lambda line: line.startswith("#"), text.splitlines())
    lines = [line.lstrip("#").strip() for line in comments]
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
