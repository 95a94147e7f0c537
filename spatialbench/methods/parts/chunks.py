r"""Encode a batch in chunks: the loss sees the whole batch, the memory only one chunk.

A contrastive loss compares every image with every caption, but needs only their embeddings. With
f a tower, X_1 to X_C the chunks of a batch and L the loss of all embeddings:

    (1)  E_c = f(X_c)               for every chunk, keeping only the embeddings
    (2)  G_c = dL / dE_c            of the loss of the whole batch, over all ranks
    (3)  dL = sum_c <dE_c, G_c>     per chunk: f(X_c) again, its backward pass, then free its memory

This is exactly the gradient of one step with the whole batch, at the cost of one more forward pass.
Autograd computes (3), because each chunk is a checkpoint of the whole tower: gradient clipping,
mixed precision and DistributedDataParallel work as usual.

Source: Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", RepL4NLP 2021, arXiv 2101.06983 (GradCache); open_clip's ``accum_freq`` is the same idea.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spatialbench.utils.flops import repeated


def in_chunks(encode: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """Return ``encode(x)``, keeping the activations of at most ``size`` rows in memory.

    Args:
        encode: maps each row independently: no batch norm, no randomness that depends on the batch.
        x: [B, ...].
        size: rows of a chunk. 0, or B or more: one plain call, nothing is computed twice.

    Returns:
        [B, D], with gradient.
    """
    if size == 0 or len(x) <= size or not torch.is_grad_enabled():
        return encode(x)
    return torch.cat(
        [
            checkpoint(encode, part, use_reentrant=False, context_fn=repeated)
            for part in x.split(size)
        ]
    )  # (1)
