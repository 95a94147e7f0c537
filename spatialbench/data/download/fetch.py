"""Download, take or verify one file of a data set.

In each case a SpatialbenchError says that the file is not as the manifest or its record has it, or
that it cannot be written.
"""

import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from spatialbench.data.download.manifest import Item
from spatialbench.utils import hub
from spatialbench.utils.cache import staging
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from spatialbench.utils.typed_files import dump_json, load_json, parse

ADVICE = "it is another file than expected, or damaged: remove it and fetch it again"
DAMAGE = (OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile)
JUNK = ("__MACOSX", ".DS_Store", "._*")  # names that macOS adds to archives
LOCK = "download.lock.json"
"""The lock file beside a data set: size and hash of each file when it came."""


@dataclass(frozen=True)
class Entry:
    """One file or folder as it came: ``size`` in bytes, ``files`` in a folder, 0 for a file.

    ``sha256`` is that of the file or archive, empty for a folder that came unpacked. ``commit`` is
    that of the Hub if the manifest names a branch.
    """

    source: str
    size: int
    sha256: str = ""
    files: int = 0
    commit: str = ""


@dataclass(frozen=True)
class _Records:
    version: int
    files: dict[str, Entry]


class NotLoadedError(SpatialbenchError):
    """A file that could not be downloaded; the user may fetch it by hand."""


def download(item: Item, folder: Path) -> Entry:
    """Download a file into the data set's folder; check and record it.

    Raises:
        NotLoadedError: the source cannot be reached, or does not have the expected file.
    """
    if item.drive:
        raise NotLoadedError("it is published on Google Drive only")
    if item.repository:
        return _from_hub(item, folder)
    with staging(folder / item.name) as temporary:
        return _add(item, _from_https(item, temporary), folder, Entry(item.url, 0), shutil.move)


def take(item: Item, path: Path, folder: Path, copied: bool) -> Entry:
    """Check a file, archive or unpacked folder of the user's; link, copy or unpack it."""
    return _add(item, path, folder, Entry(str(path.resolve()), 0), _copy if copied else link)


def verify(item: Item, folder: Path) -> Entry:
    """Check a file that is in the data set's folder; record it if that was not done before."""
    path, known = folder / item.placed, _records(folder).get(item.name)
    entry = _examine(item, path, known or Entry(str(path), 0))
    if known and entry != known:
        now, then = (f"{e.files} files of {e.size} bytes" for e in (entry, known))
        raise SpatialbenchError(f"{path} has {now}, and had {then}; remove it and start again")
    if not known:
        _record(folder, item.name, entry)
    return entry


def find(item: Item, folder: Path) -> Path | None:
    """Find a file in a folder of the user's: under its own name, as in its source, or unpacked."""
    parts = Path(item.path.removesuffix("/*")).parts
    depth = len(Path(item.name).parts)
    names = [str(Path(*parts[start:])) for start in range(len(parts) - depth + 1)]
    paths = [folder / name for name in (item.placed, item.name, *names)]
    return next((path for path in paths if path.exists()), None)


def _copy(source: Path, target: Path) -> None:
    (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)


def link(source: Path, target: Path) -> None:
    """Make ``target`` a symbolic link to ``source``, or a copy where links cannot be made."""
    try:
        target.symlink_to(source.parent.resolve() / source.name, source.is_dir())
    except OSError:
        _copy(source, target)


