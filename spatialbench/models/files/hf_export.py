"""A student as a CLIPModel of transformers, if its architecture is CLIP's: written and read back.

Letters: B images, C captions, S pixels a side, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
_NAMES = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
"""open_clip's names -> those of CLIPModel, outside of the blocks."""
_TOWERS = {"text_model": "transformer.resblocks.", "vision_model": "visual.transformer.resblocks."}
_LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""The same in a block. Queries, keys and values are one matrix in open_clip, three in CLIPModel."""


def why_not_hf(model: Any) -> str:
    """Say why an open_clip model is not a CLIPModel; empty where it is one."""
    visual = model.visual
    if not hasattr(visual, "transformer") or not hasattr(model, "text_projection"):
        return "its towers are not CLIP's (SigLIP's, of timm)"
    blocks = [*visual.transformer.resblocks, *model.transformer.resblocks]
    pools = visual.pool_type != "tok" or visual.final_ln_after_pool
    plain_text = isinstance(model.text_projection, nn.Parameter)
    scaled = any(not isinstance(block.ls_1, nn.Identity) for block in blocks)
    reasons = {
        "its image tower does not normalise its input": not isinstance(visual.ln_pre, nn.LayerNorm),
        "its image tower pools its patches": pools,
        "its image tower has no projection": visual.proj is None,
        "its patches have a bias": visual.conv1.bias is not None,
        "its text tower pools in another way": model.text_pool_type != "argmax",
        "its text projection is not a plain matrix": not plain_text,
        "its blocks have a layer scale": scaled,
        "its activation is not GELU or QuickGELU": None in map(_activation, blocks),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def write_hf(model: Any, tokenizer: Any | None, resize: str, folder: Path) -> list[str]:
    """Write config.json, model.safetensors, the preprocessing and the tokenizer.

    Args:
        model: the student, for which ``why_not_hf`` is empty.
        tokenizer: open_clip's byte-pair tokenizer, if the model has it.
        resize: the way in which an image becomes square: ``crop``, ``squash`` or ``letterbox``.
        folder: exists.

    Returns:
        One line for everything that could not be written.
    """
    exported = CLIPModel(_config(model))
    exported.load_state_dict(_state(model.state_dict()))
    exported.save_pretrained(folder)
    omitted = []
    if resize == "letterbox":
        omitted.append(
            "no preprocessing is written: transformers' CLIP does not pad images (letterbox)"
        )
    else:
        _image_processor(model, resize).save_pretrained(folder)
    if tokenizer is None:
        omitted.append("no tokenizer is written: the student's is not CLIP's")
    else:
        clip_tokenizer(tokenizer).save_pretrained(folder)
    return omitted


def read_hf(
    folder: Path,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Sequence[str]], Tensor] | None]:
    """Read such a folder by transformers itself, as two encoders.

    Returns:
        As ``read_open_clip``; None in place of the second where there is no tokenizer.
    """
    model = CLIPModel.from_pretrained(folder).eval()

    def images(pixels: Tensor) -> Tensor:
        return _unit(model.get_image_features(pixel_values=pixels))

    if not (folder / "tokenizer.json").is_file():
        return images, None
    tokenizer = CLIPTokenizer.from_pretrained(folder)

    def captions(texts: Sequence[str]) -> Tensor:
        tokens = tokenizer(list(texts), padding=True, return_tensors="pt")
        return _unit(model.get_text_features(**tokens))

    return images, captions


def _unit(features: Any) -> Tensor:
    """Normalise embeddings [N, D]; transformers 5 returns them as an output's pooled part."""
    embedding = features if isinstance(features, Tensor) else features.pooler_output
    return nn.functional.normalize(embedding, dim=-1)


def clip_tokenizer(simple: Any) -> Any:
    """open_clip's byte-pair tokenizer as transformers' CLIPTokenizer, with the same tokens.

    It pads with the end token, which no model reads.
    """
    names = {"<start_of_text>": START, "<end_of_text>": END}
    vocabulary = {names.get(token, token): number for token, number in simple.encoder.items()}
    merges: Any = [tuple(pair) for pair in simple.bpe_ranks if len(pair) == 2]
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, pad_token=END, model_max_length=simple.context_length
    )


def _image_processor(model: Any, resize: str) -> Any:
    preprocessing, side = model.visual.preprocess_cfg, model.visual.image_size[0]
    square = {"height": side, "width": side}
    return CLIPImageProcessor(
        size={"shortest_edge": side} if resize == "crop" else square,
        do_center_crop=resize == "crop",
        crop_size=square,
        resample={"bicubic": 3, "bilinear": 2}[preprocessing["interpolation"]],
        image_mean=list(preprocessing["mean"]),
        image_std=list(preprocessing["std"]),
    )


def _config(model: Any) -> Any:
    visual = model.visual
    vocabulary, width = model.token_embedding.weight.shape
    joint = visual.proj.shape[1]
    text = {
        **_tower(model.transformer, width, joint),
        "vocab_size": vocabulary,
        "max_position_embeddings": model.positional_embedding.shape[0],
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,  # the largest token, which open_clip's argmax finds
        "pad_token_id": vocabulary - 1,
    }
    vision = {
        **_tower(visual.transformer, visual.conv1.out_channels, joint),
        "image_size": visual.image_size[0],
        "patch_size": visual.patch_size[0],
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=joint)


def _tower(transformer: Any, width: int, joint: int) -> dict[str, Any]:
    block = transformer.resblocks[0]
    return {
        "hidden_size": width,
        "intermediate_size": block.mlp.c_fc.out_features,
        "num_hidden_layers": len(transformer.resblocks),
        "num_attention_heads": block.attn.num_heads,
        "layer_norm_eps": block.ln_1.eps,
        "hidden_act": _activation(block),
        "projection_dim": joint,
    }


def _activation(block: Any) -> str | None:
    """Name the activation as transformers does."""
    return {"GELU": "gelu", "QuickGELU": "quick_gelu"}.get(type(block.mlp.gelu).__name__)


def _state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's state -> CLIPModel's."""
    renamed = {there: state[here].clone() for here, there in _NAMES.items()}
    renamed["text_projection.weight"] = state["text_projection"].T.contiguous()
    renamed["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    for tower, prefix in _TOWERS.items():
        for name, value in state.items():
            if name.startswith(prefix):
                number, _, layer = name.removeprefix(prefix).partition(".")
                renamed |= _block(f"{tower}.encoder.layers.{number}", layer, value)
    return renamed


def _block(place: str, layer: str, value: Tensor) -> dict[str, Tensor]:
    """One tensor of a block, or three."""
    if layer.startswith("attn.in_proj_"):
        kind = layer.removeprefix("attn.in_proj_")
        parts = zip("qkv", torch.chunk(value, 3), strict=True)
        return {f"{place}.self_attn.{name}_proj.{kind}": part.clone() for name, part in parts}
    name, _, kind = layer.rpartition(".")
    return {f"{place}.{_LAYERS[name]}.{kind}": value.clone()}
