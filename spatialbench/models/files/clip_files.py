"""A student's weights: their source, special files, and checks that weights and model agree.

OpenAI's tags are OpenAI's own files, at the sha256 in their address. Other tags are loaded by
open_clip from the Hub as it stands; ``<owner>/<name>@<commit>/<path>#<sha256>`` pins them.

Source: openai/CLIP @ a1d0717, clip/clip.py and clip/model.py; baaivision/DIVA @ d53c668, which
keeps Stable Diffusion and CLIP in one file (decision D16 of docs/diva.md).
"""

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import INCEPTION_MEAN, INCEPTION_STD
from torch import Tensor

from spatialbench.models.files.weight_files import WeightFile, find_weights, hub_weights
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import first_line

BESIDE = "open_clip_config.json"
"""The file open_clip writes next to published weights: the model's config and its preprocessing."""
_SIGLIP = {"mean": INCEPTION_MEAN, "std": INCEPTION_STD, "resize_mode": "squash"}
_SIGLIP["interpolation"] = "bicubic"
NUMBERS = ("input_resolution", "context_length", "vocab_size")
"""Entries of OpenAI's state that are not weights."""
PREFIXES = ("student.", "class_model.model.")
"""Prefixes of CLIP's weights in a checkpoint of spatialbench and in DIVA's files."""


def published_file(name: str, weights: str) -> tuple[WeightFile | None, dict[str, Any]]:
    """Return the pinned file of weights, None where open_clip loads them, and open_clip's entry."""
    known = open_clip.get_pretrained_cfg(name, weights)
    return hub_weights(weights) or openai_file(known.get("url") or ""), known


def weights_file(name: str, weights: str | None, spec: str) -> Path | None:
    """Find the file of ``weights``; None for random ones and for a tag that open_clip loads."""
    if weights is None:
        return None
    file, known = published_file(name, weights)
    tags = open_clip.list_pretrained_tags_by_model(name)
    return find_weights(weights, file, f"student {spec!r}", bool(known), tags)


def openai_file(url: str) -> WeightFile | None:
    """Return the file at an address of OpenAI's, which contains its sha256; None for others."""
    if "openaipublic" not in url:
        return None
    *_, sha256, name = url.split("/")
    return WeightFile(name, sha256, url)  # MIT


def read_state(path: Path) -> dict[str, Tensor] | None:
    """Read CLIP's weights from a file that open_clip cannot read itself; None for other files.

    These are checkpoints of a spatialbench method, OpenAI's files (TorchScript archives in half
    precision, or their state, with three numbers among the weights) and DIVA's. No code is run.
    """
    own, archive = path.suffix == ".ckpt", zipfile.is_zipfile(path)
    if path.suffix == ".safetensors" or not (own or archive):
        return None
    if not own and _is_script(path):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.load.*", category=FutureWarning)
            state = torch.jit.load(str(path), map_location="cpu").state_dict()
    else:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
        state = content.get("state_dict", content) if isinstance(content, dict) else {}
    prefix = next((prefix for prefix in PREFIXES if any(n.startswith(prefix) for n in state)), "")
    if not (own or prefix == PREFIXES[1] or set(NUMBERS) <= set(state)):
        return None
    weights = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    return {name: value for name, value in weights.items() if name not in NUMBERS}


def _is_script(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load_state(model: Any, state: dict[str, Tensor], path: Path, name: str, spec: str) -> None:
    """Load what ``read_state`` found in ``path``."""
    if path.suffix != ".ckpt" and not _quick_gelu(name):
        raise SpatialbenchError(
            f"student {spec!r}: OpenAI's weights were trained with QuickGELU, which the model "
            f"{name} does not have; take {name}-quickgelu, or set quick_gelu in its config"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise SpatialbenchError(
            f"student {spec!r}: the weights in {path} do not fit the model: {first_line(error)}"
        ) from error


def check_activation(name: str, weights: str | None, spec: str) -> None:
    """Compare the activation of model and weights, where open_clip only warns."""
    if weights is None:
        return
    if Path(weights).is_file():
        config = config_beside(Path(weights)).get("model_cfg")
        quick = None if config is None else bool(config.get("quick_gelu", False))
    else:
        quick = open_clip.get_pretrained_cfg(name, weights).get("quick_gelu")
    if quick is None or quick == _quick_gelu(name):
        return
    kind, other = "QuickGELU", f"{name}-quickgelu"
    if not quick:
        kind, other = "GELU", name.removesuffix("-quickgelu")
    raise SpatialbenchError(
        f"student {spec!r}: the weights {weights} were trained with {kind}, which the model "
        f"{name} does not have; take {other}:{weights}"
    )


def config_beside(path: Path) -> dict[str, Any]:
    """open_clip's config next to a weights file; empty where it is missing or unreadable."""
    try:
        config = json.loads((path.parent / BESIDE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def set_preprocessing(model: Any, path: Path | None, tag: bool) -> None:
    """Set the preprocessing of a file: that of the config next to it, or SigLIP's."""
    own = {} if path is None else config_beside(path).get("preprocess_cfg", {})
    if not tag and hasattr(model.visual, "trunk"):
        own = {**_SIGLIP, **own}
    own = {key: value for key, value in own.items() if key in _SIGLIP}
    open_clip.set_model_preprocess_cfg(model, {**model.visual.preprocess_cfg, **own})


def _quick_gelu(name: str) -> bool:
    return bool(open_clip.get_model_config(name).get("quick_gelu", False))
