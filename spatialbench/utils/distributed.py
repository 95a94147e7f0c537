"""The batch of all ranks: a contrastive loss needs every image beside every caption, wherever they were encoded.

Letters: W ranks; M images, K captions and N pairs of one rank; D joint width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor


def is_first_rank() -> bool:
    """Whether this process is the one that writes, before the process group stands as well."""
    return getattr(rank_zero_only, "rank", 0) == 0


class Encoded(NamedTuple):
    """A batch after the towers.

    images: [M, D]. texts: [K, D], embeddings of the sentences ``names``. image: int64 [N], row of ``images`` of every
    pair. captions, negated: N sentences each, all among ``names``; ``negated`` may be empty.
    """

    images: Tensor
    texts: Tensor
    names: list[str]
    image: Tensor
    captions: list[str]
    negated: list[str]

    def columns(self, sentences: list[str]) -> Tensor:
        """int64: the row of ``texts`` of each sentence, the first where ranks encoded it more than once."""
        first: dict[str, int] = {}
        for number, name in enumerate(self.names):
            first.setdefault(name, number)
        return torch.tensor(
            [first[sentence] for sentence in sentences], device=self.texts.device, dtype=torch.long
        )


def gather(batch: Encoded) -> Encoded:
    """The batches of all ranks as one, the same on every rank; without process group, the batch itself.

    Gradients flow back to the rank that encoded. A loss of the whole batch, computed on every rank, sends each
    embedding W times its gradient; DistributedDataParallel's mean over ranks takes the W away again, so that training
    with W ranks is training with one process and the whole batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return batch
    parts: list[tuple[int, list[str], list[str], list[str]]] = [
        (0, [], [], [])
    ] * dist.get_world_size()
    dist.all_gather_object(parts, (len(batch.images), batch.names, batch.captions, batch.negated))
    images, *sentences = (list(part) for part in zip(*parts, strict=True))
    names, captions, negated = (
        [sentence for part in kind for sentence in part] for kind in sentences
    )
    before = sum(images[: dist.get_rank()])
    pairs = [len(part[2]) for part in parts]
    return Encoded(
        images=gather_rows(batch.images, images),
        texts=gather_rows(batch.texts, [len(part[1]) for part in parts]),
        names=names,
        image=gather_rows((batch.image + before)[:, None], pairs)[:, 0],
        captions=captions,
        negated=negated,
    )


def gather_rows(x: Tensor, counts: list[int]) -> Tensor:
    """The rows of all ranks below one another, with gradients; ``counts`` says how many each rank has."""
    parts = _AllGather.apply(F.pad(x, (0, 0, 0, max(counts) - len(x))))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _AllGather(torch.autograd.Function):
    """Equal shapes of all ranks, stacked; the gradient of an input is the sum over the ranks that used it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]
