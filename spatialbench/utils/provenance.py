"""Provenance of a number: commit, versions, hardware, memory."""

import os
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from spatialbench import PACKAGE, __version__

PACKAGES = ["torch", "lightning", "open_clip_torch", "timm", "torchmetrics", "numpy", "diffusers"]
PACKAGES += ["peft"]


def commit() -> tuple[str, bool]:
    """Return the commit of this package's checkout, and whether the files differ from it.

    Files differ if a tracked file was changed, except under ``results/``, where runs write; or if
    the package or the pages contain a file that is not committed. The commit is empty if the
    package itself is not tracked by git.
    """
    folder = PACKAGE.parent
    try:
        _git(folder, "ls-files --error-unmatch spatialbench/__init__.py")
        head = _git(folder, "rev-parse HEAD")
        changed = _git(folder, "status --porcelain --untracked-files=no -- . :!results")
        changed += _git(folder, "ls-files --others --exclude-standard -- spatialbench benchmarks")
    except (OSError, subprocess.SubprocessError):
        return "", False
    return head, bool(changed)


def changed_since(commit: str) -> list[str] | None:
    """Return the files of the package that differ from a commit; None if git does not know it."""
    try:
        return _git(PACKAGE, f"diff --name-only --relative {commit} -- .").splitlines()
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Return the versions of Python, of this package, and of the packages behind the numbers."""
    installed = {"python": platform.python_version(), "spatialbench": __version__}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed


def usable_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> dict[str, Any]:
    """Describe processor, its instructions, usable cores, torch threads, and GPU (or None)."""
    import torch

    return {
        "cpu": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # one name has several: AMD EPYC
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "gpus": torch.cuda.device_count(),
    }


def reset_peak_memory() -> None:
    """Restart the measurement of peak memory, where the system can, before another run."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Return the peak resident memory since the last reset, in MB (10^6 bytes)."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def peak_gpu_memory_mb() -> float:
    """Return torch's peak memory on the current GPU since the last reset, in MB; 0 without one."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e6, 1) if torch.cuda.is_available() else 0.0


def _git(folder: Path, words: str) -> str:
    command = ["git", "-C", str(folder), *words.split()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
