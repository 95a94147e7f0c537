"""Where the parts of a diffusion model come from: a preset's configuration, a folder in diffusers' layout, the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from spatialbench.models.diffusion_text import prompt_states, student_states
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import cached_folder, digest, first_line, snapshot

CONFIGS = Path(__file__).parents[1] / "configs"
DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}
OWN = "rooms-diffusion"
"""The model shipped with the package: configs/rooms-diffusion.json, weights/rooms-diffusion/."""
PRESETS = (OWN, "sd-2-1-base")
"""Architectures that can be had with random weights, each a file of ``configs``."""
_HUB = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
_HUB_FILES = ("unet/*", "vae/*", "scheduler/*", "text_encoder/*", "tokenizer/*")
NEEDED = (
    *(
        f"{part}/{name}"
        for part in ("unet", "vae")
        for name in ("config.json", "diffusion_pytorch_model.safetensors")
    ),
    *(
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
    ),
    *(
        f"tokenizer/{name}"
        for name in ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
    ),
)
"""Files of the Hub without which a model in diffusers' layout is not whole."""
_HUB_LEFT = ("*.bin", "*.fp16.*", "*.non_ema.*", "*.msgpack", "*.h5")


class Parts(NamedTuple):
    """diffusers' UNet2DConditionModel, AutoencoderKL and DDPMScheduler, and E float32 [T, W]."""

    unet: Any
    vae: Any
    scheduler: Any
    context: Tensor


def preset_config(name: str) -> dict[str, Any]:
    """The configurations of a preset's parts.

    Raises:
        SpatialbenchError: there is no such preset.
    """
    if name not in PRESETS:
        raise SpatialbenchError(f"diffusion {name!r}: no such preset; one of {', '.join(PRESETS)}")
    return json.loads((CONFIGS / f"{name}.json").read_text())


def build(cls: Any, config: Mapping[str, Any]) -> Any:
    """One of diffusers' classes by its configuration; diffusers does not say their types."""
    return cls.from_config(dict(config))


