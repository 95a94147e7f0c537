"""Hidden states of a diffusion model's text encoder, which its UNet attends to.

The text encoder is a CLIP text model of transformers, in a folder of diffusers' layout, or the text
tower of a student, named in ``student.json``: ``{"student": "rooms-student", "length": 20}``.

Letters: T positions, W width.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from spatialbench.models.open_clip_student import TextTokenizer, load_clip
from spatialbench.models.towers import Model, text_states
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import first_line

PROMPT = "a photo of a ."
"""DIVA's prompt: its template "a photo of a {}." with an empty name (D5 of docs/diva.md)."""
STUDENT_FILE = "student.json"


def prompt_states(folder: Path, prompt: str, spec: str) -> Tensor:
    """Compute E, float32 [T, W], by a folder's text encoder."""
    try:
        if (folder / STUDENT_FILE).is_file():
            return student_states(json.loads((folder / STUDENT_FILE).read_text()), prompt)
        if all((folder / part).is_dir() for part in ("text_encoder", "tokenizer")):
            return _encoded(folder, prompt)
    except SpatialbenchError:
        raise
    except Exception as error:  # of transformers or the disk; the user reads one line
        what = f"diffusion {spec!r}: the text encoder in {folder} cannot be read"
        raise SpatialbenchError(f"{what}: {first_line(error)}") from error
    raise SpatialbenchError(
        f"diffusion {spec!r}: {folder} has neither text_encoder/ and tokenizer/ nor "
        f"{STUDENT_FILE}; add the text encoder that the model was trained with"
    )


def student_states(text: dict[str, Any], prompt: str) -> Tensor:
    """Compute E, float32 [length, W], by a student's text tower; ``text`` is a ``student.json``."""
    model = load_clip(text["student"])
    with torch.no_grad():
        return caption_states(model, TextTokenizer(text["student"]), [prompt], text["length"])[0]


def caption_states(
    model: Model, tokenizer: TextTokenizer, captions: Sequence[str], length: int
) -> Tensor:
    """Compute hidden states [C, length, W] of C captions, each of at most ``length`` tokens.

    States behind a caption's end are included, as in training.

    Raises:
        SpatialbenchError: a caption is longer than ``length`` tokens.
    """
    tokens = tokenizer(captions)
    too_long = tokens[:, length:].any(1).nonzero()
    if len(too_long):
        raise SpatialbenchError(
            f"caption {captions[int(too_long[0])]!r} is longer than the {length} tokens of the "
            "diffusion model; shorten it"
        )
    return text_states(model, tokens[:, :length].to(model.token_embedding.weight.device))


@torch.no_grad()
def _encoded(folder: Path, prompt: str) -> Tensor:
    """Last hidden states after the final norm, padded to the tokenizer's length, float32 [T, W]."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    place = folder / "text_encoder"
    model = CLIPTextModel.from_pretrained(place, local_files_only=True, dtype=torch.float32).eval()
    length = min(tokenizer.model_max_length, model.config.max_position_embeddings)
    padding: Any = {"padding": "max_length", "max_length": length, "truncation": True}
    tokens = tokenizer(prompt, return_tensors="pt", **padding)
    return model(tokens.input_ids).last_hidden_state[0].contiguous()
