"""Loading the student: every mistake is one line that says what and where."""

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from spatialbench.models.open_clip_student import (
    TextTokenizer,
    load_clip,
    normalisation,
    transpose_projections,
)
from spatialbench.models.towers import image_blocks, merge_heads, project_qkv
from tests.support.checks import close, refused
from tests.support.models import student


def test_the_shipped_config_is_known_to_open_clip() -> None:
    model, tokenize = load_clip("rooms-student:random"), TextTokenizer("rooms-student")
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert tokenize(["The sofa is left of the bed."]).shape == (1, model.context_length)
    vocabulary = open_clip.get_model_config("rooms-student")["text_cfg"]["vocab_size"]
    assert tokenize(["The sofa."]).max() == vocabulary - 1, "the end token is the last"


def test_random_weights_that_were_asked_for_are_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = load_clip(student())
    assert not caplog.records
    wanted = (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    assert normalisation(model) == wanted


def test_transposed_projections_multiply_by_w() -> None:
    """Query, key, value and output of every block as x W instead of x W^T, in double."""
    model = load_clip(student()).double()
    states = [{k: v.clone() for k, v in b.state_dict().items()} for b in image_blocks(model)]
    words = model.transformer.resblocks[0].attn.in_proj_weight.clone()
    transpose_projections(model)
    for block, state in zip(image_blocks(model), states, strict=True):
        x = torch.randn(1, 17, 48, dtype=torch.float64)
        weights = state["attn.in_proj_weight"].chunk(3)
        biases = state["attn.in_proj_bias"].chunk(3)
        for part, weight, bias in zip(project_qkv(block, x), weights, biases, strict=True):
            close(merge_heads(part), block.ln_1(x) @ weight + bias, rtol=1e-9)
        wanted = x @ state["attn.out_proj.weight"] + state["attn.out_proj.bias"]
        close(block.attn.out_proj(x), wanted, rtol=1e-9)
    assert model.transformer.resblocks[0].attn.in_proj_weight.equal(words), "not the text tower"


@pytest.mark.parametrize("name", ["a.safetensors", "b.ckpt", "c.pt"])
def test_weights_from_a_file(name: str, tmp_path: Path) -> None:
    spec = student().removesuffix(":random")
    state = load_clip(spec).state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"student.{k}": v for k, v in state.items()}}, tmp_path / "b.ckpt")
    torch.save(state, tmp_path / "c.pt")
    again = load_clip(f"{spec}:{tmp_path / name}").state_dict()
    assert all(value.equal(state[key]) for key, value in again.items())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ViT-Z-99", "open_clip knows no model 'ViT-Z-99'"),
        ("nowhere/config.json", "there is no config file nowhere/config.json"),
        ("ViT-B-32:nothing.pt", "there is no weights file nothing.pt, nor published weights"),
    ],
)
def test_a_spec_that_names_nothing(spec: str, message: str) -> None:
    with refused(message):
        load_clip(spec)


@pytest.mark.parametrize("form", ["safetensors", "ckpt"])
def test_weights_that_do_not_fit_or_are_damaged(tmp_path: Path, form: str) -> None:
    broken, wrong = tmp_path / f"broken.{form}", tmp_path / f"wrong.{form}"
    broken.write_bytes(b"not weights")
    if form == "ckpt":
        torch.save({"state_dict": {"student.logit_scale": torch.zeros(())}}, wrong)
    else:
        save_file({"visual.conv1.weight": torch.zeros(2, 3, 8, 8)}, wrong)
    for path in (broken, wrong):
        with refused(path.name):
            load_clip(f"{student().removesuffix(':random')}:{path}")


@pytest.mark.parametrize(
    ("name", "vision", "text"),
    [
        ("resnet", '{"layers": [1, 1, 1, 1], "width": 8, "head_width": 64}', "{}"),
        ("dropout", '{"patch_dropout": 0.5}', "{}"),
        ("own_blocks", '{"qk_norm": true}', "{}"),
        ("both_directions", "{}", '{"no_causal_mask": true}'),
    ],
)
def test_a_model_that_is_no_plain_clip(name: str, vision: str, text: str) -> None:
    with refused("not a plain CLIP"):
        load_clip(student(name, vision=vision, text=text))


def test_a_caption_that_is_too_long() -> None:
    tokenize = TextTokenizer(student())
    fits = "the " * 18
    assert tokenize([fits, "the"]).shape == (2, 20)
    with refused("longer than the 20 tokens"):
        tokenize(["the", fits + "the"])


def test_remembered_captions_keep_their_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ["The sofa.", "The bed.", "The sofa."]
    remembering = TextTokenizer(student())
    wanted = remembering(captions)
    with monkeypatch.context() as patch:
        patch.setattr(remembering, "_encode", None)  # not called again
        assert torch.equal(remembering(captions[::-1]), wanted[[2, 1, 0]])
    monkeypatch.setattr(TextTokenizer, "KEPT", 1)
    tokenize = TextTokenizer(student())
    for _ in range(3):
        assert torch.equal(tokenize(captions), wanted)
        assert torch.equal(tokenize(captions[1:]), wanted[1:])
