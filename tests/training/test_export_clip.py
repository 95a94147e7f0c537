"""The exported folder gives the method's embeddings in the library that it is for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from spatialbench.cli.main import main
from spatialbench.methods.base import FineTuning, Method
from spatialbench.methods.clip import Clip
from spatialbench.methods.cloc import Cloc
from spatialbench.methods.location_head import LocationHead
from spatialbench.methods.refiner import Refiner
from spatialbench.methods.residual_linear import ResidualLinear
from spatialbench.models.files import hf_export
from spatialbench.training.export_clip import export, why_not_plain
from tests.support import tiny
from tests.support.checks import close, refused
from tests.support.models import shaken

CAPTIONS = ["The sofa is left of the lamp.", "a red sofa", "The bed is farther than the TV stand!"]


def tiny_clip(folder: Path, **vision: Any) -> Clip:
    config = {**tiny.STUDENT, "vision_cfg": {**tiny.STUDENT["vision_cfg"], **vision}}
    (folder / "tiny-quick.json").write_text(json.dumps({**config, "quick_gelu": True}))
    torch.manual_seed(0)
    return Clip(f"{folder / 'tiny-quick.json'}:random").eval()


@pytest.fixture(params=["rooms-student", "quickgelu"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Method:
    """Shipped student with changed weights, as after training; or one of another activation."""
    return tiny_clip(tmp_path) if request.param == "quickgelu" else shaken(Clip()).eval()


def image(size: int) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def own(model: Method) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(np.asarray(image(model.image_size)).copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return model.image(pixels), model.text(model.tokenize(CAPTIONS))


@pytest.mark.parametrize("method", [LocationHead, Cloc, Clip])
def test_what_learned_another_way_is_a_plain_clip(method: type[Method], tmp_path: Path) -> None:
    """Dropped heads, or a start from scrambled projections: the export is that of the student."""
    model = shaken(method(finetuning=FineTuning(projections="transposed"))).eval()
    plain = Clip()
    plain.student.load_state_dict(model.student.state_dict())
    for name, exported in (("own", model), ("plain", plain.eval())):
        assert export(exported, "open_clip", tmp_path / name) == []
    weights = "open_clip_model.safetensors"
    assert (tmp_path / "own" / weights).read_bytes() == (tmp_path / "plain" / weights).read_bytes()


def test_open_clip_reads_it_by_itself(model: Method, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "exported"
    assert export(model, "open_clip", folder) == []
    assert (folder / "spatialbench.json").is_file()
    loaded, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        pixels = preprocess(image(model.image_size))[None]
        images = loaded.encode_image(pixels, normalize=True)
        texts = loaded.encode_text(tokenizer(CAPTIONS), normalize=True)
    close((images, texts), own(model), 0, 1e-5)
    state = model.student.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_transformers_reads_it_by_itself(model: Method, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    assert export(model, "hf", folder) == []
    loaded = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPProcessor.from_pretrained(folder)
    inputs = {"text": CAPTIONS, "images": image(model.image_size), "padding": True}
    with torch.inference_mode():
        output = loaded(**processor(**inputs, return_tensors="pt"))
    images, texts = own(model)
    close((output.image_embeds, output.text_embeds), (images, texts), 0, 1e-5)
    logits = model.student.logit_scale.exp() * images @ texts.T
    close(output.logits_per_image, logits, 0, 1e-3)


def test_a_method_with_a_side_branch_leaves_no_plain_clip(tmp_path: Path) -> None:
    linear, refiner = ResidualLinear().eval(), Refiner().eval()
    assert why_not_plain(linear) == ""  # before training its connections are zero
    for parameter in (*linear.connections.parameters(), *refiner.refiner.parameters()):
        torch.nn.init.normal_(parameter, std=0.1)
    with refused(r"no plain CLIP.*side branch \(.*connections\).*images"):
        export(linear, "open_clip", tmp_path / "out")
    assert "embeddings of patches" in why_not_plain(refiner)
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_that_transformers_does_not_support(tmp_path: Path) -> None:
    model = tiny_clip(tmp_path, pool_type="avg")
    with refused("image tower pools its patches; export it --to open_clip"):
        export(model, "hf", tmp_path / "out")
    assert export(model, "open_clip", tmp_path / "out") == []


def test_a_library_that_reads_something_else_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The field's commonest silent error."""
    monkeypatch.setattr(hf_export, "_activation", lambda block: "gelu")
    with refused("hf reads other embeddings of images"):
        export(tiny_clip(tmp_path), "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.benchmark(tmp_path / "benchmarks")
    monkeypatch.chdir(tmp_path)
    page = ["--config", str(folder / "clip.yaml"), "--track", "tiny", "--budget", "smoke"]
    assert main(["export", *page, "--to", "open_clip", "out"]) == 2
    assert "no run of page" in capsys.readouterr().err
    assert main(["fit", *page]) == 0
    assert main(["export", *page, "--ckpt_path", "LAST", "--to", "open_clip", "out"]) == 0
    assert "out: clip for open_clip, embeddings compared: equal" in capsys.readouterr().out
    assert json.loads(Path("out/spatialbench.json").read_text())["page"] == "clip"
    assert main(["export", *page, "--to", "hf", "out"]) == 2
    assert "has something in it already" in capsys.readouterr().err
