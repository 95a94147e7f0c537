r"""The whole batch's contrast in the memory of a part of it: embeddings first, activations one chunk at a time.

A contrastive loss needs every image beside every caption, but not the activations that made them. With f a tower,
X_1 to X_C the chunks of a batch and L the loss of all embeddings:

    (1)  E_c = f(X_c)                        for every chunk, nothing kept but the embeddings
    (2)  G_c = dL / dE_c                     the loss of the whole batch, over all ranks
    (3)  dL = sum_c <dE_c, G_c>              chunk after chunk: f(X_c) once more, its backward, its activations freed

That is the gradient of one step with the whole batch, exactly; it costs one more forward pass. Here (3) is autograd's:
each chunk is a checkpoint of the whole tower, so that the optimisation stays Lightning's own, a weight's gradient is
complete once a step, and DistributedDataParallel, gradient clipping and mixed precision need not know.

Source: Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP
2021, arXiv 2101.06983 (GradCache); open_clip's ``accum_freq`` is the same idea.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spatialbench.utils.flops import repeated


def in_chunks(encode: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """``encode(x)`` with the activations of at most ``size`` rows in memory, whatever the number of rows.

    Args:
        encode: rows -> embeddings, one row at a time in effect: no batch norm, no draw that hangs on the batch.
        x: [B, ...].
        size: rows of a chunk; 0, or as many as there are: one plain call, nothing computed twice.

    Returns:
        [B, D], with gradient.
    """
    if size == 0 or len(x) <= size or not torch.is_grad_enabled():
        return encode(x)
    parts = [
        checkpoint(encode, part, use_reentrant=False, context_fn=repeated) for part in x.split(size)
    ]  # (1)
    return torch.cat(parts)
