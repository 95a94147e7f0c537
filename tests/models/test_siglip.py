"""SigLIP as a student: open_clip's own outputs, its tokenizer, what methods make of a tower without a class token."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from spatialbench.methods.clip import Clip
from spatialbench.methods.refiner import Refiner
from spatialbench.methods.residual_linear import ResidualLinear
from spatialbench.methods.spatial_attn import SpatialAttention
from spatialbench.models import towers
from spatialbench.models.open_clip_student import (
    TextTokenizer,
    load_clip,
    normalisation,
    resize_mode,
)
from spatialbench.utils.errors import SpatialbenchError
from tests.support.models import OTHER, SAME, SIZE, batch, images

WORDS = [
    "the",
    "sofa",
    "lamp",
    "bed",
    "floor",
    "is",
    "left",
    "of",
    "above",
    "farther",
    "than",
    "</s>",
]


@register_model
def spatialbench_siglip_tower(
    pretrained: bool = False, num_classes: int = 0, **_: object
) -> VisionTransformer:
    """timm's vit_*_siglip_* in small: no class token, a pooling head; 3 blocks of 3 heads over 4 x 4 patches."""
    return VisionTransformer(
        **{"img_size": SIZE, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3},
        class_token=False,
        global_pool="map",
        num_classes=num_classes,
    )


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A config of open_clip's ViT-*-SigLIP in small, with a tokenizer that pads with its end token, as SigLIP's."""
    folder = tmp_path_factory.mktemp("siglip")
    words = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(["<unk>", *WORDS])}, "<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", len(WORDS))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        padding_side="right",
    ).save_pretrained(folder / "words")
    config = {
        "embed_dim": 48,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            **{
                "image_size": SIZE,
                "timm_model_name": "spatialbench_siglip_tower",
                "timm_model_pretrained": False,
            },
            **{"timm_pool": "map", "timm_proj": "none"},
        },
        "text_cfg": {
            **{"context_length": 16, "vocab_size": 32, "hf_tokenizer_name": str(folder / "words")},
            **{
                "width": 48,
                "heads": 3,
                "layers": 2,
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
            },
            **{"tokenizer_kwargs": {"clean": "canonicalize"}, "norm_kwargs": {"eps": 1e-6}},
        },
    }
    (folder / "tiny-SigLIP.json").write_text(json.dumps(config))
    return f"{folder / 'tiny-SigLIP.json'}:random"


def scrambled(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3
                )


def test_a_checkpoint_of_open_clip_gives_open_clips_outputs(spec: str, tmp_path: Path) -> None:
    config = spec.removesuffix(":random")
    load_clip(spec, pooled=True)  # open_clip knows the config from here on
    upstream = open_clip.create_model("tiny-SigLIP", precision="fp32").eval()
    scrambled(upstream)
    save_file(upstream.state_dict(), tmp_path / "open_clip_model.safetensors")
    model = load_clip(f"{config}:{tmp_path / 'open_clip_model.safetensors'}", pooled=True)
    x = torch.randn(3, 3, SIZE, SIZE)
    tokens = TextTokenizer(spec)(["the sofa is left of the bed.", "the lamp."])
    with torch.no_grad():
        torch.testing.assert_close(
            towers.encode_image(model, x), upstream.encode_image(x), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(towers.encode_text(model, tokens), upstream.encode_text(tokens))
    assert normalisation(model) == ((0.5,) * 3, (0.5,) * 3)
    assert resize_mode(model) == "squash"


def test_the_tokens_are_open_clips(spec: str) -> None:
    captions = ["the sofa is left of the bed.", "the floor lamp."]
    load_clip(spec, pooled=True)
    assert TextTokenizer(spec)(captions).equal(open_clip.get_tokenizer("tiny-SigLIP")(captions))
    with pytest.raises(SpatialbenchError, match="longer than the 16 tokens"):
        TextTokenizer(spec)(["the " * 16])
    assert TextTokenizer(spec)(["the " * 15]).shape == (1, 16)


def test_a_tokenizer_that_cannot_be_had_is_one_line(spec: str, tmp_path: Path) -> None:
    config = json.loads(Path(spec.removesuffix(":random")).read_text())
    config["text_cfg"]["hf_tokenizer_name"] = str(tmp_path / "nowhere")
    (tmp_path / "lost-SigLIP.json").write_text(json.dumps(config))
    with pytest.raises(
        SpatialbenchError, match=r"the tokenizer of student .* cannot be had"
    ) as caught:
        Clip(f"{tmp_path / 'lost-SigLIP.json'}:random")
    assert "\n" not in str(caught.value)


def test_the_hook_sees_the_patches_of_every_block(spec: str) -> None:
    model = load_clip(spec, pooled=True)
    seen = []

    def look(block: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen.append((block, q.shape, k.shape, v.shape))
        return q, k, 2 * v

    x = torch.randn(2, 3, SIZE, SIZE)
    assert not towers.encode_image(model, x, look).allclose(towers.encode_image(model, x))
    assert seen == [(block, *(3 * [(2, 3, 16, 16)])) for block in range(3)]


def test_residual_linear_begins_as_siglip_itself(spec: str) -> None:
    connected = ResidualLinear(spec, OTHER, cache=False)
    x = images(2)
    with torch.no_grad():
        expected = connected.student.encode_image(connected._normalised(x), normalize=True)
        torch.testing.assert_close(connected.image(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("vfm", [SAME, OTHER])
def test_spatial_attention_pairs_patches_with_patches(spec: str, vfm: str) -> None:
    """Equation (3) for one block, with the VFM's patches alone; its class token has nothing to go with."""
    method = SpatialAttention(spec, vfm, cache=False)
    x = images(2)
    tokens, grid = method.vfm.tokens(x), method.grid(x)
    q, k, v = (torch.randn(2, 3, 16, 16) for _ in range(3))
    wide_q, wide_k, same_v = method.connect(x)(1, q, k, v)
    number = method.vfm_block(1)
    own_q, own_k = method.vfm.qkv(number, tokens[:, number], values=False)
    if method.vfm.grid == grid:
        assert wide_q.equal(torch.cat([q, own_q[:, :, 1:]], -1))
        assert wide_k.equal(torch.cat([k, own_k[:, :, 1:]], -1))
    assert wide_q.shape == (2, 3, 16, 16 + method.vfm.head_dim)
    assert same_v is v
    assert torch.isfinite(method.image(x)).all()


def test_a_training_step_reaches_both_towers_and_not_the_bias(spec: str) -> None:
    method = SpatialAttention(spec, SAME, cache=False)
    method.log = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    method.training_step(batch(), 0).backward()
    grown = {
        name
        for name, p in method.student.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert {"visual.trunk.attn_pool.latent", "visual.trunk.blocks.0.attn.qkv.weight"} <= grown
    assert "text.text_projection.weight" in grown
    assert not method.student.logit_bias.requires_grad


def test_what_siglip_has_not_is_told(spec: str) -> None:
    with pytest.raises(SpatialbenchError, match="no dense map"):
        Clip(spec).dense(images(1))
    with pytest.raises(
        SpatialbenchError, match="no class token, which this method reads; take one such as"
    ):
        Refiner(spec)
    with pytest.raises(SpatialbenchError, match="not a plain CLIP"):
        load_clip(spec)
