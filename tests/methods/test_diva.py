"""DIVA: the loss is the printed equations, its gradient the sum of the inner steps, and only the image tower learns."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spatialbench.data.image_batches import ImageBatch, ImageDataset, resized
from spatialbench.data.region_batches import generator
from spatialbench.methods import diva
from spatialbench.methods.base import Method
from spatialbench.methods.diva import Diva
from spatialbench.methods.parts.finetuning import FineTuning
from spatialbench.models.token_selection import TokenSelector
from spatialbench.utils.errors import SpatialbenchError
from tests.support.diffusions import LENGTH, SIZE, WIDTH, diffusion
from tests.support.images import Noise
from tests.support.models import images, student

RANDOM = TokenSelector("random", count=5)
ALIGNED = TokenSelector("random", count=LENGTH - 1)


def method(
    tokens: TokenSelector = RANDOM, double: bool = False, size: int = SIZE, **arguments: object
) -> Diva:
    """A method in training; pictures of the student's size unless another is given (then of both)."""
    torch.manual_seed(0)
    made = Diva(student(vision=f'{{"image_size": {size}}}'), tokens=tokens, **arguments)  # type: ignore[arg-type]
    made.begin(diffusion(dtype=torch.float64 if double else torch.float32))
    return made.double() if double else made


def batch(count: int = 2, number: int = 0) -> ImageBatch:
    return ImageBatch(pixels=images(count, size=SIZE), key=(0, 0, number))


def terms(made: Diva, data: ImageBatch) -> list[list[Tensor]]:
    """(1) to (4) as loops over inner steps and pictures: the error of each, differentiable."""
    rng, model = generator(data["key"]), made.diffusion
    pixels = resized(data["pixels"], made.image_size)
    latents = [
        model.vae.encode(x[None] / 127.5 - 1).latent_dist.mean[0] * 0.7
        for x in data["pixels"].double()
    ]
    found = []
    for _ in made.weights:
        t = torch.randint(0, 1000, (len(pixels),), generator=rng)
        eps = torch.randn((len(pixels), *latents[0].shape), generator=rng).double()
        index = torch.randint(0, 16, (len(pixels), made.tokens.count), generator=rng)
        errors = []
        for i, x in enumerate(pixels):
            visual = made.student.visual
            visual.output_tokens = True
            cls, patches = visual((x[None].double() - made.mean) / made.std)
            visual.output_tokens = False
            tokens = torch.stack([cls[0], *(patches[0, j] @ visual.proj for j in index[i])])  # (1)
            layer = made.visual_proj
            offsets = (
                [sum(model.context) / LENGTH] * LENGTH
                if made.offset == "mean"
                else list(model.context)
            )
            rows = [
                e + layer.weight @ token + layer.bias
                for e, token in zip(offsets, tokens, strict=False)
            ]  # (2)
            a = model.scheduler.alphas_cumprod[t[i]].double()
            noised = a.sqrt() * latents[i] + (1 - a).sqrt() * eps[i]  # (3)
            said = model.unet(
                noised[None], t[i], encoder_hidden_states=torch.stack(rows)[None]
            ).sample[0]
            errors.append((said - eps[i]).square().sum() / said.numel())  # (4)
        found.append(errors)
    return found


@pytest.mark.parametrize(("tokens", "offset"), [(RANDOM, "mean"), (ALIGNED, "aligned")])
@pytest.mark.parametrize("weights", [[5.0, 1.0], [0.2, 0.3, 0.5]])
def test_loss_and_gradient_are_the_printed_equations(
    tokens: TokenSelector, offset: str, weights: list[float]
) -> None:
    """In double, against one graph over all inner steps: the value of (5) and the gradient of (6)."""
    made = method(tokens, double=True, offset=offset, inner_weights=weights)
    found = made.training_step(batch(), 0)
    found.backward()
    names = [name for name, parameter in made.named_parameters() if parameter.requires_grad]
    gradients = {name: made.get_parameter(name).grad.clone() for name in names}
    made.zero_grad()
    wanted = sum(
        w * sum(errors) / 2 for w, errors in zip(weights, terms(made, batch()), strict=True)
    )  # (5)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-10)
    wanted.backward()
    for name in names:
        torch.testing.assert_close(
            gradients[name], made.get_parameter(name).grad, rtol=1e-8, atol=1e-12, msg=name
        )
    assert max(gradient.abs().max() for gradient in gradients.values()) > 1e-4


def test_who_gets_a_gradient() -> None:
    made = method()
    made.training_step(batch(), 0).backward()
    for name, parameter in made.named_parameters():
        trained = name.startswith(("student.visual.", "visual_proj."))
        assert (parameter.grad is not None and bool(parameter.grad.any())) == trained, name
    rooms = Diva("rooms-student")
    assert (
        not rooms.student.visual.positional_embedding.requires_grad
    )  # fixed in this student, and stays so


def test_one_forward_of_the_image_tower_serves_all_inner_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    plain = diva.visual_tokens
    monkeypatch.setattr(
        diva, "visual_tokens", lambda model, x: calls.append(len(x)) or plain(model, x)
    )
    method(inner_weights=[1, 1, 1]).training_step(batch(), 0)
    assert calls == [2]


