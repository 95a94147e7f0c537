"""CLIP itself: the student as it is, zero-shot or fine-tuned by the protocol.

Paper  Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML
       2021; rows "zero-shot CLIP" and "fine-tuned CLIP" of Yang and Jeon (docs/spatial_attn.md).
Code   open_clip, with nothing added.

The zero-shot row is this class on a page with ``trainer.max_steps: 0``.
"""

from torch import Tensor

from spatialbench.methods.base import Batch, Method


class Clip(Method):
    """CLIP, fine-tuned in both towers.

    Args:
        student: an open_clip model, ``<model>[:<weights>]``; see ``Method``.
        finetuning: the protocol of training, the same for every row of a table.
    """

    pooled = True

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the protocol's loss."""
        return self.finetuning_loss(batch)
