"""Latent diffusion models: the only importer of diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL

from spatialbench.errors import SpatialbenchError

CONFIGS = Path(__file__).parent / "configs"
OWN = "rooms-diffusion"
"""The model shipped with the package: configs/rooms-diffusion.json, weights/rooms-diffusion/."""
PRESETS = (OWN,)
"""Architectures that can be had with random weights, each a file of ``configs``."""


def build_vae(preset: str) -> AutoencoderKL:
    """The autoencoder of a preset, random weights, trainable."""
    return AutoencoderKL.from_config(_preset(preset)["vae"])


def _preset(name: str) -> dict[str, Any]:
    """The configurations of a preset's parts.

    Raises:
        SpatialbenchError: there is no such preset.
    """
    if name not in PRESETS:
        raise SpatialbenchError(f"diffusion {name!r}: no such preset; one of {', '.join(PRESETS)}")
    return json.loads((CONFIGS / f"{name}.json").read_text())
