"""GenHancer: the loss is the printed equations, who learns in each stage, and what a checkpoint holds."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from spatialbench.data.image_batches import ImageBatch, ImageDataset
from spatialbench.data.region_batches import generator
from spatialbench.methods import genhancer
from spatialbench.methods.genhancer import GenHancer
from spatialbench.models.autoencoder import Autoencoder
from spatialbench.models.denoiser import PRESETS, Architecture
from spatialbench.models.lora import LoraSettings
from spatialbench.utils.errors import SpatialbenchError
from tests.support.diffusions import SCALE, SIZE, vae
from tests.support.images import Noise
from tests.support.models import images, student

LORA = LoraSettings(rank=2)
A = "student.visual.transformer.resblocks.0.mlp.c_fc.lora_A.default.weight"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", Architecture(2, 12, 10, 14, (4, 4, 4), 1, 1))
    monkeypatch.setitem(PRESETS, "other", Architecture(2, 12, 10, 14, (4, 4, 4), 2, 1))


def method(
    stage: str = "denoiser", double: bool = False, moved: bool = False, **arguments: Any
) -> GenHancer:
    """A method in training; ``moved``: the adapters are not at their start."""
    torch.manual_seed(0)
    spec = arguments.pop("student", None) or student()
    made = GenHancer(spec, stage, denoiser="tiny", lora=LORA, **arguments)  # type: ignore[arg-type]
    if stage == "clip":
        first = GenHancer(spec, denoiser="tiny")
        first.begin(Autoencoder(vae()))
        made.start_from({**first.state_dict(), **made.state_dict()}, "the first stage")
    made.begin(Autoencoder(vae()))
    if moved:
        with torch.no_grad():
            for parameter in learned(made).values():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made.double() if double else made


def learned(made: GenHancer) -> dict[str, torch.nn.Parameter]:
    return {
        name: parameter for name, parameter in made.named_parameters() if parameter.requires_grad
    }


def batch(count: int = 3, number: int = 0, size: int = SIZE) -> ImageBatch:
    return ImageBatch(pixels=images(count, size=size), key=(0, 0, number))


def printed(
    made: GenHancer, data: ImageBatch, scale: float = 1.0, posterior: bool = True
) -> Tensor:
    """(1) to (3) as loops over pictures, with the draws in their order; without dropout."""
    rng, losses = generator(data["key"]), []
    count = len(data["pixels"])
    inner = [
        made.autoencoder.vae.encode(x[None] / 127.5 - 1).latent_dist
        for x in data["pixels"].double()
    ]
    shape = (count, *inner[0].mean.shape[1:])
    n = torch.randn(shape, generator=rng).double() if posterior else torch.zeros(shape).double()
    drawn = torch.randn(count, generator=rng)
    eps = torch.randn(shape, generator=rng).double()
    for b in range(count):
        z = SCALE * (inner[b].mean[0] + inner[b].std[0] * n[b])
        t = 1 / (1 + math.exp(-scale * drawn[b].item()))
        noised = (1 - t) * z + t * eps[b]  # (2)
        c = made.condition(data["pixels"][b : b + 1])  # (1)
        said = made.denoiser(noised[None], torch.tensor([t]), c)[0]
        losses.append((said - (eps[b] - z)).square().sum() / z.numel())  # (3)
    return sum(losses) / count


@pytest.mark.parametrize("stage", ["denoiser", "clip"])
@pytest.mark.parametrize(("scale", "posterior"), [(1.0, True), (0.3, False)])
def test_loss_and_gradient_are_the_printed_equations(
    stage: str, scale: float, posterior: bool
) -> None:
    arguments = {"time_scale": scale, "posterior": posterior}
    made = method(stage, double=True, moved=True, **arguments)
    for part in made.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    loss = made.training_step(batch(), 0)
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in learned(made).items()}
    made.zero_grad()
    wanted = printed(made, batch(), **{"scale": scale, "posterior": posterior})
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)  # the times are in float32
    wanted.backward()
    for name, gradient in found.items():
        torch.testing.assert_close(
            gradient, learned(made)[name].grad, rtol=1e-3, atol=1e-6, msg=name
        )


def test_the_condition_is_the_embedding_not_normalised() -> None:
    made = method()
    x = images(2)
    wanted = made.student.encode_image((x.float() - made.mean) / made.std)
    torch.testing.assert_close(made.condition(x), wanted, rtol=1e-4, atol=1e-5)
    assert made.condition(x).shape == (2, 24)
    assert not torch.allclose(made.condition(x).norm(dim=-1), torch.ones(2), atol=1e-2)


@pytest.mark.parametrize("both", [False, True])
def test_who_gets_a_gradient(both: bool) -> None:
    first = method()
    first.training_step(batch(), 0).backward()
    for name, parameter in first.named_parameters():
        assert (parameter.grad is not None) == name.startswith("denoiser."), name
    second = method("clip", moved=True, train_denoiser=both)
    second.training_step(batch(), 0).backward()
    for name, parameter in second.named_parameters():
        adapter = "lora_" in name or (".base_layer" in name and name.endswith("bias"))
        wanted = (name.startswith("student.visual.") and adapter) or (
            both and name.startswith("denoiser.")
        )
        assert (parameter.grad is not None and bool(parameter.grad.any())) == wanted, name
    prefixes = [name for name in learned(second) if name.startswith(second.pretrained)]
    assert prefixes
    assert all(name.startswith("student.visual.") for name in prefixes)


@pytest.mark.parametrize("stage", ["denoiser", "clip"])
def test_draws_are_of_the_batch_s_key_alone(stage: str) -> None:
    """Those of the adapters' dropout, too; and the global generator is left where it was."""
    made = method(stage, moved=True)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = made.training_step(batch(), 0)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(first, made.training_step(batch(), 3))
    assert not torch.equal(first, made.training_step(batch(number=1), 0))


