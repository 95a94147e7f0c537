"""The student: an open_clip model, its tokenizer and the pixels it expects. The only importer of open_clip."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from spatialbench import WEIGHTS
from spatialbench.backbones.openai_files import openai_state
from spatialbench.data.images import Resize
from spatialbench.errors import SpatialbenchError

CONFIGS = Path(__file__).parent / "configs"
OWN = "rooms-student"
"""The student shipped with the package: configs/rooms-student.json, weights/rooms-student.safetensors."""

open_clip.add_model_config(CONFIGS / f"{OWN}.json")


def load_clip(spec: str) -> open_clip.CLIP:
    """An open_clip model in float32, in eval mode.

    Args:
        spec: ``<model>[:<weights>]``. The model is a name open_clip knows (``ViT-L-14-336``), ``rooms-student``, or a
            path to a config of open_clip's form (``.json``). The weights are a pretrained tag (``openai``), a file
            (an open_clip state dict, OpenAI's own file, DIVA's, or a checkpoint of a spatialbench method, whose
            student is taken), ``random``; left out, they are the shipped ones for ``rooms-student`` and random for a
            config file.

    Raises:
        SpatialbenchError: unknown model or weights, weights of another architecture, or a model without the plain
            pre-norm ViT and causal text tower that the methods work on.
    """
    name, weights = _split(spec)
    if weights and not Path(weights).is_file() and not open_clip.get_pretrained_cfg(name, weights):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise SpatialbenchError(
            f"student {spec!r}: there is no weights file {weights}, nor a pretrained tag of that name (tags: {tags})"
        )
    _check_activation(name, weights, spec)
    try:
        state = openai_state(Path(weights)) if weights and Path(weights).is_file() else None
        own = weights is None or weights.endswith(".ckpt") or state is not None  # not a thing that open_clip can read
        with _without_warning("No pretrained weights loaded"):
            model = open_clip.create_model(name, pretrained=None if own else weights, precision="fp32")
    except Exception as error:  # the Hub, the network, the disk: whatever it was, the user reads one line
        raise SpatialbenchError(f"student {spec!r} cannot be loaded: {_first_line(error)}") from error
    _check_architecture(model, spec)
    if state is not None:
        _load_openai(model, state, name, spec)
    elif weights is not None and own:
        _load_checkpoint(model, Path(weights), spec)
    return model.eval()


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
                raise SpatialbenchError(f"the vocabulary {vocabulary} is missing; reinstall spatialbench")
            options["bpe_path"] = str(vocabulary)
        self._tokenizer = open_clip.get_tokenizer(name, **options)
        self._rows: dict[str, Tensor] = {}  # caption -> int64 [context_length]

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """captions -> int64 [C, context_length], zero after the end token.

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
        tokens = self._tokenizer(captions, context_length=context + 1)
        too_long = tokens[:, context].nonzero()
        if len(too_long):
            caption = captions[int(too_long[0])]
            raise SpatialbenchError(
                f"caption {caption!r} is longer than the {context} tokens of the student; shorten it"
            )
        return tokens[:, :context]


def normalisation(model: open_clip.CLIP) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per RGB channel, in units of the range [0, 1], that the image tower expects."""
    config = model.visual.preprocess_cfg
    return tuple(config["mean"]), tuple(config["std"])


def resize_mode(model: open_clip.CLIP) -> Resize:
    """How the model's own preprocessing makes a picture square."""
    modes: dict[str, Resize] = {"shortest": "crop", "squash": "squash", "longest": "letterbox"}
    return modes[model.visual.preprocess_cfg["resize_mode"]]


def _check_activation(name: str, weights: str | None, spec: str) -> None:
    """open_clip only warns where weights were trained with QuickGELU and the model is built with GELU, or the reverse.

    Raises:
        SpatialbenchError: the tag's weights want another activation.
    """
    known = open_clip.get_pretrained_cfg(name, weights) if weights and not Path(weights).is_file() else {}
    wanted = known.get("quick_gelu")
    if wanted is None or wanted == bool(open_clip.get_model_config(name).get("quick_gelu", False)):
        return
    other = f"{name}-quickgelu" if wanted else name.removesuffix("-quickgelu")
    raise SpatialbenchError(
        f"student {spec!r}: the weights {weights} were trained with {'QuickGELU' if wanted else 'GELU'}, which the "
        f"model {name} does not have; take {other}:{weights}"
    )


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


def _load_checkpoint(model: open_clip.CLIP, path: Path, spec: str) -> None:
    """The student out of a checkpoint of a spatialbench method, at a path that exists."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        model.load_state_dict({k.removeprefix("student."): v for k, v in state.items() if k.startswith("student.")})
    except Exception as error:
        raise SpatialbenchError(f"student {spec!r}: {path} does not fit the model: {_first_line(error)}") from error


def _load_openai(model: open_clip.CLIP, state: dict[str, Tensor], name: str, spec: str) -> None:
    if not open_clip.get_model_config(name).get("quick_gelu", False):
        raise SpatialbenchError(
            f"student {spec!r}: OpenAI's weights were trained with QuickGELU, which the model {name} does not have; "
            f"take {name}-quickgelu, or set quick_gelu in its config"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise SpatialbenchError(f"student {spec!r}: the weights do not fit the model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


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


def _check_architecture(model: Any, spec: str) -> None:
    """The towers of towers.py are written for open_clip's plain ViT and causal transformer, which is what CLIP is."""
    plain = isinstance(model, open_clip.CLIP) and isinstance(model.visual, VisionTransformer)
    if plain:
        visual, blocks = model.visual, [*model.visual.transformer.resblocks, *model.transformer.resblocks]
        plain = (
            all(isinstance(block, ResidualAttentionBlock) for block in blocks)
            and isinstance(visual.patch_dropout, nn.Identity)
            and visual.attn_pool is None
            and visual.pool_type in ("tok", "avg")
            and model.attn_mask is not None
            and model.text_pool_type in ("argmax", "eos")
        )
    if not plain:
        raise SpatialbenchError(
            f"student {spec!r} is not a plain CLIP (a ViT of open_clip's own and a causal text transformer); take one "
            "such as ViT-B-16 or ViT-L-14-336"
        )
