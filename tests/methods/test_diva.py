"""DIVA: value and gradient of the printed equations, and only the image tower learns."""

import copy
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.data.image_batches import ImageBatch, ImageDataset, resized
from spatialbench.data.region_batches import generator
from spatialbench.methods import diva
from spatialbench.methods.base import Method
from spatialbench.methods.diva import Diva
from spatialbench.methods.parts import generative
from spatialbench.models.latent_diffusion import load_diffusion
from spatialbench.models.token_selection import TokenSelector
from tests.support.checks import refused
from tests.support.diffusions import LENGTH, SIZE, diffusion
from tests.support.images import Noise
from tests.support.models import images, quiet, step, student

RANDOM = TokenSelector("random", count=5)
ALIGNED = TokenSelector("random", count=LENGTH - 1)


def method(
    tokens: TokenSelector = RANDOM, double: bool = False, size: int = SIZE, **arguments: object
) -> Diva:
    """Make a method in training, whose student reads ``size`` pixels."""
    torch.manual_seed(0)
    made = Diva(student(vision=f'{{"image_size": {size}}}'), tokens=tokens, **arguments)
    made.begin(diffusion(dtype=torch.float64 if double else torch.float32))
    return made.double() if double else made


def batch(number: int = 0) -> ImageBatch:
    return ImageBatch(pixels=images(2, size=SIZE), key=(0, 0, number))


def terms(made: Diva, data: ImageBatch) -> list[list[Tensor]]:
    """(1) to (4) as loops over inner steps and images: the error of each, differentiable."""
    rng, model, visual = generator(data["key"]), made.diffusion, made.student.visual
    pixels = resized(data["pixels"], made.image_size).double()
    encoded = [model.vae.encode(x[None] / 127.5 - 1) for x in data["pixels"].double()]
    latents = [code.latent_dist.mean[0] * 0.7 for code in encoded]
    mean = [sum(model.context) / LENGTH] * LENGTH
    offsets = mean if made.offset == "mean" else list(model.context)
    steps = []
    for _ in made.weights:
        t = torch.randint(0, 1000, (len(pixels),), generator=rng)
        eps = torch.randn((len(pixels), *latents[0].shape), generator=rng).double()
        index = torch.randint(0, 16, (len(pixels), made.tokens.count), generator=rng)
        errors = []
        for i, x in enumerate(pixels):
            visual.output_tokens = True
            cls, patches = visual((x[None] - made.mean) / made.std)
            visual.output_tokens = False
            tokens = [cls[0], *(patches[0, j] @ visual.proj for j in index[i])]  # (1)
            linear = made.visual_proj
            pairs = zip(offsets, tokens, strict=False)
            context = [e + linear.weight @ token + linear.bias for e, token in pairs]  # (2)
            a = model.scheduler.alphas_cumprod[t[i]].double()
            noised = a.sqrt() * latents[i] + (1 - a).sqrt() * eps[i]  # (3)
            states = torch.stack(context)[None]
            said = model.unet(noised[None], t[i], encoder_hidden_states=states).sample[0]
            errors.append((said - eps[i]).square().sum() / said.numel())  # (4)
        steps.append(errors)
    return steps


@pytest.mark.parametrize(("tokens", "offset"), [(RANDOM, "mean"), (ALIGNED, "aligned")])
@pytest.mark.parametrize("weights", [[5.0, 1.0], [0.2, 0.3, 0.5]])
def test_loss_and_gradient_are_the_printed_equations(
    tokens: TokenSelector, offset: str, weights: list[float]
) -> None:
    """Compare in double with one graph of inner steps: the value of (5), the gradient of (6)."""
    made = method(tokens, double=True, offset=offset, inner_weights=weights)
    loss, gradients = step(made, batch())
    made.zero_grad()
    pairs = zip(weights, terms(made, batch()), strict=True)
    wanted = sum(w * sum(errors) / 2 for w, errors in pairs)  # (5)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-10)
    wanted.backward()
    assert set(gradients) == {n for n, p in made.named_parameters() if p.requires_grad}
    for name, gradient in gradients.items():
        expected = made.get_parameter(name).grad
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12, msg=name)
    assert max(gradient.abs().max() for gradient in gradients.values()) > 1e-4


def test_who_gets_a_gradient() -> None:
    made = method()
    learned = {name for name, gradient in step(made, batch())[1].items() if gradient.any()}
    own = ("student.visual.", "visual_proj.")
    assert learned == {name for name, _ in made.named_parameters() if name.startswith(own)}
    fixed = Diva("rooms-student").student.visual.positional_embedding
    assert not fixed.requires_grad, "fixed in this student, and stays so"


