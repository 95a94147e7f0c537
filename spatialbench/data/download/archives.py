"""Archives become folders: in one step, and never outside of the folder."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

_JUNK = ("__MACOSX", ".DS_Store")


def unpack(archive: Path, target: Path) -> None:
    """Unpacks a tar or zip archive as the folder ``target``, which must not exist.

    Where an archive holds nothing but one folder, that folder becomes ``target``, whatever its name.

    Raises:
        SpatialbenchError: the archive is damaged, or a member of it would land outside; nothing is left then.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        with progress(f"unpacking {target.name}", None, "files") as advance:
            for _ in _zip(archive, work) if zipfile.is_zipfile(archive) else _tar(archive, work):
                advance(1)
        inner = _content(work)
        inner.chmod(0o755)  # mkdtemp's 0700 would hide it from other users
        inner.replace(target)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        reason = (
            getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        )
        raise SpatialbenchError(f"{archive} cannot be unpacked ({reason})") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _tar(archive: Path, folder: Path) -> Iterator[None]:
    with tarfile.open(archive) as tar:
        for member in tar:
            if not _junk(member.name):
                tar.extract(member, folder, filter="data")
                yield


def _zip(archive: Path, folder: Path) -> Iterator[None]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            if ".." in Path(member.filename).parts:
                raise zipfile.BadZipFile(f"{member.filename!r} would land outside")
            if not _junk(member.filename):
                file.extract(member, folder)
                yield


def _junk(name: str) -> bool:
    """What macOS adds."""
    parts = Path(name).parts
    return any(part in _JUNK or part.startswith("._") for part in parts)


def _content(folder: Path) -> Path:
    inside = list(folder.iterdir())
    while len(inside) == 1 and inside[0].is_dir():
        folder = inside[0]
        inside = list(folder.iterdir())
    return folder
