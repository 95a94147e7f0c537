"""A student as an ordinary checkpoint of open_clip: a folder as on the Hub, and the way back through open_clip itself.

Letters: B images, C captions, S pixels a side, D joint width.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import save_file
from torch import Tensor

from spatialbench.models.files.clip_files import BESIDE
from spatialbench.models.open_clip_student import CONFIGS, OWN, open_clip_name

WEIGHTS_FILE = "open_clip_model.safetensors"
"""open_clip's own name for weights in a folder or a repository of the Hub."""
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")


def write_open_clip(model: Any, spec: str, folder: Path) -> None:
    """Writes weights, configuration and, where open_clip would not know it, the tokenizer.

    Args:
        model: the student, an open_clip model.
        spec: as it was loaded; see ``load_clip``.
        folder: that exists; ``open_clip.create_model_from_pretrained('local-dir:FOLDER')`` reads it.
    """
    config = copy.deepcopy(open_clip.get_model_config(open_clip_name(spec)))
    tokenizer = own_tokenizer(spec)
    if tokenizer is not None:
        from spatialbench.models.files.hf_export import clip_tokenizer

        clip_tokenizer(tokenizer).save_pretrained(folder)
        config["text_cfg"]["hf_tokenizer_name"] = (
            OWN  # open_clip reads the tokenizer that lies in the folder
        )
    elif config["text_cfg"].get("hf_tokenizer_name"):
        found = open_clip.get_tokenizer(open_clip_name(spec))
        assert isinstance(found, HFTokenizer), "the config names one"
        found.save_pretrained(folder)
    seen = model.visual.preprocess_cfg
    whole = {
        "model_cfg": config,
        "preprocess_cfg": {key: seen[key] for key in PREPROCESSING if key in seen},
    }
    (folder / BESIDE).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    save_file(
        {name: value.contiguous().cpu() for name, value in model.state_dict().items()},
        folder / WEIGHTS_FILE,
    )


def read_open_clip(
    folder: Path,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Sequence[str]], Tensor]]:
    """What open_clip makes of such a folder.

    Returns:
        Images float32 [B, 3, S, S], as its preprocessing leaves them, -> [B, D]; captions -> [C, D]; of unit norm.
    """
    name = f"local-dir:{folder}"
    model, _ = open_clip.create_model_from_pretrained(name, precision="fp32")
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()
    return (
        lambda images: model.encode_image(images, normalize=True),
        lambda captions: model.encode_text(tokenizer(list(captions)), normalize=True),
    )


def own_tokenizer(spec: str) -> Any | None:
    """The tokenizer of the shipped student, whose vocabulary is no part of open_clip; None for another."""
    if open_clip_name(spec) != OWN:
        return None
    return open_clip.get_tokenizer(OWN, bpe_path=str(CONFIGS / "rooms-bpe.txt.gz"))


def simple_tokenizer(spec: str) -> Any | None:
    """open_clip's byte-pair tokenizer of a model; None where the model has another (SigLIP)."""
    found = own_tokenizer(spec) or open_clip.get_tokenizer(open_clip_name(spec))
    return found if isinstance(found, open_clip.SimpleTokenizer) else None
