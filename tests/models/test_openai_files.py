"""OpenAI's own files of CLIP, and those that DIVA's code leaves, are read as they are."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from spatialbench.models.files.openai_files import openai_state
from spatialbench.models.open_clip_student import TextTokenizer, load_clip
from spatialbench.models.towers import encode_image, encode_text
from spatialbench.utils.errors import SpatialbenchError
from tests.support.models import images, student

NUMBERS = {
    "input_resolution": torch.tensor(32),
    "context_length": torch.tensor(20),
    "vocab_size": torch.tensor(733),
}


class Tree(nn.Module):
    """A module with the tensors of a state, by their names."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        for name, value in state.items():
            *path, last = name.split(".")
            place: nn.Module = self
            for part in path:
                if part not in place._modules:
                    place.add_module(part, nn.Module())
                place = place.get_submodule(part)
            place.register_buffer(last, value)

    def forward(self, x: Tensor) -> Tensor:
        return x


def state(spec: str) -> dict[str, Tensor]:
    """In half precision, as OpenAI's."""
    return {name: value.half() for name, value in load_clip(spec).state_dict().items()}


def saved(kind: str, weights: dict[str, Tensor], path: Path) -> Path:
    if kind == "archive":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch would rather have torch.export
            torch.jit.save(torch.jit.trace(Tree(weights | NUMBERS), torch.zeros(1)), str(path))
    elif kind == "state":
        torch.save(weights | NUMBERS, path)
    else:
        diva = {f"class_model.model.{name}": value for name, value in weights.items()}
        torch.save(diva | {"unet.conv_in.weight": torch.zeros(2)}, path)
    return path


@pytest.mark.parametrize("kind", ["archive", "state", "diva"])
def test_the_weights_come_as_they_are(kind: str, tmp_path: Path) -> None:
    spec = student("openai", quick_gelu=True)
    weights = state(spec)
    found = load_clip(f"{spec.removesuffix(':random')}:{saved(kind, weights, tmp_path / 'ViT.pt')}")
    for name, value in found.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights[name].float()), name
    x = images(2).float() / 255
    wanted = load_clip(spec)
    wanted.load_state_dict({name: value.float() for name, value in weights.items()})
    torch.testing.assert_close(found.encode_image(x), wanted.encode_image(x))


def test_gelu_and_another_size_are_told_of(tmp_path: Path) -> None:
    weights = state(student("openai", quick_gelu=True))
    path = saved("state", weights, tmp_path / "ViT.pt")
    plain = student("gelu").removesuffix(":random")
    with pytest.raises(
        SpatialbenchError,
        match="were trained with QuickGELU, which the model spatialbench-gelu does",
    ):
        load_clip(f"{plain}:{path}")
    wide = student("wide", quick_gelu=True, vision='{"layers": 2}').removesuffix(":random")
    with pytest.raises(
        SpatialbenchError, match=r"the weights do not fit the model: .*resblocks"
    ) as caught:
        load_clip(f"{wide}:{path}")
    assert "\n" not in str(caught.value)


def test_other_files_are_left_to_open_clip(tmp_path: Path) -> None:
    spec = student()
    model = load_clip(spec)
    with torch.no_grad():
        model.visual.proj += 1
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    save_file(model.state_dict(), tmp_path / "plain.safetensors")
    (tmp_path / "damaged.pt").write_bytes(b"no archive")
    for name in ("plain.pt", "plain.safetensors"):
        assert openai_state(tmp_path / name) is None
        found = load_clip(f"{spec.removesuffix(':random')}:{tmp_path / name}")
        assert torch.equal(found.visual.proj, model.visual.proj)
    with pytest.raises(SpatialbenchError, match="cannot be loaded"):
        load_clip(f"{spec.removesuffix(':random')}:{tmp_path / 'damaged.pt'}")


@pytest.mark.parametrize("kind", ["archive", "state"])
def test_both_towers_are_open_clips_reading_of_an_openai_state(kind: str, tmp_path: Path) -> None:
    """open_clip builds the model from the state itself, QuickGELU and all, as OpenAI's own code does."""
    vision = '{"layers": 2, "width": 64, "head_width": 64}'
    spec = student(
        "openai-golden", vision=vision, text='{"width": 64, "heads": 1}', quick_gelu=True
    )
    weights = state(spec)
    upstream = build_model_from_openai_state_dict(dict(weights | NUMBERS)).float()
    found = load_clip(f"{spec.removesuffix(':random')}:{saved(kind, weights, tmp_path / 'ViT.pt')}")
    x, tokens = (
        images(2).float() / 255,
        TextTokenizer(spec)(["The sofa is left of the bed.", "The lamp."]),
    )
    with torch.no_grad():
        torch.testing.assert_close(
            encode_image(found, x), upstream.encode_image(x), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            encode_text(found, tokens), upstream.encode_text(tokens), rtol=1e-4, atol=1e-5
        )
    assert found.logit_scale.equal(upstream.logit_scale)