def test_one_forward_of_the_image_tower_serves_all_inner_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, plain = [], diva.visual_tokens
    monkeypatch.setattr(
        diva, "visual_tokens", lambda model, x: calls.append(len(x)) or plain(model, x)
    )
    step(method(inner_weights=[1, 1, 1]), batch())
    assert calls == [2]


def test_draws_are_of_the_batch_s_key_alone_and_anew_in_every_inner_step() -> None:
    made, seen = method(), []
    plain = made.diffusion.loss
    made.diffusion.loss = lambda *given: seen.append(given[1:]) or plain(*given)
    losses = []
    for seed, number in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(seed)
        losses.append(step(made, batch(number))[0])
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])
    (t, eps, context), (_, other_eps, other_context) = seen[:2]
    assert torch.equal(t, torch.randint(0, 1000, (2,), generator=generator((0, 0, 0))))
    assert not torch.equal(eps, other_eps)
    assert not torch.equal(eps[0], eps[1])
    assert torch.equal(context[:, 0], other_context[:, 0])  # the embedding
    assert not torch.equal(context[:, 1:], other_context[:, 1:])


@pytest.mark.parametrize(("antialias", "mode"), [(True, "bicubic"), (False, "bilinear")])
def test_images_are_scaled_to_the_student(antialias: bool, mode: str) -> None:
    """The autoencoder sees 32 pixels a side, the student 16 of the same image."""
    x = images(2, size=SIZE)
    scaled = F.interpolate(x.float(), (16, 16), mode=mode, antialias=antialias)
    made = method(TokenSelector("all"), size=16, antialias=antialias)
    cls = made.student.encode_image((scaled.round().clamp(0, 255) - made.mean) / made.std)
    torch.testing.assert_close(made.tokens_of(x).cls, cls, rtol=1e-4, atol=1e-5)
    step(made, batch())


def test_the_arguments_of_the_diffusion_model_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    load = create_autospec(load_diffusion, return_value=diffusion())
    monkeypatch.setattr(diva, "load_diffusion", load)
    arguments = {"dtype": "float32", "hashes": {"a": "b"}}
    arguments |= {"checkpointing": True, "legacy_range": True}
    made = Diva(student(), "elsewhere", **arguments)
    made.setup("test")
    assert made.diffusion is None
    made.setup("fit")
    load.assert_called_once_with("elsewhere", **arguments)


def test_a_checkpoint_holds_the_student_and_p_and_a_test_needs_the_student_alone() -> None:
    made = method()
    with torch.no_grad():
        made.visual_proj.bias += 1
    whole = {"state_dict": made.state_dict()}
    assert any(name.startswith("diffusion.") for name in whole["state_dict"])
    made.on_save_checkpoint(whole)
    assert {name.split(".")[0] for name in whole["state_dict"]} == {"student", "visual_proj"}
    resumed = method()
    for other in (resumed, Diva(student())):
        checkpoint = {**whole}
        other.on_load_checkpoint(checkpoint)
        other.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(resumed.visual_proj.bias, made.visual_proj.bias)
    assert "visual_proj.bias" in whole["state_dict"], "the checkpoint itself is unchanged"
    Method(student()).start_from(whole["state_dict"], "diva")


def test_p_begins_as_a_linear_layer_of_the_seed_alone() -> None:
    made, frozen = Diva(student()), diffusion(dtype=torch.float32)
    for seed, drawn in ((3, 0), (3, 7), (4, 0)):
        torch.manual_seed(seed)
        usual = torch.nn.Linear(24, frozen.width).state_dict()
        torch.rand(drawn)
        made.begin(frozen)
        assert all(torch.equal(p, usual[name]) for name, p in made.visual_proj.named_parameters())


def test_drift_is_from_the_weights_that_training_started_from() -> None:
    made, x = method(), batch()["pixels"]
    white = (x - made.mean) / made.std
    before = made.student.encode_image(white)
    distance, cosine = made.drift(x)
    assert distance == 0
    assert cosine.item() == pytest.approx(1, abs=1e-6)
    with torch.no_grad():
        made.student.visual.proj[:3, 0] += 2
        made.student.visual.conv1.weight[0, 0, 0, 0] += 1
        made.student.text_projection += 1
    distance, cosine = made.drift(x)
    assert distance.item() == pytest.approx((3 * 4 + 1) ** 0.5, rel=1e-5)
    wanted = F.cosine_similarity(made.student.encode_image(white), before, dim=-1).mean()
    assert cosine.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert cosine < 0.999


