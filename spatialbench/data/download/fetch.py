"""One file of a data set: brought, taken from a folder, or looked at where it stands; checked in each case."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import requests

from spatialbench.data.download import https
from spatialbench.data.download.archives import unpack
from spatialbench.data.download.formats import count_records
from spatialbench.data.download.lock import Entry, Lock, measure
from spatialbench.data.download.manifest import Drive, Https, Hub, Item
from spatialbench.utils.errors import SpatialbenchError

_ADVICE = "; it is another file than expected, or damaged: remove it and fetch it again"


class NotLoaded(SpatialbenchError):
    """A file that could not be loaded; by hand it may be."""


@dataclass(frozen=True)
class Done:
    """A file as it stands now: what the lock says of it, and what is to be told of it."""

    entry: Entry
    note: str = ""


def bring(item: Item, folder: Path, lock: Lock) -> Done:
    """Downloads what is not there yet; a broken download goes on.

    Raises:
        NotLoaded: the source cannot be reached or does not have it.
        SpatialbenchError: what came is not what the manifest says, or cannot be written.
    """
    if isinstance(item.source, Hub):
        return _from_hub(item, item.source, folder, lock)
    part = folder / f"{item.name}.part"
    make_folder(part.parent)
    try:
        if isinstance(item.source, Https):
            https.fetch(item.source.url, part, item.size)
        else:
            _from_drive(item.source, part)
    except SpatialbenchError as error:
        raise NotLoaded(str(error)) from error
    try:
        done = _examined(part, item, Entry(item.source.by_hand, 0))
    except SpatialbenchError:
        https.discard(part)  # another try begins anew
        raise
    if item.folder:
        done = replace(done, entry=_unpacked(part, folder / item.folder, done.entry))
    else:
        part.replace(folder / item.name)
    https.discard(part)
    lock.record(item.name, done.entry)
    return done


def take(item: Item, given: Path, folder: Path, lock: Lock, copied: bool) -> Done:
    """Checks a file or folder that lies elsewhere and links or copies it; an archive is unpacked.

    Raises:
        SpatialbenchError: it is not what the manifest says, or cannot be written.
    """
    source = str(given.resolve())
    if given.is_dir():
        done = Done(_counted(given, item, source))
        place(given, folder / item.placed, copied)
    else:
        done = _examined(given, item, Entry(source, 0))
        if item.folder:
            done = replace(done, entry=_unpacked(given, folder / item.folder, done.entry))
        else:
            place(given, folder / item.name, copied)
    lock.record(item.name, done.entry)
    return done


def verify(item: Item, folder: Path, lock: Lock) -> Done:
    """Looks at what stands in the folder already, and records it where that was not done.

    Raises:
        SpatialbenchError: it is not what the manifest or the lock file says.
    """
    path, known = folder / item.placed, lock.entries.get(item.name)
    if path.is_dir():
        found = _counted(path, item, str(path))
        if known is None:
            lock.record(item.name, found)
        elif (found.files, found.size) != (known.files, known.size):
            raise SpatialbenchError(
                f"{path} has {found.files} files of {found.size} bytes, and had {known.files} of {known.size} when it "
                f"came; remove it and start again, or remove {lock.path} if that is right"
            )
        return Done(known or found)
    done = _examined(path, item, known or Entry(str(path), 0))
    if known is None:
        lock.record(item.name, done.entry)
    return done


def find(item: Item, given: Path) -> Path | None:
    """Where a folder of the user's holds a file: by its own name, by that in its source, or unpacked already."""
    parts = Path(item.source.path.removesuffix("/*")).parts
    least = len(Path(item.name).parts)
    names = [
        item.placed,
        item.name,
        *(str(Path(*parts[k:])) for k in range(len(parts)) if len(parts) - k >= least),
    ]
    return next((given / name for name in names if (given / name).exists()), None)


def place(source: Path, target: Path, copied: bool = False) -> None:
    """Makes ``target`` a link to ``source``, or a copy: in one step, and a copy where links cannot be made.

    Raises:
        SpatialbenchError: it cannot be written.
    """
    make_folder(target.parent)
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    made = work / target.name
    try:
        if not copied:
            try:
                made.symlink_to(
                    source.parent.resolve() / source.name, target_is_directory=source.is_dir()
                )
            except OSError:
                copied = True
        if copied:
            shutil.copytree(source, made) if source.is_dir() else shutil.copy2(source, made)
        made.replace(target)
    except OSError as error:
        raise SpatialbenchError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def has_gdown() -> bool:
    """Whether files of Google Drive can be brought."""
    return importlib.util.find_spec("gdown") is not None


