"""The exported folder, read by the library it is for, says what the method says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from spatialbench.cli.main import main
from spatialbench.methods.base import Method
from spatialbench.methods.clip import Clip
from spatialbench.methods.refiner import Refiner
from spatialbench.methods.residual_linear import ResidualLinear
from spatialbench.training.export_clip import export, why_not_plain
from spatialbench.utils.errors import SpatialbenchError
from tests.support import tiny

CAPTIONS = [
    "The sofa is left of the lamp.",
    "a red sofa and a blue lamp",
    "The bed is farther than the TV stand!",
]


def changed(model: Method) -> Method:
    """Other weights than the shipped ones, as after training."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter) * parameter.std(correction=0))
    return model.eval()


def tiny_clip(folder: Path, **vision: object) -> Clip:
    config = {
        **tiny.STUDENT,
        "vision_cfg": {**tiny.STUDENT["vision_cfg"], **vision},
        "quick_gelu": True,
    }
    (folder / "tiny-quick.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    return Clip(f"{folder / 'tiny-quick.json'}:random").eval()


@pytest.fixture(params=["rooms-student", "quickgelu"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Method:
    return changed(Clip()) if request.param == "rooms-student" else tiny_clip(tmp_path)


def picture(size: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    )


def own(model: Method) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(np.asarray(picture(model.image_size)).copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        return model.image(pixels), model.text(model.tokenize(CAPTIONS))


def test_open_clip_reads_it_by_itself(model: Method, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "exported"
    assert export(model, "open_clip", folder) == []
    assert {"open_clip_config.json", "open_clip_model.safetensors", "spatialbench.json"} <= {
        path.name for path in folder.iterdir()
    }
    loaded, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    image, text = own(model)
    with torch.inference_mode():
        found = loaded.encode_image(preprocess(picture(model.image_size))[None], normalize=True)
        texts = loaded.encode_text(tokenizer(CAPTIONS), normalize=True)
    torch.testing.assert_close(found, image, atol=1e-5, rtol=0)
    torch.testing.assert_close(texts, text, atol=1e-5, rtol=0)
    assert all(
        torch.equal(value, model.student.state_dict()[name])
        for name, value in loaded.state_dict().items()
    )


def test_transformers_reads_it_by_itself(model: Method, tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    folder = tmp_path / "exported"
    assert export(model, "hf", folder) == []
    loaded, processor = (
        CLIPModel.from_pretrained(folder).eval(),
        CLIPProcessor.from_pretrained(folder),
    )
    ready = processor(
        text=CAPTIONS, images=picture(model.image_size), padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        found = loaded(**ready)
    image, text = own(model)
    torch.testing.assert_close(found.image_embeds, image, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.text_embeds, text, atol=1e-5, rtol=0)
    scale = model.student.logit_scale.exp()
    torch.testing.assert_close(found.logits_per_image, scale * image @ text.T, atol=1e-3, rtol=0)


def test_a_method_with_a_side_branch_leaves_no_plain_clip(tmp_path: Path) -> None:
    linear = ResidualLinear().eval()
    assert why_not_plain(linear) == ""  # before training its connections are zero
    for parameter in linear.connections.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    with pytest.raises(
        SpatialbenchError, match=r"no plain CLIP.*side branch \(.*connections\).*pictures"
    ):
        export(linear, "open_clip", tmp_path / "out")
    refiner = Refiner().eval()
    for parameter in refiner.refiner.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    assert "embeddings of patches" in why_not_plain(refiner)
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_that_transformers_has_not_is_told(tmp_path: Path) -> None:
    model = tiny_clip(tmp_path, pool_type="avg")
    with pytest.raises(
        SpatialbenchError, match="image tower pools its patches; export it --to open_clip"
    ):
        export(model, "hf", tmp_path / "out")
    assert export(model, "open_clip", tmp_path / "out") == []


def test_a_library_that_reads_something_else_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spatialbench.models.files import hf_export

    monkeypatch.setattr(
        hf_export, "_activation", lambda block: "gelu"
    )  # the field's commonest silent error
    with pytest.raises(SpatialbenchError, match="hf reads other embeddings of pictures"):
        export(tiny_clip(tmp_path), "hf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.benchmark(tmp_path / "benchmarks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    page = ["--config", str(folder / "clip.yaml"), "--track", "tiny", "--budget", "smoke"]
    assert main(["export", *page, "--to", "open_clip", "out"]) == 2
    assert "no run of page" in capsys.readouterr().err
    assert main(["fit", *page]) == 0
    assert main(["export", *page, "--ckpt_path", "LAST", "--to", "open_clip", "out"]) == 0
    assert "out: clip for open_clip, embeddings compared: equal" in capsys.readouterr().out
    assert json.loads(Path("out/spatialbench.json").read_text())["page"] == "clip"
    assert main(["export", *page, "--to", "hf", "out"]) == 2
    assert "has something in it already" in capsys.readouterr().err
