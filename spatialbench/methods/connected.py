"""Methods whose student reads a frozen VFM block by block: tokens, depths, cache, checkpoint.

Letters: B images, T tokens of the student, H heads, d channels of a head, L_C and L_F blocks of the
student and of the VFM; H', T', d' of the VFM.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialbench.methods.base import DEFAULTS, Batch, FineTuning, Method
from spatialbench.models.open_clip_student import normalisation
from spatialbench.models.timm_vfm import load_vfm
from spatialbench.models.towers import has_class_token, image_blocks
from spatialbench.utils.errors import SpatialbenchError

Normalisation = Literal["own", "student"]


class ConnectedMethod(Method):
    """A student and a frozen VFM that sees the same images.

    Args:
        student: an open_clip model, ``<model>[:<weights>]``; see ``Method``.
        vfm: ``<timm model>[:<weights>]``, for instance ``rooms-vfm``,
            ``vit_large_patch14_dinov2:depth-anything-v2``, ``vit_base_patch14_dinov2:file.pth``.
        cache: keep the VFM's tokens of every image on disk; false recomputes them in every step,
            for sets that are too large for the disk.
        finetuning: the protocol of training, the same for every row of a table.
        vfm_normalisation: the VFM's pixels have its ``own`` mean and deviation, or the
            ``student``'s, as in the poster's code.
    """

    frozen = ("vfm.",)
    pooled = True

    def __init__(
        self,
        student: str = "rooms-student",
        vfm: str = "rooms-vfm",
        cache: bool = True,
        finetuning: FineTuning = DEFAULTS,
        vfm_normalisation: Normalisation = "own",
    ) -> None:
        super().__init__(student, finetuning)
        self.save_arguments(locals())
        pixels = normalisation(self.student) if vfm_normalisation == "student" else None
        self.vfm = load_vfm(vfm, self.image_size, cache, pixels)
        blocks = image_blocks(self.student)
        self.depth: int = len(blocks)
        self.heads: int = blocks[0].attn.num_heads
        self.head_dim: int = blocks[0].attn.head_dim

    def linears(self) -> nn.ModuleList:
        """Return a Linear per block, from the VFM's width to the student's; zero at the start."""
        vfm_width, width = self.vfm.heads * self.vfm.head_dim, self.heads * self.head_dim
        layers = nn.ModuleList(nn.Linear(vfm_width, width) for _ in range(self.depth))
        for parameter in layers.parameters():
            nn.init.zeros_(parameter)
        return layers

    def vfm_block(self, block: int) -> int:
        """Return m(l), the VFM's block that goes with the student's; both count from 0.

        m(l) = round(l L_F / L_C), halves up and 1 at least, with blocks counted from 1: the last
        goes with the last.

        Source: ours, as the poster's models are equally deep; docs/spatial_attn.md.
        """
        return max(1, int((block + 1) * self.vfm.depth / self.depth + 0.5)) - 1

    def vfm_qkv(
        self, block: int, tokens: Tensor, grid: tuple[int, int], values: bool = True
    ) -> tuple[Tensor, ...]:
        """Return Q', K' (and V') for a block and the tokens of the student, each [B, H', T, d'].

        ``block`` is the student's, from 0; ``tokens`` are the VFM's; ``grid`` is the student's, to
        which patches are resampled. A student without a class token (SigLIP) gets none.
        """
        number = self.vfm_block(block)
        parts = self.vfm.qkv(number, tokens[:, number], values)
        if self.vfm.grid != grid:
            parts = tuple(self._resampled(part, grid) for part in parts)
        return parts if has_class_token(self.student) else tuple(part[:, :, 1:] for part in parts)

    def _resampled(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Resample [B, H', T', d'] to the student's grid, [B, H', T, d']."""
        patches = x[:, :, 1:].flatten(0, 1).mT.unflatten(2, self.vfm.grid)  # [B H', d', h', w']
        patches = F.interpolate(patches, size=grid, mode="bilinear", align_corners=False)
        return torch.cat([x[:, :, :1], patches.flatten(2).mT.unflatten(0, x.shape[:2])], dim=2)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the protocol's loss."""
        return self.finetuning_loss(batch)

    def on_fit_start(self) -> None:
        """Fill the cache of tokens, unless nothing is trained."""
        if self.trainer.max_steps != 0:
            self._prepare("train_set", *(["val_set"] if self.trainer.enable_validation else []))

    def on_validation_start(self) -> None:
        """Fill the cache of tokens; in a fit that is done already."""
        if self.trainer.state.fn == "validate":
            self._prepare("val_set")

    def on_test_start(self) -> None:
        """Fill the cache of tokens."""
        self._prepare("test_set")

    def _prepare(self, *names: str) -> None:
        """Fill the cache of tokens for whole sets; every rank does its share."""
        data: Any = getattr(self.trainer, "datamodule", None)
        for records in (getattr(data, name, None) for name in names):
            if records is not None:
                self.vfm.prepare(records.images, self.trainer.global_rank, self.trainer.world_size)
        self.trainer.strategy.barrier()
        self.vfm.refresh()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the fingerprint of the frozen VFM."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vfm"] = self.vfm.fingerprint

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the VFM is the one of the training, too."""
        super().on_load_checkpoint(checkpoint)
        if checkpoint.get("vfm") != self.vfm.fingerprint:
            raise SpatialbenchError(
                f"the checkpoint was trained with another VFM than {self.hparams['vfm']!r} as it is"
                " now: other weights, normalisation or size; give the VFM of its training, or train"
                " again"
            )
