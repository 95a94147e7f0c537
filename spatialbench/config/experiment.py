"""One experiment: a page on a track at a budget with a seed.

``compose`` lays them over one another, track < budget < page < command line, into a complete LightningCLI
configuration; ``resolve`` adds its hash and its run folder. Nothing here trains.
"""

from __future__ import annotations

import copy
import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from spatialbench import WEIGHTS
from spatialbench.config.pages import (
    LAYER_KEYS,
    Config,
    Page,
    Track,
    check_seed,
    content_hash,
    load_page,
    load_track,
)
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean

DATAMODULE = "spatialbench.data.datamodule.PairDataModule"
"""The datamodule of every page that names no other."""
OWN = ("region_", "picture_")
"""Keys of a track's data block that begin so concern pages with a datamodule of their own only."""
LEARNS_FROM = {
    DATAMODULE: "pairs",
    "spatialbench.data.region_batches.RegionDataModule": "regions",
    "spatialbench.data.image_batches.ImageDataModule": "images",
    "spatialbench.data.pictures.PictureDataModule": "images",
}
"""``learns_from`` of the suite's own datamodules, so that a table need not import torch."""
DIFFUSION = "rooms-diffusion"
"""The diffusion model of pages that learn from images and name none."""


@dataclass(frozen=True)
class Resolved:
    """A page on a track at a budget with a seed: everything that a run needs.

    Attributes:
        config: a complete LightningCLI configuration: seed_everything, trainer, model, data.
        config_hash: hash of ``config`` without the seed: runs that differ in nothing but the seed share it.
        run_dir: ``<runs>/<track>/<budget>/<page>/<config hash, 8>/seed<seed>``.
        init_from: the run whose weights are the start, or None.
    """

    page: Page
    track: Track
    budget: str
    seed: int
    config: Config
    config_hash: str
    run_dir: Path
    init_from: Resolved | None = None

    @cached_property
    def needs_training(self) -> bool:
        """False for a page that only scores what it starts from (``trainer.max_steps: 0``)."""
        return self.config["trainer"].get("max_steps", -1) != 0

    @property
    def data_arguments(self) -> Config:
        """Of the datamodule, whether the page names its class or not."""
        return self.config["data"].get("init_args", self.config["data"])

    @property
    def label(self) -> str:
        return f"{self.page.name} ({self.track.name}, budget {self.budget}, seed {self.seed})"

    @property
    def command(self) -> str:
        """What makes this run, or shows it."""
        what = [
            "--config",
            str(self.page.path),
            "--track",
            self.track.name,
            "--budget",
            self.budget,
        ]
        return shlex.join(["spatialbench", "fit", *what, "--seed", str(self.seed)])


def deep_merge(*layers: Mapping[str, Any]) -> Config:
    """Later layers win. Mappings merge; everything else, lists included, is replaced. A block whose ``class_path``
    changes is replaced whole, so that arguments of one class never leak into another (Lightning #15796).
    """
    merged: Config = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            if isinstance(value, Mapping) and isinstance(old, Mapping):
                changed = (
                    "class_path" in old
                    and value.get("class_path", old["class_path"]) != old["class_path"]
                )
                merged[key] = copy.deepcopy(dict(value)) if changed else deep_merge(old, value)
            else:
                merged[key] = copy.deepcopy(value)
    return merged


def compose(
    page: Page, track: Track, budget: str, seed: int, overrides: Mapping[str, Any] | None = None
) -> Config:
    """The full LightningCLI configuration {seed_everything, trainer, model, data} of a page on a track.

    A deep merge: track < budget < page < the page's own block for this budget < ``overrides``. The track's model block
    gives defaults for those parameters only that the page's class takes; so does its data block when the page names a
    datamodule of its own. ``data.seed`` follows ``seed`` where the datamodule has one.

    Raises:
        SpatialbenchError: unknown budget, class or key; the message says which page.
    """
    from spatialbench.config.signatures import import_class, prune, unknown_key

    overrides = {key: value for key, value in (overrides or {}).items() if key != "seed_everything"}
    if budget not in track.budgets:
        raise SpatialbenchError(
            f"unknown budget {budget!r} (track {track.path}){did_you_mean(budget, track.budgets)}"
        )
    own = (page.config.get("budgets") or {}).get(budget, {})
    given = deep_merge(
        *(
            {key: layer.get(key) or {} for key in LAYER_KEYS}
            for layer in (page.config, own, overrides)
        )
    )
    shared = deep_merge(
        track.config, {key: track.budgets[budget].get(key) or {} for key in LAYER_KEYS}
    )
    where = f"page {page.path}"

    model_class = import_class(given["model"]["class_path"], where)
    model = deep_merge(prune(shared["model"], model_class), given["model"].get("init_args") or {})
    config: Config = {
        "seed_everything": seed,
        "trainer": deep_merge(shared["trainer"], given["trainer"]),
        "model": {**given["model"], "init_args": model},
    }
    data_path = given["data"].get("class_path")
    data_class = import_class(data_path or DATAMODULE, where)
    own_data = (given["data"].get("init_args") or {}) if data_path else given["data"]
    if own_data.get("seed", seed) == page.config.get(
        "seed_everything"
    ):  # a printed configuration: it follows the seed
        own_data = {key: value for key, value in own_data.items() if key != "seed"}
    data = deep_merge(
        prune({"seed": seed}, data_class),
        _prune_data(shared["data"], data_class, track)
        if data_path
        else data_of(shared["data"], page),
        own_data,
    )
    config["data"] = {"class_path": data_path, "init_args": data} if data_path else data

    from lightning.pytorch import Trainer

    for block, cls in ((config["trainer"], Trainer), (model, model_class), (data, data_class)):
        bad = unknown_key(block, cls)
        if bad is not None:
            key, known = bad
            name = "trainer" if cls is Trainer else f"{cls.__module__}.{cls.__qualname__}"
            raise SpatialbenchError(
                f"unknown key {key!r} for {name} ({where}){did_you_mean(key, known)}"
            )
    return config


