"""The student: an open_clip model, its tokenizer and the pixels it expects. The only importer of open_clip beside
clip_files.py and clip_export.py."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from spatialbench import WEIGHTS
from spatialbench.data.images import Resize
from spatialbench.models.files.clip_files import (
    check_activation,
    load_checkpoint,
    load_openai,
    openai_file,
    preprocessing,
    weights_file,
)
from spatialbench.models.files.openai_files import openai_state
from spatialbench.models.files.weight_files import WeightFile, hub_weights
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import first_line

CONFIGS = Path(__file__).parent / "configs"
OWN = "rooms-student"
"""The student shipped with the package: configs/rooms-student.json, weights/rooms-student.safetensors."""

open_clip.add_model_config(CONFIGS / f"{OWN}.json")


def load_clip(spec: str, pooled: bool = False) -> open_clip.CLIP:
    """An open_clip model in float32, in eval mode.

    Args:
        spec: ``<model>[:<weights>]``. The model is a name open_clip knows (``ViT-L-14-336``), ``rooms-student``, or a
            path to a config of open_clip's form (``.json``). The weights are a pretrained tag (``openai``), a file of
            the Hub (``<owner>/<name>@<commit>/<path>[#<sha256>]``), a file here (an open_clip state dict, OpenAI's own
            file, DIVA's, or a checkpoint of a spatialbench method, whose student is taken), ``random``; left out, they
            are the shipped ones for ``rooms-student`` and random for a config file.
        pooled: SigLIP (``open_clip.CustomTextCLIP``) will do, too: a timm ViT without a class token, whose patches a
            head pools.

    Raises:
        SpatialbenchError: unknown model or weights, weights of another architecture or activation, or a model without
            the towers that the methods work on.
    """
    name, weights = _split(spec)
    check_activation(name, weights, spec)
    path = weights_file(name, weights, spec)
    try:
        state = None if path is None else openai_state(path)
        own = path is not None and (
            path.suffix == ".ckpt" or state is not None
        )  # not a thing that open_clip can read
        with _without_warning("No pretrained weights loaded"):
            pretrained = None if own else weights if path is None else str(path)
            model = open_clip.create_model(name, pretrained=pretrained, precision="fp32")
    except (
        Exception
    ) as error:  # the Hub, the network, the disk: whatever it was, the user reads one line
        no_weights = path is not None and isinstance(
            error, (KeyError, EOFError, pickle.UnpicklingError)
        )
        reason = f"{path} is no file of weights, or damaged" if no_weights else first_line(error)
        raise SpatialbenchError(f"student {spec!r} cannot be loaded: {reason}") from error
    _check_architecture(model, spec, pooled)
    if (
        model.logit_bias is not None
    ):  # SigLIP's: the same for every pair, so that no loss of ours sees it
        model.logit_bias.requires_grad_(False)
    preprocessing(model, path, tag=path is None and weights is not None)
    if state is not None:
        load_openai(model, state, name, spec)
    elif own and path is not None:
        load_checkpoint(model, path, spec)
    return model.eval()


def published(spec: str) -> WeightFile | str | None:
    """Where the weights of ``spec`` come from: a pinned file, or the Hub's repository that open_clip takes them from.

    None: shipped or random weights, or a file. The network is not asked.

    Raises:
        SpatialbenchError: unknown model.
    """
    name, weights = _split(spec)
    if weights is None or Path(weights).is_file():
        return None
    known = open_clip.get_pretrained_cfg(name, weights)
    file = hub_weights(weights) or openai_file(known.get("url") or "")
    return file or str(known.get("hf_hub") or weights).rstrip("/")


class TextTokenizer:
    """The student's tokenizer; a caption that comes again is not encoded again.

    Args:
        spec: as in :func:`load_clip`.
    """

    KEPT = 2**18
    """Captions whose tokens are remembered."""

    def __init__(self, spec: str) -> None:
        name, _ = _split(spec)
        options: dict[str, Any] = {}
        if name == OWN:
            vocabulary = CONFIGS / "rooms-bpe.txt.gz"
            if not vocabulary.is_file():
                raise SpatialbenchError(
                    f"the vocabulary {vocabulary} is missing; reinstall spatialbench"
                )
            options["bpe_path"] = str(vocabulary)
        try:
            self._tokenizer = open_clip.get_tokenizer(name, **options)
        except Exception as error:  # SigLIP's is on the Hub
            raise SpatialbenchError(
                f"the tokenizer of student {spec!r} cannot be had: {first_line(error)}"
            ) from error
        self._rows: dict[str, Tensor] = {}  # caption -> int64 [context_length]

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """captions -> int64 [C, context_length], zero (SigLIP: its padding) after the end token.

        Raises:
            SpatialbenchError: a caption is longer than the student reads.
        """
        if len(self._rows) > self.KEPT:
            self._rows.clear()
        if new := [caption for caption in dict.fromkeys(captions) if caption not in self._rows]:
            self._rows.update(zip(new, self._encode(new), strict=True))
        return torch.stack([self._rows[caption] for caption in captions])

    def _encode(self, captions: list[str]) -> Tensor:
        context = self._tokenizer.context_length
        tokens = self._tokenizer(captions, context_length=context)
        longer = self._tokenizer(
            captions, context_length=context + 1
        )  # the end token moves where one was cut
        too_long = longer[:, :context].ne(tokens).any(1).nonzero()
        if len(too_long):
            caption = captions[int(too_long[0])]
            raise SpatialbenchError(
                f"caption {caption!r} is longer than the {context} tokens of the student; shorten it"
            )
        return tokens


def normalisation(model: open_clip.CLIP) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per RGB channel, in units of the range [0, 1], that the image tower expects."""
    config = model.visual.preprocess_cfg
    return tuple(config["mean"]), tuple(config["std"])


def resize_mode(model: open_clip.CLIP) -> Resize:
    """How the model's own preprocessing makes a picture square."""
    modes: dict[str, Resize] = {"shortest": "crop", "squash": "squash", "longest": "letterbox"}
    return modes[model.visual.preprocess_cfg["resize_mode"]]


def open_clip_name(spec: str) -> str:
    """The name by which open_clip knows the model of a spec.

    Raises:
        SpatialbenchError: it knows none.
    """
    return _split(spec)[0]


def _split(spec: str) -> tuple[str, str | None]:
    """``name[:weights]`` -> (name known to open_clip, weights or None for random).

    Raises:
        SpatialbenchError: the name is not known.
    """
    name, _, weights = spec.partition(":")
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise SpatialbenchError(f"student {spec!r}: there is no config file {name}")
        open_clip.add_model_config(Path(name))
        name = Path(name).stem
    if name not in open_clip.list_models():
        raise SpatialbenchError(
            f"student {spec!r}: open_clip knows no model {name!r}; give {OWN}, a name of open_clip.list_models(), or a "
            "config file"
        )
    if weights == "random" or (not weights and name != OWN):
        return name, None
    return name, weights or str(WEIGHTS / f"{OWN}.safetensors")


@contextmanager
def _without_warning(text: str) -> Iterator[None]:
    """open_clip warns of random weights through the root logger, also where they were asked for."""

    def keep(record: logging.LogRecord) -> bool:
        return text not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def _check_architecture(model: Any, spec: str, pooled: bool) -> None:
    """The towers of towers.py are written for open_clip's plain ViT and causal transformer, which is what CLIP is, and
    for SigLIP's image tower of timm."""
    if pooled and _is_pooled(model):
        return
    plain = isinstance(model, open_clip.CLIP) and isinstance(model.visual, VisionTransformer)
    if plain:
        visual, blocks = (
            model.visual,
            [*model.visual.transformer.resblocks, *model.transformer.resblocks],
        )
        plain = (
            all(isinstance(block, ResidualAttentionBlock) for block in blocks)
            and isinstance(visual.patch_dropout, nn.Identity)
            and visual.attn_pool is None
            and visual.pool_type in ("tok", "avg")
            and model.attn_mask is not None
            and model.text_pool_type in ("argmax", "eos")
        )
    if not plain:
        reason = (
            "; SigLIP's towers have no class token, which this method reads"
            if _is_pooled(model)
            else ""
        )
        raise SpatialbenchError(
            f"student {spec!r} is not a plain CLIP (a ViT of open_clip's own and a causal text transformer){reason}; "
            "take one such as ViT-B-16 or ViT-L-14-336"
        )


def _is_pooled(model: Any) -> bool:
    """SigLIP: plain blocks of timm, no class token, a pooling head."""
    trunk: Any = getattr(model.visual, "trunk", None)
    return (
        isinstance(model, open_clip.CustomTextCLIP)
        and getattr(trunk, "attn_pool", None) is not None
        and trunk.num_prefix_tokens == 0
        and all(type(block) is Block and type(block.attn) is Attention for block in trunk.blocks)
        and all(block.attn.gate is None for block in trunk.blocks)
    )