def test_the_picture_is_drawn_where_the_start_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning moves the module to the CPU before the hook; "meta" stands for the accelerator."""
    made, devices = method(), []
    made._start.visual.to("meta")
    monkeypatch.setattr(
        Diva, "draw", lambda self, *_: devices.extend(p.device.type for p in self.parameters())
    )
    strategy = SimpleNamespace(root_device=torch.device("meta"))
    trainer = {"is_global_zero": True, "default_root_dir": tmp_path, "strategy": strategy}
    monkeypatch.setattr(Diva, "trainer", SimpleNamespace(**trainer))
    monkeypatch.setattr(generative, "images_of", lambda trainer: None)
    made.on_fit_end()
    assert set(devices) == {"meta"}


def test_the_picture_shows_the_effect_of_the_weights() -> None:
    """Before training "before" and "after" are the same; then only "after" changes."""
    made, x = method(), images(2, size=SIZE)
    first = made.panels(x)
    with torch.no_grad():
        made.student.visual.proj.mul_(-30)
        second = made.panels(x)
    titles = [panel.title.split("\n")[0] for panel in first]
    assert titles == ["input", *["noised", "prompt only", "before", "after"] * 3]
    for place, (old, new) in enumerate(zip(first, second, strict=True)):
        changes = titles[place] == "after"
        assert torch.equal(old.pixels, new.pixels) != changes, old.title
        assert not changes or torch.equal(old.pixels, first[place - 1].pixels)


def test_latents_are_kept_where_an_image_is_always_the_same() -> None:
    made, off = method(), method(cache=False)
    made.prepare(ImageDataset(Noise(3, SIZE), SIZE))
    assert len(made.latents._cache.cache) == 3
    made.prepare(ImageDataset(Noise(3, SIZE), SIZE, crop=(0.9, 1.0)))
    off.prepare(ImageDataset(Noise(3, SIZE), SIZE))
    assert not made.latents.cache
    assert not off.latents.cache


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_sgd_has_momentum_and_no_decay_and_lr_is_of_both_groups(name: str) -> None:
    rates = {"lr": 0.1, "connection_lr": 0.3, "weight_decay": 0.2}
    settings = {**rates, "schedule": "constant", "fused": False}
    made, one = (
        method(finetuning=settings, momentum=0.8, optimizer=name, lr=lr) for lr in (None, 0.2)
    )
    made.trainer = one.trainer = quiet()
    optimizer = made.configure_optimizers()["optimizer"]
    assert type(optimizer) is {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[name]
    groups = optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == ({0.0} if name == "sgd" else {0.0, 0.2})
    assert name == "adamw" or all(group["momentum"] == 0.8 for group in groups)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    expected = {"student": 0.1, "visual_proj": 0.3}
    named = {name: p for name, p in made.named_parameters() if p.requires_grad}
    assert {id(p): expected[name.split(".")[0]] for name, p in named.items()} == rates
    assert name == "sgd" or optimizer.defaults["fused"] is False
    groups = one.configure_optimizers()["optimizer"].param_groups
    assert {group["lr"] for group in groups} == {0.2}


def test_hyper_parameters_make_the_method_again() -> None:
    made = method(TokenSelector("avgpool1d", window=2), inner_weights=(5, 1), offset="mean")
    again = Diva(**copy.deepcopy(dict(made.hparams)))
    assert again.tokens == made.tokens
    assert again.weights == [5.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"offset": "sum"}, "offset is 'sum'; one of mean, aligned"),
        ({"optimizer": "lamb"}, "optimizer is 'lamb'; one of sgd, adamw"),
        ({"inner_weights": []}, r"inner_weights is \[\]; give one number above 0"),
        ({"inner_weights": [1, 0]}, "give one number above 0 for each inner step"),
        ({"momentum": 1.0}, r"momentum 1\.0 must be in \[0, 1\)"),
        ({"lr": -1.0}, r"lr -1\.0 0 or more"),
        ({"offset": "aligned"}, r"many tokens .* 16, and tokens gives 6: .* tokens\.count 15"),
    ],
)
def test_wrong_arguments(arguments: dict, what: str) -> None:
    with refused(what):
        method(**arguments)
