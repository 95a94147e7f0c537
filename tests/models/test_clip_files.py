"""Published weights of CLIP: OpenAI's own files, DIVA's, and open_clip's with their config."""

import hashlib
import json
import re
import warnings
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from spatialbench.models import open_clip_student
from spatialbench.models.files.clip_files import check_activation, openai_file
from spatialbench.models.open_clip_student import TextTokenizer, load_clip
from spatialbench.models.towers import encode_image, encode_text
from tests.support.checks import close, refused
from tests.support.models import normal_images, student

VALUES = {"input_resolution": 32, "context_length": 20, "vocab_size": 733}
NUMBERS = {name: torch.tensor(value) for name, value in VALUES.items()}


def tree(state: dict[str, Tensor]) -> nn.Module:
    """Make a module with the tensors of a state, by their names."""
    root = nn.Identity()
    for name, value in state.items():
        *path, last = name.split(".")
        place: nn.Module = root
        for part in path:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.register_buffer(last, value)
    return root


@pytest.fixture(scope="module")
def spec() -> str:
    """Student of one size of heads, as open_clip assumes of OpenAI's states."""
    vision = '{"layers": 2, "width": 64, "head_width": 64}'
    return student("openai", vision, '{"width": 64, "heads": 1}', quick_gelu=True)


@pytest.fixture(scope="module")
def weights(spec: str) -> dict[str, Tensor]:
    """Write in half precision, as OpenAI's."""
    return {name: value.half() for name, value in load_clip(spec).state_dict().items()}


def saved(kind: str, weights: dict[str, Tensor], path: Path) -> Path:
    if kind == "archive":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch would rather have torch.export
            torch.jit.save(torch.jit.trace(tree(weights | NUMBERS), torch.zeros(1)), str(path))
    elif kind == "state":
        torch.save(weights | NUMBERS, path)
    else:
        diva = {f"class_model.model.{name}": value for name, value in weights.items()}
        torch.save(diva | {"unet.conv_in.weight": torch.zeros(2)}, path)
    return path


def with_weights(spec: str, path: Path | str) -> str:
    return f"{spec.removesuffix(':random')}:{path}"


@pytest.mark.parametrize("kind", ["archive", "state", "diva"])
def test_weights_and_towers_are_open_clips_reading_of_an_openai_state(
    kind: str, spec: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    """open_clip builds the model from the state, with QuickGELU, as OpenAI's own code does."""
    model = load_clip(with_weights(spec, saved(kind, weights, tmp_path / "ViT.pt")))
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights[name].float()), name
    upstream = build_model_from_openai_state_dict(dict(weights | NUMBERS)).float()
    x, tokens = normal_images(2), TextTokenizer(spec)(["The sofa is left of the bed.", "A lamp."])
    with torch.no_grad():
        close(encode_image(model, x), upstream.encode_image(x), 1e-4, 1e-5)
        close(encode_text(model, tokens), upstream.encode_text(tokens), 1e-4, 1e-5)


def test_gelu_and_another_size_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved("state", weights, tmp_path / "ViT.pt")
    with refused("were trained with QuickGELU, which the model spatialbench-gelu does"):
        load_clip(with_weights(student("gelu"), path))
    with refused(r"do not fit the model: .*resblocks"):
        load_clip(with_weights(student("wide", quick_gelu=True), path))


def test_weights_of_another_activation_are_refused_before_any_download() -> None:
    with refused("trained with QuickGELU, which .*; take ViT-B-16-quickgelu:openai"):
        load_clip("ViT-B-16:openai")
    check_activation("ViT-B-16-quickgelu", "openai", "fits")
    check_activation("ViT-B-16", "laion2b_s34b_b88k", "fits")


def test_published_weights_give_open_clips_outputs_and_bring_their_preprocessing(
    tmp_path: Path,
) -> None:
    spec, path = student("published", quick_gelu=True), tmp_path / "open_clip_model.safetensors"
    save_file(load_clip(spec).state_dict(), path)
    preprocessing = {"mean": [0.1, 0.2, 0.3], "resize_mode": "squash"}
    config = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": preprocessing}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    model, x = load_clip(with_weights(spec, path)), normal_images(2)
    name = "spatialbench-published"
    upstream = open_clip.create_model(name, pretrained=str(path), precision="fp32").eval()
    with torch.no_grad():
        close(encode_image(model, x), upstream.encode_image(x), 1e-5, 1e-6)
    assert open_clip_student.normalisation(model)[0] == (0.1, 0.2, 0.3)
    assert open_clip_student.resize_mode(model) == "squash"
    with refused("trained with QuickGELU, which the model spatialbench-gelu-beside"):
        load_clip(with_weights(student("gelu-beside"), path))


def test_openais_tags_are_its_own_files_at_the_hash_in_their_address() -> None:
    assert openai_file("https://example.org/x/y.pt") is None
    for name in open_clip.list_models():
        if "openai" in open_clip.list_pretrained_tags_by_model(name):  # all that open_clip adds
            file = openai_file(open_clip.get_pretrained_cfg(name, "openai")["url"])
            assert file is not None
            assert re.fullmatch("[0-9a-f]{64}", file.sha256), name


def test_an_openai_file_in_a_folder_is_found_by_its_hash(
    spec: str, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tag, end to end, on a file of OpenAI's form that the test writes."""
    content = saved("state", weights, tmp_path / "tiny.pt").read_bytes()
    url = f"https://openaipublic.example/clip/models/{hashlib.sha256(content).hexdigest()}/tiny.pt"
    known = {"url": url, "quick_gelu": True}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: known)
    monkeypatch.setenv("SPATIALBENCH_WEIGHTS", str(tmp_path))
    state = load_clip(with_weights(spec, "openai")).state_dict()
    assert all(value.equal(weights[name].float()) for name, value in state.items())
