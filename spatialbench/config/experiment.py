"""One experiment: a page on a track at a budget with a seed.

``compose`` merges track < budget < page < command line into a complete LightningCLI configuration;
``resolve`` adds its hash and its run folder. Nothing here trains.
"""

import copy
import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from spatialbench import WEIGHTS
from spatialbench.config import pages, signatures
from spatialbench.config.pages import Config, Page, Track, content_hash
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

DATAMODULE = "spatialbench.data.datamodule.PairDataModule"
"""The datamodule of every page that names no other."""
OWN = ("region_", "picture_")
"""Prefixes of the keys of a track's data block that only a datamodule of the page's own reads."""


@dataclass(frozen=True)
class Resolved:
    """A page on a track at a budget with a seed: everything that a run needs."""

    page: Page
    track: Track
    budget: str
    seed: int
    config: Config  # a LightningCLI configuration: seed_everything, trainer, model, data
    config_hash: str  # of ``config`` and the weights that it names, without the seed
    run_dir: Path  # <runs>/<track>/<budget>/<page>/<config hash, 8>/seed<seed>
    init_from: Self | None = None  # the run whose weights are the start

    @property
    def needs_training(self) -> bool:
        """False for a page that only scores what it starts from (``trainer.max_steps: 0``)."""
        return self.config["trainer"].get("max_steps", -1) != 0

    @property
    def data_arguments(self) -> Config:
        """Arguments of the datamodule, whether the page names its class or not."""
        return self.config["data"].get("init_args", self.config["data"])

    @property
    def label(self) -> str:
        """The run, for messages."""
        return f"{self.page.name} ({self.track.name}, budget {self.budget}, seed {self.seed})"

    @property
    def command(self) -> str:
        """The command that makes this run, or shows it."""
        words = ["--config", str(self.page.path), "--track", self.track.name]
        words += ["--budget", self.budget, "--seed", str(self.seed)]
        return shlex.join(["spatialbench", "fit", *words])


def deep_merge(*layers: Mapping[str, Any]) -> Config:
    """Merge mappings, later layers over earlier ones; anything else, lists included, is replaced.

    A block whose ``class_path`` changes is replaced as a whole, so that arguments of one class
    never leak into another (Lightning #15796).
    """
    merged: Config = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            if isinstance(value, Mapping) and isinstance(old, Mapping):
                path = old.get("class_path")
                changed = path is not None and value.get("class_path", path) != path
                merged[key] = copy.deepcopy(dict(value)) if changed else deep_merge(old, value)
            else:
                merged[key] = copy.deepcopy(value)
    return merged


