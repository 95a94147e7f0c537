"""Progress bars."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[float], None]
"""Tells a running :func:`progress` that so many more items are done."""


@contextmanager
def progress(
    description: str, total: float | None, unit: str = "items", interval: float = 10.0
) -> Iterator[Advance]:
    """Shows how far a long piece of work is: bar, count, rate, time left and time passed, on the standard error.

    Where the standard error is no terminal, one plain line every ``interval`` seconds takes the place of the bar, and
    one more at the end when the work took longer than that.

    Args:
        description: what is being done, for instance ``rendering rooms/train``.
        total: how many items there will be; None when that is not known.
        unit: what an item is, in the plural.
        interval: seconds between two plain lines.

    Yields:
        A function to be called with the number of items that were finished since the last call.
    """
    if not sys.stderr.isatty():
        with _plain_progress(description, total, unit, interval) as advance:
            yield advance
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        _CountColumn(unit),
        TimeRemainingColumn(),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
    )
    with bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


class _CountColumn(ProgressColumn):
    """``1200/16000 images  63.1 images/s``."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(_count(task.completed, task.total, rate, self.unit))


def _count(completed: float, total: float | None, rate: float | None, unit: str) -> str:
    of_total = f"/{total:.0f}" if total is not None else ""
    speed = "-" if rate is None else f"{rate:.1f}" if rate < 1000 else f"{rate:.0f}"
    return f"{completed:.0f}{of_total} {unit}  {speed} {unit}/s"


@contextmanager
def _plain_progress(
    description: str, total: float | None, unit: str, interval: float
) -> Iterator[Advance]:
    start = time.monotonic()
    completed, printed = 0.0, start

    def report(now: float) -> None:
        elapsed = max(now - start, 1e-9)
        rate = completed / elapsed
        eta = ""
        if total is not None and completed < total and rate > 0:
            eta = f"  ETA {timedelta(seconds=round((total - completed) / rate))}"
        line = f"{description}: {_count(completed, total, rate, unit)}{eta}  elapsed {timedelta(seconds=round(elapsed))}"
        print(line, file=sys.stderr, flush=True)

    def advance(count: float) -> None:
        nonlocal completed, printed
        completed += count
        now = time.monotonic()
        if now - printed >= interval:
            printed = now
            report(now)

    yield advance
    if printed > start:
        report(time.monotonic())
