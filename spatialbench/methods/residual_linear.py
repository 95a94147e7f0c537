r"""CLIP with residual linear connections to a VFM (the compared method of Yang and Jeon's poster).

Paper  "Integrating Vision Foundation Models: Enhancing CLIP's Spatial Reasoning", 2024, row "CLIP
       w/ residual linear connection"; docs/spatial_attn.md.
Code   hy30n80/Mixed-Transformer @ 0b9ac26 (no licence: nothing is copied).

In every block l of CLIP's image tower, with Q', K', V' of the VFM's block m(l), heads side by side:

    (1)  Q = X W^Q,  K = X W^K,  V = X W^V      CLIP's own, X after its LayerNorm, with bias
    (2)  Q', K', V'                             the VFM's own, with bias
    (3)  Q <- Q + C_Q Q',  K <- K + C_K K',  V <- V + C_V V'
                                                C: Linear D' -> D with bias, zero at the start
    (4)  softmax(Q K^T / sqrt(d_k)) V W^O       CLIP's own attention

The connections are zero at the start, so the method begins as CLIP, bit for bit.

Differences  The poster prints no equation for this row. The parameter groups of the authors'
             optimiser (q_transform, k_transform, v_transform) show that queries, keys and values
             are connected; ``connect`` chooses. The VFM's pixels are normalised as the VFM expects;
             the authors use CLIP's mean and deviation (``vfm_normalisation``).
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn

from spatialbench.methods.base import DEFAULTS, FineTuning
from spatialbench.methods.connected import ConnectedMethod, Normalisation
from spatialbench.models.towers import Mix, merge_heads, patch_grid, split_heads
from spatialbench.utils.errors import SpatialbenchError

Part = Literal["query", "key", "value"]
PARTS: tuple[Part, ...] = get_args(Part)


class ResidualLinear(ConnectedMethod):
    """Zero-initialised linear maps from the VFM's queries, keys and values to CLIP's.

    Args:
        student: an open_clip model, ``<model>[:<weights>]``; see ``Method``.
        vfm: a timm model, ``<model>[:<weights>]``; see ``ConnectedMethod``.
        cache: keep the VFM's tokens of every image on disk.
        connect: which of query, key, value are connected.
        finetuning: the protocol of training, the same for every row of a table.
        vfm_normalisation: mean and deviation of the VFM's pixels, its ``own`` or the ``student``'s.
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
        chosen = [part for part in PARTS if part in connect]
        self.save_hyperparameters({"connect": chosen})
        self.connections = nn.ModuleDict({part: self.linears() for part in chosen})

    def connect(self, x: Tensor) -> Mix:
        """Return (1) to (3)."""
        tokens, grid = self.vfm.tokens(x), patch_grid(self.student, x)

        def mix(block: int, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            own: dict[str, Tensor] = dict(zip(PARTS, (q, k, v), strict=True))  # (1)
            parts = self.vfm_qkv(block, tokens, grid, values="value" in self.connections)  # (2)
            vfm: dict[str, Tensor] = dict(zip(PARTS, parts, strict=False))
            layers: Any
            for name, layers in self.connections.items():
                added = layers[block](merge_heads(vfm[name]))
                own[name] = own[name] + split_heads(added, self.heads)  # (3)
            return own["query"], own["key"], own["value"]  # (4) follows in the tower

        return mix
