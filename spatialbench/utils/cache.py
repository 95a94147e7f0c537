"""The cache directory, and temporary folders."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spatialbench.utils.errors import SpatialbenchError

CACHE_VARIABLE = "SPATIALBENCH_CACHE"
ABANDONED_SECONDS = 3600
"""A temporary file or folder untouched for this long was left by a killed process."""


def cache_root() -> Path:
    """Return ``$SPATIALBENCH_CACHE``, else ``~/.cache/spatialbench``; create it if needed.

    Everything in it can be made again.

    Raises:
        SpatialbenchError: the folder cannot be created or written.
    """
    value = os.environ.get(CACHE_VARIABLE)
    try:
        folder = Path(value).expanduser() if value else Path.home() / ".cache" / "spatialbench"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        reason = getattr(error, "strerror", None) or error
        raise SpatialbenchError(
            f"cannot write the cache folder {value or '~/.cache/spatialbench'}: {reason}; "
            f"set {CACHE_VARIABLE} to a folder you may write to"
        ) from error
    return folder


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target``; remove those of killed processes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}."
    for old in target.parent.glob(f"{prefix}*"):
        newest = max(path.lstat().st_mtime for path in (old, *old.rglob("*")))
        if time.time() - newest > ABANDONED_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=target.parent, prefix=prefix, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