def test_dropout_is_of_training_steps_alone() -> None:
    made = method("clip", moved=True)
    made.train()
    x, seen = images(2), []
    plain = made.condition
    made.condition = lambda x, dropout=False: seen.append(plain(x, dropout)) or seen[-1]  # type: ignore[method-assign]
    made.training_step(batch(), 0)
    del made.condition
    assert not torch.allclose(seen[0], made.condition(batch()["pixels"]), atol=1e-4)
    assert torch.equal(made.image(x), made.image(x))


def test_embeddings_are_the_adapted_ones_before_and_after_the_merge() -> None:
    made, start = method("clip", moved=True), method()  # of one student
    x, tokens = images(2), made.tokenize(["a sofa left of a lamp"])
    image, dense, text = made.image(x), made.dense(x), made.text(tokens)
    torch.testing.assert_close(image, F.normalize(made.condition(x), dim=-1))
    made.finish_stage()
    torch.testing.assert_close(made.image(x), image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.dense(x), dense, rtol=1e-4, atol=1e-5)
    assert torch.equal(made.text(tokens), text)
    assert {name.split(".")[0] for name, _ in made.named_parameters()} == {"student"}
    assert not torch.allclose(start.image(x), image, atol=1e-3)
    for name, value in start.student.state_dict().items():
        if not name.startswith("visual."):
            assert torch.equal(made.student.state_dict()[name], value), name
    assert set(made.state_dict()) == {f"student.{name}" for name in start.student.state_dict()}


def test_pictures_are_scaled_to_the_student_for_both() -> None:
    """G5: the autoencoder sees what CLIP sees."""
    made = method()
    seen = []
    plain = made.autoencoder.encode
    made.autoencoder.encode = lambda x, rng: seen.append(x) or plain(x, rng)
    made.training_step(batch(size=48), 0)
    wanted = F.interpolate(images(3, size=48).float(), (SIZE, SIZE), mode="bicubic", antialias=True)
    assert torch.equal(seen[0], wanted.round().clamp(0, 255).to(torch.uint8))


@pytest.mark.parametrize("stage", ["denoiser", "clip"])
def test_the_start_is_of_the_seed_alone(stage: str) -> None:
    """Whatever was drawn before, by rendering for instance."""
    before, found = method().denoiser.state_dict(), []
    for seed, drawn in ((0, 0), (0, 5), (1, 0)):
        made = GenHancer(student(), stage, denoiser="tiny", lora=LORA)  # type: ignore[arg-type]
        made._before, autoencoder = before, Autoencoder(vae())
        torch.manual_seed(seed)
        torch.rand(drawn)
        made.begin(autoencoder)
        found.append(learned(made)["denoiser.pooled.1.weight" if stage == "denoiser" else A])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_checkpoint_in_the_middle_is_a_clip_and_goes_on() -> None:
    made = method("clip", moved=True, train_denoiser=True)
    checkpoint: dict[str, Any] = {"state_dict": made.state_dict()}
    made.on_save_checkpoint(checkpoint)
    stored = copy.deepcopy(checkpoint)
    x = images(2)
    plain = GenHancer(student(), "clip", denoiser="tiny", lora=LORA)
    assert set(checkpoint["state_dict"]) == set(plain.state_dict())
    plain.on_load_checkpoint(checkpoint)
    plain.load_state_dict(checkpoint["state_dict"])
    torch.testing.assert_close(plain.image(x), made.image(x), rtol=1e-4, atol=1e-5)
    again = method("clip", train_denoiser=True)
    again.on_load_checkpoint(stored)
    again.load_state_dict(stored["state_dict"])
    assert learned(made).keys() == learned(again).keys()
    for name, parameter in learned(made).items():
        assert torch.equal(parameter, learned(again)[name]), name
    assert torch.equal(made.training_step(batch(), 0), again.training_step(batch(), 0))
    finished: dict[str, Any] = {"state_dict": plain.state_dict()}
    plain.on_save_checkpoint(finished)
    with pytest.raises(SpatialbenchError, match="of a finished stage, whose adapters are merged"):
        again.on_load_checkpoint(finished)


