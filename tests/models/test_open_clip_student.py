"""Loading the student: every mistake is one line that says what and where."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from spatialbench.models.files.clip_files import check_activation, openai_file
from spatialbench.models.open_clip_student import (
    TextTokenizer,
    load_clip,
    normalisation,
    resize_mode,
)
from spatialbench.models.towers import encode_image, encode_text
from spatialbench.utils.errors import SpatialbenchError
from tests.support.models import student


def test_the_shipped_config_is_known_to_open_clip() -> None:
    model = load_clip("rooms-student:random")
    assert "rooms-student" in open_clip.list_models()
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert TextTokenizer("rooms-student")(["The sofa is left of the bed."]).shape == (
        1,
        model.context_length,
    )
    vocabulary = open_clip.get_model_config("rooms-student")["text_cfg"]["vocab_size"]
    assert TextTokenizer("rooms-student")(["The sofa."]).max() == vocabulary - 1, (
        "the end token is the last"
    )


def test_random_weights_that_were_asked_for_are_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        load_clip(student())
    assert not caplog.records


def test_weights_from_a_file(tmp_path: Path) -> None:
    spec = student().removesuffix(":random")
    first = load_clip(spec)
    save_file(first.state_dict(), tmp_path / "a.safetensors")
    torch.save(
        {"state_dict": {f"student.{k}": v for k, v in first.state_dict().items()}},
        tmp_path / "b.ckpt",
    )
    for name in ("a.safetensors", "b.ckpt"):
        again = load_clip(f"{spec}:{tmp_path / name}")
        assert all(
            value.equal(first.state_dict()[key]) for key, value in again.state_dict().items()
        )


def test_normalisation_is_clips() -> None:
    mean, std = normalisation(load_clip(student()))
    assert mean == open_clip.OPENAI_DATASET_MEAN
    assert std == open_clip.OPENAI_DATASET_STD


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ViT-Z-99", "open_clip knows no model 'ViT-Z-99'"),
        ("nowhere/config.json", "there is no config file nowhere/config.json"),
        ("ViT-B-32:nothing.pt", "there is no weights file nothing.pt, nor a pretrained tag"),
        ("rooms-student:missing.safetensors", "there is no weights file missing.safetensors"),
    ],
)
def test_a_spec_that_names_nothing(spec: str, message: str) -> None:
    with pytest.raises(SpatialbenchError, match=message) as error:
        load_clip(spec)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["wrong.safetensors", "broken.safetensors", "wrong.ckpt", "broken.ckpt"]
)
def test_weights_that_do_not_fit(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("broken"):
        path.write_bytes(b"not weights")
    elif path.suffix == ".ckpt":
        torch.save({"state_dict": {"student.logit_scale": torch.zeros(())}}, path)
    else:
        save_file({"visual.conv1.weight": torch.zeros(2, 3, 8, 8)}, path)
    with pytest.raises(SpatialbenchError, match=name) as error:
        load_clip(f"{student().removesuffix(':random')}:{path}")
    assert "\n" not in str(error.value)


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
    with pytest.raises(SpatialbenchError, match="not a plain CLIP"):
        load_clip(student(name, vision=vision, text=text))


def test_a_caption_that_is_too_long() -> None:
    tokenize = TextTokenizer(student())
    fits = "the " * 18
    assert tokenize([fits, "the"]).shape == (2, 20)
    with pytest.raises(SpatialbenchError, match="longer than the 20 tokens"):
        tokenize(["the", fits + "the"])


def test_captions_keep_their_tokens_when_what_was_remembered_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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


@pytest.mark.parametrize(("model", "other"), [("ViT-B-16:openai", "ViT-B-16-quickgelu:openai")])
def test_weights_of_another_activation_are_refused_before_anything_is_fetched(
    model: str, other: str
) -> None:
    with pytest.raises(SpatialbenchError, match=f"trained with QuickGELU, which .*; take {other}"):
        load_clip(model)
    check_activation("ViT-B-16-quickgelu", "openai", other)  # fits
    check_activation("ViT-B-16", "laion2b_s34b_b88k", "ViT-B-16:laion2b_s34b_b88k")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A random model in the form of a published one: weights, and open_clip's config beside them."""
    model = load_clip(student("published", quick_gelu=True))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    config = {
        "model_cfg": {"quick_gelu": True},
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "resize_mode": "squash"},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    return tmp_path / "open_clip_model.safetensors"


def test_published_weights_give_open_clips_outputs_and_bring_their_preprocessing(
    published: Path,
) -> None:
    config = student("published", quick_gelu=True).removesuffix(":random")
    model = load_clip(f"{config}:{published}")
    upstream = open_clip.create_model(
        "spatialbench-published", pretrained=str(published), precision="fp32"
    ).eval()
    x, tokens = (
        torch.randn(2, 3, 32, 32),
        TextTokenizer(config)(["The sofa.", "The lamp is left of the sofa."]),
    )
    with torch.no_grad():
        assert model.encode_image(x).equal(upstream.encode_image(x))
        torch.testing.assert_close(
            encode_image(model, x), upstream.encode_image(x), rtol=1e-5, atol=1e-6
        )
        torch.testing.assert_close(
            encode_text(model, tokens), upstream.encode_text(tokens), rtol=1e-5, atol=1e-6
        )
    assert normalisation(model)[0] == (0.1, 0.2, 0.3)
    assert resize_mode(model) == "squash"


def test_the_config_beside_a_file_says_its_activation(published: Path) -> None:
    plain = student("gelu-beside").removesuffix(":random")
    with pytest.raises(
        SpatialbenchError, match="trained with QuickGELU, which the model spatialbench-gelu-beside"
    ):
        load_clip(f"{plain}:{published}")


def test_openais_tags_are_its_own_files_at_the_hash_in_their_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        SpatialbenchError, match=r"ViT-L-14-336px\.pt is not on this machine, .*HF_HUB_OFFLINE"
    ):
        load_clip("ViT-L-14-336-quickgelu:openai")
    file = openai_file(open_clip.get_pretrained_cfg("ViT-L-14-336-quickgelu", "openai")["url"])
    assert file is not None
    assert (file.name, file.sha256[:8]) == ("ViT-L-14-336px.pt", "3035c92b")
    assert openai_file("https://example.org/x/y.pt") is None
    for name, tags in (
        (name, open_clip.list_pretrained_tags_by_model(name)) for name in open_clip.list_models()
    ):
        if "openai" in tags:  # every one of them, whatever open_clip adds
            known = openai_file(open_clip.get_pretrained_cfg(name, "openai")["url"])
            assert known is not None
            assert re.fullmatch("[0-9a-f]{64}", known.sha256), name


def test_an_openai_file_in_a_folder_is_found_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tag, end to end, on a file of OpenAI's form that the test writes."""
    spec = student("openai-tag", quick_gelu=True)
    model = load_clip(spec)
    numbers = {"input_resolution": 32, "context_length": 20, "vocab_size": 733}
    state = {name: value.half() for name, value in model.state_dict().items()}
    torch.save(
        state | {name: torch.tensor(value) for name, value in numbers.items()}, tmp_path / "tiny.pt"
    )
    sha256 = hashlib.sha256((tmp_path / "tiny.pt").read_bytes()).hexdigest()
    known = {
        "url": f"https://openaipublic.example/clip/models/{sha256}/tiny.pt",
        "quick_gelu": True,
    }
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: known)
    monkeypatch.setenv("SPATIALBENCH_WEIGHTS", str(tmp_path))
    found = load_clip(f"{spec.removesuffix(':random')}:openai")
    assert all(value.equal(state[name].float()) for name, value in found.state_dict().items())
