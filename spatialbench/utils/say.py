"""Lines for the person at the terminal; the standard output is for results."""

import sys

from spatialbench.utils.distributed import is_first_rank


def say(line: str) -> None:
    """Print a line on the standard error, once for all ranks."""
    if is_first_rank():
        print(line, file=sys.stderr, flush=True)
