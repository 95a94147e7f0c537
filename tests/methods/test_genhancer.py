"""GenHancer: the loss is the printed equations; who learns when; what a checkpoint holds."""

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
from spatialbench.methods.genhancer import GenHancer, flow_loss
from spatialbench.methods.parts import generative
from spatialbench.models.autoencoder import Autoencoder
from spatialbench.models.denoiser import PRESETS, Architecture
from spatialbench.models.lora import LoraSettings
from tests.support.checks import refused
from tests.support.diffusions import SCALE, SIZE, vae
from tests.support.images import Noise
from tests.support.models import images, step, student

LORA = LoraSettings(rank=2)
A = "student.visual.transformer.resblocks.0.mlp.c_fc.lora_A.default.weight"
STAGES = pytest.mark.parametrize("stage", ["denoiser", "clip"])


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", Architecture(2, 12, 10, 14, (4, 4, 4), 1, 1))
    monkeypatch.setitem(PRESETS, "other", Architecture(2, 12, 10, 14, (4, 4, 4), 2, 1))


def unbegun(stage: str = "denoiser", denoiser: str = "tiny", **arguments: Any) -> GenHancer:
    return GenHancer(student(), stage, denoiser=denoiser, lora=LORA, **arguments)


def method(
    stage: str = "denoiser", double: bool = False, moved: bool = False, **arguments: Any
) -> GenHancer:
    """Make a method in training; ``moved``: what learns is not at its start."""
    torch.manual_seed(0)
    made = unbegun(stage, **arguments)
    if stage == "clip":
        first = unbegun()
        first.begin(Autoencoder(vae()))
        made.start_from({**first.state_dict(), **made.state_dict()}, "the first stage")
    made.begin(Autoencoder(vae()))
    if moved:
        with torch.no_grad():
            for parameter in learned(made).values():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made.double() if double else made


def learned(made: GenHancer) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in made.named_parameters() if p.requires_grad}


def batch(number: int = 0, size: int = SIZE) -> ImageBatch:
    return ImageBatch(pixels=images(3, size=size), key=(0, 0, number))


def printed(made: GenHancer, data: ImageBatch, scale: float, posterior: bool) -> Tensor:
    """(1) to (3) as loops over images, with the draws in their order; without dropout."""
    rng, total, count = generator(data["key"]), 0.0, len(data["pixels"])
    encoded = [made.autoencoder.vae.encode(x[None] / 127.5 - 1) for x in data["pixels"].double()]
    inner = [code.latent_dist for code in encoded]
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
        total = total + (said - (eps[b] - z)).square().sum() / z.numel()  # (3)
    return total / count


@STAGES
@pytest.mark.parametrize(("scale", "posterior"), [(1.0, True), (0.3, False)])
def test_loss_and_gradient_are_the_printed_equations(
    stage: str, scale: float, posterior: bool
) -> None:
    made = method(stage, double=True, moved=True, time_scale=scale, posterior=posterior)
    for part in made.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    loss, gradients = step(made, batch())
    made.zero_grad()
    wanted = printed(made, batch(), scale, posterior)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)  # the times are in float32
    wanted.backward()
    assert gradients.keys() == learned(made).keys()
    for name, parameter in learned(made).items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def noise(seed: int) -> Tensor:
    return torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_in_float32_at_least() -> None:
    z, eps, u = noise(0), noise(1), noise(2).bfloat16()
    loss = flow_loss(u, z, eps)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, flow_loss(u.double(), z.double(), eps.double()).float())


