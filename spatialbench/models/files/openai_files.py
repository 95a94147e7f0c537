"""CLIP weights in files that open_clip does not read by itself: OpenAI's own, and those that DIVA's code leaves.

OpenAI's are TorchScript archives in half precision, or the state of one, with three numbers beside the weights. The
names are open_clip's.

Source: openai/CLIP @ a1d0717, clip/clip.py and clip/model.py; baaivision/DIVA @ d53c668, which keeps Stable Diffusion
and CLIP in one file (decision D16 of docs/diva.md).
"""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

NUMBERS = ("input_resolution", "context_length", "vocab_size")
"""What OpenAI's state has beside the weights; its models have QuickGELU."""
DIVA = "class_model.model."
"""Where CLIP stands in a state of DIVA's."""


def openai_state(path: Path) -> dict[str, Tensor] | None:
    """The state of an OpenAI CLIP in such a file, without the numbers; None where the file is something else.

    Args:
        path: of a file; nothing in it is run.

    Raises:
        Exception: whatever torch raises on a damaged file.
    """
    if path.suffix == ".safetensors" or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
    if scripted:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.load.*", category=FutureWarning)
            found = torch.jit.load(str(path), map_location="cpu").state_dict()
    else:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    if any(name.startswith(DIVA) for name in found):
        found = {
            name.removeprefix(DIVA): value for name, value in found.items() if name.startswith(DIVA)
        }
    elif not set(NUMBERS) <= set(found):
        return None
    return {name: value for name, value in found.items() if name not in NUMBERS}
