"""Report of this machine: packages, hardware, weights and tracks; works offline."""

import importlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from spatialbench import WEIGHTS
from spatialbench.config.pages import Track, load_track
from spatialbench.data.download.coco_images import ADDRESS, COCO
from spatialbench.data.download.manifest import ROOT, data_sets
from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import cached, cached_folder, first_line
from spatialbench.utils.provenance import hardware, versions

LOADED = ("torch", "torchvision", "lightning", "open_clip", "timm", "diffusers", "peft", "embreex")
"""Modules to import: those with compiled parts, or sensitive to the versions of others."""
SHIPPED = {"student": "rooms-student", "vfm": "rooms-vfm", "diffusion": "rooms-diffusion"}
"""Kind -> the weights in the package."""
SHIPPED_FILES = (
    "rooms-student.safetensors",
    "rooms-vfm.safetensors",
    "rooms-diffusion/unet/diffusion_pytorch_model.safetensors",
    "rooms-diffusion/vae/diffusion_pytorch_model.safetensors",
)
FILES = {
    "student": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "vfm": ("model.safetensors", "pytorch_model.bin"),
}
"""Kind -> names of the weights file in a repository of the Hub."""
FILE_ARGUMENTS = ("path", "masks", "images", "captions", "folder")
"""Arguments of an evaluation's source that name files."""


@dataclass(frozen=True)
class Need:
    """Something that a run needs: weights or a path."""

    kind: str  # student, vfm, diffusion or data
    name: str  # as in the track
    here: str  # ``shipped``, ``random`` or a path; empty if it is missing
    fix: str = ""  # the command that fetches it


@dataclass(frozen=True)
class Readiness:
    """A track, and whether it can run."""

    name: str  # the file of a track that cannot be read
    ready: bool
    why: str  # the reason if it is not ready, or a warning
    fix: list[str]  # commands
    needs: list[Need]


def findings(benchmarks: Path) -> dict[str, Any]:
    """Look at everything, as JSON; with a broken package, only ``problems`` and ``packages``."""
    installed = _packages()
    problems = [
        f"{row['name']} {row['installed'] or 'is not installed'}; needed: "
        f"pip install '{row['name']}{row['wanted']}'"
        for row in installed
        if not row["ok"] and not row["extra"]
    ]
    problems += _import_problems()
    if problems:  # nothing below can be trusted to import
        return {"problems": problems, "packages": installed}
    here, places = _machine(), disks()
    accelerated = bool(here["gpus"]) or here["mps"]
    checked = tracks(benchmarks, accelerated, places["cache"]["problem"])
    named = [Need(kind, name, "shipped") for kind, name in SHIPPED.items()]
    named += [need for track in checked for need in track.needs if need.kind != "data"]
    return {
        "problems": shipped_problems(),
        "machine": here,
        "packages": installed,
        "disks": places,
        "weights": [asdict(need) for need in {(n.kind, n.name): n for n in named}.values()],
        "tracks": [asdict(track) for track in checked],
    }


def _packages() -> list[dict[str, Any]]:
    """Compare what spatialbench requires with what is installed (empty: not installed)."""
    rows = []
    for line in metadata.requires("spatialbench") or []:
        wanted = Requirement(line)
        extra = str(wanted.marker).rpartition("extra == ")[2].strip("'\"") if wanted.marker else ""
        if extra == "dev":
            continue
        installed = next((d.version for d in metadata.distributions(name=wanted.name)), "")
        ok = bool(installed) and wanted.specifier.contains(installed, prereleases=True)
        row = {"name": wanted.name, "installed": installed, "wanted": str(wanted.specifier)}
        rows.append(row | {"extra": extra, "ok": ok})
    return rows


def _import_problems() -> list[str]:
    """Import the modules of :data:`LOADED`; list those that fail, and why."""
    problems = []
    for name in LOADED:
        try:
            importlib.import_module(name)
        except Exception as error:  # of a compiled module: a missing library, another CUDA
            problems.append(f"{name} cannot be imported ({first_line(error)})")
    return problems


def shipped_problems() -> list[str]:
    """List the package's weights that are missing or damaged, by their headers."""
    from safetensors import SafetensorError, safe_open

    problems = []
    for path in (WEIGHTS / name for name in SHIPPED_FILES):
        try:
            with safe_open(path, "pt") as file:
                list(file.keys())
        except (SafetensorError, OSError) as error:
            damage = f"damaged ({first_line(error)})" if path.exists() else "missing"
            problems.append(f"{path} is {damage}; reinstall spatialbench")
    return problems


