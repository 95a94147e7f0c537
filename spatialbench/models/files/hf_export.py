"""A student as a CLIPModel of transformers, where its architecture is CLIP's, and the way back through transformers.

Letters: B images, C captions, S pixels a side, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

START, END = "<|startoftext|>", "<|endoftext|>"
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""Names of a block's layers here and there; queries, keys and values are one matrix here and three there."""


def why_not_hf(model: Any) -> str:
    """Why an open_clip model is no CLIPModel; empty where it is one."""
    visual, text = model.visual, model
    if not hasattr(visual, "transformer") or not hasattr(model, "text_projection"):
        return "its towers are not CLIP's (SigLIP's, of timm)"
    blocks = [*visual.transformer.resblocks, *model.transformer.resblocks]
    reasons = {
        "its image tower has no LayerNorm before the blocks": not isinstance(
            visual.ln_pre, nn.LayerNorm
        ),
        "its image tower pools its patches": visual.pool_type != "tok"
        or visual.final_ln_after_pool,
        "its image tower has no projection": visual.proj is None,
        "its patches have a bias": visual.conv1.bias is not None,
        "its text tower pools otherwise": text.text_pool_type != "argmax",
        "its text projection is no plain matrix": not isinstance(
            text.text_projection, nn.Parameter
        ),
        "its blocks have a layer scale": any(
            not isinstance(block.ls_1, nn.Identity) for block in blocks
        ),
        "its activation is not GELU or QuickGELU": any(
            _activation(block) is None for block in blocks
        ),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def write_hf(model: Any, tokenizer: Any | None, resize: str, folder: Path) -> list[str]:
    """Writes config.json, model.safetensors, the preprocessing and the tokenizer.

    Args:
        model: the student, for which ``why_not_hf`` is empty.
        tokenizer: open_clip's byte-pair tokenizer, where the model has it.
        resize: how a picture becomes square: ``crop``, ``squash`` or ``letterbox``.
        folder: that exists.

    Returns:
        What could not be written, a line each.
    """
    from transformers import CLIPModel

    made = CLIPModel(_config(model))
    made.load_state_dict(_state(model.state_dict()))
    made.save_pretrained(folder)
    left = []
    if resize == "letterbox":
        left.append(
            "no preprocessing is written: transformers' CLIP does not pad pictures (letterbox)"
        )
    else:
        _image_processor(model, resize).save_pretrained(folder)
    if tokenizer is None:
        left.append("no tokenizer is written: the student's is not CLIP's")
    else:
        clip_tokenizer(tokenizer).save_pretrained(folder)
    return left


def read_hf(
    folder: Path,
) -> tuple[Callable[[Tensor], Tensor], Callable[[Sequence[str]], Tensor] | None]:
    """What transformers makes of such a folder; as ``read_open_clip``, None in the place of captions where there is no
    tokenizer."""
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder).eval()

    def images(pixels: Tensor) -> Tensor:
        return _unit(model.get_image_features(pixel_values=pixels))

    if not (folder / "tokenizer.json").is_file():
        return images, None
    tokenizer = CLIPTokenizer.from_pretrained(folder)

    def captions(texts: Sequence[str]) -> Tensor:
        return _unit(
            model.get_text_features(**tokenizer(list(texts), padding=True, return_tensors="pt"))
        )

    return images, captions


def _unit(found: Any) -> Tensor:
    """[N, D] of unit norm; transformers 5 hands over an output whose pooled part is the projected embedding."""
    return nn.functional.normalize(
        found if isinstance(found, Tensor) else found.pooler_output, dim=-1
    )


def clip_tokenizer(simple: Any) -> Any:
    """open_clip's byte-pair tokenizer as transformers' CLIPTokenizer: the same tokens, the end token in the place of
    padding, which nothing reads."""
    from transformers import CLIPTokenizer

    names = {"<start_of_text>": START, "<end_of_text>": END}
    vocabulary = {names.get(token, token): number for token, number in simple.encoder.items()}
    merges: Any = [tuple(pair) for pair in simple.bpe_ranks if len(pair) == 2]
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, pad_token=END, model_max_length=simple.context_length
    )


def _image_processor(model: Any, resize: str) -> Any:
    from transformers import CLIPImageProcessor

    seen, side = model.visual.preprocess_cfg, model.visual.image_size[0]
    square = {"height": side, "width": side}
    return CLIPImageProcessor(
        size={"shortest_edge": side} if resize == "crop" else square,
        do_center_crop=resize == "crop",
        crop_size=square,
        resample={"bicubic": 3, "bilinear": 2}[seen["interpolation"]],
        image_mean=list(seen["mean"]),
        image_std=list(seen["std"]),
    )


def _config(model: Any) -> Any:
    from transformers import CLIPConfig

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
    """As transformers names it."""
    return {"GELU": "gelu", "QuickGELU": "quick_gelu"}.get(type(block.mlp.gelu).__name__)


def _state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's state -> CLIPModel's."""
    plain = {
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
    found = {there: state[here].clone() for here, there in plain.items()}
    found["text_projection.weight"] = state["text_projection"].T.contiguous()
    found["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    for tower, here in (
        ("text_model", "transformer.resblocks."),
        ("vision_model", "visual.transformer.resblocks."),
    ):
        for name, value in state.items():
            if name.startswith(here):
                number, _, layer = name.removeprefix(here).partition(".")
                found |= _block(f"{tower}.encoder.layers.{number}", layer, value)
    return found


def _block(place: str, layer: str, value: Tensor) -> dict[str, Tensor]:
    """One tensor of a block."""
    if layer.startswith("attn.in_proj_"):
        kind = layer.removeprefix("attn.in_proj_")
        parts = zip("qkv", torch.chunk(value, 3), strict=True)
        return {f"{place}.self_attn.{name}_proj.{kind}": part.clone() for name, part in parts}
    name, _, kind = layer.rpartition(".")
    return {f"{place}.{_BLOCK[name]}.{kind}": value.clone()}
