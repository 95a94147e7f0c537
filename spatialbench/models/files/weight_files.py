"""Published weights by a short name, at a given commit and sha256, from a folder of this machine or from their authors.

A file is looked for in ``$SPATIALBENCH_WEIGHTS`` first; a Hub file then in huggingface_hub's cache and on the Hub, any
other in ``weights`` of spatialbench's cache and behind its address. HF_HUB_OFFLINE keeps both from the network. The
hash is checked wherever the file comes from: other content under the same name is told, never loaded.

Source of the hashes: OpenAI's stand in their own addresses (open_clip's table of pretrained tags); those of DINOv2 and
Depth Anything V2 and the commits of the Hub are given alike by several independent public projects.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import constants

from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import cached, digest, first_line, hub_file

WEIGHTS_VARIABLE = "SPATIALBENCH_WEIGHTS"
_HUB = re.compile(
    r"(?P<owner>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})/(?P<path>[\w./-]+?)(#(?P<sha256>[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class WeightFile:
    """A published file.

    Attributes:
        name: of the file.
        sha256: hex digits; empty where the user gave none.
        url: where its authors offer it; empty for a file of the Hub.
        repository, commit: ``<owner>/<name>`` and 40 hex digits of the Hub.
        licence: of the weights.
    """

    name: str
    sha256: str
    url: str = ""
    repository: str = ""
    commit: str = ""
    licence: str = ""

    @property
    def place(self) -> str:
        return self.url or f"{self.repository}@{self.commit}/{self.name}"


_META = "https://dl.fbaipublicfiles.com/dinov2"
_DEPTH_ANYTHING = "depth-anything/Depth-Anything-V2"
PINNED: dict[tuple[str, str], WeightFile] = {
    ("vit_large_patch14_dinov2", "depth-anything-v2"): WeightFile(
        "depth_anything_v2_vitl.pth",
        "a7ea19fa0ed99244e67b624c72b8580b7e9553043245905be58796a608eb9345",
        repository=f"{_DEPTH_ANYTHING}-Large",
        commit="cbbb86a30ce19b5684b7a05155dc7e6cbc7685b9",
        licence="CC BY-NC 4.0",
    ),
    ("vit_base_patch14_dinov2", "depth-anything-v2"): WeightFile(
        "depth_anything_v2_vitb.pth",
        "0d2b7002e62d39d655571c371333340bd88f67ab95050c03591555aa05645328",
        repository=f"{_DEPTH_ANYTHING}-Base",
        commit="a4e71a6c2ce52fe50df0f212066b0d4a87be9b5e",
        licence="CC BY-NC 4.0",
    ),
    ("vit_small_patch14_dinov2", "depth-anything-v2"): WeightFile(
        "depth_anything_v2_vits.pth",
        "715fade13be8f229f8a70cc02066f656f2423a59effd0579197bbf57860e1378",
        repository=f"{_DEPTH_ANYTHING}-Small",
        commit="03876f8651c73a60fe4c2c48294e09fcb6838fcf",
        licence="Apache-2.0",
    ),
    ("vit_large_patch14_dinov2", "dinov2"): WeightFile(
        "dinov2_vitl14_pretrain.pth",
        "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
        url=f"{_META}/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        licence="Apache-2.0",
    ),
    ("vit_base_patch14_dinov2", "dinov2"): WeightFile(
        "dinov2_vitb14_pretrain.pth",
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
        url=f"{_META}/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
        licence="Apache-2.0",
    ),
    ("vit_small_patch14_dinov2", "dinov2"): WeightFile(
        "dinov2_vits14_pretrain.pth",
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        url=f"{_META}/dinov2_vits14/dinov2_vits14_pretrain.pth",
        licence="Apache-2.0",
    ),
}
"""(timm model, short name) -> its file. OpenAI's CLIP is in open_clip's own table (``clip.py``)."""


def hub_weights(reference: str) -> WeightFile | None:
    """``<owner>/<name>@<commit>/<path>[#<sha256>]`` -> the file; None: it is written another way."""
    found = _HUB.fullmatch(reference)
    if found is None:
        return None
    return WeightFile(
        found["path"], found["sha256"] or "", repository=found["owner"], commit=found["commit"]
    )


def obtain(file: WeightFile, what: str) -> Path:
    """The file on this disk, its hash checked; downloaded where it is not there yet.

    Args:
        what: the model and its name for messages, for instance ``vfm 'vit_large_patch14_dinov2:depth-anything-v2'``.

    Raises:
        SpatialbenchError: it is missing and cannot be downloaded, or is another file than its hash says.
    """
    path = _here(file)
    try:
        if path is None and file.repository:
            path = hub_file(file.repository, file.commit, file.name)
        elif path is None:
            path = _download(file)
    except SpatialbenchError as error:
        raise SpatialbenchError(f"{what}: {error}; {_advice(file)}") from error
    if file.sha256 and (found := digest(path)) != file.sha256:
        raise SpatialbenchError(
            f"{what}: {path} has the sha256 {found}, not {file.sha256}; remove it, and it is loaded again"
        )
    return path


def local(file: WeightFile) -> Path | None:
    """The copy that :func:`obtain` would take without a network, its hash not checked; None: there is none."""
    return _here(file) or (
        cached(file.repository, [file.name], file.commit) if file.repository else None
    )


def _here(file: WeightFile) -> Path | None:
    """Where a copy was put by hand or by an earlier download."""
    own = os.environ.get(WEIGHTS_VARIABLE)
    folders = [Path(own).expanduser()] if own else []
    folders += (
        [cache_root() / "weights", Path.home() / ".cache" / "clip"] if file.url else []
    )  # OpenAI's, open_clip's
    places = (folder / Path(file.name).name for folder in folders)
    return next((path for path in places if path.is_file()), None)


def _download(file: WeightFile) -> Path:
    """Raises:
    SpatialbenchError: no network, or HF_HUB_OFFLINE; what comes has another hash.
    """
    if constants.HF_HUB_OFFLINE:
        raise SpatialbenchError(
            f"{file.name} is not on this machine, and HF_HUB_OFFLINE keeps from loading it"
        )
    target = cache_root() / "weights" / file.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(file.url, str(target), hash_prefix=file.sha256 or None)
    except (
        Exception
    ) as error:  # the network, the disk, the hash: whatever it was, the user reads one line
        raise SpatialbenchError(
            f"{file.name} is not on this machine and cannot be loaded ({first_line(error)})"
        ) from error
    return target


def _advice(file: WeightFile) -> str:
    own = os.environ.get(WEIGHTS_VARIABLE)
    folder = own or f"a folder and set {WEIGHTS_VARIABLE} to it"
    if file.url:
        return f"put {file.url} into {folder}"
    loaded = f"hf download {file.repository} {file.name} --revision {file.commit}"
    return f"where there is a network: {loaded}; or put the file into {folder}"