def _machine() -> dict[str, Any]:
    """Describe versions, processor, cores, threads, memory and GPUs."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = []
    for row in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(row)
        size, native = round(gpu.total_memory / 1e9, 1), gpu.major >= 8  # bf16 since Ampere
        gpus.append({"name": gpu.name, "memory_gb": size, "bf16": native})
    more = {"memory_gb": round(memory / 1e9, 1), "mps": torch.backends.mps.is_available()}
    return {"versions": versions(), **hardware(), **more, "gpus": gpus}


def disks() -> dict[str, Any]:
    """Return our cache with GB free or the ``problem`` of writing it, and the Hub's cache."""
    from huggingface_hub import constants

    cache: dict[str, Any] = {"folder": "", "free_gb": 0.0, "problem": ""}
    try:
        free = round(shutil.disk_usage(cache_root()).free / 1e9, 1)
        cache |= {"folder": str(cache_root()), "free_gb": free}
    except SpatialbenchError as error:
        cache["problem"] = str(error)
    hub = {"folder": constants.HF_HUB_CACHE, "offline": bool(constants.HF_HUB_OFFLINE)}
    return {"cache": cache, "hub": hub}


def tracks(benchmarks: Path, accelerated: bool, problem: str = "") -> list[Readiness]:
    """Check whether each track of a folder of pages can run; with a ``problem``, none can."""
    paths = sorted((benchmarks / "tracks").glob("*.yaml"))
    return [_readiness(path, accelerated, problem) for path in paths]


def _readiness(path: Path, accelerated: bool, problem: str) -> Readiness:
    try:
        track = load_track(path)
        named = list(needs(track))
    except SpatialbenchError as error:
        return Readiness(path.name, False, str(error), [], [])
    lacking = [need for need in named if not need.here]
    why, fix = problem, []
    if lacking and not problem:
        more = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        why = f"{lacking[0].kind} {lacking[0].name} is not here{more}"
        fix = list(dict.fromkeys(need.fix for need in lacking))
    ready = not why
    if ready and not accelerated and any(need.here != "shipped" for need in named):
        why = "there is no GPU: it will be slow"
    return Readiness(track.name, ready, why, fix, named)


def needs(track: Track) -> Iterator[Need]:
    """Yield the weights, files and folders that a track's configuration names."""
    model = track.config["model"]
    for kind in SHIPPED:
        if isinstance(model.get(kind), str):
            yield weights(kind, model[kind], model.get("hashes") or {})
    for key, value in track.config["data"].items():
        if isinstance(value, str) and (key == "path" or key.endswith(("_path", "_folder"))):
            yield data(value, f"data.{key}")
    for name, block in track.evaluations.items():
        source = (block.get("init_args") or {}).get("source") or {}
        for key, value in (source.get("init_args") or {}).items():
            if isinstance(value, str) and key in FILE_ARGUMENTS:
                yield data(value, f"evaluations.{name}.{key}")


def data(path: str, where: str) -> Need:
    """Look for a file or folder that a track names under the key ``where``."""
    if Path(path).exists():
        return Need("data", path, path)
    parts = Path(path).parts
    folder = parts[1] if parts[:1] == (ROOT.name,) and len(parts) > 1 else ""
    fix = f"put yours at {path}, or name another place ({where} of the track)"
    if folder in data_sets():
        fix = f"spatialbench data download {folder}"
    elif folder == COCO:
        part = f"zips/{Path(path).stem}"
        if "annotations" in parts:
            kind = "panoptic_" if "panoptic" in parts[-1] else ""
            part = f"annotations/{kind}annotations_trainval2017"
        fix = f"unpack {ADDRESS.format(part=part)} in {ROOT / COCO}"
    return Need("data", path, "", fix)


def weights(kind: str, spec: str, hashes: Mapping[str, str]) -> Need:
    """Look for weights, offline; the fix of an unknown model is the error message."""
    if spec == SHIPPED[kind]:
        return Need(kind, spec, "shipped")
    try:
        here, fetch = _diffusion(spec, hashes) if kind == "diffusion" else _encoder(kind, spec)
    except SpatialbenchError as error:
        here, fetch = None, str(error)
    return Need(kind, spec, str(here or ""), "" if here else fetch)


def _encoder(kind: str, spec: str) -> tuple[Path | str | None, str]:
    """Look for weights: random, a file, a pinned file, or a repository; and how to fetch them."""
    from spatialbench.models import open_clip_student, timm_vfm
    from spatialbench.models.files.weight_files import WeightFile, local

    file = (open_clip_student if kind == "student" else timm_vfm).published(spec)
    if file is None:
        own = spec.partition(":")[2]
        return (own if Path(own).is_file() else "random"), ""
    if not isinstance(file, WeightFile):
        return cached(file, FILES[kind]), f"hf download {file}"
    if file.repository:
        fetch = f"hf download {file.repository} {file.name} --revision {file.commit}"
    else:
        fetch = f"curl -L --create-dirs -o {cache_root() / 'weights' / file.name} {file.url}"
    return local(file), fetch


def _diffusion(spec: str, hashes: Mapping[str, str]) -> tuple[Path | str | None, str]:
    """Look for a diffusion model: every file that it needs, including those of ``hashes``."""
    from spatialbench.models.files.diffusion_files import NEEDED, fetch_command

    if spec.endswith(":random") or Path(spec).is_dir():
        return ("random" if spec.endswith(":random") else spec), ""
    repository, _, commit = spec.partition("@")
    if not commit:
        return None, "name a folder in diffusers' layout, or <owner>/<name>@<commit> of the Hub"
    return cached_folder(repository, commit, [*NEEDED, *hashes]), fetch_command(spec)
