"""Ways to run a tower's blocks in training: as written, compiled, or recomputed when needed.

The numbers are the same, except for the rounding of compiled code.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from spatialbench.models.towers import BlockRunner, attention_block
from spatialbench.utils.flops import repeated


def runner(compiled: bool = False, checkpointing: bool = False) -> BlockRunner:
    """Return a function that runs one block.

    With ``compiled``, the two halves of a block run through ``torch.compile`` and a method's step
    between them as written; all blocks of a tower share one compilation per shape. With
    ``checkpointing``, only a block's input is kept and the backward pass recomputes the rest.
    """
    run = partial(attention_block, wrap=_compiled) if compiled else attention_block
    if not checkpointing:
        return run

    def recomputed(*args: Any, **kwargs: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return run(*args, **kwargs)
        return checkpoint(run, *args, use_reentrant=False, context_fn=repeated, **kwargs)

    return recomputed


@contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """Compute a GPU's float32 products in TF32 (10 bits of mantissa); no effect on a CPU."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def written_out(x: Tensor, model: Any) -> AbstractContextManager[None]:
    """Write attention out on a CPU, where the backward pass of torch's fused kernel is slow.

    Not under gradient checkpointing, whose second pass would run outside of this context.
    """
    plain = x.device.type == "cpu" and not model.is_gradient_checkpointing
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for static shapes: a recomputed chunk must meet the code that computed it first."""
    return torch.compile(function, dynamic=False)
