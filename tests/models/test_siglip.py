"""SigLIP as a student: open_clip's outputs and tokens, and methods without a class token."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from open_clip.timm_model import TimmModel
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from spatialbench.evaluation.patch_premises import see_student
from spatialbench.methods.clip import Clip
from spatialbench.methods.refiner import Refiner
from spatialbench.methods.spatial_attn import SpatialAttention
from spatialbench.models import open_clip_student, towers
from spatialbench.models.open_clip_student import TextTokenizer, load_clip
from tests.support.checks import close, refused
from tests.support.models import OTHER, SAME, SIZE, batch, images, normal_images, scrambled, step

WORDS = ["the", "sofa", "lamp", "bed", "floor", "is", "left", "of", "above", "</s>"]
VISION = {
    **{"image_size": SIZE, "timm_model_name": "spatialbench_siglip_tower"},
    **{"timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"},
}
TEXT = {
    **{"context_length": 16, "vocab_size": 32, "width": 48, "heads": 3, "layers": 2},
    **{"no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    **{"tokenizer_kwargs": {"clean": "canonicalize"}, "norm_kwargs": {"eps": 1e-6}},
}


def write_config(folder: Path, name: str, words: Path, pool: str = "map") -> str:
    """open_clip's ViT-*-SigLIP in small."""
    config = {"embed_dim": 48, "init_logit_bias": -10, "custom_text": True}
    config["vision_cfg"] = {**VISION, "timm_pool": pool}
    config["text_cfg"] = {**TEXT, "hf_tokenizer_name": str(words)}
    (folder / f"{name}.json").write_text(json.dumps(config))
    return f"{folder / name}.json:random"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """With a tokenizer that pads with its end token, as SigLIP's."""
    folder = tmp_path_factory.mktemp("siglip")
    known = {word: number for number, word in enumerate(["<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(known, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", len(WORDS))]
    )
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, padding_side="right", **special)
    tokenizer.save_pretrained(folder / "words")
    return write_config(folder, "tiny-SigLIP", folder / "words")


def test_a_checkpoint_of_open_clip_gives_open_clips_outputs(spec: str, tmp_path: Path) -> None:
    load_clip(spec, pooled=True)  # open_clip knows the config from here on
    upstream = scrambled(open_clip.create_model("tiny-SigLIP", precision="fp32"))
    path = tmp_path / "open_clip_model.safetensors"
    save_file(upstream.state_dict(), path)
    model, x = load_clip(spec.replace(":random", f":{path}"), pooled=True), normal_images()
    tokens = TextTokenizer(spec)(["the sofa is left of the bed.", "the lamp."])
    with torch.no_grad():
        close(towers.encode_image(model, x), upstream.encode_image(x), 1e-4)
        torch.testing.assert_close(towers.encode_text(model, tokens), upstream.encode_text(tokens))
    assert open_clip_student.normalisation(model) == ((0.5,) * 3, (0.5,) * 3)
    assert open_clip_student.resize_mode(model) == "squash"


def test_the_tokens_are_open_clips(spec: str, tmp_path: Path) -> None:
    captions, tokenize = ["the sofa is left of the bed.", "the floor lamp."], TextTokenizer(spec)
    assert tokenize(captions).equal(open_clip.get_tokenizer("tiny-SigLIP")(captions))
    with refused("longer than the 16 tokens"):
        tokenize(["the " * 16])
    assert tokenize(["the " * 15]).shape == (1, 16)
    with refused(r"the tokenizer of student .* cannot be loaded"):
        Clip(write_config(tmp_path, "lost-SigLIP", tmp_path / "nowhere"))


def test_the_hook_sees_the_patches_of_every_block(spec: str) -> None:
    model, x = load_clip(spec, pooled=True), normal_images(2)
    seen = []

    def look(block: int, q: Tensor, k: Tensor, v: Tensor) -> towers.QKV:
        seen.append((block, q.shape, k.shape, v.shape))
        return q, k, 2 * v

    plain, changed = towers.visual_tokens(model, x), towers.visual_tokens(model, x, look)
    assert seen == [(block, *(3 * [(2, 3, 16, 16)])) for block in range(3)]
    assert not changed.local.allclose(plain.local, atol=1e-3)
    assert torch.equal(changed.cls, towers.encode_image(model, x, look))
    assert not changed.cls.allclose(plain.cls)


@pytest.mark.parametrize("proj", ["none", "linear"])
def test_tokens_are_the_pooled_vector_and_what_is_pooled(proj: str) -> None:
    visual: Any = TimmModel("spatialbench_siglip_tower", 48, SIZE, pool="map", proj=proj).eval()
    x = normal_images()
    tokens = towers.visual_tokens(SimpleNamespace(visual=visual), x)
    close(tokens.cls, visual(x), 0, 1e-6)
    _, features = visual.trunk.forward_intermediates(x, norm=True, output_fmt="NLC")
    close(tokens.local, visual.head(features[-1]), 0, 1e-6)
    assert tokens.grid == (4, 4)
    tokens.cls.sum().backward()
    assert visual.trunk.attn_pool.kv.weight.grad.any()


@pytest.mark.parametrize("vfm", [SAME, OTHER])
def test_spatial_attention_pairs_patches_with_patches(spec: str, vfm: str) -> None:
    """Equation (3) for one block, with the VFM's patches alone: its class token has no partner."""
    method, x = SpatialAttention(spec, vfm, cache=False), images(2)
    q, k, v = (torch.randn(2, 3, 16, 16) for _ in range(3))
    wide_q, wide_k, same_v = method.connect(x)(1, q, k, v)
    number = method.vfm_block(1)
    tokens = method.vfm.tokens(x)[:, number]
    if method.vfm.grid == towers.patch_grid(method.student, x):
        own_q, own_k = method.vfm.qkv(number, tokens, values=False)
        assert wide_q.equal(torch.cat([q, own_q[:, :, 1:]], -1))
        assert wide_k.equal(torch.cat([k, own_k[:, :, 1:]], -1))
    assert wide_q.shape == (2, 3, 16, 16 + method.vfm.head_dim)
    assert same_v is v
    assert torch.isfinite(method.image(x)).all()


def test_a_training_step_reaches_both_towers_and_not_the_bias(spec: str) -> None:
    method = SpatialAttention(spec, SAME, cache=False)
    _, gradients = step(method, batch())
    for name in ("visual.trunk.attn_pool.latent", "visual.trunk.blocks.0.attn.qkv.weight"):
        assert gradients[f"student.{name}"].any()
    assert gradients["student.text.text_projection.weight"].any()
    assert not method.student.logit_bias.requires_grad


def test_what_siglip_does_not_support_is_refused(spec: str, tmp_path: Path) -> None:
    with refused("no dense map"):
        Clip(spec).dense(images(1))
    with refused("no class token, which this method reads; take one such as"):
        Refiner(spec)
    with refused("not a plain CLIP"):
        load_clip(spec)
    with refused("not a plain CLIP"):  # a tower of timm without the pooling head
        load_clip(write_config(tmp_path, "avg-SigLIP", tmp_path, "avg"), pooled=True)


@torch.no_grad()
def test_its_patches_are_seen_without_a_class_token(spec: str) -> None:
    model = Clip(spec).eval()
    seen, embeddings = see_student(model, images(2))
    assert torch.equal(embeddings, model.image(images(2)))
    assert list(seen.patches) == ["1", "2", "3", "output"]
    assert seen.attention.shape == (2, 3, 16, 16)
    output = model.student.visual.trunk.norm(seen.patches["output"])
    torch.testing.assert_close(
        model.student.visual.head(output), model.visual_tokens(images(2)).local
    )