def test_the_condition_is_the_embedding_not_normalised() -> None:
    made, x = method(), images(2)
    wanted = made.student.encode_image((x.float() - made.mean) / made.std)
    torch.testing.assert_close(made.condition(x), wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(made.condition(x).norm(dim=-1), torch.ones(2), atol=1e-2)


@pytest.mark.parametrize("both", [False, True])
def test_who_gets_a_gradient(both: bool) -> None:
    first, second = method(), method("clip", moved=True, train_denoiser=both)
    names = {name for name, _ in first.named_parameters() if name.startswith("denoiser.")}
    assert set(step(first, batch())[1]) == names
    gradients = {name for name, gradient in step(second, batch())[1].items() if gradient.any()}
    adapters = {
        name
        for name, _ in second.named_parameters()
        if "lora_" in name or (".base_layer" in name and name.endswith("bias"))
    }
    assert all(name.startswith("student.visual.") for name in adapters)
    assert gradients == adapters | (names if both else set())
    assert {name for name in learned(second) if name.startswith(second.pretrained)} == adapters


@STAGES
def test_draws_are_of_the_batch_s_key_alone(stage: str) -> None:
    """Also those of the adapters' dropout; and the global generator is restored."""
    made, losses = method(stage, moved=True), []
    for seed, number in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        losses.append(step(made, batch(number))[0])
        assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_dropout_is_of_training_steps_alone() -> None:
    made, x, seen = method("clip", moved=True).train(), images(2), []
    plain = made.condition
    made.condition = lambda x, dropout=False: seen.append(plain(x, dropout)) or seen[-1]
    step(made, batch())
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
    assert not torch.allclose(start.image(x), image, atol=1e-3)
    old = start.student.state_dict()
    assert made.state_dict().keys() == {f"student.{name}" for name in old}
    for name, value in made.student.state_dict().items():
        assert name.startswith("visual.") or torch.equal(value, old[name]), name


def test_images_are_scaled_to_the_student_for_both() -> None:
    """G5: the autoencoder sees what CLIP sees."""
    made, seen = method(), []
    plain = made.autoencoder.encode
    made.autoencoder.encode = lambda x, rng: seen.append(x) or plain(x, rng)
    step(made, batch(size=48))
    wanted = F.interpolate(images(3, size=48).float(), (SIZE, SIZE), mode="bicubic", antialias=True)
    assert torch.equal(seen[0], wanted.round().clamp(0, 255).to(torch.uint8))


@STAGES
def test_the_start_is_of_the_seed_alone(stage: str) -> None:
    """Whatever was drawn before, by rendering for instance."""
    before, starts = method().denoiser.state_dict(), []
    for seed, drawn in ((0, 0), (0, 5), (1, 0)):
        made, autoencoder = unbegun(stage), Autoencoder(vae())
        made._before = before
        torch.manual_seed(seed)
        torch.rand(drawn)
        made.begin(autoencoder)
        starts.append(learned(made)["denoiser.pooled.1.weight" if stage == "denoiser" else A])
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def saved(made: GenHancer) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {"state_dict": made.state_dict()}
    made.on_save_checkpoint(checkpoint)
    return checkpoint


def load(made: GenHancer, checkpoint: dict[str, Any]) -> None:
    made.on_load_checkpoint(checkpoint)
    made.load_state_dict(checkpoint["state_dict"])


def test_a_checkpoint_in_the_middle_is_a_clip_and_resumes() -> None:
    made, x = method("clip", moved=True, train_denoiser=True), images(2)
    checkpoint = saved(made)
    stored = copy.deepcopy(checkpoint)
    plain, again = unbegun("clip"), method("clip", train_denoiser=True)
    assert set(checkpoint["state_dict"]) == set(plain.state_dict())
    load(plain, checkpoint)
    torch.testing.assert_close(plain.image(x), made.image(x), rtol=1e-4, atol=1e-5)
    load(again, stored)
    assert learned(made).keys() == learned(again).keys()
    for name, parameter in learned(made).items():
        assert torch.equal(parameter, learned(again)[name]), name
    assert torch.equal(step(made, batch())[0], step(again, batch())[0])
    with refused("of a finished stage, whose adapters are merged"):
        again.on_load_checkpoint(saved(plain))


def test_a_checkpoint_of_the_first_stage_holds_the_denoiser_and_is_read_without() -> None:
    made, plain = method(), unbegun()
    checkpoint = saved(made)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"student", "denoiser"}
    load(plain, checkpoint)
    assert torch.equal(plain.image(images(2)), made.image(images(2)))


def test_the_second_stage_has_the_denoiser_of_the_first_and_no_other() -> None:
    first, second, other = method(), unbegun("clip"), unbegun("clip", denoiser="other")
    with torch.no_grad():
        for parameter in first.denoiser.parameters():
            parameter.normal_()
    second.start_from({**first.state_dict(), **second.state_dict()}, "the first stage")
    second.begin(Autoencoder(vae()))
    for name, parameter in first.denoiser.named_parameters():
        assert torch.equal(parameter, second.denoiser.get_parameter(name)), name
    with refused("and it has none: init_from a page with stage"):
        other.start_from(other.state_dict(), "it")
    with refused("the page needs init_from, of stage denoiser"):
        other.begin(Autoencoder(vae()))
    other = unbegun("clip", denoiser="other")
    other.start_from({**first.state_dict(), **other.state_dict()}, "it")
    with refused("its denoiser is another than this page's; give"):
        other.begin(Autoencoder(vae()))


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"stage": "both"}, "stage is 'both'; one of denoiser, clip"),
        ({"time_scale": 0.0}, "time_scale is 0"),
        ({"denoiser": "flux"}, "denoiser is 'flux'"),
    ],
)
def test_settings_out_of_range(wrong: dict, what: str) -> None:
    with refused(what):
        GenHancer(student(), **wrong)


@STAGES
def test_the_picture_shows_before_and_after(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, plain, noise = [], generative.draw, ImageDataset(Noise(3, SIZE), SIZE)
    monkeypatch.setattr(
        generative, "draw", lambda panels, path: drawn.append(panels) or plain(panels, path)
    )
    for moved in (False, True):
        method(stage, moved=moved).draw(noise, tmp_path / "shown.png")
    titles = [panel.title for panel in drawn[0]]
    assert titles[:4] == ["input", "noised\nt = 0.2", "before\nt = 0.2", "after\nt = 0.2"]
    assert len(titles) == 1 + 3 * 4
    for panels, same in zip(drawn, (True, False), strict=True):
        pairs = [(panels[place + 1].pixels, panels[place + 2].pixels) for place in range(1, 13, 3)]
        assert all(torch.equal(*pair) for pair in pairs) == same
        assert torch.equal(panels[0].pixels[1], noise.whole(1))
    assert Image.open(tmp_path / "shown.png").size == (4 + 13 * 100, 26 + 3 * 100)
