r"""CLIP with spatial attention: a vision foundation model's queries and keys steer its attention.

Paper  Yang and Jeon, "Integrating Vision Foundation Models: Enhancing CLIP's Spatial Reasoning",
       poster, 2024; docs/spatial_attn.md.
Code   hy30n80/Mixed-Transformer @ 0b9ac26 (no licence: nothing is copied).

In every block l of CLIP's image tower, head by head, with the frozen VFM's block
m(l) = round(l L_F / L_C):

    (1)  Q_i = X W^Q_i,  K_i = X W^K_i,  V_i = X W^V_i  CLIP's head i, with bias, X after LayerNorm
    (2)  Q'_i, K'_i                             the VFM's head i, with bias, before its scale
    (3)  head_i = softmax([Q_i, Q'_i] [K_i, K'_i]^T / sqrt(2 d_k)) V_i      [,] along the channels
    (4)  out = Concat(head_1, ..., head_h) W^O

So the attention logits of CLIP and of the VFM are summed, and the connection learns nothing. Before
fine-tuning the model is no longer CLIP. ``value_connection`` adds the ablation "(+) residual linear
connection on value":

    (5)  V <- V + C V'                          C: Linear D' -> D with bias, zero at the start

Differences  Head dimensions may differ: the scale is 1 / sqrt(d_k + d'_k), which equals (3) where
             they do not. Depths and grids may differ (ConnectedMethod); the numbers of heads may
             not, because heads are paired. The authors' patched attention multiplies by W where the
             layer means W^T, which scrambles the pre-trained attention before the fine-tuning; here
             it does not, unless ``finetuning.projections`` says so. The VFM's pixels are normalised
             as the VFM expects; the authors use CLIP's mean and deviation (``vfm_normalisation``).
"""

import torch
from torch import Tensor, nn

from spatialbench.methods.base import DEFAULTS, FineTuning
from spatialbench.methods.connected import ConnectedMethod, Normalisation
from spatialbench.models.towers import QKV, Mix, merge_heads, patch_grid, split_heads
from spatialbench.utils.errors import SpatialbenchError


class SpatialAttention(ConnectedMethod):
    """CLIP whose attention logits are the sum of its own and the VFM's.

    Args:
        student: an open_clip model, ``<model>[:<weights>]``; see ``Method``.
        vfm: a timm model, ``<model>[:<weights>]``, with as many heads as the student; see
            ``ConnectedMethod``.
        cache: keep the VFM's tokens of every image on disk.
        value_connection: add (5).
        finetuning: the protocol of training, the same for every row of a table.
        vfm_normalisation: mean and deviation of the VFM's pixels, its ``own`` or the ``student``'s.
    """

    def __init__(
        self,
        student: str = "rooms-student",
        vfm: str = "rooms-vfm",
        cache: bool = True,
        value_connection: bool = False,
        finetuning: FineTuning = DEFAULTS,
        vfm_normalisation: Normalisation = "own",
    ) -> None:
        super().__init__(student, vfm, cache, finetuning, vfm_normalisation)
        self.save_arguments(locals())
        if self.vfm.heads != self.heads:
            raise SpatialbenchError(
                f"vfm {vfm!r} has {self.vfm.heads} heads, student {student!r} has {self.heads}; "
                "attention heads are paired one to one, so take two models with as many"
            )
        self.value_connection: nn.ModuleList | None = self.linears() if value_connection else None

    def connect(self, x: Tensor) -> Mix:
        """Return (1) to (3), and (5)."""
        tokens, grid = self.vfm.tokens(x), patch_grid(self.student, x)
        linears = self.value_connection

        def mix(block: int, q: Tensor, k: Tensor, v: Tensor) -> QKV:  # (1)
            vfm = self.vfm_qkv(block, tokens, grid, values=linears is not None)  # (2)
            if linears is not None:
                v = v + split_heads(linears[block](merge_heads(vfm[2])), self.heads)  # (5)
            return torch.cat([q, vfm[0]], -1), torch.cat([k, vfm[1]], -1), v  # (3); (4): the tower

        return mix
