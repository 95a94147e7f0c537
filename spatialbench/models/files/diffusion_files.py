"""The parts of a diffusion model: from a preset, a folder in diffusers' layout, or the Hub."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from spatialbench import WEIGHTS
from spatialbench.models.diffusion_text import prompt_states, student_states
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.hub import cached_folder, digest, first_line, snapshot

CONFIGS = Path(__file__).parents[1] / "configs"
DTYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}
OWN = "rooms-diffusion"  # shipped with the package, in configs/ and weights/
PRESETS = (OWN, "sd-2-1-base")  # architectures available with random weights
FLUX = "flux-vae"  # FLUX's autoencoder, 16 channels, with random weights only
_HUB = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
_HUB_FILES = ("unet/*", "vae/*", "scheduler/*", "text_encoder/*", "tokenizer/*")
_HUB_IGNORED = ("*.bin", "*.fp16.*", "*.non_ema.*", "*.msgpack", "*.h5")
NEEDED = (
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
)
"""Files of the Hub without which a model in diffusers' layout is incomplete."""


class Parts(NamedTuple):
    """diffusers' UNet2DConditionModel, AutoencoderKL and DDPMScheduler, and E float32 [T, W]."""

    unet: Any
    vae: Any
    scheduler: Any
    context: Tensor


def preset_config(name: str, names: Sequence[str] = PRESETS) -> dict[str, Any]:
    """Read the configurations of a preset's parts."""
    if name not in names:
        raise SpatialbenchError(f"diffusion {name!r}: no such preset; one of {', '.join(names)}")
    return json.loads((CONFIGS / f"{name}.json").read_text())


def build(cls: Any, config: Mapping[str, Any]) -> Any:
    """Build one of diffusers' classes, which have no types, from its configuration."""
    return cls.from_config(dict(config))


def random_parts(preset: str, prompt: str, seed: int) -> Parts:
    """Build the exact architecture with random weights; the global generator is left alone.

    The prompt's hidden states are random too, unless the text encoder is a student's.
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


def random_autoencoder(preset: str) -> Any:
    """Build a preset's autoencoder, or FLUX's, with random weights, always the same."""
    config = preset_config(preset, (*PRESETS, FLUX))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(AutoencoderKL, config["vae"])


def read_parts(folder: Path, prompt: str, spec: str) -> Parts:
    """Read the parts from a folder of diffusers' layout."""
    unet = read_part(UNet2DConditionModel, folder / "unet", spec)
    vae = read_part(AutoencoderKL, folder / "vae", spec)
    with _readable(folder / "scheduler" / "scheduler_config.json", spec) as place:
        scheduler = DDPMScheduler.from_pretrained(place, local_files_only=True)
    return Parts(unet, vae, scheduler, prompt_states(folder, prompt, spec))


def find_folder(spec: str, hashes: Mapping[str, str]) -> Path:
    """Find the folder of a model that is shipped, on this disk, or on the Hub at a given commit.

    ``hashes`` are the sha256 of some of its files, which are checked here.

    Raises:
        SpatialbenchError: there is none, or the hash of a file is another.
    """
    if spec == OWN or Path(spec).is_dir():
        folder = WEIGHTS / OWN if spec == OWN else Path(spec)
    elif _HUB.fullmatch(spec):
        folder = _download(spec)
    else:
        raise SpatialbenchError(
            f"diffusion {spec!r}: no such folder; give {OWN}, a folder in diffusers' layout, "
            "<owner>/<name>@<commit> of the Hugging Face Hub with all 40 digits, or one of "
            f"{', '.join(PRESETS)} followed by :random"
        )
    for name, sha256 in hashes.items():
        path, model = folder / name, f"diffusion {spec!r}"
        if not path.is_file():
            raise SpatialbenchError(f"{model}: there is no file {path}, for which a hash is given")
        if (actual := digest(path)) != sha256.lower():
            raise SpatialbenchError(
                f"{model}: {path} has the sha256 {actual}, not {sha256}; download it again"
            )
    return folder


def check(parts: Parts, spec: str) -> None:
    """Check that the parts belong together."""
    unet, vae, scheduler, context = parts
    kind, latents = scheduler.config.prediction_type, vae.config.latent_channels
    width, channels = unet.config.cross_attention_dim, unet.config.in_channels
    if kind not in ("epsilon", "v_prediction"):
        wrong = f"prediction_type is {kind}; epsilon or v_prediction are supported"
    elif channels != latents:
        wrong = f"the UNet reads {channels} channels and the autoencoder makes {latents}"
    elif context.shape[-1] != width:
        wrong = f"the text encoder is {context.shape[-1]} wide and the UNet reads {width}"
    elif not isinstance(unet.config.sample_size, int):
        wrong = "the UNet's sample_size is not one number"
    else:
        return
    raise SpatialbenchError(f"diffusion {spec!r}: {wrong}")


def check_dtype(dtype: str, spec: str) -> None:
    """Raise a SpatialbenchError unless ``dtype`` is one of ``DTYPES``."""
    if dtype not in DTYPES:
        names = ", ".join(DTYPES)
        raise SpatialbenchError(f"diffusion {spec!r}: no dtype {dtype!r}; one of {names}")


def read_part(cls: Any, folder: Path, spec: str) -> Any:
    """Read one of diffusers' models from its folder, in float32, every weight from the file."""
    with _readable(folder / "config.json", spec):
        model, keys = cls.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
        )
    if strange := [*keys["missing_keys"], *keys["unexpected_keys"]]:
        raise SpatialbenchError(
            f"diffusion {spec!r}: the weights in {folder} do not fit their config.json "
            f"({strange[0]}, {len(strange)} such)"
        )
    return model


@contextmanager
def _readable(config: Path, spec: str) -> Iterator[Path]:
    """Yield the folder of a part; turn what diffusers raises into one line."""
    if not config.is_file():  # diffusers would look for it on the Hub and blame the network
        raise SpatialbenchError(
            f"diffusion {spec!r}: there is no {config}; give a folder in diffusers' layout, with "
            "all its parts"
        )
    try:
        yield config.parent
    except Exception as error:  # of diffusers, safetensors or the disk
        raise SpatialbenchError(
            f"diffusion {spec!r}: {config.parent} cannot be read: {first_line(error)}"
        ) from error


def _download(spec: str) -> Path:
    """Return the snapshot of a commit, offline where its files are in the cache."""
    repository, _, commit = spec.partition("@")
    if folder := cached_folder(repository, commit, NEEDED):
        return folder
    try:
        return snapshot(repository, commit, _HUB_FILES, _HUB_IGNORED)
    except SpatialbenchError as error:
        raise SpatialbenchError(
            f"diffusion {spec!r}: {error}; give a folder in diffusers' layout, or fill the cache "
            f"where there is a network: {fetch_command(spec)}"
        ) from error


def fetch_command(spec: str) -> str:
    """Return a command that downloads the needed files of a commit, and no others."""
    repository, _, commit = spec.partition("@")
    options = [f"--include '{pattern}'" for pattern in _HUB_FILES]
    options += [f"--exclude '{pattern}'" for pattern in _HUB_IGNORED]
    return " ".join([f"hf download {repository} --revision {commit}", *options])
