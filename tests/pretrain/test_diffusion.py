"""The diffusion model's pre-training: losses, latents, exports, and the shipped weights' scores."""

import json
import math
from itertools import chain
from pathlib import Path

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
from spatialbench.pretrain.data import CaptionBatch, DenseBatch, PretrainData
from spatialbench.pretrain.diffusion import VaePretraining, cropped, divergence, psnr, signed
from spatialbench.pretrain.unet import UnetPretraining, choose_captions
from tests.support.diffusions import diffusion
from tests.support.models import images, quiet, silent, step
from tools import diffusion_samples

SHIPPED = WEIGHTS / OWN


@pytest.fixture
def autoencoder(tmp_path: Path) -> str:
    """Make a folder with an autoencoder of random weights."""
    vae = load_diffusion(f"{OWN}:random", dtype="float32").vae
    vae.save_pretrained(tmp_path / "random" / "vae")
    return str(tmp_path / "random")


def captioned(count: int = 2) -> CaptionBatch:
    texts = [caption for row in range(count) for caption in ("a sofa", "a red lamp")[: 1 + row % 2]]
    image = torch.tensor([row for row in range(count) for _ in range(1 + row % 2)])
    rest = torch.zeros(len(texts), dtype=torch.long)
    return CaptionBatch(
        pixels=images(count, size=96), image=image, captions=texts, twin=torch.arange(len(texts)),
        foils=texts, seen=torch.zeros(count, 1), claims=rest, foil_claims=rest,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def latents_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep latents apart, but the rendered images in the cache of all tests."""
    monkeypatch.setattr("spatialbench.models.latents.cache_root", lambda: tmp_path)


def test_divergence_and_psnr_by_hand() -> None:
    posterior = DiagonalGaussianDistribution(torch.tensor([0.5, math.log(0.25)]).view(1, 2, 1, 1))
    assert divergence(posterior).item() == pytest.approx((0.25 + 0.25 - 1 - math.log(0.25)) / 2)
    decoded = torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), -3.0)])
    clamped = 10 * math.log10(4)  # -3 to -1
    assert psnr(decoded, torch.zeros(2, 3, 4, 4)).tolist() == pytest.approx([20.0, clamped])


def test_crops_are_of_one_place_and_reach_every_corner() -> None:
    x = torch.arange(36).view(1, 1, 6, 6).repeat(2, 3, 1, 1)
    seen = set()
    for number in range(60):
        crop = cropped(x, 4, torch.Generator().manual_seed(number))
        assert crop.shape == (2, 3, 4, 4)
        assert crop[0].equal(crop[1])
        seen.add(int(crop[0, 0, 0, 0]))
    assert seen == {6 * row + column for row in range(3) for column in range(3)}


def test_the_autoencoder_s_loss_is_the_printed_equation() -> None:
    module = VaePretraining(latent_weight=0.5, crop=48)
    batch = DenseBatch(pixels=images(2, size=96), depth=torch.zeros(2), masks=torch.zeros(2))
    loss, _ = step(module, batch)
    generator = torch.Generator().manual_seed(0)
    x = signed(cropped(batch["pixels"], 48, generator))
    posterior = module.vae.encode(x).latent_dist
    noise = torch.randn(2, 4, 6, 6, generator=generator)
    decoded = module.vae.decode(posterior.mean + posterior.std * noise).sample
    wanted = (decoded - x).abs().mean() + 0.5 * divergence(posterior)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert x.abs().max() <= 1


def test_a_finished_autoencoder_has_latents_of_unit_deviation(tmp_path: Path) -> None:
    module = VaePretraining(warmup=1, export=str(tmp_path))
    data = PretrainData(images=32, val_images=16, batch_images=16, names=0, pairs=0)
    quiet(max_steps=1).fit(module, data)
    assert module.finish() == module.scores
    stored = json.loads((tmp_path / "vae.json").read_text())
    assert stored == pytest.approx(module.scores, abs=1e-4)
    scale = json.loads((tmp_path / "vae" / "config.json").read_text())["scaling_factor"]
    assert scale * module.scores["latent_std"] == pytest.approx(1, abs=1e-4)
    assert UnetPretraining(autoencoder=str(tmp_path)).model.vae.config.scaling_factor == scale


def test_the_unet_s_loss_is_the_printed_equation_and_trains_nothing_else(autoencoder: str) -> None:
    module, batch = UnetPretraining(autoencoder=autoencoder, empty=0.0), captioned()
    loss, gradients = step(module, batch)
    generator = torch.Generator().manual_seed(0)
    z = module.latents(batch["pixels"])
    torch.testing.assert_close(z, module.model.encode(batch["pixels"]), rtol=2**-7, atol=1e-4)
    t = torch.randint(1000, (2,), generator=generator)
    eps = torch.randn(z.shape, generator=generator)
    states = module.states(choose_captions(batch, 1, generator))
    a = module.model.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    noised = a.sqrt() * z + (1 - a).sqrt() * eps
    said = module.model.unet(noised, t, encoder_hidden_states=states).sample
    assert loss.item() == pytest.approx((said - eps).square().mean().item(), rel=1e-4)
    assert gradients
    assert all(name.startswith("model.unet.") for name in gradients)


def test_captions_go_with_their_images_and_some_are_empty(autoencoder: str) -> None:
    batch = captioned(64)
    chosen = [own[0] for own in choose_captions(batch, 1, torch.Generator().manual_seed(0))]
    assert set(chosen[::2]) == {"a sofa"}, "images with one caption have that"
    assert set(chosen[1::2]) == {"a sofa", "a red lamp"}
    several = choose_captions(batch, 2, torch.Generator().manual_seed(0))
    assert all(own == ["a sofa", ""] for own in several[::2]), "what is missing is empty"
    assert {*map(tuple, several[1::2])} == {("a sofa", "a red lamp"), ("a red lamp", "a sofa")}
    without = {**batch, "image": batch["image"] + 1, "pixels": images(65)}
    assert choose_captions(without, 1, torch.Generator())[0] == [""]
    module = silent(UnetPretraining(autoencoder=autoencoder, empty=0.25))
    read: list[str] = []
    states = module.states
    module.states = lambda captions: read.extend(chain(*captions)) or states(captions)
    with torch.no_grad():
        module.training_step(batch, 0)
    assert 8 <= read.count("") <= 24
    assert len(read) == 64


def test_of_two_captions_in_either_order_one_is_read() -> None:
    texts, twin = ["one", "a and b", "b and a"], torch.tensor([0, 2, 1])
    both = {**captioned(2), "captions": texts, "twin": twin}
    drawn = [choose_captions(both, 2, torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert {tuple(second) for _, second in drawn} == {("a and b", ""), ("b and a", "")}
    assert all(first == ["one", ""] for first, _ in drawn)


def test_the_states_of_several_captions_follow_one_another(autoencoder: str) -> None:
    module = UnetPretraining(autoencoder=autoencoder)
    joined = module.states([["a sofa", "a red lamp"], ["a bed", ""]])
    torch.testing.assert_close(joined[0, 20:], module.states([["a red lamp"]])[0])
    torch.testing.assert_close(joined[1, :20], module.states([["a bed"]])[0])


def test_a_resumed_training_ends_with_the_weights_of_an_uninterrupted_one(
    autoencoder: str, tmp_path: Path
) -> None:
    """Stopped in the middle of the second epoch."""

    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
            if trainer.global_step == 5:
                trainer.save_checkpoint(tmp_path / "last.ckpt")

    def train(resume: Path | None = None) -> UnetPretraining:
        torch.manual_seed(0 if resume is None else 1)
        module = UnetPretraining(autoencoder=autoencoder, warmup=1)
        data = PretrainData(images=8, val_images=8, batch_images=2, names=1, pairs=1)
        callbacks = [Save()] if resume is None else []
        trainer = quiet(max_steps=7, limit_val_batches=0, callbacks=callbacks)
        trainer.fit(module, data, ckpt_path=resume)
        return module

    whole, resumed = train(), train(tmp_path / "last.ckpt")
    for (name, one), other in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert one.equal(other), name


def test_training_leaves_a_model_that_loads_and_latents_for_the_next_start(
    autoencoder: str, tmp_path: Path
) -> None:
    module = UnetPretraining(autoencoder=autoencoder, warmup=1, export=autoencoder)
    data = PretrainData(images=16, val_images=16, batch_images=8, names=1, pairs=1)
    quiet(max_steps=2).fit(module, data)
    assert len(module.latents._cache.cache) == 32, "of training and of validation"
    again = UnetPretraining(autoencoder=autoencoder)
    pixels = next(iter(data.val_dataloader()))["pixels"]
    expected = again.model.encode(pixels)
    again.model.encode = lambda pixels: pytest.fail("computed again")
    torch.testing.assert_close(again.latents(pixels), expected, rtol=2**-7, atol=1e-4)
    module.finish()
    scores = json.loads((Path(autoencoder) / "unet.json").read_text())
    assert set(scores) == {"loss", "loss_other_caption", "loss_empty_caption", "text_use"}
    loaded = load_diffusion(autoencoder, dtype="float32")
    for name, value in module.model.unet.state_dict().items():
        assert loaded.unet.state_dict()[name].equal(value), name
    assert loaded.context.shape == (20, 128)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_sampling_ends_where_the_guided_prediction_points(
    guidance: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A stand-in for the UNet knows the clean latents, others with the caption than without."""
    model, generator, calls = diffusion(), torch.Generator().manual_seed(0), []
    clean = torch.randn(2, *model.latent_shape, generator=generator, dtype=torch.float64)

    def predict(z_t: Tensor, t: Tensor, context: Tensor) -> Tensor:
        calls.append(t)
        a = model.scheduler.alphas_cumprod.double()[t].view(-1, 1, 1, 1)
        return (z_t - a.sqrt() * clean[context[:, 0, 0].long()]) / (1 - a).sqrt()

    monkeypatch.setattr(model, "predict", predict)
    states, empty = torch.ones(3, 16, 24).double(), torch.zeros(16, 24).double()
    made = diffusion_samples.sample(model, states, empty, guidance, steps=20, seed=0)
    wanted = model.decode(clean[int(guidance)][None])
    assert (made.int() - wanted.int()).abs().max() <= 1
    assert len(calls) == 20
    monkeypatch.setattr(diffusion_samples, "COLUMNS", 2)
    diffusion_samples.draw_samples(model, states[:1].expand(4, -1, -1), empty, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (2 * 34, 4 * (34 + 16))


def test_the_shipped_autoencoder_has_its_stored_scores() -> None:
    """Score 192 of the 1,000 images of the validation split that the stored ones are of."""
    stored = json.loads((SHIPPED / "vae.json").read_text())
    module = VaePretraining()
    module.vae = read_part(AutoencoderKL, SHIPPED / "vae", OWN)
    quiet().validate(module, PretrainData(val_images=192, names=0, pairs=0), verbose=False)
    assert module.scores["psnr"] == pytest.approx(stored["psnr"], abs=0.5)
    assert module.scores["latent_std"] == pytest.approx(stored["latent_std"], rel=0.05)
    assert stored["psnr"] > 22


def test_the_shipped_unet_has_its_stored_scores_and_reads_captions() -> None:
    stored = json.loads((SHIPPED / "unet.json").read_text())
    module = UnetPretraining(captions=3)  # these and the data's are the page's
    module.model.unet.load_state_dict(load_diffusion(dtype="float32").unet.state_dict())
    data = PretrainData(val_images=192, batch_images=32, names=0, pairs=3)
    quiet().validate(module, data, verbose=False)
    assert module.scores["loss"] == pytest.approx(stored["loss"], rel=0.2)
    assert stored["loss"] < stored["loss_empty_caption"]
    assert stored["text_use"] > 0.5
    assert module.scores["loss"] < module.scores["loss_other_caption"]


def test_the_shipped_files_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 24e6
