"""Students and VFMs so small that a test may use many of them. Random weights, float32 unless made double."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from spatialbench.data.batches import Batch
from spatialbench.data.relations import RELATIONS, Statement
from spatialbench.models.open_clip_student import CONFIGS

SIZE = 32
"""Side of the images."""
NAMES = ("sofa", "lamp", "bed", "floor lamp")
_FOLDER = tempfile.TemporaryDirectory(prefix="spatialbench-test-")  # gone at exit


@lru_cache
def student(
    name: str = "tiny", vision: str = "{}", text: str = "{}", quick_gelu: bool = False
) -> str:
    """Spec of a random student of 3 blocks, 3 heads of 16 channels and 4 x 4 patches.

    ``vision`` and ``text`` are JSON that is laid over the config.
    """
    own: dict[str, Any] = json.loads((CONFIGS / "rooms-student.json").read_text())["text_cfg"]
    config = {
        "embed_dim": 24,
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            "image_size": SIZE,
            "layers": 3,
            "width": 48,
            "head_width": 16,
            "patch_size": 8,
        }
        | json.loads(vision),
        "text_cfg": {
            "context_length": 20,
            "vocab_size": own["vocab_size"],
            "width": 32,
            "heads": 2,
            "layers": 2,
        }
        | {"tokenizer_kwargs": {"bpe_path": str(CONFIGS / "rooms-bpe.txt.gz")}}
        | json.loads(text),
    }
    path = Path(tempfile.mkdtemp(dir=_FOLDER.name)) / f"spatialbench-{name}.json"
    path.write_text(json.dumps(config))
    return f"{path}:random"


def _vit(**arguments: Any) -> VisionTransformer:
    model = VisionTransformer(**{"img_size": SIZE, "patch_size": 8, "num_classes": 0, **arguments})
    model.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
    return model


@register_model
def spatialbench_same(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """Depth, heads, head channels and grid of the student."""
    return _vit(embed_dim=48, depth=3, num_heads=3)


@register_model
def spatialbench_other(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """The student's heads, but 8 channels each, 6 blocks, 2 x 2 patches, 2 registers and norms of q and k."""
    return _vit(
        embed_dim=24,
        depth=6,
        num_heads=3,
        patch_size=16,
        reg_tokens=2,
        qk_norm=True,
        init_values=0.5,
    )


@register_model
def spatialbench_two_heads(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """Not the student's number of heads."""
    return _vit(embed_dim=48, depth=3, num_heads=2)


@register_model
def spatialbench_no_class_token(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """Patches only."""
    return _vit(embed_dim=48, depth=1, num_heads=3, class_token=False, global_pool="avg")


SAME, OTHER, TWO_HEADS = (f"spatialbench_{name}:random" for name in ("same", "other", "two_heads"))


def images(count: int, seed: int = 0, size: int = SIZE) -> Tensor:
    """Noise, uint8 [count, 3, size, size]."""
    return torch.randint(
        0,
        256,
        (count, 3, size, size),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(seed),
    )


def batch(count: int = 4, per_image: int = 3, seed: int = 0) -> Batch:
    """Noise with statements about it."""
    generator = torch.Generator().manual_seed(seed)
    statements = []
    for _ in range(count * per_image):
        a, b = torch.randperm(len(NAMES), generator=generator)[:2].tolist()
        relation = RELATIONS[int(torch.randint(len(RELATIONS), (), generator=generator))]
        statements.append(Statement(NAMES[a], relation, NAMES[b]))
    return Batch(
        pixels=images(count, seed),
        image=torch.arange(count).repeat_interleave(per_image),
        captions=[statement.caption for statement in statements],
        negated=[statement.negated.caption for statement in statements],
        record=torch.arange(count * per_image),
    )


def silent(module: Any) -> Any:
    """Silence the log of a module without a trainer."""
    module.log = module.log_dict = lambda *_, **__: None
    return module


def step(module: Any, data: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return loss and gradients of a training step."""
    module.zero_grad()
    loss = silent(module).training_step(data, 0)
    loss.backward()
    named = module.named_parameters()
    return loss.detach(), {name: p.grad.clone() for name, p in named if p.grad is not None}


@torch.no_grad()
def shaken(module: Any) -> Any:
    """Move the parameters of a module by noise."""
    for parameter in module.parameters():
        generator = torch.Generator().manual_seed(0)
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return module


def quiet(**arguments: Any) -> Trainer:
    """Return a trainer on the CPU without logs, bars and checkpoints."""
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return Trainer(**{"accelerator": "cpu", **dict.fromkeys(off, False), **arguments})
