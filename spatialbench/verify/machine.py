"""Packages, processor, memory, GPUs and disks."""

from __future__ import annotations

import importlib
import shutil
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement

from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.provenance import hardware, versions

LOADED = ("torch", "torchvision", "lightning", "open_clip", "timm", "diffusers", "peft", "embreex")
"""Modules that are imported to see that they can be: those with compiled parts, or that are particular about others."""
_CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of version 2 and of version 1."""


def packages() -> list[dict[str, Any]]:
    """What spatialbench needs and what is installed.

    Returns:
        For each package: ``name``, ``installed`` (empty: it is not), ``wanted``, ``extra`` that brings it (empty: it is
        always needed) and ``ok``.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in metadata.requires("spatialbench") or []:
        wanted = Requirement(line)
        extra = "" if wanted.marker is None else _extra(wanted)
        if extra == "dev":
            continue
        try:
            installed = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            installed = ""
        ok = bool(installed) and wanted.specifier.contains(installed, prereleases=True)
        row = {
            "name": wanted.name,
            "installed": installed,
            "wanted": str(wanted.specifier),
            "extra": extra,
            "ok": ok,
        }
        found[wanted.name, extra] = row
    return list(found.values())


def _extra(wanted: Requirement) -> str:
    """The extra of ``; extra == "drive"``; a marker of another kind is no extra."""
    parts = str(wanted.marker).replace('"', "'").split("extra == '")
    return parts[1].partition("'")[0] if len(parts) > 1 else ""


def unloadable() -> list[str]:
    """Modules of :data:`LOADED` that cannot be imported, with the reason."""
    found = []
    for name in LOADED:
        try:
            importlib.import_module(name)
        except (
            Exception
        ) as error:  # whatever a compiled module raises: a missing library, another CUDA
            found.append(
                f"{name} cannot be imported ({' '.join(str(error).split())[:200] or type(error).__name__})"
            )
    return found


def machine() -> dict[str, Any]:
    """Versions, processor, cores and threads, memory, GPUs (with memory and bfloat16)."""
    import torch

    memory = psutil.virtual_memory()
    said = hardware()
    return {
        "versions": {name: versions()[name] for name in ("python", "spatialbench")},
        "cpu": said["cpu"],
        "cores": said["cores"],
        "threads": said["threads"],
        "memory_gb": round(_limit(memory.total) / 1e9, 1),
        "memory_free_gb": round(min(memory.available, _limit(memory.total)) / 1e9, 1),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        "mps": torch.backends.mps.is_available(),
    }


def _limit(total: int) -> int:
    """Memory of the machine, or of the container where that has less."""
    for path in _CGROUPS:
        with suppress(OSError, ValueError):  # no such cgroup, or "max"
            total = min(total, int(path.read_text()))
    return total


def _gpu(index: int) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "bf16": properties.major >= 8,  # Ampere; older ones emulate it
    }


def disks() -> dict[str, Any]:
    """The folders that fill up: our cache and the Hub's, with their size in MB and what is free in GB.

    ``problem`` of our cache is why it cannot be used; empty where it can.
    """
    from huggingface_hub import constants

    try:
        own, problem = cache_root(), ""
    except SpatialbenchError as error:
        own, problem = None, str(error)
    return {
        "cache": {**_disk(own), "problem": problem},
        "hub": _disk(Path(constants.HF_HUB_CACHE)),
        "offline": bool(constants.HF_HUB_OFFLINE),
    }


def _disk(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {"folder": "", "size_mb": 0.0, "free_gb": 0.0}
    files = (
        [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        if folder.is_dir()
        else []
    )
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return {
        "folder": str(folder),
        "size_mb": round(sum(path.stat().st_size for path in files) / 1e6, 1),
        "free_gb": round(shutil.disk_usage(there).free / 1e9, 1),
    }