def unpack(archive: Path, target: Path) -> None:
    """Unpack a tar or zip archive as the folder ``target``, never writing outside of it.

    If the archive holds a single folder, that folder becomes ``target``, whatever its name.

    Raises:
        SpatialbenchError: the archive is damaged or a member would land outside; nothing is left.
    """
    with staged(target) as path:
        inner = path.with_name("unpacked")
        if zipfile.is_zipfile(archive):  # shutil skips members that would land outside
            shutil.unpack_archive(archive, inner, "zip")
        else:
            shutil.unpack_archive(archive, inner, "tar", filter="data")
        for junk in [path for name in JUNK for path in inner.rglob(name)]:
            shutil.rmtree(junk) if junk.is_dir() else junk.unlink(missing_ok=True)
        while len(names := list(inner.iterdir())) == 1 and names[0].is_dir():
            inner = names[0]
        inner.rename(path)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield a path that is renamed to ``target`` if the block ends without an error."""
    try:
        with staging(target) as folder:
            path = folder / "staged"
            yield path
            path.replace(target)
    except DAMAGE as error:
        reason = getattr(error, "strerror", None) or hub.first_line(error)
        raise SpatialbenchError(f"{target} cannot be written ({reason})") from error


def _from_hub(item: Item, folder: Path) -> Entry:
    """Link a file or folder to the cache of the Hub, where other programs find it, too."""
    follows_branch = item.revision == "main"  # no source pins a commit: keep that of the first file
    commits = [entry.commit for entry in _records(folder).values() if entry.commit]
    revision = commits[0] if follows_branch and commits else item.revision
    try:
        if item.files:
            snapshot = hub.snapshot(item.repository, revision, [item.path], kind="dataset")
            path, commit = snapshot / item.path.removesuffix("/*"), snapshot.name
        else:
            path = hub.hub_file(item.repository, revision, item.path, kind="dataset")
            commit = path.parts[-1 - len(Path(item.path).parts)]
    except SpatialbenchError as error:
        raise NotLoadedError(str(error)) from error
    sha256 = "" if item.files else hub.recorded_sha256(path) or ""
    entry = Entry(f"{item.repository}@{commit}", 0, sha256, commit=commit if follows_branch else "")
    return _add(item, path, folder, entry, link)


def _from_https(item: Item, folder: Path) -> Path:
    import pooch  # here, so that --list does not wait for requests

    pooch.get_logger().setLevel("WARNING")
    get = pooch.HTTPDownloader(sys.stderr.isatty(), chunk_size=1 << 16, timeout=60)
    name = Path(item.name).name
    try:
        return Path(pooch.retrieve(item.url, item.known_hash, name, folder, downloader=get))
    except Exception as error:  # of requests, of the disk, or the hash: the user reads one line
        cause = getattr(error.args[0], "reason", error) if error.args else error  # of urllib3
        raise NotLoadedError(f"{item.url}: {hub.first_line(cause)}") from error


def _add(
    item: Item, path: Path, folder: Path, entry: Entry, place: Callable[[Path, Path], object]
) -> Entry:
    """Check a file or folder, put it into the data set's folder, record it."""
    entry, target = _examine(item, path, entry), folder / item.placed
    if item.folder and path.is_file():
        unpack(path, target)
        entry = _examine(item, target, entry)
    else:
        with staged(target) as made:
            place(path, made)
    _record(folder, item.name, entry)
    return entry


def _records(folder: Path) -> dict[str, Entry]:
    """Return name -> entry of a data set's folder; empty if nothing is recorded."""
    path, advice = folder / LOCK, "remove it, and the files are recorded anew"
    if not path.is_file():
        return {}
    return dict(parse(_Records, load_json(path, advice), str(path), advice).files)


def _record(folder: Path, name: str, entry: Entry) -> None:
    """Add or replace one entry."""
    entries = {**_records(folder), name: entry}
    write_atomic(folder / LOCK, dump_json(_Records(1, dict(sorted(entries.items())))))


def _examine(item: Item, path: Path, known: Entry) -> Entry:
    """Check a file or folder against the manifest and the known sha256; return its entry."""
    if path.is_dir():
        sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        if not sizes or len(sizes) < item.files:
            expected = f", not {item.files}" if item.files else ""
            raise SpatialbenchError(f"{path} has {len(sizes)} files{expected}; {ADVICE}")
        return replace(known, size=sum(sizes), files=len(sizes))
    size = path.stat().st_size
    if item.size is not None and size != item.size:
        raise SpatialbenchError(f"{path} has {size} bytes, not {item.size}; {ADVICE}")
    with path.open("rb") as stream:
        start = stream.read(512).lstrip()
    if start.lower().startswith((b"<!doctype html", b"<html", b"version https://git-lfs")):
        raise SpatialbenchError(f"{path} is a web page or a Git LFS pointer; {ADVICE}")
    sha256 = hub.digest(path)
    for expected in (item.sha256, known.sha256):
        if expected and sha256 != expected:
            raise SpatialbenchError(f"{path} has the sha256 {sha256}, not {expected}; {ADVICE}")
    if item.md5 and hub.digest(path, "md5") != item.md5:
        raise SpatialbenchError(f"{path} has another md5 than {item.md5}; {ADVICE}")
    return replace(known, size=size, sha256=sha256)
