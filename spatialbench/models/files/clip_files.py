"""Where a student's weights come from, and what must agree between them and the model: activation and preprocessing.

OpenAI's tags are OpenAI's own files at the sha256 that stands in their address. Other tags are open_clip's to load,
from the Hub as it stands; ``<owner>/<name>@<commit>/<path>#<sha256>`` pins them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import INCEPTION_MEAN, INCEPTION_STD
from torch import Tensor

from spatialbench.models.files.weight_files import WeightFile, hub_weights, obtain
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import first_line

BESIDE = "open_clip_config.json"
"""What open_clip writes beside published weights: the model's config and its preprocessing."""
SIGLIP = {
    "mean": INCEPTION_MEAN,
    "std": INCEPTION_STD,
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def weights_file(name: str, weights: str | None, spec: str) -> Path | None:
    """The file that ``weights`` means; None: random ones, or a tag that open_clip loads.

    Raises:
        SpatialbenchError: there are no such weights, or they cannot be had.
    """
    if weights is None:
        return None
    if Path(weights).is_file():
        return Path(weights)
    known = open_clip.get_pretrained_cfg(name, weights)
    file = hub_weights(weights) or openai_file(known.get("url") or "")
    if file is not None:
        return obtain(file, f"student {spec!r}")
    if known:
        return None
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
    raise SpatialbenchError(
        f"student {spec!r}: there is no weights file {weights}, nor a pretrained tag of that name (tags: {tags})"
    )


def openai_file(url: str) -> WeightFile | None:
    """The file behind an address of OpenAI's, in which its sha256 stands; None: another address."""
    if "openaipublic" not in url:
        return None
    *_, sha256, name = url.split("/")
    return WeightFile(name, sha256, url=url, licence="MIT")


def check_activation(name: str, weights: str | None, spec: str) -> None:
    """open_clip only warns where weights were trained with QuickGELU and the model is built with GELU, or the reverse.

    Raises:
        SpatialbenchError: the tag, or the config beside the file, says another activation than the model has.
    """
    if weights is None:
        return
    if Path(weights).is_file():
        found = beside(Path(weights)).get("model_cfg")
        wanted = None if found is None else bool(found.get("quick_gelu", False))
    else:
        wanted = open_clip.get_pretrained_cfg(name, weights).get("quick_gelu")
    if wanted is None or wanted == _quick_gelu(name):
        return
    other = f"{name}-quickgelu" if wanted else name.removesuffix("-quickgelu")
    raise SpatialbenchError(
        f"student {spec!r}: the weights {weights} were trained with {'QuickGELU' if wanted else 'GELU'}, which the "
        f"model {name} does not have; take {other}:{weights}"
    )


def beside(path: Path) -> dict[str, Any]:
    """open_clip's config beside a weights file; empty where there is none that can be read."""
    try:
        found = json.loads((path.parent / BESIDE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def preprocessing(model: Any, path: Path | None, tag: bool) -> None:
    """Sets the preprocessing that open_clip knows only of its own tags: the config's beside the file, or SigLIP's."""
    found = {} if path is None else beside(path).get("preprocess_cfg", {})
    if not tag and hasattr(model.visual, "trunk"):
        found = {**SIGLIP, **found}
    known = model.visual.preprocess_cfg
    known.update(
        {
            key: value
            for key, value in found.items()
            if key in ("mean", "std", "interpolation", "resize_mode")
        }
    )


def load_checkpoint(model: Any, path: Path, spec: str) -> None:
    """The student out of a checkpoint of a spatialbench method, at a path that exists."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        model.load_state_dict(
            {k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")}
        )
    except Exception as error:
        raise SpatialbenchError(
            f"student {spec!r}: {path} does not fit the model: {first_line(error)}"
        ) from error


def load_openai(model: Any, state: dict[str, Tensor], name: str, spec: str) -> None:
    """Raises:
    SpatialbenchError: the model has not QuickGELU, or is of another architecture.
    """
    if not _quick_gelu(name):
        raise SpatialbenchError(
            f"student {spec!r}: OpenAI's weights were trained with QuickGELU, which the model {name} does not have; "
            f"take {name}-quickgelu, or set quick_gelu in its config"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise SpatialbenchError(
            f"student {spec!r}: the weights do not fit the model: {first_line(error)}"
        ) from error


def _quick_gelu(name: str) -> bool:
    return bool(open_clip.get_model_config(name).get("quick_gelu", False))
