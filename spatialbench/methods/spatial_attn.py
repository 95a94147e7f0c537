r"""CLIP with spatial attention: the queries and keys of a vision foundation model steer CLIP's attention.

Paper  Yang and Jeon, "Integrating Vision Foundation Models: Enhancing CLIP's Spatial Reasoning", poster, 2024;
       docs/spatial_attn.md.
Code   hy30n80/Mixed-Transformer @ 0b9ac26 (no licence: nothing is copied).

In every block l of CLIP's image tower, head by head, with the frozen VFM's block m(l) = round(l L_F / L_C) beside it:

    (1)  Q_i = X W^Q_i,  K_i = X W^K_i,  V_i = X W^V_i      CLIP's head i, X after its LayerNorm, with bias
    (2)  Q'_i, K'_i                                         the VFM's head i, with bias, before its scale
    (3)  head_i = softmax([Q_i, Q'_i] [K_i, K'_i]^T / sqrt(2 d_k)) V_i      [,] along the channels
    (4)  out = Concat(head_1, ..., head_h) W^O

So CLIP's and the VFM's attention logits are summed, and nothing is learned for the connection. Before fine-tuning the
model is not CLIP any more. ``value_connection`` adds the ablation "(+) residual linear connection on value":

    (5)  V <- V + C V'                                      C: Linear D' -> D with bias, zero at the start

Differences  Head dimensions may differ: the scale is 1 / sqrt(d_k + d'_k), which is (3) where they do not. Depths and
             grids may differ (ConnectedMethod); the numbers of heads may not, as heads are paired.
             The authors' patched attention multiplies by W where the layer means W^T, so that their pre-trained
             attention is scrambled before the fine-tuning; here it is not, unless ``projections`` says so. The VFM's
             pixels are normalised as the VFM expects; the authors use CLIP's mean and deviation
             (``vfm_normalisation``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from spatialbench.methods.base import DEFAULTS, Batch, FineTuning
from spatialbench.methods.connected import ConnectedMethod, Normalisation
from spatialbench.models.towers import Block, Mix, image_blocks, merge_heads, split_heads
from spatialbench.utils.errors import SpatialbenchError


class SpatialAttention(ConnectedMethod):
    """CLIP whose attention logits are the sum of its own and the VFM's.

    Args:
        student: ``<open_clip model>[:<weights>]``, for instance ``rooms-student``, ``ViT-L-14-336-quickgelu:openai``,
            a config file ``my.json:my.safetensors``; ``:random`` for random weights.
        vfm: ``<timm model>[:<weights>]``, for instance ``rooms-vfm``, ``vit_large_patch14_dinov2:depth-anything-v2``,
            ``vit_base_patch14_dinov2:file.pth``; as many heads as the student.
        cache: keep the VFM's tokens of every image on disk; false computes them in every step, for sets that are too
            large for the disk.
        value_connection: add (5), a zero-initialised linear map from the VFM's values to CLIP's in every block.
        finetuning: the protocol of training, the same for every row of a table.
        vfm_normalisation: the VFM's pixels have its own mean and deviation, or the student's, as in the authors' code.
        projections: ``transposed`` multiplies by W where CLIP's layers mean W^T, as the authors' code does.

    Raises:
        SpatialbenchError: the VFM's number of heads is not the student's.
    """

    def __init__(
        self,
        student: str = "rooms-student",
        vfm: str = "rooms-vfm",
        cache: bool = True,
        value_connection: bool = False,
        finetuning: FineTuning = DEFAULTS,
        vfm_normalisation: Normalisation = "own",
        projections: Literal["correct", "transposed"] = "correct",
    ) -> None:
        super().__init__(student, vfm, cache, finetuning, vfm_normalisation)
        self.save_hyperparameters(
            {"value_connection": value_connection, "projections": projections}
        )
        if projections == "transposed":
            _transpose(image_blocks(self.student))
        if self.vfm.heads != self.heads:
            raise SpatialbenchError(
                f"vfm {vfm!r} has {self.vfm.heads} heads, student {student!r} has {self.heads}; attention heads "
                "are paired one to one, so take two models with as many"
            )
        self.value_connection: nn.ModuleList | None = None
        if value_connection:
            vfm_width, width = self.vfm.heads * self.vfm.head_dim, self.heads * self.head_dim
            self.value_connection = nn.ModuleList(
                nn.Linear(vfm_width, width) for _ in range(self.depth)
            )
            for parameter in self.value_connection.parameters():
                nn.init.zeros_(parameter)

    def connect(self, x: Tensor) -> Mix:
        tokens, grid = self.vfm.tokens(x), self.grid(x)

        def mix(
            block: int, q: Tensor, k: Tensor, v: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:  # (1)
            vfm_q, vfm_k, *vfm_v = self.vfm_qkv(
                block, tokens, grid, values=self.value_connection is not None
            )  # (2)
            if self.value_connection is not None:
                v = v + split_heads(
                    self.value_connection[block](merge_heads(vfm_v[0])), self.heads
                )  # (5)
            return (
                torch.cat([q, vfm_q], -1),
                torch.cat([k, vfm_k], -1),
                v,
            )  # (3), (4): the tower's own, from here on

        return mix

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.finetuning_loss(batch)


@torch.no_grad()
def _transpose(blocks: Iterable[Block]) -> None:
    """W <- W^T for the query, key, value and output projections.

    What code computes that multiplies by W where the layer means W^T, and what it learns, too: Adam treats the entries
    of a matrix alike, wherever they stand. Source: hy30n80/Mixed-Transformer @ 0b9ac26.
    """
    for block in blocks:
        attention = block.attn
        timms = hasattr(attention, "qkv")  # SigLIP's
        into, out = (attention.qkv, attention.proj) if timms else (attention, attention.out_proj)
        weight = into.weight if timms else into.in_proj_weight
        weight.copy_(torch.cat([part.T for part in weight.chunk(3)]))
        out.weight.copy_(out.weight.T.clone())