def random_parts(preset: str, prompt: str, seed: int) -> Parts:
    """The exact architecture with random weights; the global generator is left alone.

    Where the preset's text encoder is a model of its own, the hidden states of the prompt are random, too.

    Raises:
        SpatialbenchError: there is no such preset.
    """
    config = preset_config(preset)
    text = config["text"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet, vae = build(UNet2DConditionModel, config["unet"]), build(AutoencoderKL, config["vae"])
        if "student" in text:
            context = student_states(text, prompt)
        else:
            context = torch.randn(text["length"], unet.config.cross_attention_dim)
    return Parts(unet, vae, build(DDPMScheduler, config["scheduler"]), context)


def read_parts(folder: Path, prompt: str, spec: str) -> Parts:
    """The parts in a folder of diffusers' layout.

    Raises:
        SpatialbenchError: a part is missing or damaged, or its weights do not fit its configuration.
    """
    unet, vae = (
        read_part(UNet2DConditionModel, folder / "unet", spec),
        read_part(AutoencoderKL, folder / "vae", spec),
    )
    place = folder / "scheduler"
    _check_there(place / "scheduler_config.json", spec)
    try:
        scheduler = DDPMScheduler.from_pretrained(place, local_files_only=True)
    except Exception as error:
        raise SpatialbenchError(
            f"diffusion {spec!r}: {place} cannot be read: {first_line(error)}"
        ) from error
    return Parts(unet, vae, scheduler, prompt_states(folder, prompt, spec))


def find_folder(spec: str, shipped: Mapping[str, Path], hashes: Mapping[str, str]) -> Path:
    """The folder of a model that is shipped, on this disk, or on the Hub at a given commit.

    Args:
        spec: a name of ``shipped``, a folder, or ``<owner>/<name>@<commit>``.
        hashes: sha256 of files of the folder, by path.

    Raises:
        SpatialbenchError: there is none, or a file is another than its hash says.
    """
    if spec in shipped or Path(spec).is_dir():
        folder = shipped.get(spec, Path(spec))
    elif _HUB.fullmatch(spec):
        folder = _download(spec)
    else:
        raise SpatialbenchError(
            f"diffusion {spec!r}: no such folder; give {', '.join(shipped)}, a folder in diffusers' layout, "
            f"<owner>/<name>@<commit> of the Hugging Face Hub with all 40 digits, or one of {', '.join(PRESETS)} "
            "followed by :random"
        )
    if not folder.is_dir():
        raise SpatialbenchError(
            f"diffusion {spec!r}: the folder {folder} is missing; reinstall spatialbench"
        )
    for name, wanted in hashes.items():
        _check_hash(folder / name, wanted, spec)
    return folder


def check(parts: Parts, spec: str) -> None:
    """Raises:
    SpatialbenchError: the parts do not belong together, or the UNet predicts neither noise nor velocity.
    """
    unet, vae, scheduler, context = parts
    kind, latents = scheduler.config.prediction_type, vae.config.latent_channels
    wrong = ""
    if kind not in ("epsilon", "v_prediction"):
        wrong = f"the scheduler's prediction_type is {kind}; epsilon or v_prediction are known"
    elif unet.config.in_channels != latents:
        wrong = (
            f"the UNet reads {unet.config.in_channels} channels and the autoencoder makes {latents}"
        )
    elif context.shape[-1] != unet.config.cross_attention_dim:
        wrong = f"the text encoder is {context.shape[-1]} wide and the UNet reads {unet.config.cross_attention_dim}"
    elif not isinstance(unet.config.sample_size, int):
        wrong = "the UNet's sample_size is not one number"
    if wrong:
        raise SpatialbenchError(f"diffusion {spec!r}: {wrong}")


def read_part(cls: Any, folder: Path, spec: str) -> Any:
    """One of diffusers' models out of its folder, float32, every weight from the file.

    Raises:
        SpatialbenchError: the folder or its config.json is missing, or what is in it cannot be read.
    """
    _check_there(folder / "config.json", spec)
    try:
        model, found = cls.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
        )
    except (
        Exception
    ) as error:  # diffusers, safetensors, the disk: whatever it was, the user reads one line
        raise SpatialbenchError(
            f"diffusion {spec!r}: {folder} cannot be read: {first_line(error)}"
        ) from error
    if strange := [*found["missing_keys"], *found["unexpected_keys"]]:
        raise SpatialbenchError(
            f"diffusion {spec!r}: the weights in {folder} do not fit their config.json ({strange[0]}, {len(strange)} "
            "such)"
        )
    return model


def _check_there(path: Path, spec: str) -> None:
    """Told here, as diffusers looks for what is missing on the Hub and speaks of the network."""
    if not path.is_file():
        raise SpatialbenchError(
            f"diffusion {spec!r}: there is no {path}; give a folder in diffusers' layout, with all its parts"
        )


def _download(spec: str) -> Path:
    """A snapshot of the Hub; the network is not asked for a commit whose files are in the cache."""
    repository, _, commit = spec.partition("@")
    if found := cached_folder(repository, commit, NEEDED):
        return found
    try:
        return snapshot(repository, commit, _HUB_FILES, _HUB_LEFT)
    except SpatialbenchError as error:
        raise SpatialbenchError(
            f"diffusion {spec!r}: {error}; give a folder in diffusers' layout, or fill the cache where there is a "
            f"network: {fetch_command(spec)}"
        ) from error


def fetch_command(spec: str) -> str:
    """What brings the wanted files of ``<owner>/<name>@<commit>`` into the Hub's cache, and not the rest of them."""
    repository, _, commit = spec.partition("@")
    wanted = [f"--include '{pattern}'" for pattern in _HUB_FILES]
    return " ".join(
        [
            f"hf download {repository} --revision {commit}",
            *wanted,
            *(f"--exclude '{left}'" for left in _HUB_LEFT),
        ]
    )


def _check_hash(path: Path, wanted: str, spec: str) -> None:
    if not path.is_file():
        raise SpatialbenchError(
            f"diffusion {spec!r}: there is no file {path}, for which a hash is given"
        )
    found = digest(path)
    if found != wanted.lower():
        raise SpatialbenchError(
            f"diffusion {spec!r}: {path} has the sha256 {found}, not {wanted}; load it again"
        )
