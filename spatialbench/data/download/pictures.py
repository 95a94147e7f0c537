"""Pictures of COCO, which are not brought: a copy of the user's is linked where an adapter looks for them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from spatialbench.data.download.fetch import place
from spatialbench.data.download.manifest import DataSet, Pictures
from spatialbench.utils.errors import SpatialbenchError

COCO = "coco"
"""The folder beside the data sets that holds train2017 and val2017, as the track ``coco`` has it."""
ADDRESS = "http://images.cocodataset.org/zips/{part}.zip"


def link_pictures(data_set: DataSet, folder: Path, given: Path | None = None) -> str:
    """Links the pictures of a data set; a line that says what was done, or what is missing and what to do.

    Args:
        folder: the data set's.
        given: a folder of the user's that may hold COCO's folders, or the pictures as they are wanted.

    Raises:
        SpatialbenchError: COCO's folders do not hold a picture that the files name.
    """
    wanted = data_set.pictures
    assert wanted is not None
    target = folder / wanted.folder
    if target.exists():
        return f"{wanted.folder}: here"
    if given is not None and (given / wanted.folder).is_dir():
        place(given / wanted.folder, target)
        return f"{wanted.folder}: linked to {given / wanted.folder}"
    roots = [root for root in (given, folder.parent / COCO) if root is not None]
    found = [
        next((root / part for root in roots if (root / part).is_dir()), None)
        for part in wanted.parts
    ]
    sources = [part for part in found if part is not None]
    if len(sources) < len(found):
        return _missing(data_set, wanted, folder.parent / COCO)
    if len(sources) == 1:
        place(sources[0], target)
        return f"{wanted.folder}: linked to {sources[0]}"
    names = _names(data_set, folder)
    _link_singly(names, sources, target)
    return f"{wanted.folder}: {len(names)} pictures linked to {' and '.join(map(str, sources))}"


def _missing(data_set: DataSet, wanted: Pictures, coco: Path) -> str:
    addresses = " and ".join(ADDRESS.format(part=part) for part in wanted.parts)
    folders = " and ".join(str(coco / part) for part in wanted.parts)
    line = f"{wanted.folder}: missing; unpack {addresses} as {folders} and start again"
    return line + (f", or {wanted.otherwise}" if wanted.otherwise else "")


def _names(data_set: DataSet, folder: Path) -> list[str]:
    """Files of the pictures that the lines of the data set's files name."""
    names: dict[str, None] = {}
    for item in data_set.items:
        path = folder / item.name
        if path.suffix == ".jsonl" and path.is_file():
            with path.open(encoding="utf-8") as stream:
                names |= {
                    Path(json.loads(line)["image"]).name: None for line in stream if line.strip()
                }
    return list(names)


def _link_singly(names: Sequence[str], sources: Sequence[Path], target: Path) -> None:
    work = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        for name in names:
            source = next((part / name for part in sources if (part / name).is_file()), None)
            if source is None:
                raise SpatialbenchError(
                    f"there is no picture {name} in {' or '.join(map(str, sources))}"
                )
            (work / name).symlink_to(source.resolve())
        work.chmod(0o755)
        work.replace(target)
    except OSError as error:
        raise SpatialbenchError(
            f"cannot link pictures in {target}: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
