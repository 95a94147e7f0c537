"""Weights and data: what is here, and how the rest is got."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from spatialbench import WEIGHTS
from spatialbench.data.download.manifest import data_sets
from spatialbench.data.download.pictures import ADDRESS, COCO
from spatialbench.data.download.status import ROOT
from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError

_OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TIMM = ("model.safetensors", "pytorch_model.bin")
_SHIPPED = ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors")


@dataclass(frozen=True)
class Holding:
    """Something that a run needs.

    Attributes:
        kind: student, vfm, diffusion or data.
        name: as a track names it: weights, or a path.
        here: where it is (``shipped``, ``random``, a path); empty where it is missing.
        mend: what brings it; empty where nothing is missing.
    """

    kind: str
    name: str
    here: str
    mend: str = ""


SHIPPED = (
    Holding("student", "rooms-student", "shipped"),
    Holding("vfm", "rooms-vfm", "shipped"),
    Holding("diffusion", "rooms-diffusion", "shipped"),
)
"""What the package brings; :func:`shipped_problems` says whether it is sound."""


def shipped_problems() -> list[str]:
    """Weights of the package that are missing or damaged, by their headers."""
    if not WEIGHTS.is_dir():
        return [f"the folder {WEIGHTS} is missing; reinstall spatialbench"]
    wanted = (
        "rooms-student.safetensors",
        "rooms-vfm.safetensors",
        *(f"rooms-diffusion/{name}" for name in _SHIPPED),
    )
    missing = [WEIGHTS / name for name in wanted if not (WEIGHTS / name).is_file()]
    problems = [f"{path} is missing; reinstall spatialbench" for path in missing]
    for path in sorted(WEIGHTS.rglob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                list(file.keys())
        except (SafetensorError, OSError) as error:
            problems.append(
                f"{path} is damaged ({' '.join(str(error).split())[:100]}); reinstall spatialbench"
            )
    for path in sorted(WEIGHTS.rglob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            problems.append(
                f"{path} is damaged ({' '.join(str(error).split())[:100]}); reinstall spatialbench"
            )
    return problems


def student(spec: str) -> Holding:
    """Raises:
    SpatialbenchError: open_clip knows no such model.
    """
    from spatialbench.models import open_clip_student as clip

    return _published("student", spec, clip.OWN, clip.published(spec), _OPEN_CLIP)


def vfm(spec: str) -> Holding:
    """The vision foundation model of a track."""
    from spatialbench.models import timm_vfm as backbone

    return _published("vfm", spec, backbone.OWN, backbone.published(spec), _TIMM)


def diffusion(spec: str, hashes: Mapping[str, str]) -> Holding:
    """A diffusion model: every file that it needs, those of ``hashes`` among them."""
    from spatialbench.models.files.diffusion_files import NEEDED, OWN, fetch_command
    from spatialbench.utils.hub import cached_folder

    if spec == OWN:
        return Holding("diffusion", spec, "shipped")
    if spec.endswith(":random"):
        return Holding("diffusion", spec, "random")
    if Path(spec).is_dir():
        return Holding("diffusion", spec, spec)
    repository, _, commit = spec.partition("@")
    if not commit:
        return Holding(
            "diffusion",
            spec,
            "",
            "name a folder in diffusers' layout, or <owner>/<name>@<commit> of the Hub",
        )
    found = cached_folder(repository, commit, [*NEEDED, *hashes])
    return Holding("diffusion", spec, str(found or ""), "" if found else fetch_command(spec))


def data(path: str, where: str) -> Holding:
    """A file or folder that a track names under the key ``where``, relative to the working folder."""
    if Path(path).exists():
        return Holding("data", path, path)
    parts = Path(path).parts
    mend = f"put yours at {path}, or name another place ({where} of the track)"
    if parts[:1] == (ROOT.name,) and len(parts) > 1:
        if parts[1] in data_sets():
            mend = f"spatialbench data download {parts[1]}"
        elif parts[1] == COCO:
            mend = f"unpack {_coco(parts)} in {ROOT / COCO}"
    return Holding("data", path, "", mend)


def _coco(parts: tuple[str, ...]) -> str:
    name = Path(parts[-1]).stem
    if "panoptic" in name:
        return "http://images.cocodataset.org/annotations/panoptic_annotations_trainval2017.zip"
    if "annotations" in parts:
        return "http://images.cocodataset.org/annotations/annotations_trainval2017.zip"
    return ADDRESS.format(part=name)


def _published(kind: str, spec: str, own: str, file: object, names: tuple[str, ...]) -> Holding:
    """Weights that are shipped, random, a file, a pinned file, or those of a repository of the Hub."""
    from spatialbench.models.files.weight_files import WeightFile, local
    from spatialbench.utils.hub import cached

    name, _, weights = spec.partition(":")
    if file is None:
        shipped = name == own and not weights
        return Holding(
            kind, spec, "shipped" if shipped else weights if Path(weights).is_file() else "random"
        )
    if isinstance(file, WeightFile):
        found = local(file)
        fetch = f"hf download {file.repository} {file.name} --revision {file.commit}"
        if not file.repository:
            fetch = f"curl -L --create-dirs -o {cache_root() / 'weights' / file.name} {file.url}"
    else:
        found = cached(str(file), names)
        fetch = f"hf download {file}"
    return Holding(kind, spec, str(found or ""), "" if found else fetch)


def checked(kind: str, spec: str, hashes: Mapping[str, str]) -> Holding:
    """One of the above by its kind; what is no weights at all is missing, with the complaint as the way to mend it."""
    try:
        if kind == "diffusion":
            return diffusion(spec, hashes)
        return student(spec) if kind == "student" else vfm(spec)
    except SpatialbenchError as error:
        return Holding(kind, spec, "", str(error))
