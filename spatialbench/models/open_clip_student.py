"""The student: an open_clip model, its tokenizer and its pixel format.

open_clip is imported here, in clip_files.py and in clip_export.py only.
"""

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
from spatialbench.models.files import clip_files as files
from spatialbench.models.files.weight_files import WeightFile
from spatialbench.models.towers import image_blocks
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import first_line

CONFIGS = Path(__file__).parent / "configs"
OWN = "rooms-student"  # shipped with the package, in configs/ and weights/

open_clip.add_model_config(CONFIGS / f"{OWN}.json")


def load_clip(spec: str, pooled: bool = False) -> open_clip.CLIP:
    """Load an open_clip model in float32, in eval mode.

    Args:
        spec: ``<model>[:<weights>]``. The model is a name open_clip knows (``ViT-L-14-336``),
            ``rooms-student``, or the path of a config in open_clip's form (``.json``). The weights
            are a pretrained tag (``openai``), a file of the Hub
            (``<owner>/<name>@<commit>/<path>[#<sha256>]``), ``random``, or a local file: an
            open_clip state dict, OpenAI's own file, DIVA's, or a checkpoint of a spatialbench
            method, whose student is taken. The default is the shipped ones for ``rooms-student``
            and random ones for any other model.
        pooled: accept SigLIP, too: a timm ViT without a class token, with a pooling head.

    Raises:
        SpatialbenchError: unknown model, weights that are missing or do not fit, other towers.
    """
    name, weights = split_spec(spec)
    files.check_activation(name, weights, spec)
    path = files.weights_file(name, weights, spec)
    try:
        state = None if path is None else files.read_state(path)
        with _no_warning_of_random_weights():
            pretrained = None if state is not None else weights if path is None else str(path)
            model = open_clip.create_model(name, pretrained=pretrained, precision="fp32")
    except Exception as error:  # of open_clip, the Hub, the network or the disk
        damaged = path and isinstance(error, (KeyError, EOFError, pickle.UnpicklingError))
        reason = f"{path} is not a file of weights, or is damaged" if damaged else first_line(error)
        raise SpatialbenchError(f"student {spec!r} cannot be loaded: {reason}") from error
    _check_architecture(model, spec, pooled)
    if model.logit_bias is not None:  # SigLIP's; no loss here depends on it
        model.logit_bias.requires_grad_(False)
    files.set_preprocessing(model, path, tag=path is None and weights is not None)
    if state is not None and path is not None:
        files.load_state(model, state, path, name, spec)
    return model.eval()


def published(spec: str) -> WeightFile | str | None:
    """Return the pinned file or the Hub's repository of weights, offline; None for local ones."""
    name, weights = split_spec(spec)
    if weights is None or Path(weights).is_file():
        return None
    file, known = files.published_file(name, weights)
    return file or str(known.get("hf_hub") or weights).rstrip("/")


def tokenizer(spec: str) -> Any:
    """Return open_clip's tokenizer of a model, or raise what open_clip raises."""
    name, _ = split_spec(spec)
    own = {"bpe_path": str(CONFIGS / "rooms-bpe.txt.gz")} if name == OWN else {}
    return open_clip.get_tokenizer(name, **own)


