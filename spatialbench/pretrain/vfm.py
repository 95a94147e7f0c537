"""The small vision foundation model: a timm ViT trained on dense depth and on object grouping.

Depth Anything V2's encoder, which the poster leans on, was trained in two steps: DINOv2's self-supervision, which
groups the patches of one object, then depth. The miniature learns both at once from the rooms' exact depth and masks:

    (1)  L_depth = mean over cells of | log d' - log d |          cells: 4 x 4 a patch, d their mean depth in metres
    (2)  a_pq = exp(t) <g_p, g_q> + b                             g: unit-norm projection of patch token p
    (3)  L_group = BCE(a_pq, 1 if p and q show the same object)   half the weight on either answer
    (4)  L = L_depth + L_group

(3) takes pairs of patches with at least one object, each patch with a clear majority. (2) and (3): SigLIP's pairwise
sigmoid loss (Zhai et al., arXiv 2303.15343) between the patches of one picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spatialbench.models.timm_vfm import build_vit
from spatialbench.pretrain.data import DenseBatch
from spatialbench.pretrain.student import adamw, export
from spatialbench.utils.errors import atomic_path

CELLS = 4
"""Depth cells a patch and axis."""
MAJORITY = 0.6
"""Share of its pixels that a patch's object must have for the grouping loss."""


class DenseHeads(nn.Module):
    """Linear read-outs of patch tokens [B, N, D]: log depth [B, N, CELLS**2] and grouping embeddings [B, N, 32]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth = nn.Linear(width, CELLS**2)
        self.group = nn.Linear(width, 32)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def affinity(self, tokens: Tensor) -> Tensor:
        """(2), logits [B, N, N]."""
        g = F.normalize(self.group(tokens).float(), dim=-1)
        return self.scale.exp() * g @ g.transpose(1, 2) + self.bias


def depth_cells(depth: Tensor, grid: int) -> Tensor:
    """Metres [B, S, S] -> log of the mean depth of each cell, [B, grid**2, CELLS**2], patches in row order."""
    mean = F.adaptive_avg_pool2d(depth[:, None], grid * CELLS)[:, 0].log()
    return (
        mean.unflatten(2, (grid, CELLS))
        .unflatten(1, (grid, CELLS))
        .transpose(2, 3)
        .flatten(3)
        .flatten(1, 2)
    )


def patch_objects(masks: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """The object of each patch.

    Args:
        masks: uint8 [B, S, S].

    Returns:
        codes int64 [B, grid**2] (0 the room) and whether the code holds MAJORITY of the patch, bool [B, grid**2].
    """
    side = masks.shape[1] // grid
    patches = (
        masks.unflatten(2, (grid, side))
        .unflatten(1, (grid, side))
        .transpose(2, 3)
        .flatten(3)
        .flatten(1, 2)
    )
    code = patches.mode(dim=-1).values
    share = (patches == code[..., None]).float().mean(-1)
    return code.long(), share >= MAJORITY


def group_targets(masks: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Target and validity of every pair of patches, both bool [B, N, N]: see (3)."""
    code, clear = patch_objects(masks, grid)
    same = code[:, :, None] == code[:, None, :]
    is_object = code > 0
    valid = clear[:, :, None] & clear[:, None, :] & (is_object[:, :, None] | is_object[:, None, :])
    return same, valid & ~torch.eye(code.shape[1], dtype=torch.bool, device=code.device)


def group_loss(logits: Tensor, same: Tensor, valid: Tensor) -> Tensor:
    """(3): the mean over the pairs of one object and the mean over the other pairs, averaged."""
    loss = F.binary_cross_entropy_with_logits(logits, same.to(logits.dtype), reduction="none")
    parts = [loss[valid & (same == answer)] for answer in (True, False)]
    return torch.stack([part.mean() for part in parts if len(part)]).mean()


class VfmPretraining(L.LightningModule):
    """Trains the VFM.

    Args:
        vfm: as in ``backbones.vfm.build_vit``.
        lr, weight_decay, warmup: as in ``StudentPretraining``.
        export: where ``finish`` writes the weights; the read-outs go beside them as ``<name>-heads.safetensors``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        vfm: str = "rooms-vfm:random",
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: int = 200,
        export: str = "spatialbench/weights/rooms-vfm.safetensors",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model, mean, std = build_vit(vfm)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)
        self.heads = DenseHeads(self.model.embed_dim)
        self.grid: int = self.model.patch_embed.grid_size[0]
        self.scores: dict[str, float] = {}

    def load_heads(self, path: Path) -> None:
        """Takes the read-outs that ``finish`` wrote."""
        self.heads.load_state_dict({name: value.float() for name, value in load_file(path).items()})

    def patches(self, pixels: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] -> the last block's patch tokens after the norm, [B, N, D]."""
        with sdpa_kernel(
            SDPBackend.MATH
        ):  # in bfloat16 the CPU's fused kernel has a slow backward pass
            tokens = self.model.forward_features((pixels - self.mean) / self.std)
        return tokens[:, self.model.num_prefix_tokens :]

    def training_step(self, batch: DenseBatch, _: int) -> Tensor:
        tokens = self.patches(batch["pixels"])
        depth = (
            (self.heads.depth(tokens).float() - depth_cells(batch["depth"], self.grid)).abs().mean()
        )  # (1)
        group = group_loss(
            self.heads.affinity(tokens), *group_targets(batch["masks"], self.grid)
        )  # (2) (3)
        self.log_dict({"depth": depth, "group": group}, prog_bar=True)
        loss = depth + group  # (4)
        self.log("loss", loss)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._kept: list[dict[str, Tensor]] = []

    def validation_step(self, batch: DenseBatch, _: int) -> None:
        tokens = self.patches(batch["pixels"])
        truth = depth_cells(batch["depth"], self.grid)
        ratio = (self.heads.depth(tokens).float() - truth).exp()
        same, valid = group_targets(batch["masks"], self.grid)
        right = (self.heads.affinity(tokens) > 0) == same
        self._kept.append(
            {
                "abs_rel": (ratio - 1).abs().mean((1, 2)),
                "delta1": ((ratio < 1.25) & (ratio > 0.8)).float().mean((1, 2)),
                "same": right[valid & same].float(),
                "other": right[valid & ~same].float(),
            }
        )

    def on_validation_epoch_end(self) -> None:
        mean = {
            name: torch.cat([kept[name] for kept in self._kept]).mean().item()
            for name in self._kept[0]
        }
        self.scores = {
            "depth_abs_rel": 100 * mean["abs_rel"],
            "depth_delta1": 100 * mean["delta1"],
            "grouping": 50 * (mean["same"] + mean["other"]),
        }
        self.log_dict({f"val/{name}": value for name, value in self.scores.items()}, prog_bar=True)

    def configure_optimizers(self) -> Any:
        return adamw(self, self.hparams["lr"], self.hparams["weight_decay"], self.hparams["warmup"])

    def finish(self, run_dir: Path) -> dict[str, float]:
        """Writes weights, read-outs and scores; called when the page's training is done."""
        target = Path(self.hparams["export"])
        heads = {name: value.half().contiguous() for name, value in self.heads.state_dict().items()}
        with atomic_path(target.with_name(f"{target.stem}-heads.safetensors")) as temporary:
            save_file(heads, temporary)
        export(
            target,
            {k: v.half().contiguous() for k, v in self.model.state_dict().items()},
            self.scores,
        )
        return self.scores
