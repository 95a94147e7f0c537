"""``spatialbench data download``: its steps, and what it prints."""

import fnmatch
import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spatialbench.data.download.coco_images import link_images
from spatialbench.data.download.fetch import Entry, NotLoadedError, download, find, take, verify
from spatialbench.data.download.manifest import ROOT, DataSet, Item, data_sets
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.suggest import did_you_mean


def run(options: Namespace) -> None:
    """Download a data set, take it from a folder, or list all; the user's mistakes are one line."""
    if options.list:
        _print_list()
        return
    known = data_sets()
    if options.name is None:
        raise SpatialbenchError(f"say which data set: {', '.join(known)}; --list shows them")
    if options.name not in known:
        near = did_you_mean(options.name, known)
        raise SpatialbenchError(f"unknown data set {options.name!r}{near}")
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
        lacking = f"{', '.join(absent)} of {data_set.name}"
        raise SpatialbenchError(f"--from {given} lacks {lacking}; add them, or name --only others")
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
        command = f"spatialbench data download {data_set.name} --from FOLDER"
        why = f"{error}; fetch the files listed above by hand and give their folder: {command}"
        raise SpatialbenchError(f"{item.name}: {why}") from error


def _check(data_set: DataSet, fresh: Sequence[Item], folder: Path) -> None:
    """Check the new files as ``spatialbench data check`` does."""
    if not data_set.check or not fresh:
        return
    from spatialbench.data.embspatial.reader import check_file

    for item in fresh:
        report = check_file(folder / item.name)
        print()
        report.print_counts()
        report.require(report.kept, "record")


def _print_notice(data_set: DataSet, items: Sequence[Item], folder: Path) -> None:
    size = _size(items)
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
    lacking = [name for name in _missing(data_set, folder) if not named or name in named]
    command = data_set.after.format(name=data_set.name, folder=shlex.quote(str(folder)))
    after = f"still missing: {', '.join(lacking)}; then" if lacking else "next"
    print(f"\nin {folder}; {after}:\n  {command}")


def _print_list() -> None:
    """Print the data sets with size and licence, and whether they are on disk."""
    console = Console(width=max(120, Console().width))
    table = Table()
    for column in ("data set", "what", "size", "licence", "here"):
        table.add_column(column, no_wrap=column in ("data set", "size"))
    for name, data_set in data_sets().items():
        row = (name, data_set.title, _size(data_set.items), data_set.licence, _state(data_set))
        table.add_row(*row)
    console.print(table)
    text = "spatialbench data download NAME fetches one; sizes in MB, + if some are not known"
    console.print(text, highlight=False)


def _missing(data_set: DataSet, folder: Path) -> list[str]:
    """List what a data set's folder lacks; no file is read."""
    return [name for name in data_set.needed if not (folder / name).exists()]


def _state(data_set: DataSet) -> str:
    """Describe what is on disk: ``here, data/NAME``, ``3 of 4, without images`` or ``-``."""
    names, lacking = data_set.needed, _missing(data_set, ROOT / data_set.name)
    if not lacking:
        return f"here, {ROOT / data_set.name}"
    here = f"{len(names) - len(lacking)} of {len(names)}, without {', '.join(lacking)}"
    return "-" if lacking == names else here


def _size(items: Sequence[Item]) -> str:
    """Return the sum of the known sizes in MB; ``+`` if some are not known, ``?`` if none is."""
    known = [item.megabytes for item in items if item.megabytes is not None]
    more = "+" if len(known) < len(items) else ""
    return f"{sum(known):.{0 if sum(known) >= 10 else 1}f}{more}" if known else "?"
