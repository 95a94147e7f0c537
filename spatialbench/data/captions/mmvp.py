"""MMVP-VLM: 135 pairs of pictures that CLIP confuses, in nine visual patterns (Tong et al. 2024).

A copy of the Hub's dataset ``MMVP/MMVP_VLM`` is a folder of

    Questions.csv                       Question ID, Type, Statement: 270 rows
    MLLM_VLM Images/<Type>/<id>.jpg     the folders with spaces or with underscores

A pair is an odd id and the next one, 15 of each Type. The pattern is that of the Type, whatever the order of the rows;
the official script takes it, and which picture comes first, from the position of the row.

Source: tsb0601/MMVP @ 7635005, scripts/evaluate_vlm.py; docs/selection.md.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np

from spatialbench.data.captions.image_files import content, decoded, square
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
"""Type, as the file has it -> pattern, in the order of the paper's table."""
COLUMNS = ("Question ID", "Type", "Statement")
FOLDERS = ("MLLM_VLM Images", "MMVP_VLM Images")
PROMPT = "a photo of {}"
"""The official script's; no period at the end."""
PAIRS = 15
"""Of each pattern."""
SOURCE = "a copy of the Hub's dataset MMVP/MMVP_VLM"


class Mmvp(SelectionSet):
    """The pairs of a downloaded copy.

    Args:
        path: the folder that holds Questions.csv.

    Raises:
        SpatialbenchError: a file is missing, a row is wrong, or the pairs are not complete; one line.
    """

    name = "mmvp"
    source = SOURCE

    def __init__(self, path: str) -> None:
        self.folder = Path(path)
        rows = _rows(self.folder / "Questions.csv")
        images = _images(self.folder)
        self._pairs: list[tuple[str, int]] = []  # Type, odd id
        self._statements = {number: statement for number, _, statement in rows}
        for kind in TYPES:
            numbers = sorted(number for number, other, _ in rows if other == kind)
            self._pairs += [
                (kind, number) for number in _odd(numbers, kind, self.folder / "Questions.csv")
            ]
        folders = {kind: _one_of(images, (kind,)) for kind in TYPES}
        self._files = [
            tuple(folders[kind] / f"{number + k}.jpg" for k in range(2))
            for kind, number in self._pairs
        ]
        missing = [file for pair in self._files for file in pair if not file.is_file()]
        if missing:
            raise SpatialbenchError(
                f"no picture {missing[0]} ({len(missing)} missing); give {SOURCE}"
            )

    def pairs(self, size: int, resize: Resize = "crop") -> ImagePairs:
        """Raises:
        SpatialbenchError: a picture cannot be read.
        """
        images = np.empty((len(self._files), 2, size, size, 3), dtype=np.uint8)
        files_digest = hashlib.sha256()
        with progress("reading mmvp", len(self._files), "pairs") as advance:
            for row, files in enumerate(self._files):
                for column, file in enumerate(files):
                    data = content(file)
                    files_digest.update(hashlib.sha256(data).digest())
                    images[row, column] = square(decoded(file, data, SOURCE), size, resize)
                advance(1)
        captions = [
            (PROMPT.format(self._statements[number]), PROMPT.format(self._statements[number + 1]))
            for _, number in self._pairs
        ]
        kinds = list(TYPES)
        return ImagePairs(
            images=images,
            captions=captions,
            pattern=np.array([kinds.index(kind) for kind, _ in self._pairs], dtype=np.int64),
            patterns=tuple(TYPES.values()),
            scenes=[str(number) for _, number in self._pairs],
            data=fingerprint("mmvp", self._pairs, captions, files_digest.hexdigest()),
        )


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """(id, Type, statement) of every row, each id once."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header, *lines = list(csv.reader(stream)) or [[]]
    except FileNotFoundError as error:
        raise SpatialbenchError(
            f"no such file: {path}; give {SOURCE}, the folder that holds Questions.csv"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpatialbenchError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    if tuple(cell.strip() for cell in header) != COLUMNS:
        raise SpatialbenchError(
            f"{path} line 1: the columns are {header}, not {', '.join(COLUMNS)}; give {SOURCE}"
        )
    rows: dict[int, tuple[int, str, str]] = {}
    for line, cells in enumerate(lines, start=2):
        if not any(cells):
            continue
        if len(cells) != len(COLUMNS):
            raise SpatialbenchError(
                f"{path} row {line}: {len(cells)} cells, not {', '.join(COLUMNS)}"
            )
        number, kind, statement = cells[0].strip(), _plain(cells[1]), cells[2].strip()
        if not number.isdecimal() or int(number) < 1:
            raise SpatialbenchError(
                f"{path} row {line}: Question ID {number!r} is not a number from 1 on"
            )
        if kind not in TYPES:
            raise SpatialbenchError(
                f"{path} row {line}: unknown Type {cells[1]!r}{did_you_mean(kind, TYPES)}"
            )
        if not statement:
            raise SpatialbenchError(f"{path} row {line}: Question ID {number} has no Statement")
        if int(number) in rows:
            raise SpatialbenchError(f"{path} row {line}: Question ID {number} stands there twice")
        rows[int(number)] = int(number), kind, statement
    return list(rows.values())


def _odd(numbers: list[int], kind: str, path: Path) -> list[int]:
    """The first ids of the pairs of a Type, whose sorted ids are ``numbers``."""
    odd = [number for number in numbers if number % 2]
    alone = sorted({number if number % 2 else number - 1 for number in numbers} - set(odd))
    alone += [number for number in odd if number + 1 not in numbers]
    if alone:
        raise SpatialbenchError(
            f"{path}: Type {kind!r} has one of the Question IDs {alone[0]} and {alone[0] + 1}, which are a pair; "
            f"give {SOURCE}"
        )
    if len(odd) != PAIRS:
        raise SpatialbenchError(
            f"{path}: Type {kind!r} has {len(odd)} pairs, not {PAIRS}; give {SOURCE}"
        )
    return odd


def _images(folder: Path) -> Path:
    return _one_of(folder, FOLDERS)


def _one_of(parent: Path, names: tuple[str, ...]) -> Path:
    """The folder in ``parent`` with one of these names, spaces and underscores alike.

    Raises:
        SpatialbenchError: there is none.
    """
    wanted = [_plain(name) for name in names]
    found = [
        path for path in sorted(parent.iterdir()) if path.is_dir() and _plain(path.name) in wanted
    ]
    if not found:
        raise SpatialbenchError(f"no folder {names[0]!r} in {parent}; give {SOURCE}")
    return found[0]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split())