def _from_hub(item: Item, source: Hub, folder: Path, lock: Lock) -> Done:
    """The file stays in the cache of the Hub, where other programs find it, and is linked."""
    from spatialbench.utils import hub

    revision, free = source.revision, source.revision == "main"
    if free:  # the commit of the first download
        revision = next((entry.commit for entry in lock.entries.values() if entry.commit), revision)
    try:
        if item.files:
            snapshot = hub.snapshot(source.repository, revision, [source.path], kind="dataset")
            path, commit = snapshot / source.path.removesuffix("/*"), snapshot.name
        else:
            path = hub.hub_file(source.repository, revision, source.path, kind="dataset")
            commit = path.parts[len(path.parts) - len(Path(source.path).parts) - 1]
    except SpatialbenchError as error:
        raise NotLoaded(str(error)) from error
    where = f"{source.repository}@{commit}"
    if item.files:
        found = measure(path)[0] if path.is_dir() else 0
        if found < item.files:
            raise NotLoaded(
                f"the cache of the Hugging Face Hub has {found} of the {item.files} files of {item.name}"
            )
        done = Done(_counted(path, item, where))
    else:
        done = _examined(path, item, Entry(where, 0, hub.recorded_sha256(path) or ""))
    done = replace(done, entry=replace(done.entry, commit=commit if free else ""))
    place(path, folder / item.name)
    lock.record(item.name, done.entry)
    return done


def _from_drive(source: Drive, part: Path) -> None:
    try:
        import gdown
    except ImportError as error:
        raise SpatialbenchError(
            "Google Drive needs gdown, which is not installed: pip install 'spatialbench[drive]'"
        ) from error
    try:
        found = gdown.download(
            id=source.key, output=os.fspath(part), resume=True, use_cookies=False
        )
    except requests.ConnectionError as error:
        raise SpatialbenchError(
            f"drive.google.com cannot be reached ({https.reason(error)})"
        ) from error
    except Exception as error:  # gdown's own, a quota of Google's, the disk
        raise SpatialbenchError(
            f"Google Drive does not give it ({' '.join(str(error).split())[:200]})"
        ) from error
    if found is None or not part.is_file():
        raise SpatialbenchError("Google Drive does not give it")


def _examined(path: Path, item: Item, known: Entry) -> Done:
    """A file against the manifest, and against ``known`` where that has a hash.

    Raises:
        SpatialbenchError: it differs.
    """
    from spatialbench.utils.hub import digest

    size = path.stat().st_size
    if item.size is not None and size != item.size:
        raise SpatialbenchError(f"{path} has {size} bytes, not {item.size}{_ADVICE}")
    try:
        rows = count_records(path, item.name)
    except (SpatialbenchError, OSError) as error:
        raise SpatialbenchError(f"{path}: {error}{_ADVICE}") from error
    sha256 = digest(path)
    for wanted in (item.sha256, known.sha256):
        if wanted and sha256 != wanted:
            raise SpatialbenchError(f"{path} has the sha256 {sha256}, not {wanted}{_ADVICE}")
    if item.md5 and digest(path, "md5") != item.md5:
        raise SpatialbenchError(f"{path} has another md5 than {item.md5}{_ADVICE}")
    odd = rows is not None and item.rows not in (None, rows)
    note = f"{rows} records, where {item.rows} were expected" if odd else ""
    return Done(replace(known, size=size, sha256=sha256), note)


def _unpacked(archive: Path, target: Path, entry: Entry) -> Entry:
    unpack(archive, target)
    files, size = measure(target)
    return replace(entry, files=files, size=size)


def _counted(path: Path, item: Item, source: str) -> Entry:
    files, size = measure(path)
    if not files or (item.files and files < item.files):
        raise SpatialbenchError(
            f"{path} has {files} files{f', not {item.files}' if item.files else ''}{_ADVICE}"
        )
    return Entry(source, size, files=files)


def make_folder(folder: Path) -> None:
    """Raises:
    SpatialbenchError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpatialbenchError(
            f"cannot make the folder {folder}: {error.strerror or error}"
        ) from error
