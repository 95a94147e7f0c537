"""Published weights by a short name, at a given commit and sha256.

A file is looked for in ``$SPATIALBENCH_WEIGHTS`` first. A file of the Hub then comes from
huggingface_hub's cache or the Hub, any other from ``weights`` of spatialbench's cache or its
address. HF_HUB_OFFLINE forbids both downloads. The hash is checked wherever the file comes from:
other content under the same name is an error.

Source of the hashes: OpenAI's are in its addresses (open_clip's table of pretrained tags); for
DINOv2 and Depth Anything V2, several independent public projects agree on hashes and commits.
"""

import os
import re
from collections.abc import Sequence
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
    """A published file."""

    name: str
    sha256: str  # hex digits; empty where the user gave none
    url: str = ""  # its authors' address; empty for a file of the Hub
    repository: str = ""  # <owner>/<name> of the Hub
    commit: str = ""  # 40 hex digits


_DEPTH_ANYTHING = {  # commit and sha256
    "Large": (  # CC BY-NC 4.0, as the next
        "cbbb86a30ce19b5684b7a05155dc7e6cbc7685b9",
        "a7ea19fa0ed99244e67b624c72b8580b7e9553043245905be58796a608eb9345",
    ),
    "Base": (
        "a4e71a6c2ce52fe50df0f212066b0d4a87be9b5e",
        "0d2b7002e62d39d655571c371333340bd88f67ab95050c03591555aa05645328",
    ),
    "Small": (  # Apache-2.0
        "03876f8651c73a60fe4c2c48294e09fcb6838fcf",
        "715fade13be8f229f8a70cc02066f656f2423a59effd0579197bbf57860e1378",
    ),
}
_DINOV2 = {  # sha256; Apache-2.0
    "Large": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "Base": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "Small": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
}


def _pinned(size: str) -> dict[tuple[str, str], WeightFile]:
    model, letter = f"vit_{size.lower()}_patch14_dinov2", size[0].lower()
    (commit, sha256), name = _DEPTH_ANYTHING[size], f"dinov2_vit{letter}14"
    hub = {"repository": f"depth-anything/Depth-Anything-V2-{size}", "commit": commit}
    url = f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth"
    return {
        (model, "depth-anything-v2"): WeightFile(
            f"depth_anything_v2_vit{letter}.pth", sha256, **hub
        ),
        (model, "dinov2"): WeightFile(f"{name}_pretrain.pth", _DINOV2[size], url),
    }


PINNED = _pinned("Large") | _pinned("Base") | _pinned("Small")
"""(timm model, short name) -> its file. OpenAI's CLIP is in open_clip's own table."""


def hub_weights(reference: str) -> WeightFile | None:
    """Parse ``<owner>/<name>@<commit>/<path>[#<sha256>]``; None for anything else."""
    match = _HUB.fullmatch(reference)
    if match is None:
        return None
    repository, commit, path, sha256 = match.group("owner", "commit", "path", "sha256")
    return WeightFile(path, sha256 or "", repository=repository, commit=commit)


def find_weights(
    weights: str, file: WeightFile | None, what: str, known: bool, names: Sequence[str]
) -> Path | None:
    """Find the file of ``weights``, as the user names them: local, or the published ``file``.

    None where a library loads them, being ``known`` to it. ``what`` is the model, and ``names`` are
    those of published weights, for messages.

    Raises:
        SpatialbenchError: there are none, or they cannot be downloaded.
    """
    if Path(weights).is_file():
        return Path(weights)
    if file is not None:
        return obtain(file, what)
    if known:
        return None
    raise SpatialbenchError(
        f"{what}: there is no weights file {weights}, nor published weights of that name "
        f"(names: {', '.join(names) or 'none'})"
    )


def obtain(file: WeightFile, what: str) -> Path:
    """Find or download a file and check its hash; ``what`` names the model in messages.

    Raises:
        SpatialbenchError: it is missing and cannot be downloaded, or its hash is another.
    """
    path = _local_copy(file)
    try:
        if path is None and file.repository:
            path = hub_file(file.repository, file.commit, file.name)
        elif path is None:
            path = _download(file)
    except SpatialbenchError as error:
        raise SpatialbenchError(f"{what}: {error}; {_advice(file)}") from error
    if file.sha256 and (sha256 := digest(path)) != file.sha256:
        raise SpatialbenchError(
            f"{what}: {path} has the sha256 {sha256}, not {file.sha256}; remove it to download it"
        )
    return path


def local(file: WeightFile) -> Path | None:
    """Find the copy that :func:`obtain` would take offline, its hash not checked; or None."""
    in_hub = cached(file.repository, [file.name], file.commit) if file.repository else None
    return _local_copy(file) or in_hub


def _local_copy(file: WeightFile) -> Path | None:
    """Find a copy that was placed by hand, or by a download of ours, OpenAI's or open_clip's."""
    own = os.environ.get(WEIGHTS_VARIABLE)
    folders = [Path(own).expanduser()] if own else []
    if file.url:
        folders += [cache_root() / "weights", Path.home() / ".cache" / "clip"]
    places = (folder / Path(file.name).name for folder in folders)
    return next((path for path in places if path.is_file()), None)


def _download(file: WeightFile) -> Path:
    missing = f"{file.name} is not on this machine"
    if constants.HF_HUB_OFFLINE:
        raise SpatialbenchError(f"{missing}, and HF_HUB_OFFLINE forbids its download")
    target = cache_root() / "weights" / file.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(file.url, str(target), hash_prefix=file.sha256 or None)
    except Exception as error:  # of the network, the disk or the hash; the user reads one line
        reason = first_line(error)
        raise SpatialbenchError(f"{missing} and cannot be downloaded ({reason})") from error
    return target


def _advice(file: WeightFile) -> str:
    folder = os.environ.get(WEIGHTS_VARIABLE) or f"a folder and set {WEIGHTS_VARIABLE} to it"
    if file.url:
        return f"put {file.url} into {folder}"
    command = f"hf download {file.repository} {file.name} --revision {file.commit}"
    return f"where there is a network: {command}; or put the file into {folder}"