def test_draws_are_of_the_batch_s_key_alone() -> None:
    made = method()
    torch.manual_seed(1)
    first = made.training_step(batch(), 0)
    torch.manual_seed(2)
    assert torch.equal(first, made.training_step(batch(), 3))
    assert not torch.equal(first, made.training_step(batch(number=1), 0))


def test_every_inner_step_has_noise_and_tokens_of_its_own() -> None:
    made = method()
    rng = generator((0, 0, 0))
    seen = []
    plain = made.diffusion.loss
    made.diffusion.loss = lambda z, t, eps, context: (
        seen.append((t, eps, context)) or plain(z, t, eps, context)
    )
    made.training_step(batch(), 0)
    (t, eps, context), (_, other_eps, other_context) = seen
    assert torch.equal(t, torch.randint(0, 1000, (2,), generator=rng))
    assert not torch.equal(eps, other_eps)
    assert torch.equal(context[:, 0], other_context[:, 0])  # the embedding
    assert not torch.equal(context[:, 1:], other_context[:, 1:])
    assert not torch.equal(eps[0], eps[1])


def test_pictures_are_scaled_to_the_student(monkeypatch: pytest.MonkeyPatch) -> None:
    """The autoencoder sees 32 pixels a side, the student 16 of the same picture."""
    x = images(2, size=SIZE)
    wanted = {True: F.interpolate(x.float(), (16, 16), mode="bicubic", antialias=True)}
    wanted[False] = F.interpolate(x.float(), (16, 16), mode="bilinear", antialias=False)
    for antialias, picture in wanted.items():
        made = method(TokenSelector("all"), size=16, antialias=antialias)
        cls = made.student.encode_image((picture.round().clamp(0, 255) - made.mean) / made.std)
        torch.testing.assert_close(made.tokens_of(x).cls, cls, rtol=1e-4, atol=1e-5)
        made.training_step(batch(), 0)


def test_what_is_asked_of_the_diffusion_model_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}
    monkeypatch.setattr(diva, "load_diffusion", lambda **given: asked.update(given) or diffusion())
    arguments = {
        "dtype": "float32",
        "hashes": {"a": "b"},
        "checkpointing": True,
        "legacy_range": True,
    }
    made = Diva(student(), "elsewhere", **arguments)
    made.setup("test")
    assert made.diffusion is None
    made.setup("fit")
    assert asked == {"spec": "elsewhere", **arguments}


def test_a_checkpoint_holds_the_student_and_p_and_a_test_needs_the_student_alone() -> None:
    made = method()
    with torch.no_grad():
        made.visual_proj.bias += 1
    whole = {"state_dict": made.state_dict()}
    assert any(name.startswith("diffusion.") for name in whole["state_dict"])
    made.on_save_checkpoint(whole)
    assert {name.split(".")[0] for name in whole["state_dict"]} == {"student", "visual_proj"}

    resumed = method()
    checkpoint = {**whole}
    resumed.on_load_checkpoint(checkpoint)
    resumed.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(resumed.visual_proj.bias, made.visual_proj.bias)

    tested = Diva(student())
    checkpoint = {**whole}
    tested.on_load_checkpoint(checkpoint)
    tested.load_state_dict(checkpoint["state_dict"])
    assert "visual_proj.bias" in whole["state_dict"]  # the checkpoint itself is as it was

    tuned = Method(student())
    tuned.start_from(whole["state_dict"], "diva")


def test_p_begins_as_a_linear_layer_of_the_seed_alone() -> None:
    torch.manual_seed(3)
    first = diva._linear(16, 2000)
    torch.manual_seed(3)
    torch.rand(7)  # something else was drawn before
    assert torch.equal(first.weight, diva._linear(16, 2000).weight)
    torch.manual_seed(4)
    assert not torch.equal(first.weight, diva._linear(16, 2000).weight)
    usual = torch.nn.Linear(16, 2000)
    for ours, torchs in zip(first.parameters(), usual.parameters(), strict=True):
        assert ours.abs().max().item() == pytest.approx(torchs.abs().max().item(), rel=0.01)
        assert ours.std().item() == pytest.approx(torchs.std().item(), rel=0.05)


def test_drift_is_from_the_weights_that_training_started_from() -> None:
    made = method()
    x = batch()["pixels"]
    distance, cosine = made.drift(x)
    assert distance == 0
    assert cosine.item() == pytest.approx(1, abs=1e-6)
    with torch.no_grad():
        made.student.visual.proj[:3, 0] += 2
        made.student.visual.conv1.weight[0, 0, 0, 0] += 1
        made.student.text_projection += 1
    distance, cosine = made.drift(x)
    assert distance.item() == pytest.approx((3 * 4 + 1) ** 0.5, rel=1e-5)
    start = Diva(student()).student  # the same random weights
    start.load_state_dict(method().student.state_dict())
    white = (x - made.mean) / made.std
    wanted = F.cosine_similarity(
        made.student.encode_image(white), start.encode_image(white), dim=-1
    ).mean()
    assert cosine.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert cosine < 0.999


