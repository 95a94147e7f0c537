"""Assertions that many tests share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from spatialbench.utils.errors import SpatialbenchError


def close(actual: Any, expected: Any, rtol: float = 1e-12, atol: float | None = None) -> None:
    """Assert that tensors agree within a relative and an absolute tolerance, by default one."""
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol if atol is None else atol)


@contextmanager
def refused(message: str) -> Iterator[pytest.ExceptionInfo[SpatialbenchError]]:
    """Assert that a SpatialbenchError is raised whose one line matches ``message``."""
    with pytest.raises(SpatialbenchError, match=message) as caught:
        yield caught
    assert "\n" not in str(caught.value)
