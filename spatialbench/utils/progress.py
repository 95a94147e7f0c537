"""Progress bars."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Advance = Callable[[float], None]
"""Tells a running :func:`progress` how many more items are done."""


@contextmanager
def progress(
    description: str, total: float | None, unit: str = "items", interval: float = 10.0
) -> Iterator[Advance]:
    """Show a bar, count, rate, time left and time passed on the standard error.

    Without a terminal, print a plain line every ``interval`` seconds instead, and one at the end
    if the work took longer than that. ``total`` is None if it is unknown.

    Yields:
        A function to be called with the number of items finished since the last call.
    """
    of_total = "" if total is None else "/{total:.0f}"
    text = f"{{n:.0f}}{of_total} {unit}  {{rate_noinv_fmt}}  ETA {{remaining}}  elapsed {{elapsed}}"
    if sys.stderr.isatty():
        layout = f"{{desc}}: {{bar}} {text}"
        with tqdm(
            desc=description, total=total, unit=f" {unit}", bar_format=layout, dynamic_ncols=True
        ) as bar:
            yield lambda count: bar.update(count)
        return
    start = printed = time.monotonic()
    completed = 0.0

    def report() -> None:
        line = tqdm.format_meter(
            completed, total, time.monotonic() - start, unit=f" {unit}", bar_format=text
        )
        print(f"{description}: {line}", file=sys.stderr, flush=True)

    def advance(count: float) -> None:
        nonlocal completed, printed
        completed += count
        if time.monotonic() - printed >= interval:
            printed = time.monotonic()
            report()

    yield advance
    if printed > start:
        report()