class Ended:
    """A trainer at the end of its work."""

    is_global_zero = True

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.default_root_dir = str(folder)
        self.strategy = SimpleNamespace(root_device=torch.device(device))


def test_at_the_end_a_picture_a_clip_and_p_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = method()
    pictures = ImageDataset(Noise(5, SIZE), SIZE)
    monkeypatch.setattr(diva, "images_of", lambda trainer: pictures)
    monkeypatch.setattr(Diva, "trainer", Ended(tmp_path))
    made.on_fit_end()
    assert (tmp_path / "reconstructions.png").stat().st_size > 1000
    assert made.diffusion is None
    assert {name.split(".")[0] for name, _ in made.named_parameters()} == {"student", "visual_proj"}


def test_the_picture_is_drawn_where_the_start_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning takes the module back to the CPU before the hook; "meta" stands for the accelerator."""
    made = method()
    made._start[0].visual.to("meta")
    where = []
    monkeypatch.setattr(
        Diva, "draw", lambda self, *_: where.extend(p.device.type for p in self.parameters())
    )
    monkeypatch.setattr(diva, "images_of", lambda trainer: None)
    monkeypatch.setattr(Diva, "trainer", Ended(tmp_path, "meta"))
    made.on_fit_end()
    assert set(where) == {"meta"}


def test_the_picture_shows_what_the_weights_do(tmp_path: Path) -> None:
    """Before training "before" and "after" are the same; then only "after" changes."""
    made = method()
    pictures = ImageDataset(Noise(2, SIZE), SIZE)
    shown = []
    plain = diva.draw
    diva_draw = lambda panels, path: shown.append(panels) or plain(panels, path)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diva, "draw", diva_draw)
        made.draw(pictures, tmp_path / "a.png")
        with torch.no_grad():
            made.student.visual.proj.mul_(-30)
        made.draw(pictures, tmp_path / "b.png")
    titles = [panel.title.split("\n")[0] for panel in shown[0]]
    assert titles == ["input", *["noised", "prompt only", "before", "after"] * 3]
    first, second = (
        {(k, panel.title): panel.pixels for k, panel in enumerate(panels)} for panels in shown
    )
    for (place, title), pixels in first.items():
        assert torch.equal(pixels, second[place, title]) != title.startswith("after"), title
        if title.startswith("after"):
            assert torch.equal(pixels, shown[0][place - 1].pixels)


def test_latents_are_kept_where_a_picture_is_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    made = method()
    made.prepare(ImageDataset(Noise(3, SIZE), SIZE))
    assert len(made.latents._cache) == 3
    made.prepare(ImageDataset(Noise(3, SIZE), SIZE, crop=(0.9, 1.0)))
    assert not made.latents.cache
    off = method(cache=False)
    off.prepare(ImageDataset(Noise(3, SIZE), SIZE))
    assert not off.latents.cache
    with pytest.raises(
        SpatialbenchError, match=r"sees pictures of 32 pixels a side: .*picture_size 32, not 24"
    ):
        made.prepare(ImageDataset(Noise(3, SIZE), 24))


def test_sgd_has_momentum_two_rates_and_no_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FineTuning(lr=0.1, connection_lr=0.3, weight_decay=0.2, schedule="constant")
    made = method(finetuning=settings, momentum=0.8, optimizer="sgd")
    monkeypatch.setattr(Diva, "trainer", Ended(Path()))
    optimizer = made.configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.SGD
    assert all(
        group["momentum"] == 0.8 and group["weight_decay"] == 0 for group in optimizer.param_groups
    )
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {"student": 0.1, "visual_proj": 0.3}
    named = {name: p for name, p in made.named_parameters() if p.requires_grad}
    assert {id(p): expected[name.split(".")[0]] for name, p in named.items()} == rates
    one = method(finetuning=settings, lr=0.2, optimizer="adamw").configure_optimizers()["optimizer"]
    assert type(one) is torch.optim.AdamW
    assert {group["lr"] for group in one.param_groups} == {0.2}
    assert {group["weight_decay"] for group in one.param_groups} == {0.0, 0.2}


def test_hyper_parameters_make_the_method_again() -> None:
    made = method(TokenSelector("avgpool2d", window=2), inner_weights=(5, 1), offset="mean")
    values = copy.deepcopy(dict(made.hparams))
    again = Diva(**values)
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
    ],
)
def test_wrong_arguments(arguments: dict, what: str) -> None:
    with pytest.raises(SpatialbenchError, match=what):
        Diva(student(), **arguments)


def test_tokens_that_cannot_be_aligned_are_told_of() -> None:
    with pytest.raises(
        SpatialbenchError,
        match=r"needs as many tokens .* 16, and tokens gives 6: .* tokens\.count 15",
    ):
        method(RANDOM, offset="aligned")


def test_the_context_is_wide_enough() -> None:
    made = method(TokenSelector("all"))
    context = made.context(made.tokens_of(batch()["pixels"]), generator((0, 0, 0)))
    assert context.shape == (2, 17, WIDTH)
    assert np.isfinite(context.detach().numpy()).all()
