r"""CLIP with residual linear connections to a vision foundation model (the compared method of Yang and Jeon's poster).

Paper  "Integrating Vision Foundation Models: Enhancing CLIP's Spatial Reasoning", 2024, row "CLIP w/ residual linear
       connection"; docs/spatial_attn.md.
Code   hy30n80/Mixed-Transformer @ 0b9ac26 (no licence: nothing is copied).

In every block l of CLIP's image tower, with x' the VFM's queries, keys or values of block m(l), all heads side by side:

    (1)  Q = X W^Q,  K = X W^K,  V = X W^V                  CLIP's own, X after its LayerNorm, with bias
    (2)  Q', K', V'                                         the VFM's own, with bias
    (3)  Q <- Q + C_Q Q',  K <- K + C_K K',  V <- V + C_V V'    C: Linear D' -> D with bias, zero at the start
    (4)  softmax(Q K^T / sqrt(d_k)) V W^O                   CLIP's own attention

The connections are zero at the start, so the method begins as CLIP, bit for bit.

Differences  The poster prints no equation for this row. That it connects queries, keys and values is read from the
             parameter groups of the authors' optimiser (q_transform, k_transform, v_transform); ``connect`` chooses.
             The VFM's pixels are normalised as the VFM expects; the authors use CLIP's mean and deviation
             (``vfm_normalisation``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn

from spatialbench.methods.base import DEFAULTS, Batch, FineTuning
from spatialbench.methods.connected import ConnectedMethod, Normalisation
from spatialbench.models.towers import Mix, merge_heads, split_heads
from spatialbench.utils.errors import SpatialbenchError

Part = Literal["query", "key", "value"]
PARTS: tuple[Part, ...] = get_args(Part)


class ResidualLinear(ConnectedMethod):
    """Zero-initialised linear maps from the VFM's queries, keys, values to CLIP's.

    Args:
        student: ``<open_clip model>[:<weights>]``, for instance ``rooms-student``, ``ViT-L-14-336-quickgelu:openai``,
            a config file ``my.json:my.safetensors``; ``:random`` for random weights.
        vfm: ``<timm model>[:<weights>]``, for instance ``rooms-vfm``, ``vit_large_patch14_dinov2:depth-anything-v2``,
            ``vit_base_patch14_dinov2:file.pth``.
        cache: keep the VFM's tokens of every image on disk; false computes them in every step, for sets that are too
            large for the disk.
        connect: which of query, key, value are connected.
        finetuning: the protocol of training, the same for every row of a table.
        vfm_normalisation: the VFM's pixels have its own mean and deviation, or the student's, as in the authors' code.

    Raises:
        SpatialbenchError: nothing is connected, or something that is none of the three.
    """

    def __init__(
        self,
        student: str = "rooms-student",
        vfm: str = "rooms-vfm",
        cache: bool = True,
        connect: Sequence[Part] = PARTS,
        finetuning: FineTuning = DEFAULTS,
        vfm_normalisation: Normalisation = "own",
    ) -> None:
        super().__init__(student, vfm, cache, finetuning, vfm_normalisation)
        if not connect or set(connect) - set(PARTS):
            raise SpatialbenchError(
                f"connect is {list(connect)}; give one or more of {', '.join(PARTS)}"
            )
        self.save_hyperparameters({"connect": [part for part in PARTS if part in connect]})
        vfm_width, width = self.vfm.heads * self.vfm.head_dim, self.heads * self.head_dim
        self.connections = nn.ModuleDict(
            {
                part: nn.ModuleList(nn.Linear(vfm_width, width) for _ in range(self.depth))
                for part in PARTS
                if part in connect
            }
        )
        for parameter in self.connections.parameters():
            nn.init.zeros_(parameter)

    def connect(self, x: Tensor) -> Mix:
        tokens, grid = self.vfm.tokens(x), self.grid(x)

        def mix(block: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            own: dict[str, Tensor] = dict(zip(PARTS, (q, k, v), strict=True))  # (1)
            parts = self.vfm_qkv(block, tokens, grid, values="value" in self.connections)  # (2)
            vfm: dict[str, Tensor] = dict(zip(PARTS, parts, strict=False))
            layers: Any
            for name, layers in self.connections.items():
                own[name] = own[name] + split_heads(
                    layers[block](merge_heads(vfm[name])), self.heads
                )  # (3)
            return own["query"], own["key"], own["value"]  # (4): the tower's own, from here on

        return mix

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.finetuning_loss(batch)
