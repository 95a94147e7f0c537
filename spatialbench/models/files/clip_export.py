"""A student as an ordinary checkpoint of open_clip: a folder as on the Hub, written and read back.

Letters: B images, C captions, S pixels a side, D joint width.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
from open_clip.push_to_hf_hub import save_config_for_hf
from safetensors.torch import save_file
from torch import Tensor

from spatialbench.models.files.clip_files import BESIDE
from spatialbench.models.files.hf_export import clip_tokenizer
from spatialbench.models.open_clip_student import OWN, split_spec, tokenizer

WEIGHTS_FILE = "open_clip_model.safetensors"
"""open_clip's own name for weights in a folder or a repository of the Hub."""


def write_open_clip(model: Any, spec: str, folder: Path) -> list[str]:
    """Write weights, configuration and, where open_clip does not know it, the tokenizer.

    The model was loaded from ``spec``. open_clip reads the folder as ``local-dir:FOLDER``. A line
    is returned for each omission; there is none.
    """
    name, _ = split_spec(spec)
    config = copy.deepcopy(open_clip.get_model_config(name))
    if name == OWN:
        clip_tokenizer(tokenizer(spec)).save_pretrained(folder)
        config["text_cfg"]["hf_tokenizer_name"] = OWN  # makes open_clip read the folder's tokenizer
    elif config["text_cfg"].get("hf_tokenizer_name"):
        tokenizer(spec).save_pretrained(folder)
    save_config_for_hf(model, folder / BESIDE, config)
    weights = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    return []


def read_open_clip(
    folder: Path, pixels: Tensor, captions: Sequence[str]
) -> tuple[Tensor, Tensor | None]:
    """Read such a folder by open_clip itself and embed with it.

    Images are float32 [B, 3, S, S], as its preprocessing leaves them. Returns [B, D] and [C, D].
    """
    name = f"local-dir:{folder}"
    model, _ = open_clip.create_model_from_pretrained(name, precision="fp32")
    tokens = open_clip.get_tokenizer(name)(list(captions))
    model.eval()
    return model.encode_image(pixels), model.encode_text(tokens)
