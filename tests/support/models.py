"""Students and VFMs so small that a test may use many: random weights in float32."""

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
_FOLDER = tempfile.TemporaryDirectory(prefix="spatialbench-test-")  # deleted at exit


@lru_cache
def student(
    name: str = "tiny", vision: str = "{}", text: str = "{}", quick_gelu: bool = False
) -> str:
    """Spec of a random student of 3 blocks, 3 heads of 16 channels and 4 x 4 patches.

    ``vision`` and ``text`` are JSON that overrides parts of the config.
    """
    own: dict[str, Any] = json.loads((CONFIGS / "rooms-student.json").read_text())["text_cfg"]
    image = {"image_size": SIZE, "layers": 3, "width": 48, "head_width": 16, "patch_size": 8}
    words = {"context_length": 20, "vocab_size": own["vocab_size"], "width": 32, "heads": 2}
    words |= {"layers": 2, "tokenizer_kwargs": {"bpe_path": str(CONFIGS / "rooms-bpe.txt.gz")}}
    config = {
        "embed_dim": 24,
        "quick_gelu": quick_gelu,
        "vision_cfg": image | json.loads(vision),
        "text_cfg": words | json.loads(text),
    }
    path = Path(tempfile.mkdtemp(dir=_FOLDER.name)) / f"spatialbench-{name}.json"
    path.write_text(json.dumps(config))
    return f"{path}:random"


SCALED = '{"ls_init_value": 0.3, "no_ln_pre": true}'
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "quick_gelu": {"quick_gelu": True},
    "average": {"vision": '{"pool_type": "avg"}'},
    "norm_after_pool": {"vision": '{"pool_type": "avg", "final_ln_after_pool": true}'},
    "layer_scale": {"vision": SCALED, "text": '{"ls_init_value": 0.2}'},
    "projection_bias": {"text": '{"proj_bias": true}'},
}
"""Arguments of ``student``: every architecture of a CLIP that the towers support."""


def scrambled(model: Any) -> Any:
    """Fill a model with random numbers: fresh norms and scales are one, and hide swapped names."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def _vit(**arguments: Any) -> VisionTransformer:
    sizes = {"img_size": SIZE, "patch_size": 8, "num_classes": 0, "embed_dim": 48, "num_heads": 3}
    model = VisionTransformer(**{**sizes, "depth": 3, **arguments})
    model.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
    return model


@register_model
def spatialbench_same(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """Depth, heads, head channels and grid of the student."""
    return _vit()


@register_model
def spatialbench_other(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """3 heads of 8 channels, 6 blocks, 2 x 2 patches, 2 registers, norms of q and k."""
    sizes = {"embed_dim": 24, "depth": 6, "patch_size": 16, "reg_tokens": 2}
    return _vit(**sizes, qk_norm=True, init_values=0.5)


@register_model
def spatialbench_two_heads(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """Another number of heads than the student's."""
    return _vit(num_heads=2)


@register_model
def spatialbench_no_class_token(pretrained: bool = False, **_: Any) -> VisionTransformer:
    """Patches only."""
    return _vit(depth=1, class_token=False, global_pool="avg")


@register_model
def spatialbench_siglip_tower(
    pretrained: bool = False, num_classes: int = 0, global_pool: str = "map", **_: Any
) -> VisionTransformer:
    """SigLIP's vit_*_siglip_* of timm in small: no class token, a pooling head."""
    model = _vit(class_token=False, global_pool=global_pool, num_classes=num_classes)
    model.default_cfg = {}
    return model


SAME, OTHER, TWO_HEADS = (f"spatialbench_{name}:random" for name in ("same", "other", "two_heads"))


def images(count: int, seed: int = 0, size: int = SIZE) -> Tensor:
    """Noise, uint8 [count, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def normal_images(count: int = 3, height: int = SIZE, width: int | None = None) -> Tensor:
    """Noise, normalised, float [count, 3, height, width]."""
    shape = (count, 3, height, width or height)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


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