class TextTokenizer:
    """The tokenizer of a student's ``spec``; captions that recur are encoded once."""

    KEPT = 2**18  # captions whose tokens are remembered

    def __init__(self, spec: str) -> None:
        try:
            self._tokenizer = tokenizer(spec)
        except SpatialbenchError:
            raise
        except Exception as error:  # SigLIP's is on the Hub
            raise SpatialbenchError(
                f"the tokenizer of student {spec!r} cannot be loaded: {first_line(error)}"
            ) from error
        self._rows: dict[str, Tensor] = {}  # caption -> int64 [context_length]

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Tokenize captions: int64 [C, context_length], zero (or SigLIP's padding) behind the end.

        A caption longer than the student's context raises a SpatialbenchError.
        """
        if len(self._rows) > self.KEPT:
            self._rows.clear()
        if new := [caption for caption in dict.fromkeys(captions) if caption not in self._rows]:
            self._rows.update(zip(new, self._encode(new), strict=True))
        return torch.stack([self._rows[caption] for caption in captions])

    def _encode(self, captions: list[str]) -> Tensor:
        context = self._tokenizer.context_length
        tokens = self._tokenizer(captions, context_length=context)
        longer = self._tokenizer(captions, context_length=context + 1)
        cut = longer[:, :context].ne(tokens).any(1).nonzero()  # the end token has moved
        if len(cut):
            raise SpatialbenchError(
                f"caption {captions[int(cut[0])]!r} is longer than the {context} tokens of the "
                "student; shorten it"
            )
        return tokens


def normalisation(model: open_clip.CLIP) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per RGB channel, in units of the range [0, 1], that the image tower expects."""
    config = model.visual.preprocess_cfg
    return tuple(config["mean"]), tuple(config["std"])


def resize_mode(model: open_clip.CLIP) -> Resize:
    """Return the way in which the model's own preprocessing makes an image square."""
    modes: dict[str, Resize] = {"shortest": "crop", "squash": "squash", "longest": "letterbox"}
    return modes[model.visual.preprocess_cfg["resize_mode"]]


@torch.no_grad()
def transpose_projections(model: Any) -> None:
    """Replace W by W^T in the query, key, value and output projections of the image tower.

    This is what code computes that multiplies by W where the layer means W^T. It also learns the
    same: Adam treats the entries of a matrix alike, wherever they stand.

    Source: hy30n80/Mixed-Transformer @ 0b9ac26.
    """
    for block in image_blocks(model):
        attention = block.attn
        timms = hasattr(attention, "qkv")  # SigLIP's
        into, out = (attention.qkv, attention.proj) if timms else (attention, attention.out_proj)
        weight = into.weight if timms else into.in_proj_weight
        weight.copy_(torch.cat([part.T for part in weight.chunk(3)]))
        out.weight.copy_(out.weight.T.clone())


def split_spec(spec: str) -> tuple[str, str | None]:
    """Split ``name[:weights]`` into a name that open_clip knows and weights, None for random ones.

    An unknown model raises a SpatialbenchError.
    """
    name, _, weights = spec.partition(":")
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise SpatialbenchError(f"student {spec!r}: there is no config file {name}")
        open_clip.add_model_config(Path(name))
        name = Path(name).stem
    if name not in open_clip.list_models():
        raise SpatialbenchError(
            f"student {spec!r}: open_clip knows no model {name!r}; give {OWN}, a name of "
            "open_clip.list_models(), or a config file"
        )
    if weights == "random" or (not weights and name != OWN):
        return name, None
    return name, weights or str(WEIGHTS / f"{OWN}.safetensors")


@contextmanager
def _no_warning_of_random_weights() -> Iterator[None]:
    """Suppress open_clip's warning, which it also gives where random weights are wanted."""

    def keep(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def _check_architecture(model: Any, spec: str, pooled: bool) -> None:
    """Check that the functions of towers.py fit: a plain CLIP, or SigLIP where it is accepted."""
    siglip = _is_siglip(model)
    if (pooled and siglip) or _is_plain_clip(model):
        return
    reason = "; SigLIP's towers have no class token, which this method reads" if siglip else ""
    raise SpatialbenchError(
        f"student {spec!r} is not a plain CLIP (a ViT of open_clip's own and a causal text "
        f"transformer){reason}; take one such as ViT-B-16 or ViT-L-14-336"
    )


def _is_plain_clip(model: Any) -> bool:
    visual = model.visual
    if not isinstance(model, open_clip.CLIP) or not isinstance(visual, VisionTransformer):
        return False
    blocks = [*visual.transformer.resblocks, *model.transformer.resblocks]
    return (
        all(isinstance(block, ResidualAttentionBlock) for block in blocks)
        and isinstance(visual.patch_dropout, nn.Identity)
        and visual.attn_pool is None
        and visual.pool_type in ("tok", "avg")
        and model.attn_mask is not None
        and model.text_pool_type in ("argmax", "eos")
    )


def _is_siglip(model: Any) -> bool:
    """Plain blocks of timm, no class token, a pooling head."""
    trunk: Any = getattr(model.visual, "trunk", None)
    return (
        isinstance(model, open_clip.CustomTextCLIP)
        and getattr(trunk, "attn_pool", None) is not None
        and trunk.num_prefix_tokens == 0
        and all(type(block) is Block and type(block.attn) is Attention for block in trunk.blocks)
        and all(block.attn.gate is None for block in trunk.blocks)
    )
