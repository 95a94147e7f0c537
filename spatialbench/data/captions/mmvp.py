"""MMVP-VLM: 135 pairs of images that CLIP confuses, in nine visual patterns (Tong et al. 2024).

A copy of the Hub's dataset ``MMVP/MMVP_VLM`` is a folder of

    Questions.csv                       Question ID, Type, Statement: 270 rows
    MLLM_VLM Images/<Type>/<id>.jpg     folders with spaces or with underscores

A pair is an odd id and the next one, 15 pairs of each Type. The pattern follows from the Type; the
official script takes it, and the order of the images, from the position of the row.

Source: tsb0601/MMVP @ 7635005, scripts/evaluate_vlm.py; docs/selection.md.
"""

import csv
import hashlib
from pathlib import Path
from typing import NoReturn

import numpy as np

from spatialbench.data.captions.caption_set import ImageSource, check_images
from spatialbench.data.images import Resize
from spatialbench.data.selection_sets import ImagePairs, SelectionSet, fingerprint
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress
from spatialbench.utils.suggest import did_you_mean

TYPES: dict[str, str] = {
    "Orientation": "orientation",
    "Presence": "presence",
    "State": "state",
    "Quantity": "quantity",
    "Spatial": "position",
    "Color": "colour",
    "Structural Character": "structure",
    "Text": "text",
    "Camera Perspective": "viewpoint",
}
"""Type, as in the file -> pattern, in the order of the paper's table."""
COLUMNS = ("Question ID", "Type", "Statement")
FOLDERS = ("MLLM_VLM Images", "MMVP_VLM Images")
PROMPT = "a photo of {}"
"""The official script's prompt, without a final period."""
PAIRS = 15  # of each pattern
SOURCE = "a copy of the Hub's dataset MMVP/MMVP_VLM"


class Mmvp(SelectionSet):
    """The pairs of a downloaded copy; ``path`` is the folder that holds Questions.csv.

    Raises:
        SpatialbenchError: a file is missing, a row is wrong, or the pairs are not complete.
    """

    name = "mmvp"

    def __init__(self, path: str) -> None:
        table = Path(path, "Questions.csv")
        rows = _rows(table)
        images = _subfolder(Path(path), FOLDERS)
        self._statements = {number: statement for number, (_, statement) in rows.items()}
        self._pairs: list[tuple[str, int]] = []  # Type, odd id
        self._files: list[tuple[Path, Path]] = []
        for kind in TYPES:
            numbers = {number for number, (other, _) in rows.items() if other == kind}
            folder = _subfolder(images, (kind,))
            for odd in _odd(numbers, kind, table):
                self._pairs.append((kind, odd))
                self._files.append((folder / f"{odd}.jpg", folder / f"{odd + 1}.jpg"))
        check_images([file for pair in self._files for file in pair], SOURCE)

    def pairs(self, size: int, resize: Resize = "crop") -> ImagePairs:
        """Read the images and return the pairs; see the base class."""
        images = np.empty((len(self._files), 2, size, size, 3), dtype=np.uint8)
        digest = hashlib.sha256()
        with progress("reading mmvp", len(self._files), "pairs") as advance:
            for row, files in enumerate(self._files):
                for column, file in enumerate(files):
                    image = ImageSource(str(file), file)
                    data = image.content()
                    digest.update(hashlib.sha256(data).digest())
                    images[row, column] = image.pixels(data, size, resize, SOURCE)
                advance(1)
        prompts = {number: PROMPT.format(said) for number, said in self._statements.items()}
        captions = [(prompts[odd], prompts[odd + 1]) for _, odd in self._pairs]
        kinds = list(TYPES)
        return ImagePairs(
            images=images,
            captions=captions,
            pattern=np.array([kinds.index(kind) for kind, _ in self._pairs], dtype=np.int64),
            patterns=tuple(TYPES.values()),
            scenes=[str(odd) for _, odd in self._pairs],
            data=fingerprint("mmvp", self._pairs, captions, digest.hexdigest()),
        )


def _rows(path: Path) -> dict[int, tuple[str, str]]:
    """Read id -> (Type, statement)."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header, *lines = list(csv.reader(stream)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpatialbenchError(f"cannot read {path} ({reason}); give {SOURCE}") from error
    if tuple(cell.strip() for cell in header) != COLUMNS:
        _refuse(f"{path} line 1", f"the columns are {header}, not {', '.join(COLUMNS)}")
    rows: dict[int, tuple[str, str]] = {}
    for line, cells in enumerate(lines, start=2):
        if not any(cells):
            continue
        where = f"{path} row {line}"
        if len(cells) != len(COLUMNS):
            _refuse(where, f"{len(cells)} cells, not {', '.join(COLUMNS)}")
        number, kind, statement = cells[0].strip(), _plain(cells[1]), cells[2].strip()
        if not number.isdecimal() or int(number) < 1:
            _refuse(where, f"Question ID {number!r} is not a number from 1 on")
        if kind not in TYPES:
            _refuse(where, f"unknown Type {kind!r}{did_you_mean(kind, TYPES)}")
        if not statement:
            _refuse(where, f"Question ID {number} has no Statement")
        if int(number) in rows:
            _refuse(where, f"Question ID {number} is used twice")
        rows[int(number)] = kind, statement
    return rows


def _odd(numbers: set[int], kind: str, path: Path) -> list[int]:
    """Return the first ids of the pairs of a Type."""
    firsts = sorted({number - 1 + number % 2 for number in numbers})
    why = f"{len(firsts)} pairs, not {PAIRS}" if len(firsts) != PAIRS else ""
    for odd in firsts:
        if not {odd, odd + 1} <= numbers:
            why = f"only one of the Question IDs {odd} and {odd + 1}, which are a pair"
    if why:
        _refuse(str(path), f"Type {kind!r} has {why}")
    return firsts


def _subfolder(parent: Path, names: tuple[str, ...]) -> Path:
    """Return the folder with one of these names; spaces and underscores are alike."""
    wanted = [_plain(name) for name in names]
    for path in sorted(parent.iterdir()):
        if path.is_dir() and _plain(path.name) in wanted:
            return path
    raise SpatialbenchError(f"no folder {names[0]!r} in {parent}; give {SOURCE}")


def _refuse(where: str, why: str) -> NoReturn:
    raise SpatialbenchError(f"{where}: {why}; give {SOURCE}")


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split())