def compose(
    page: Page, track: Track, budget: str, seed: int, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Merge track < budget < page < the page's block for this budget < ``overrides``.

    The result is a complete LightningCLI configuration {seed_everything, trainer, model, data}. The
    track's model block gives defaults only for the parameters that the page's class takes; so does
    its data block if the page names a datamodule of its own. ``data.seed`` follows ``seed``.

    Raises:
        SpatialbenchError: unknown budget, class or key; the message says which page.
    """
    from lightning.pytorch import Trainer

    if budget not in track.budgets:
        near = did_you_mean(budget, track.budgets)
        raise SpatialbenchError(f"unknown budget {budget!r} (track {track.path}){near}")
    own = (page.config.get("budgets") or {}).get(budget, {})
    given = deep_merge(*map(_blocks, (page.config, own, overrides or {})))
    shared = deep_merge(track.config, _blocks(track.budgets[budget]))
    where = f"page {page.path}"
    model_class = signatures.import_class(given["model"]["class_path"], where)
    defaults = signatures.prune(shared["model"], model_class)
    model = deep_merge(defaults, given["model"].get("init_args") or {})
    trainer = deep_merge(shared["trainer"], given["trainer"])
    data_path = given["data"].get("class_path")
    data_class = signatures.import_class(data_path or DATAMODULE, where)
    data = _data(page, track, shared["data"], given["data"], data_class, seed)
    for block, cls in ((trainer, Trainer), (model, model_class), (data, data_class)):
        signatures.refuse_unknown(block, cls, where)
    return {
        "seed_everything": seed,
        "trainer": trainer,
        "model": {**given["model"], "init_args": model},
        "data": {"class_path": data_path, "init_args": data} if data_path else data,
    }


def _blocks(layer: Mapping[str, Any]) -> Config:
    return {key: layer.get(key) or {} for key in pages.LAYER_KEYS}


def _data(page: Page, track: Track, shared: Config, given: Config, cls: type, seed: int) -> Config:
    """Merge the arguments of the datamodule: seed < track < page."""
    named = bool(given.get("class_path"))
    own = (given.get("init_args") or {}) if named else given
    if own.get("seed", seed) == page.config.get("seed_everything"):
        # a printed configuration: its data follow the seed
        own = {key: value for key, value in own.items() if key != "seed"}
    defaults = _prune_data(shared, cls, track) if named else data_of(shared, page)
    return deep_merge(signatures.prune({"seed": seed}, cls), defaults, own)


def data_of(block: Mapping[str, Any], page: Page) -> Config:
    """Return the part of a track's data block that concerns a page."""
    own = bool((page.config.get("data") or {}).get("class_path"))
    return {key: value for key, value in block.items() if own or not key.startswith(OWN)}


def _prune_data(block: Config, cls: type, track: Track) -> Config:
    """Return what a datamodule takes; refuse an unknown ``region_`` key if it takes others."""
    for prefix in OWN:
        known = [key for key in signatures.parameters(cls) if key.startswith(prefix)]
        for key in block if known else ():
            if key.startswith(prefix) and key not in known:
                near = did_you_mean(key, known)
                raise SpatialbenchError(f"unknown key 'data.{key}' (track {track.path}){near}")
    return signatures.prune(block, cls)


def resolve(
    page: Page | str | Path,
    track: Track | str | Path = "rooms",
    budget: str = "quick",
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    runs: str | Path = "runs",
) -> Resolved:
    """Return everything that a run needs; reads and imports, writes nothing.

    ``seed`` is by default the page's ``seed_everything``, else the track's first seed;
    ``overrides``, a partial configuration, win over the page; ``runs`` is the folder of all runs.

    Raises:
        SpatialbenchError: see :func:`load_page`, :func:`load_track`, :func:`compose`.
    """
    if not isinstance(page, Page):
        page = pages.load_page(page)
    if not isinstance(track, Track):
        track = pages.load_track(track, near=page.path)
    if seed is None:
        seed = page.config.get("seed_everything", track.seeds[0])
    pages.check_seed(seed, "the seed")
    config = compose(page, track, budget, seed, overrides)
    start = None
    if page.init_from is not None:
        _check_overrides(page, overrides or {})
        if page.init_from.absolute() == page.path.absolute():
            raise SpatialbenchError(f"page {page.path}: init_from names the page itself")
        start = resolve(page.init_from, track, budget, seed, runs=runs)
    config_hash = _config_hash(config, start)
    folder = Path(runs) / track.name / budget / page.name / config_hash[:8] / f"seed{seed}"
    return Resolved(page, track, budget, seed, config, config_hash, folder, start)


def _check_overrides(page: Page, overrides: Mapping[str, Any]) -> None:
    """Refuse another student or other images, which the page's earlier stages would not see."""
    model = (overrides.get("model") or {}).get("init_args") or {}
    data = (overrides.get("data") or {}).get("init_args") or {}
    unseen = ["model.init_args.student"] if "student" in model else []
    unseen += [f"data.init_args.{key}" for key in data if key.startswith(OWN)]
    if unseen:
        raise SpatialbenchError(
            f"--{unseen[0]} would not reach {page.init_from}, which page {page.path} starts from; "
            "say it in a track (--track PATH.yaml), which all stages share"
        )


def weights_digests(model: Mapping[str, Any]) -> dict[str, str]:
    """Hash the weights files that a model block names, by parameter: student, vfm and diffusion.

    Weights that are not a file here (a tag of the Hub, ``random``) are known by their name alone.
    """
    digests = {}
    for key in ("student", "vfm"):
        name, _, weights = str(model.get(key) or "").partition(":")
        path = Path(weights) if weights else WEIGHTS / f"{name}.safetensors"
        if name and path.is_file():
            digests[key] = _digest(path)
    name = str(model.get("diffusion") or "")
    folders = (WEIGHTS / name, Path(name)) if name else ()
    if folder := next((folder for folder in folders if folder.is_dir()), None):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        parts = [[path.relative_to(folder).as_posix(), _digest(path)] for path in files]
        digests["diffusion"] = content_hash(parts)
    return digests


def learns_from(data: Mapping[str, Any]) -> str:
    """Return what a data block trains on: "pairs", "regions" or "images"; "": an unknown class."""
    path = str(data.get("class_path") or DATAMODULE)
    try:
        return getattr(signatures.import_class(path, "data"), "learns_from", "")
    except SpatialbenchError:  # reported when the page is run
        return ""


def model_of(config: Mapping[str, Any]) -> Config:
    """Return the arguments of a page's model, with the diffusion model that it has by default."""
    model = dict(config["model"].get("init_args") or {})
    images = learns_from(config.get("data") or {}) == "images"
    return {"diffusion": "rooms-diffusion", **model} if images else model


def _digest(path: Path) -> str:
    stat = path.stat()
    return _file_digest(path.absolute(), stat.st_size, stat.st_mtime_ns)


@cache
def _file_digest(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _config_hash(config: Config, start: Resolved | None) -> str:
    rest = {key: copy.deepcopy(value) for key, value in config.items() if key != "seed_everything"}
    data = rest["data"].get("init_args", rest["data"])
    if data.get("seed") == config["seed_everything"]:
        del data["seed"]
    rest["weights"] = weights_digests(model_of(rest))
    return content_hash(rest if start is None else {**rest, "init_from": start.config_hash})
