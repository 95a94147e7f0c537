"""The small vision foundation model: a timm ViT trained on dense depth and on object grouping.

The poster builds on Depth Anything V2's encoder, which was trained in two steps: DINOv2's
self-supervision, which groups the patches of one object, then depth. The miniature learns both at
once from the rooms' exact depth and masks:

    (1)  L_depth = mean over cells of | log d' - log d |    cells: 4 x 4 a patch, d mean depth in m
    (2)  a_pq = exp(t) <g_p, g_q> + b                       g: unit-norm projection of patch token p
    (3)  L_group = BCE(a_pq, 1 if p and q show the same object)     half the weight on either answer
    (4)  L = L_depth + L_group

(3) takes pairs of patches with at least one object, each patch with a clear majority. (2) and (3):
SigLIP's pairwise sigmoid loss (Zhai et al., arXiv 2303.15343) between the patches of one image.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spatialbench.models.timm_vfm import build_vit
from spatialbench.pretrain.data import DenseBatch
from spatialbench.pretrain.pretraining import Pretraining, write_scores, write_weights

CELLS = 4
"""Depth cells per patch and axis."""
MAJORITY = 0.6
"""Share of its pixels that a patch's object must have for the grouping loss."""


class DenseHeads(nn.Module):
    """Linear heads on patch tokens [B, N, D].

    ``depth`` gives log depth [B, N, CELLS**2], ``group`` gives embeddings [B, N, 32].
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth = nn.Linear(width, CELLS**2)
        self.group = nn.Linear(width, 32)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def affinity(self, tokens: Tensor) -> Tensor:
        """Return (2), logits [B, N, N]."""
        g = F.normalize(self.group(tokens).float(), dim=-1)
        return self.scale.exp() * g @ g.transpose(1, 2) + self.bias


def _tiles(x: Tensor, grid: int) -> Tensor:
    """Cut [B, S, S] into grid x grid patches in row order, [B, grid**2, (S / grid)**2]."""
    tiles = x.unflatten(2, (grid, -1)).unflatten(1, (grid, -1)).transpose(2, 3)
    return tiles.flatten(3).flatten(1, 2)


def depth_cells(depth: Tensor, grid: int) -> Tensor:
    """Return the log mean depth of each cell, [B, grid**2, CELLS**2], of metres [B, S, S]."""
    return _tiles(F.adaptive_avg_pool2d(depth[:, None], grid * CELLS)[:, 0].log(), grid)


def patch_objects(masks: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Return the object of each patch of masks uint8 [B, S, S].

    Codes int64 [B, grid**2] (0: the room), and whether the code holds ``MAJORITY`` of the patch.
    """
    patches = _tiles(masks, grid)
    code = patches.mode(dim=-1).values
    share = (patches == code[..., None]).float().mean(-1)
    return code.long(), share >= MAJORITY


def group_targets(masks: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Return target and validity of every pair of patches for (3), both bool [B, N, N]."""
    code, clear = patch_objects(masks, grid)
    same = code[:, :, None] == code[:, None, :]
    is_object = code > 0
    valid = clear[:, :, None] & clear[:, None, :] & (is_object[:, :, None] | is_object[:, None, :])
    return same, valid & ~torch.eye(code.shape[1], dtype=torch.bool, device=code.device)


def group_loss(logits: Tensor, same: Tensor, valid: Tensor) -> Tensor:
    """Return (3): the mean over pairs of one object and the mean over other pairs, averaged."""
    loss = F.binary_cross_entropy_with_logits(logits, same.to(logits.dtype), reduction="none")
    parts = [loss[valid & (same == answer)] for answer in (True, False)]
    return torch.stack([part.mean() for part in parts if len(part)]).mean()


class VfmPretraining(Pretraining):
    """The training of the VFM.

    Args:
        vfm: as in ``models.timm_vfm.build_vit``.
        lr: peak learning rate of AdamW; linear warm-up, then a cosine to zero.
        warmup: steps.
        export: file of the weights; the scores and the heads, ``<name>-heads.safetensors``, go
            beside it.
    """

    weight_decay = 0.05

    def __init__(
        self,
        vfm: str = "rooms-vfm:random",
        lr: float = 1e-3,
        warmup: int = 200,
        export: str = "spatialbench/weights/rooms-vfm.safetensors",
    ) -> None:
        super().__init__()
        self.model, mean, std = build_vit(vfm)
        self.normalise_by(mean, std)
        self.heads = DenseHeads(self.model.embed_dim)
        self.grid: int = self.model.patch_embed.grid_size[0]

    def patches(self, pixels: Tensor) -> Tensor:
        """Map uint8 [B, 3, S, S] to the last block's normed patch tokens, [B, N, D]."""
        with sdpa_kernel(SDPBackend.MATH):  # the CPU's fused kernel is slow backward in bfloat16
            tokens = self.model.forward_features((pixels - self.mean) / self.std)
        return tokens[:, self.model.num_prefix_tokens :]

    def training_step(self, batch: DenseBatch, _: int) -> Tensor:
        """Return (4)."""
        tokens = self.patches(batch["pixels"])
        truth = depth_cells(batch["depth"], self.grid)
        depth = (self.heads.depth(tokens).float() - truth).abs().mean()  # (1)
        targets = group_targets(batch["masks"], self.grid)
        group = group_loss(self.heads.affinity(tokens), *targets)  # (2) (3)
        self.log_dict({"depth": depth, "group": group}, prog_bar=True)
        loss = depth + group  # (4)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: DenseBatch, _: int) -> None:
        """Keep the errors of depth and grouping."""
        tokens = self.patches(batch["pixels"])
        truth = depth_cells(batch["depth"], self.grid)
        ratio = (self.heads.depth(tokens).float() - truth).exp()
        same, valid = group_targets(batch["masks"], self.grid)
        right = (self.heads.affinity(tokens) > 0) == same
        self.keep(
            abs_rel=(ratio - 1).abs().mean((1, 2)),
            delta1=((ratio < 1.25) & (ratio > 0.8)).float().mean((1, 2)),
            same=right[valid & same].float(),
            other=right[valid & ~same].float(),
        )

    def summary(self, rows: dict[str, Tensor]) -> dict[str, float]:
        """Return relative error, share within 1.25 and grouping accuracy, in percent."""
        mean = {name: row.mean().item() for name, row in rows.items()}
        return {
            "depth_abs_rel": 100 * mean["abs_rel"],
            "depth_delta1": 100 * mean["delta1"],
            "grouping": 50 * (mean["same"] + mean["other"]),
        }

    def write(self, target: Path) -> None:
        """Write the weights, and the heads and scores beside them."""
        write_weights(target.with_name(f"{target.stem}-heads.safetensors"), self.heads.state_dict())
        write_weights(target, self.model.state_dict())
        write_scores(target.with_suffix(".json"), self.scores)
