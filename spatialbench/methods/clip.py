"""CLIP itself: the student as it is, zero-shot or fine-tuned by the protocol.

Paper  Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021; the rows
       "zero-shot CLIP" and "fine-tuned CLIP" of the poster of Yang and Jeon (docs/spatial_attn.md).
Code   open_clip; nothing is added to it.

The zero-shot row is this class on a page with ``trainer.max_steps: 0``.
"""

from __future__ import annotations

from torch import Tensor

from spatialbench.methods.base import Batch, Method


class Clip(Method):
    """CLIP, fine-tuned in both towers.

    Args:
        student: ``<open_clip model>[:<weights>]``, for instance ``rooms-student``, ``ViT-L-14-336-quickgelu:openai``,
            a config file ``my.json:my.safetensors``; ``:random`` for random weights.
        finetuning: the protocol of training, the same for every row of a table.
    """

    pooled = True

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.finetuning_loss(batch)
