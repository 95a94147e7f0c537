"""A student as an ordinary checkpoint of open_clip: a folder as on the Hub, written and read back.

Letters: B images, C captions, S pixels a side, D joint width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
from open_clip.push_to_hf_hub import save_config_for_hf
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import save_file
from torch import Tensor

from spatialbench.models.files.clip_files import BESIDE
from spatialbench.models.files.hf_export import clip_tokenizer
from spatialbench.models.open_clip_student import OWN, split_spec, tokenizer

WEIGHTS_FILE = "open_clip_model.safetensors"
"""open_clip's own name for weights in a folder or a repository of the Hub."""


def write_open_clip(model: Any, spec: str, folder: Path) -> None:
    """Write weights, configuration and, where open_clip would not know it, the tokenizer.

    Args:
        model: the student, an open_clip model.
        spec: as it was loaded; see ``load_clip``.
        folder: exists; ``open_clip.create_model_from_pretrained('local-dir:FOLDER')`` reads it.
    """
    name, _ = split_spec(spec)
    config = copy.deepcopy(open_clip.get_model_config(name))
    if name == OWN:
        clip_tokenizer(tokenizer(spec)).save_pretrained(folder)
        config["text_cfg"]["hf_tokenizer_name"] = OWN  # makes open_clip read the folder's tokenizer
    elif config["text_cfg"].get("hf_tokenizer_name"):
        published = tokenizer(spec)
        assert isinstance(published, HFTokenizer), "the config names one"
        published.save_pretrained(folder)
    save_config_for_hf(model, folder / BESIDE, config)
    weights = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)


def read_open_clip(
    folder: Path,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Sequence[str]], Tensor]]:
    """Read such a folder by open_clip itself, as two encoders.

    Returns:
        Images float32 [B, 3, S, S], as its preprocessing leaves them, -> [B, D]; captions -> [C,
        D]; of unit norm.
    """
    name = f"local-dir:{folder}"
    model, _ = open_clip.create_model_from_pretrained(name, precision="fp32")
    tokenize = open_clip.get_tokenizer(name)
    model.eval()
    return (
        lambda images: model.encode_image(images, normalize=True),
        lambda captions: model.encode_text(tokenize(list(captions)), normalize=True),
    )


def simple_tokenizer(spec: str) -> Any | None:
    """open_clip's byte-pair tokenizer of a model; None where the model has another (SigLIP)."""
    own = tokenizer(spec)
    return own if isinstance(own, open_clip.SimpleTokenizer) else None
