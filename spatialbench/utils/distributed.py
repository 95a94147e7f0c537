"""The batch of all ranks, for losses that compare every image with every caption.

Letters: W ranks; M images, K captions and N pairs of one rank; D joint width.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor


def is_first_rank() -> bool:
    """Return whether this process writes files; also valid before the process group exists."""
    return getattr(rank_zero_only, "rank", 0) == 0


class Encoded(NamedTuple):
    """A batch after the towers."""

    images: Tensor  # [M, D]
    texts: Tensor  # [K, D], embeddings of the sentences ``names``
    names: list[str]  # K
    image: Tensor  # int64 [N], row of ``images`` of each pair
    captions: list[str]  # N, all among ``names``
    negated: list[str]  # N, all among ``names``, or none

    def columns(self, sentences: list[str]) -> Tensor:
        """Return the (first) row of ``texts`` of each sentence, int64."""
        numbers = reversed([*enumerate(self.names)])
        first = {name: number for number, name in numbers}
        rows = [first[sentence] for sentence in sentences]
        return torch.tensor(rows, device=self.texts.device, dtype=torch.long)


def gather(batch: Encoded) -> Encoded:
    """Concatenate the batches of all ranks; without a process group, return the batch itself.

    Gradients flow back to the rank that encoded. A loss of the whole batch, computed on each rank,
    gives each embedding W times its gradient; the mean over ranks of DistributedDataParallel
    divides by W again, so that W ranks train like one process with the whole batch.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return batch
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, (len(batch.images), batch.names, batch.captions, batch.negated))
    images, names, captions, negated = zip(*parts, strict=True)
    before, pairs = sum(images[: dist.get_rank()]), [len(part) for part in captions]
    return Encoded(
        images=_gather_rows(batch.images, images),
        texts=_gather_rows(batch.texts, [len(part) for part in names]),
        names=[*chain(*names)],
        image=_gather_rows((batch.image + before)[:, None], pairs)[:, 0],
        captions=[*chain(*captions)],
        negated=[*chain(*negated)],
    )


def _gather_rows(x: Tensor, counts: Sequence[int]) -> Tensor:
    """Concatenate the rows of all ranks, with gradients; ``counts`` are their numbers of rows."""
    parts = _AllGather.apply(F.pad(x, (0, 0, 0, max(counts) - len(x))))
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _AllGather(torch.autograd.Function):
    """Stack equal shapes of all ranks; the gradient of an input is the sum over all ranks."""

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