def test_a_checkpoint_of_the_first_stage_holds_the_denoiser_and_is_read_without() -> None:
    made = method()
    checkpoint: dict[str, Any] = {"state_dict": made.state_dict()}
    made.on_save_checkpoint(checkpoint)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"student", "denoiser"}
    plain = GenHancer(student(), denoiser="tiny")
    plain.on_load_checkpoint(checkpoint)
    plain.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(plain.image(images(2)), made.image(images(2)))


def test_the_second_stage_has_the_denoiser_of_the_first() -> None:
    first, second = method(), GenHancer(student(), "clip", denoiser="tiny", lora=LORA)
    with torch.no_grad():
        for parameter in first.denoiser.parameters():
            parameter.normal_()
    weights = {**first.state_dict(), **second.state_dict()}
    second.start_from(weights, "the first stage")
    second.begin(Autoencoder(vae()))
    for name, parameter in first.denoiser.named_parameters():
        assert torch.equal(parameter, second.denoiser.get_parameter(name)), name


def test_a_denoiser_that_is_missing_or_another_is_one_line() -> None:
    made = GenHancer(student(), "clip", denoiser="other")
    with pytest.raises(SpatialbenchError, match="the page needs init_from, of stage denoiser"):
        made.begin(Autoencoder(vae()))
    made = GenHancer(student(), "clip", denoiser="other")
    with pytest.raises(
        SpatialbenchError,
        match="and the page before has none: init_from a page with stage denoiser",
    ):
        made.start_from(made.state_dict(), "the page before")
    first = method()
    made.start_from({**first.state_dict(), **made.state_dict()}, "the page before")
    with pytest.raises(
        SpatialbenchError, match="its denoiser is another than this page's; give both the same"
    ):
        made.begin(Autoencoder(vae()))


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"stage": "both"}, "stage is 'both'; one of denoiser, clip"),
        ({"time_scale": 0.0}, "time_scale is 0"),
        ({"denoiser": "flux"}, "denoiser is 'flux'"),
    ],
)
def test_settings_out_of_range(wrong: dict, what: str) -> None:
    with pytest.raises(SpatialbenchError, match=what):
        GenHancer(student(), **wrong)


def test_drift_is_zero_at_the_start() -> None:
    x = images(2)
    assert method("clip").drift(x).item() == pytest.approx(1, abs=1e-6)
    assert -1 <= method("clip", moved=True).drift(x).item() < 0.999


@pytest.mark.parametrize("stage", ["denoiser", "clip"])
def test_the_picture_shows_before_and_after(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    plain = genhancer.draw
    monkeypatch.setattr(
        genhancer, "draw", lambda panels, path: drawn.append(panels) or plain(panels, path)
    )
    for moved in (False, True):
        made = method(stage, moved=moved)
        made.draw(ImageDataset(Noise(3, SIZE), SIZE), tmp_path / "shown.png")
    titles = [panel.title for panel in drawn[0]]
    assert titles[:4] == ["input", "noised\nt = 0.2", "before\nt = 0.2", "after\nt = 0.2"]
    assert len(titles) == 1 + 3 * 4
    for panels, same in zip(drawn, (True, False), strict=True):
        pairs = [(panels[place + 1].pixels, panels[place + 2].pixels) for place in range(1, 13, 3)]
        assert all(torch.equal(*pair) for pair in pairs) == same
    assert all(
        torch.equal(panels[0].pixels[1], ImageDataset(Noise(3, SIZE), SIZE).whole(1))
        for panels in drawn
    )
    assert Image.open(tmp_path / "shown.png").size == (4 + 13 * 100, 26 + 3 * 100)
