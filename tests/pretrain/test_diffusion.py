"""The diffusion model's pre-training: its losses, its latents, what it leaves behind, the shipped weights' scores."""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from lightning import Callback, Trainer
from PIL import Image
from torch import Tensor

from spatialbench import WEIGHTS
from spatialbench.models.files.diffusion_files import OWN, read_part
from spatialbench.models.latent_diffusion import load_diffusion
from spatialbench.pretrain import samples
from spatialbench.pretrain.data import CaptionBatch, DenseBatch, PretrainData
from spatialbench.pretrain.diffusion import (
    VaePretraining,
    cropped,
    divergence,
    psnr,
    signed,
    step_generator,
)
from spatialbench.pretrain.samples import sample
from spatialbench.pretrain.unet import UnetPretraining, choose_captions
from tests.support.diffusions import diffusion

QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
SHIPPED = WEIGHTS / OWN


@pytest.fixture
def autoencoder(tmp_path: Path) -> str:
    """A folder with an autoencoder of random weights."""
    load_diffusion(f"{OWN}:random", dtype="float32").vae.save_pretrained(
        tmp_path / "random" / "vae"
    )
    return str(tmp_path / "random")


def pictures(count: int = 2, size: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def captioned(count: int = 2) -> CaptionBatch:
    texts = [caption for row in range(count) for caption in ("a sofa", "a red lamp")[: 1 + row % 2]]
    image = torch.tensor([row for row in range(count) for _ in range(1 + row % 2)])
    rest = torch.zeros(len(texts), dtype=torch.long)
    return CaptionBatch(
        pixels=pictures(count), image=image, captions=texts, twin=torch.arange(len(texts)), foils=texts,
        seen=torch.zeros(count, 1), claims=rest, foil_claims=rest,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def latents_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rendered pictures stay in the cache of all tests."""
    monkeypatch.setattr("spatialbench.models.latents.cache_root", lambda: tmp_path)


# ------------------------------------------------------------------------------------------------- the autoencoder
def test_divergence_and_psnr_by_hand() -> None:
    posterior = DiagonalGaussianDistribution(torch.tensor([0.5, math.log(0.25)]).view(1, 2, 1, 1))
    assert divergence(posterior).item() == pytest.approx((0.25 + 0.25 - 1 - math.log(0.25)) / 2)
    wanted = torch.zeros(2, 3, 4, 4)
    found = torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), -3.0)])
    assert psnr(found, wanted).tolist() == pytest.approx(
        [20.0, 10 * math.log10(4)]
    )  # the second is clamped to -1


def test_crops_are_of_one_place_and_reach_every_corner() -> None:
    x = torch.arange(36).view(1, 1, 6, 6).repeat(2, 3, 1, 1)
    seen = set()
    for step in range(60):
        crop = cropped(x, 4, step_generator(0, step))
        assert crop.shape == (2, 3, 4, 4)
        assert crop[0].equal(crop[1])
        seen.add(int(crop[0, 0, 0, 0]))
        assert crop.equal(cropped(x, 4, step_generator(0, step))), "a resumed training has the same"
    assert seen == {6 * row + column for row in range(3) for column in range(3)}


def test_the_autoencoder_s_loss_is_the_printed_equation() -> None:
    module = VaePretraining(latent_weight=0.5, crop=48)
    module.log_dict = module.log = lambda *_, **__: None  # type: ignore[method-assign]
    batch = DenseBatch(pixels=pictures(), depth=torch.zeros(2), masks=torch.zeros(2))
    found = module.training_step(batch, 0)
    generator = step_generator(0, 0)
    x = signed(cropped(batch["pixels"], 48, generator))
    posterior = module.vae.encode(x).latent_dist
    noise = torch.randn(2, 4, 6, 6, generator=generator)
    decoded = module.vae.decode(posterior.mean + posterior.std * noise).sample
    wanted = (decoded - x).abs().mean() + 0.5 * divergence(posterior)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert x.min() >= -1
    assert x.max() <= 1


def test_a_finished_autoencoder_has_latents_of_unit_deviation(tmp_path: Path) -> None:
    module = VaePretraining(warmup=1, export=str(tmp_path))
    trainer = Trainer(max_steps=1, accelerator="cpu", **QUIET)
    trainer.fit(module, PretrainData(images=32, val_images=16, batch_images=16, names=0, pairs=0))
    assert module.finish(tmp_path) == module.scores
    assert json.loads((tmp_path / "vae.json").read_text())["psnr"] == pytest.approx(
        module.scores["psnr"], abs=1e-4
    )
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert config["scaling_factor"] * module.scores["latent_std"] == pytest.approx(1, abs=1e-4)
    assert (
        UnetPretraining(autoencoder=str(tmp_path)).model.vae.config.scaling_factor
        == config["scaling_factor"]
    )


# ------------------------------------------------------------------------------------------------- the UNet
def test_the_unet_s_loss_is_the_printed_equation_and_trains_nothing_else(autoencoder: str) -> None:
    module = UnetPretraining(autoencoder=autoencoder, empty=0.0)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    batch = captioned()
    found = module.training_step(batch, 0)
    generator = step_generator(0, 0)
    z = module.latents(batch["pixels"])
    torch.testing.assert_close(z, module.model.latents(batch["pixels"]), rtol=2**-7, atol=1e-4)
    t = torch.randint(1000, (2,), generator=generator)
    eps = torch.randn(z.shape, generator=generator)
    states = module.states(choose_captions(batch, 1, generator))
    a = module.model.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    said = module.model.unet(
        a.sqrt() * z + (1 - a).sqrt() * eps, t, encoder_hidden_states=states
    ).sample
    assert found.item() == pytest.approx((said - eps).square().mean().item(), rel=1e-4)
    found.backward()
    trained = {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert trained
    assert all(name.startswith("model.unet.") for name in trained)
    assert {name for name, p in module.named_parameters() if p.requires_grad} >= trained


def test_captions_go_with_their_pictures_and_some_are_empty(autoencoder: str) -> None:
    batch = captioned(64)
    chosen = [own[0] for own in choose_captions(batch, 1, torch.Generator().manual_seed(0))]
    assert set(chosen[::2]) == {"a sofa"}, "pictures with one caption have that"
    assert set(chosen[1::2]) == {"a sofa", "a red lamp"}
    several = choose_captions(batch, 2, torch.Generator().manual_seed(0))
    assert all(own == ["a sofa", ""] for own in several[::2]), "what is missing is empty"
    assert {tuple(own) for own in several[1::2]} == {
        ("a sofa", "a red lamp"),
        ("a red lamp", "a sofa"),
    }
    without = CaptionBatch(**{**batch, "image": batch["image"] + 1, "pixels": pictures(66)})
    assert choose_captions(without, 1, torch.Generator())[0] == [""]
    module = UnetPretraining(autoencoder=autoencoder, empty=0.25)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    read: list[str] = []
    states = module.states
    module.states = lambda captions: read.extend(map(str, chain(*captions))) or states(captions)  # type: ignore[assignment]
    with torch.no_grad():
        module.training_step(batch, 0)
    assert 8 <= read.count("") <= 24
    assert len(read) == 64


def test_of_two_captions_in_either_order_one_is_read() -> None:
    both = CaptionBatch(
        **{
            **captioned(2),
            "captions": ["one", "a and b", "b and a"],
            "twin": torch.tensor([0, 2, 1]),
        }
    )
    drawn = [choose_captions(both, 2, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert {tuple(second) for _, second in drawn} == {("a and b", ""), ("b and a", "")}
    assert all(first == ["one", ""] for first, _ in drawn)


def test_the_states_of_several_captions_follow_one_another(autoencoder: str) -> None:
    module = UnetPretraining(autoencoder=autoencoder)
    joined = module.states([["a sofa", "a red lamp"], ["a bed", ""]])
    torch.testing.assert_close(joined[0, 20:], module.states([["a red lamp"]])[0])
    torch.testing.assert_close(joined[1, :20], module.states([["a bed"]])[0])


def test_latents_of_an_earlier_start_are_taken_from_the_cache(autoencoder: str) -> None:
    class Set:
        def __len__(self) -> int:
            return 3

        def whole(self, row: int) -> Tensor:
            return pictures(3)[row]

    UnetPretraining(autoencoder=autoencoder).latents.prepare(Set())
    module = UnetPretraining(autoencoder=autoencoder)
    expected = module.model.latents(pictures(3))
    module.model.latents = lambda pixels: pytest.fail("computed again")  # type: ignore[assignment]
    torch.testing.assert_close(module.latents(pictures(3)), expected, rtol=2**-7, atol=1e-4)


def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(
    autoencoder: str, tmp_path: Path
) -> None:
    """Stopped in the middle of the second epoch."""

    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "last.ckpt")

    def train(callbacks: list[Callback], resume: Path | None = None) -> UnetPretraining:
        torch.manual_seed(0 if resume is None else 1)
        module = UnetPretraining(autoencoder=autoencoder, warmup=1)
        trainer = Trainer(
            max_steps=7, accelerator="cpu", limit_val_batches=0, callbacks=callbacks, **QUIET
        )
        trainer.fit(
            module,
            PretrainData(images=8, val_images=8, batch_images=2, names=1, pairs=1),
            ckpt_path=resume,
        )
        return module

    whole = train([Save()])
    resumed = train([], tmp_path / "last.ckpt")
    for (name, one), other in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert one.equal(other), name


def test_what_training_leaves_is_a_model_that_loads(
    autoencoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "STEPS", 1)
    monkeypatch.setattr(samples, "COLUMNS", 2)
    module = UnetPretraining(autoencoder=autoencoder, warmup=1, export=autoencoder)
    data = PretrainData(images=16, val_images=16, batch_images=8, names=1, pairs=1)
    Trainer(max_steps=2, accelerator="cpu", **QUIET).fit(module, data)
    assert len(module.latents._cache) == 32, "of training and of validation"
    module.finish(tmp_path)
    found = json.loads((Path(autoencoder) / "unet.json").read_text())
    assert set(found) == {"loss", "loss_other_caption", "loss_empty_caption", "text_use"}
    loaded = load_diffusion(autoencoder, dtype="float32")
    for name, value in module.model.unet.state_dict().items():
        assert loaded.unet.state_dict()[name].equal(value), name
    assert loaded.context.shape == (20, 128)
    grid = Image.open(f"{autoencoder}.png")
    assert grid.size == (2 * 98, len(samples.CAPTIONS) * (98 + 16))


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_sampling_ends_where_the_guided_prediction_points(
    guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the UNet that knows the clean latents, others under the caption than under the empty one."""
    model = diffusion()
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(
        2, *model.latent_shape, generator=generator, dtype=torch.float64
    )  # without, with the caption
    calls = []

    def predict(z_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        calls.append(t)
        a = model.scheduler.alphas_cumprod.double()[t].view(-1, 1, 1, 1)
        return (z_t - a.sqrt() * clean[context[:, 0, 0].long()]) / (1 - a).sqrt()

    monkeypatch.setattr(model, "predict", predict)
    states, empty = (
        torch.ones(3, 16, 24, dtype=torch.float64),
        torch.zeros(16, 24, dtype=torch.float64),
    )
    found = sample(model, states, empty, guidance, steps=20, seed=0)
    wanted = model.decode(clean[int(guidance)][None])
    assert (found.int() - wanted.int()).abs().max() <= 1
    assert len(calls) == 20


# ------------------------------------------------------------------------------------------------- the shipped weights
def test_the_shipped_autoencoder_has_its_stored_scores() -> None:
    """On 192 of the 1,000 pictures of the validation split that the stored ones are of."""
    stored = json.loads((SHIPPED / "vae.json").read_text())
    module = VaePretraining()
    module.vae = read_part(AutoencoderKL, SHIPPED / "vae", OWN)
    data = PretrainData(val_images=192, names=0, pairs=0)
    Trainer(accelerator="cpu", **QUIET).validate(module, data, verbose=False)
    assert module.scores["psnr"] == pytest.approx(stored["psnr"], abs=0.5)
    assert module.scores["latent_std"] == pytest.approx(stored["latent_std"], rel=0.05)
    assert stored["psnr"] > 22


def test_the_shipped_unet_has_its_stored_scores_and_reads_captions() -> None:
    stored = json.loads((SHIPPED / "unet.json").read_text())
    module = UnetPretraining(captions=3)  # these and the data's are the page's
    module.model.unet.load_state_dict(load_diffusion(dtype="float32").unet.state_dict())
    data = PretrainData(val_images=192, batch_images=32, names=0, pairs=3)
    Trainer(accelerator="cpu", **QUIET).validate(module, data, verbose=False)
    assert module.scores["loss"] == pytest.approx(stored["loss"], rel=0.2)
    assert stored["loss"] < stored["loss_empty_caption"]
    assert stored["text_use"] > 0.5
    assert module.scores["loss"] < module.scores["loss_other_caption"]


def test_the_shipped_model_s_files_are_small() -> None:
    sizes = [path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()]
    assert np.sum(sizes) < 24e6
