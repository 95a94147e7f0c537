"""``spatialbench data download``: the order of things, and what is printed."""

from __future__ import annotations

import fnmatch
import shlex
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from spatialbench.data.download.fetch import (
    Done,
    NotLoaded,
    bring,
    find,
    has_gdown,
    make_folder,
    take,
    verify,
)
from spatialbench.data.download.lock import Lock
from spatialbench.data.download.manifest import DataSet, Drive, Item, data_sets
from spatialbench.data.download.pictures import link_pictures
from spatialbench.data.download.status import ROOT, print_list, size_text
from spatialbench.utils.arguments import did_you_mean
from spatialbench.utils.errors import SpatialbenchError

BUSY = ".download.busy"


def run(options: Namespace) -> None:
    """Raises:
    SpatialbenchError: unknown data set or file, a source that cannot be reached, a file that is not the expected one.
    """
    if options.list:
        print_list()
        return
    if options.name is None:
        raise SpatialbenchError(f"say which data set: {', '.join(data_sets())}; --list shows them")
    if options.name not in data_sets():
        raise SpatialbenchError(
            f"unknown data set {options.name!r}{did_you_mean(options.name, data_sets())}"
        )
    data_set = data_sets()[options.name]
    folder = Path(options.to) if options.to else ROOT / data_set.name
    given = None if options.source is None else Path(options.source)
    if given is not None and not given.is_dir():
        raise SpatialbenchError(f"--from {given}: there is no such folder")
    items = _selected(data_set, options.only)
    _print_notice(data_set, items, folder)
    with _alone(folder):
        fresh = _all(data_set, items, folder, given, options.copy)
        if data_set.pictures is not None:
            print(link_pictures(data_set, folder, given), flush=True)
    _check(data_set, fresh, folder)
    _print_next(data_set, folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two at once would write into one ``.part``; the lock of one that was killed is free."""
    make_folder(folder)
    lock = FileLock(folder / BUSY, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise SpatialbenchError(
            f"another download into {folder} is running; wait for it"
        ) from error
    except OSError as error:
        raise SpatialbenchError(f"cannot write in {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def _all(
    data_set: DataSet, items: Sequence[Item], folder: Path, given: Path | None, copied: bool
) -> list[Item]:
    """Brings what is missing and looks at what is here; the files that are new."""
    lock, fresh, absent = Lock(folder), [], []
    for item in items:
        path = folder / item.placed
        if (
            path.is_symlink() and not path.exists()
        ):  # the cache of the Hub was emptied, or a disk is not mounted
            path.unlink()
        if path.exists():
            _print_item(item, verify(item, folder, lock), "here, as it came")
            continue
        found = find(item, folder if given is None else given)
        if found is not None:
            _print_item(
                item,
                take(item, found, folder, lock, copied),
                f"{'copied' if copied else 'taken'} from {found}",
            )
        elif given is None:
            _print_item(item, _brought(data_set, item, items, folder, lock), "downloaded")
        else:
            absent.append(item)
            continue
        fresh.append(item)
    if absent and len(absent) == len(items):
        raise SpatialbenchError(
            f"--from {given} holds no file of {data_set.name}, which has {_names(absent)}"
        )
    if absent:
        print(f"not in {given}: {_names(absent)}")
    return fresh


def _brought(
    data_set: DataSet, item: Item, items: Sequence[Item], folder: Path, lock: Lock
) -> Done:
    try:
        return bring(item, folder, lock)
    except NotLoaded as error:
        missing = [other for other in items if not (folder / other.placed).exists()]
        if isinstance(item.source, Drive) and not has_gdown():
            missing = [other for other in missing if isinstance(other.source, Drive)]
        print("\nTo fetch by hand, into a folder of your own:")
        for other in missing:
            print(f"  {other.name}: {other.source.by_hand}")
        print(flush=True)
        raise SpatialbenchError(
            f"{item.name}: {error}; or fetch what is listed above by hand and give its folder: "
            f"spatialbench data download {data_set.name} --from FOLDER"
        ) from error


def _selected(data_set: DataSet, only: Sequence[str]) -> list[Item]:
    if not only:
        return list(data_set.items)
    found = []
    for pattern in only:
        names = [item for item in data_set.items if fnmatch.fnmatch(item.name, pattern)]
        if not names:
            known = [item.name for item in data_set.items]
            raise SpatialbenchError(
                f"{data_set.name} has no file {pattern!r}{did_you_mean(pattern, known)}"
            )
        found += names
    return [item for item in data_set.items if item in found]


def _print_notice(data_set: DataSet, items: Sequence[Item], folder: Path) -> None:
    print(f"{data_set.name}: {data_set.title}")
    print(f"  from     {data_set.homepage}")
    print(f"  licence  {data_set.licence}; {data_set.terms}")
    size = size_text(items)
    print(f"  size     {'not known' if size == '?' else f'{size} MB'}")
    print(f"  to       {folder}", flush=True)


def _print_item(item: Item, done: Done, how: str) -> None:
    entry = done.entry
    said = [f"{entry.size / 1e6:.1f} MB", f"{entry.files} files" if entry.files else "", how]
    if entry.sha256:
        known = item.sha256 or item.md5
        said.append(
            f"sha256 {entry.sha256[:12]}… ({'as the source says' if known else 'recorded'})"
        )
    print(f"{item.placed}: {', '.join(filter(None, said))}")
    if done.note:
        print(f"  note: {done.note}")


def _print_next(data_set: DataSet, folder: Path) -> None:
    """The next command, once what it needs is there: the files that it names, or all."""
    needed = [item for item in data_set.items if item.name in data_set.after] or data_set.items
    missing = [item.placed for item in needed if not (folder / item.placed).exists()]
    if data_set.pictures is not None and not (folder / data_set.pictures.folder).exists():
        missing.append(data_set.pictures.folder)
    command = data_set.after.format(name=data_set.name, folder=shlex.quote(str(folder)))
    if missing:
        print(f"\nin {folder}; still missing: {', '.join(missing)}; then:\n  {command}")
    else:
        print(f"\nin {folder}; next:\n  {command}")


def _check(data_set: DataSet, fresh: Sequence[Item], folder: Path) -> None:
    """Goes through the new files as ``spatialbench data check`` does."""
    if not data_set.check or not fresh:
        return
    from spatialbench.data.embspatial.check_report import print_report
    from spatialbench.data.embspatial.reader import check_file

    for item in fresh:
        report = check_file(folder / item.name)
        print()
        print_report(report)
        if not report.kept:
            raise SpatialbenchError(
                f"{folder / item.name} holds no usable record: {report.first_damage or 'it is empty'}"
            )


def _names(items: Sequence[Item]) -> str:
    return ", ".join(item.placed for item in items)