def data_of(block: Mapping[str, Any], page: Page) -> Config:
    """What of a track's data block concerns a page."""
    own = bool((page.config.get("data") or {}).get("class_path"))
    return {key: value for key, value in block.items() if own or not key.startswith(OWN)}


def _prune_data(block: Config, cls: type, track: Track) -> Config:
    """The part of a track's data block that a datamodule of a page's own takes.

    Raises:
        SpatialbenchError: a key ``region_...`` that it does not take, though it takes others; likewise ``picture_...``.
    """
    from spatialbench.config.signatures import parameters, prune

    for prefix in OWN:
        known = [key for key in parameters(cls) if key.startswith(prefix)]
        strange = (
            [key for key in block if key.startswith(prefix) and key not in known] if known else []
        )
        if strange:
            raise SpatialbenchError(
                f"unknown key 'data.{strange[0]}' (track {track.path}){did_you_mean(strange[0], known)}"
            )
    return prune(block, cls)


def resolve(
    page: Page | str | Path,
    track: Track | str | Path = "rooms",
    budget: str = "quick",
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    runs: str | Path = "runs",
) -> Resolved:
    """Everything that a run needs; reads and imports, writes nothing.

    Args:
        seed: default: the page's ``seed_everything``, else the track's first seed.
        overrides: a partial configuration that wins over the page: the command line.
        runs: the folder of all runs.

    Raises:
        SpatialbenchError: see :func:`load_page`, :func:`load_track`, :func:`compose`.
    """
    if not isinstance(page, Page):
        page = load_page(page)
    if not isinstance(track, Track):
        track = load_track(track, near=page.path)
    if seed is None:
        seed = page.config.get("seed_everything", track.seeds[0])
    check_seed(seed, "the seed")
    config = compose(page, track, budget, seed, overrides)
    _check_overrides(page, overrides or {})
    start = None
    if page.init_from is not None:
        if page.init_from.absolute() == page.path.absolute():
            raise SpatialbenchError(f"page {page.path}: init_from names the page itself")
        start = resolve(page.init_from, track, budget, seed, runs=runs)
    config_hash = _config_hash(config, start)
    folder = Path(runs) / track.name / budget / page.name / config_hash[:8] / f"seed{seed}"
    return Resolved(page, track, budget, seed, config, config_hash, folder, start)


def _check_overrides(page: Page, overrides: Mapping[str, Any]) -> None:
    """Refuses what would reach this stage and not those that it starts from.

    Raises:
        SpatialbenchError: another student, or other pictures to learn from, for a page with ``init_from``.
    """
    if page.init_from is None:
        return
    model = (overrides.get("model") or {}).get("init_args") or {}
    data = overrides.get("data") or {}
    strange = [f"model.init_args.{key}" for key in ("student",) if key in model]
    strange += [
        f"data.init_args.{key}" for key in data.get("init_args") or {} if key.startswith(OWN)
    ]
    if strange:
        raise SpatialbenchError(
            f"--{strange[0]} would not reach {page.init_from}, which page {page.path} starts from: say it in a track "
            "(--track PATH.yaml), which all stages share"
        )


def weights_digests(model: Mapping[str, Any]) -> dict[str, str]:
    """Parameter -> hash of the weights file that it names, for the ``student``, ``vfm`` and ``diffusion`` of a model
    block.

    Part of the hashes of runs and rows: other weights under the same name are another experiment. Weights that are no
    file here (a tag of the Hub, ``random``) are told apart by their name alone.
    """
    found = {}
    for key in ("student", "vfm"):
        name, _, weights = str(model.get(key) or "").partition(":")
        path = Path(weights) if weights else WEIGHTS / f"{name}.safetensors"
        if name and path.is_file():
            found[key] = _digest(path)
    name = str(model.get("diffusion") or "")
    for folder in (WEIGHTS / name, Path(name)):
        if name and "diffusion" not in found and folder.is_dir():
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            found["diffusion"] = content_hash(
                [[path.relative_to(folder).as_posix(), _digest(path)] for path in files]
            )
    return found


def learns_from(data: Mapping[str, Any]) -> str:
    """Return what a data block trains on: "pairs", "regions" or "images"; "": an unknown class."""
    from spatialbench.config.signatures import import_class

    path = str(data.get("class_path") or DATAMODULE)
    if path in LEARNS_FROM:
        return LEARNS_FROM[path]
    try:
        return getattr(import_class(path, "data"), "learns_from", "")
    except SpatialbenchError:  # whoever runs the page is told
        return ""


def model_of(config: Mapping[str, Any]) -> Config:
    """Return the arguments of a page's model, with the diffusion model that it has by default."""
    model = dict(config["model"].get("init_args") or {})
    images = learns_from(config.get("data") or {}) == "images"
    return {"diffusion": DIFFUSION, **model} if images else model


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
