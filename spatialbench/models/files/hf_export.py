"""A student as a CLIPModel of transformers, if its architecture is CLIP's: written and read back.

Letters: B images, C captions, S pixels a side, D joint width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from spatialbench.models.open_clip_student import resize_mode, tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
_NAMES = {
    "transformer.resblocks.": "encoder.layers.",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "token_embedding": "embeddings.token_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "class_embedding": "embeddings.class_embedding",
    "conv1": "embeddings.patch_embedding",
    "ln_pre": "pre_layrnorm",
    "ln_post": "post_layernorm",
    "ln_final": "final_layer_norm",
}
"""Parts of open_clip's names -> those of CLIPModel, inside of a tower."""


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


def write_hf(model: Any, spec: str, folder: Path) -> list[str]:
    """Write configuration, weights, preprocessing and tokenizer; return a line for each omission.

    The model was loaded from ``spec``, and ``why_not_hf`` is empty for it.
    """
    exported = CLIPModel(_config(model))
    exported.load_state_dict(_state(model.state_dict()))
    exported.save_pretrained(folder)
    omitted, resize, simple = [], resize_mode(model), tokenizer(spec)
    if resize == "letterbox":
        omitted.append("no preprocessing is written: transformers' CLIP does not pad (letterbox)")
    else:
        _image_processor(model, resize).save_pretrained(folder)
    if not hasattr(simple, "bpe_ranks"):
        omitted.append("no tokenizer is written: the student's is not CLIP's")
    else:
        clip_tokenizer(simple).save_pretrained(folder)
    return omitted


def read_hf(folder: Path, pixels: Tensor, captions: Sequence[str]) -> tuple[Tensor, Tensor | None]:
    """Read such a folder by transformers itself and embed with it, as ``read_open_clip`` does.

    The second is None where there is no tokenizer.
    """
    model = CLIPModel.from_pretrained(folder).eval()
    images = model.get_image_features(pixel_values=pixels).pooler_output
    if not (folder / "tokenizer.json").is_file():
        return images, None
    tokenize = CLIPTokenizer.from_pretrained(folder)
    tokens = tokenize(list(captions), padding=True, return_tensors="pt")
    return images, model.get_text_features(**tokens).pooler_output


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
    """open_clip's state -> CLIPModel's, with queries, keys and values apart."""
    projections = {"text_projection": "text_projection", "visual.proj": "visual_projection"}
    renamed = {"logit_scale": state["logit_scale"].clone()}
    renamed |= {f"{new}.weight": state[old].T.contiguous() for old, new in projections.items()}
    for name in state.keys() - {*projections, "logit_scale"}:
        tower = "vision_model." if name.startswith("visual.") else "text_model."
        there = name.removeprefix("visual.")
        for ours, theirs in _NAMES.items():
            there = there.replace(ours, theirs)
        place, fused, kind = there.partition("attn.in_proj_")
        parts = zip("qkv", state[name].chunk(3), strict=True) if fused else ()
        renamed |= {f"{tower}{place}self_attn.{x}_proj.{kind}": part.clone() for x, part in parts}
        if not fused:
            renamed[tower + there] = state[name].clone()
    return renamed
