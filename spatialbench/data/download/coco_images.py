"""Images of COCO, which are not downloaded: the user's copy is linked where a reader looks."""

import json
from pathlib import Path

from spatialbench.data.download.fetch import link, staged
from spatialbench.data.download.manifest import CocoImages, DataSet
from spatialbench.utils.errors import SpatialbenchError

COCO = "coco"
"""Folder beside the data sets that holds train2017 and val2017, as in the track ``coco``."""
ADDRESS = "http://images.cocodataset.org/{part}.zip"


def link_images(data_set: DataSet, coco: CocoImages, folder: Path, given: Path | None) -> str:
    """Link the images that a data set needs; return a line that says what was done or is missing.

    ``given`` is a folder of the user's with COCO's folders, or with the images as they are needed.

    Raises:
        SpatialbenchError: COCO's folders lack an image that the files name.
    """
    target, roots = folder / coco.folder, [given] if given else []
    if target.exists():
        return f"{coco.folder}: here"
    if given and (given / coco.folder).is_dir():
        sources = [given / coco.folder]
    else:
        roots = [*roots, folder.parent / COCO]
        paths = [[root / part for root in roots if (root / part).is_dir()] for part in coco.parts]
        if not all(paths):
            return _missing(coco, folder.parent / COCO)
        sources = [path[0] for path in paths]
    with staged(target) as made:
        if len(sources) == 1:
            link(sources[0], made)
            return f"{coco.folder}: linked to {sources[0]}"
        made.mkdir()
        names = _names(data_set, folder)
        for name in names:
            source = next((part / name for part in sources if (part / name).is_file()), None)
            if source is None:
                where = " or ".join(map(str, sources))
                raise SpatialbenchError(f"there is no image {name} in {where}")
            link(source, made / name)
    return f"{coco.folder}: {len(names)} images linked to {' and '.join(map(str, sources))}"


def _missing(coco: CocoImages, root: Path) -> str:
    addresses = " and ".join(ADDRESS.format(part=f"zips/{part}") for part in coco.parts)
    folders = " and ".join(str(root / part) for part in coco.parts)
    line = f"{coco.folder}: missing; unpack {addresses} as {folders} and start again"
    return f"{line}, or {coco.otherwise}" if coco.otherwise else line


def _names(data_set: DataSet, folder: Path) -> list[str]:
    """List the images that the lines of the data set's files name, each once."""
    names: dict[str, None] = {}
    for item in data_set.items:
        path = folder / item.name
        if path.suffix == ".jsonl" and path.is_file():
            lines = path.read_text(encoding="utf-8-sig").split("\n")
            images = [json.loads(line)["image"] for line in lines if line.strip()]
            names |= {Path(image).name: None for image in images}
    return list(names)
