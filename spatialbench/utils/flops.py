"""FLOPs of a training step and the peak of the GPU: the two halves of MFU.

FLOPs are counted, not estimated: ``torch.utils.flop_counter`` sees every matrix product,
convolution and attention of one real step, forward and backward. Recomputation to save memory
(``repeated``) does not count, as MFU is defined (Chowdhery et al., PaLM, 2022, appendix B).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode


class Peak(NamedTuple):
    """Dense 16-bit peak of a GPU in 10^12 FLOP/s, and the source of the number."""

    tflops: float
    source: str


PEAKS = {
    "H200": Peak(790, "bf16 matrix products as measured; the data sheet says 989"),
    "H100 PCIe": Peak(756, "data sheet"),
    "H100 NVL": Peak(835, "data sheet"),
    "H100": Peak(989, "data sheet, SXM"),
    "A100": Peak(312, "data sheet"),
    "L40S": Peak(362, "data sheet"),
    "L4": Peak(121, "data sheet"),
    "A10G": Peak(70, "data sheet"),
    "A40": Peak(150, "data sheet"),
    "RTX 4090": Peak(165, "Ada white paper, fp32 accumulation"),
    "RTX 3090": Peak(71, "GA102 white paper, fp32 accumulation"),
}
"""By a part of the device's name; the first match counts. Data sheets print 2x, for sparsity."""


def peak(name: str) -> Peak | None:
    """Return the peak of a device by its name (``NVIDIA H100 80GB HBM3``), None if unknown."""
    words = f" {name} ".replace("-", " ")
    return next((known for part, known in PEAKS.items() if f" {part} " in words), None)


class StepFlops:
    """Counts the FLOPs between ``start`` and ``stop``; compiled code runs eagerly meanwhile."""

    _counting: "StepFlops | None" = None

    def __init__(self) -> None:
        self.total, self.again = 0, 0  # all FLOPs, and those of recomputation
        self._inside = False
        self._stack = ExitStack()

    @property
    def once(self) -> int:
        """FLOPs of the model's forward and backward, each counted once."""
        return self.total - self.again

    def start(self) -> None:
        """Start counting."""
        self._stack.enter_context(torch.compiler.set_stance("force_eager"))
        self._counter = self._stack.enter_context(FlopCounterMode(display=False))
        StepFlops._counting = self

    def stop(self) -> None:
        """Stop counting; does nothing when counting has not started."""
        if StepFlops._counting is self:
            StepFlops._counting = None
            self._stack.close()
            self.total = self._counter.get_total_flops()

    @contextmanager
    def _again(self) -> Iterator[None]:
        if self._inside:  # a recomputed block inside a recomputed chunk
            yield
            return
        self._inside = True
        try:
            with FlopCounterMode(display=False) as counter:
                yield
        finally:
            self._inside = False
            self.again += counter.get_total_flops()


class _Repeated(AbstractContextManager[None]):
    """Surrounds a recomputation; looks up on entry whether FLOPs are being counted."""

    def __enter__(self) -> None:
        counting = StepFlops._counting
        self._inner = nullcontext() if counting is None else counting._again()
        self._inner.__enter__()

    def __exit__(self, *error: object) -> bool | None:
        return self._inner.__exit__(*error)  # type: ignore[arg-type]


def repeated() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return a ``context_fn`` for ``torch.utils.checkpoint`` that counts the recomputation only."""
    return nullcontext(), _Repeated()
