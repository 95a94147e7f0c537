"""Diffusion models so small that a test may use many: random weights, in diffusers' layout."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from spatialbench.models.latent_diffusion import Diffusion

SIZE, SIDE, CHANNELS, WIDTH, LENGTH = 32, 8, 4, 24, 16
"""Pixels a side, latents a side, their channels, width of the context and its positions."""
SCALE = 0.7
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def unet(seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        **{"sample_size": SIDE, "in_channels": CHANNELS, "out_channels": CHANNELS},
        **{"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4},
        **{"cross_attention_dim": WIDTH, "attention_head_dim": 2},
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def vae(seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    return AutoencoderKL(
        **{"sample_size": SIZE, "latent_channels": CHANNELS, "scaling_factor": SCALE},
        **{"block_out_channels": (4, 4, 8), "norm_num_groups": 2},
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )


def diffusion(
    prediction: str = "epsilon", dtype: torch.dtype = torch.float64, legacy_range: bool = False
) -> Diffusion:
    """Model of 32 pixels, 8 x 8 latents of 4 channels, a context of 16 positions of 24 channels."""
    scheduler = DDPMScheduler(**BETAS, prediction_type=prediction, clip_sample=False)
    context = torch.randn(LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))
    parts = [torch.nn.Module.to(part, dtype) for part in (unet(), vae())]
    return Diffusion(*parts, scheduler, context, legacy_range)


def write_folder(folder: Path, seed: int = 0, text_width: int = WIDTH) -> Path:
    """Write the layout of Stable Diffusion's folders, with text encoder and tokenizer."""
    unet(seed).save_pretrained(folder / "unet")
    vae(seed).save_pretrained(folder / "vae")
    scheduler = PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1)
    scheduler.save_pretrained(folder / "scheduler")
    letters = "aphotf."
    words = ["!", *letters, *(f"{letter}</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="!", model_max_length=LENGTH)
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.manual_seed(seed)
    text = CLIPTextConfig(
        **{"vocab_size": len(words), "hidden_size": text_width, "intermediate_size": 16},
        **{"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": LENGTH},
        **{"bos_token_id": 15, "eos_token_id": 16, "pad_token_id": 0},
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    return folder
