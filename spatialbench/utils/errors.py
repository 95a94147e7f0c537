"""The error type a user sees, and atomic writes."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SpatialbenchError(ValueError):
    """A mistake in something the user gave: a page, a record, an image, a checkpoint.

    The message is one line: what is wrong, where, and what to do. The command line prints it
    without a stack trace and exits with status 2.
    """


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``path`` when the block ends without an error.

    Raises:
        SpatialbenchError: the folder cannot be created or written, or ``path`` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise SpatialbenchError(f"cannot write {target}: it is a folder; give the name of a file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{target.name}."
        handle, name = tempfile.mkstemp(target.suffix, prefix, target.parent)
        os.close(handle)
    except OSError as error:
        raise SpatialbenchError(
            f"cannot write {target}: {error.strerror or error}; give a folder you may write to"
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's 0600 would hide a shared cache from others
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` to ``path`` in one step: a reader sees the old file or the new one."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
