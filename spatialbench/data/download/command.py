"""``spatialbench data download``: its steps, and what it prints."""

from __future__ import annotations

import fnmatch
import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from spatialbench.data.download.coco_images import link_images
from spatialbench.data.download.fetch import NotLoadedError, download, find, take, verify
from spatialbench.data.download.lock_file import Entry
from spatialbench.data.download.manifest import DataSet, Item, data_sets
from spatialbench.data.download.status import ROOT, missing, print_list, size_text
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean


def run(options: Namespace) -> None:
    """Download a data set, take it from a folder, or list all.

    Raises:
        SpatialbenchError: the data set or a file is unknown, a source cannot be reached, a file is
            not the expected one, or ``--from`` lacks a file.
    """
    if options.list:
        print_list()
        return
    known = data_sets()
    if options.name is None:
        raise SpatialbenchError(f"say which data set: {', '.join(known)}; --list shows them")
    if options.name not in known:
        raise SpatialbenchError(
            f"unknown data set {options.name!r}{did_you_mean(options.name, known)}"
        )
    data_set = known[options.name]
    folder = Path(options.to) if options.to else ROOT / data_set.name
    given = Path(options.source) if options.source else None
    if given and not given.is_dir():
        raise SpatialbenchError(f"--from {given}: there is no such folder")
    items = _selected(data_set, options.only)
    _print_notice(data_set, items, folder)
    try:
        fresh, absent = _fetch(data_set, items, folder, given, options.copy)
        if data_set.coco:
            print(link_images(data_set, data_set.coco, folder, given), flush=True)
    except OSError as error:
        raise SpatialbenchError(f"cannot write in {folder}: {error.strerror or error}") from error
    _check(data_set, fresh, folder)
    if absent:
        raise SpatialbenchError(
            f"--from {given} lacks {', '.join(absent)} of {data_set.name}; add what is missing, or "
            "name the files to take with --only"
        )
    _print_next(data_set, folder)


def _selected(data_set: DataSet, only: Sequence[str]) -> list[Item]:
    known = [item.name for item in data_set.items]
    for pattern in only:
        if not fnmatch.filter(known, pattern):
            hint = did_you_mean(pattern, known)
            raise SpatialbenchError(f"{data_set.name} has no file {pattern!r}{hint}")
    patterns = only or ["*"]
    return [item for item in data_set.items if any(fnmatch.fnmatch(item.name, p) for p in patterns)]


def _fetch(
    data_set: DataSet, items: Sequence[Item], folder: Path, given: Path | None, copied: bool
) -> tuple[list[Item], list[str]]:
    """Add what is missing and verify what is here; return the new files and those not given."""
    fresh, absent = [], []
    for item in items:
        path = folder / item.placed
        if path.is_symlink() and not path.exists():  # the cache of the Hub was emptied
            path.unlink()
        if path.exists():
            _print_item(item, verify(item, folder), "here, unchanged")
            continue
        if source := find(item, given or folder):
            entry = take(item, source, folder, copied)
            _print_item(item, entry, f"{'copied' if copied else 'taken'} from {source}")
        elif given:
            absent.append(item.placed)
            continue
        else:
            _print_item(item, _download(data_set, item, items, folder), "downloaded")
        fresh.append(item)
    return fresh, absent


def _download(data_set: DataSet, item: Item, items: Sequence[Item], folder: Path) -> Entry:
    try:
        return download(item, folder)
    except NotLoadedError as error:
        print("\nTo fetch by hand, into a folder of your own:")
        for other in items:
            if not (folder / other.placed).exists():
                print(f"  {other.name}: {other.by_hand}")
        print(flush=True)
        raise SpatialbenchError(
            f"{item.name}: {error}; fetch the files listed above by hand and give their folder: "
            f"spatialbench data download {data_set.name} --from FOLDER"
        ) from error


def _check(data_set: DataSet, fresh: Sequence[Item], folder: Path) -> None:
    """Check the new files as ``spatialbench data check`` does."""
    if not data_set.check or not fresh:
        return
    from spatialbench.data.embspatial.audit import check_file, print_report

    for item in fresh:
        report = check_file(folder / item.name)
        print()
        print_report(report)
        if not report.kept:
            reason = report.first_damage or "it is empty"
            raise SpatialbenchError(f"{folder / item.name} holds no usable record: {reason}")


def _print_notice(data_set: DataSet, items: Sequence[Item], folder: Path) -> None:
    size = size_text(items)
    print(f"{data_set.name}: {data_set.title}")
    print(f"  from     {data_set.homepage}")
    print(f"  licence  {data_set.licence}; {data_set.terms}")
    print(f"  size     {'not known' if size == '?' else f'{size} MB'}")
    print(f"  to       {folder}", flush=True)


def _print_item(item: Item, entry: Entry, how: str) -> None:
    words = [f"{entry.size / 1e6:.1f} MB", f"{entry.files} files" if entry.files else "", how]
    if entry.sha256:
        by = "as the source says" if item.known_hash else "recorded"
        words.append(f"sha256 {entry.sha256[:12]}… ({by})")
    print(f"{item.placed}: {', '.join(filter(None, words))}")


def _print_next(data_set: DataSet, folder: Path) -> None:
    """Print the next command, and what it still lacks: the files that it names, or all."""
    named = [item.placed for item in data_set.items if item.name in data_set.after]
    lacking = [name for name in missing(data_set, folder) if not named or name in named]
    command = data_set.after.format(name=data_set.name, folder=shlex.quote(str(folder)))
    after = f"still missing: {', '.join(lacking)}; then" if lacking else "next"
    print(f"\nin {folder}; {after}:\n  {command}")
