"""MMVP-VLM's files: read strictly, whatever the order of the rows and the spelling of the folders."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
from PIL import Image

from spatialbench.data.captions.image_files import square
from spatialbench.data.captions.mmvp import COLUMNS, TYPES, Mmvp
from spatialbench.utils.errors import SpatialbenchError

KINDS = list(TYPES)
Row = list[str]


def rows() -> list[Row]:
    return [[str(k + 1), KINDS[k // 30], f"statement {k + 1}"] for k in range(270)]


def write(folder: Path, lines: list[Row], header: tuple[str, ...] = COLUMNS) -> None:
    with (folder / "Questions.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *lines])


def copy(
    folder: Path, images: str = "MLLM_VLM Images", spelled: Callable[[str], str] = str
) -> Path:
    """A copy whose picture k has the colour (k % 256, k // 256, 0)."""
    folder.mkdir()
    write(folder, rows())
    for number, kind, _ in rows():
        path = folder / images / spelled(kind) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), (int(number) % 256, 16 * (int(number) // 256), 0)).save(
            path, "PNG"
        )
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy(tmp_path / "copy")


def test_pairs_patterns_captions_and_pictures(folder: Path) -> None:
    found = Mmvp(str(folder)).pairs(8)
    assert found.images.shape == (135, 2, 8, 8, 3)
    assert found.images[:, :, 4, 4, 0].ravel().tolist() == [k % 256 for k in range(1, 271)]
    assert found.captions[3] == (
        "a photo of statement 7",
        "a photo of statement 8",
    )  # no period at the end
    assert found.patterns == tuple(TYPES.values())
    assert np.bincount(found.pattern).tolist() == [15] * 9
    assert found.patterns[found.pattern[134]] == "viewpoint"
    assert len(set(found.scenes)) == 135
    assert (
        Mmvp(str(folder)).pairs(16).data == found.data
    )  # models of other sizes are asked the same


def test_the_pattern_is_that_of_the_type_not_of_the_row(folder: Path) -> None:
    """Rows in any order, even ids first: the official script would take another pattern and another truth."""
    expected = Mmvp(str(folder)).pairs(8)
    write(folder, rows()[::-1])
    found = Mmvp(str(folder)).pairs(8)
    assert found.captions == expected.captions
    assert np.array_equal(found.images, expected.images)
    assert np.array_equal(found.pattern, expected.pattern)
    assert found.data == expected.data
    Image.new("RGB", (12, 8), (9, 9, 9)).save(
        folder / "MLLM_VLM Images" / KINDS[0] / "1.jpg", "PNG"
    )
    assert (
        Mmvp(str(folder)).pairs(8).data != expected.data
    )  # other pictures under the same captions
    swapped = [[number, KINDS[::-1][KINDS.index(kind)], text] for number, kind, text in rows()]
    write(folder, swapped)
    for kind, other in zip(KINDS[:4], KINDS[::-1][:4], strict=True):
        (folder / "MLLM_VLM Images" / kind).rename(folder / "x")
        (folder / "MLLM_VLM Images" / other).rename(folder / "MLLM_VLM Images" / kind)
        (folder / "x").rename(folder / "MLLM_VLM Images" / other)
    found = Mmvp(str(folder)).pairs(8)
    assert found.captions[0] == ("a photo of statement 241", "a photo of statement 242")
    assert found.data != expected.data


@pytest.mark.parametrize("images", ["MLLM_VLM Images", "MLLM_VLM_Images", "MMVP_VLM_Images"])
def test_folders_with_spaces_or_underscores(tmp_path: Path, images: str) -> None:
    made = copy(tmp_path / "copy", images, lambda kind: kind.replace(" ", "_"))
    assert len(Mmvp(str(made)).pairs(8)) == 135
    write(made, [[number, kind.replace(" ", "_"), text] for number, kind, text in rows()])
    assert len(Mmvp(str(made)).pairs(8)) == 135


def change(at: int, cell: int, value: str) -> Callable[[list[Row]], list[Row]]:
    def changed(lines: list[Row]) -> list[Row]:
        lines[at][cell] = value
        return lines

    return changed


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change(4, 0, "five"), r"Questions\.csv row 6: Question ID 'five' is not a number"),
        (change(4, 0, "4"), "row 6: Question ID 4 stands there twice"),
        (change(4, 1, "Colour"), "row 6: unknown Type 'Colour'.*'Color'"),
        (change(4, 2, " "), "row 6: Question ID 5 has no Statement"),
        (
            change(4, 1, "Color"),
            "Type 'Orientation' has one of the Question IDs 5 and 6, which are a pair",
        ),
        (lambda lines: lines[1:], "Type 'Orientation' has one of the Question IDs 1 and 2"),
        (
            lambda lines: [lines[0], *lines[2:]],
            "Type 'Orientation' has one of the Question IDs 1 and 2",
        ),
        (lambda lines: lines[2:], "Type 'Orientation' has 14 pairs, not 15"),
        (lambda lines: lines[30:], "Type 'Orientation' has 0 pairs, not 15"),
        (
            lambda lines: [line[:2] for line in lines],
            r"row 2: 2 cells, not Question ID, Type, Statement",
        ),
    ],
)
def test_wrong_rows_are_one_line(
    folder: Path, edit: Callable[[list[Row]], list[Row]], message: str
) -> None:
    write(folder, edit(rows()))
    with pytest.raises(SpatialbenchError, match=message) as error:
        Mmvp(str(folder))
    assert "\n" not in str(error.value)


def test_wrong_files_are_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SpatialbenchError, match=r"no such file: .*Questions\.csv; give a copy of the Hub's dataset"
    ):
        Mmvp(str(tmp_path))
    write(folder, rows(), ("id", "type", "text"))
    with pytest.raises(
        SpatialbenchError, match=r"line 1: the columns are .'id', 'type', 'text'., not Question ID"
    ):
        Mmvp(str(folder))
    (folder / "Questions.csv").write_bytes(b"")
    with pytest.raises(SpatialbenchError, match="line 1: the columns are"):
        Mmvp(str(folder))
    write(folder, rows())
    picture = folder / "MLLM_VLM Images" / "State" / "77.jpg"
    picture.write_bytes(b"no picture")
    with pytest.raises(SpatialbenchError, match=r"77\.jpg: not an image"):
        Mmvp(str(folder)).pairs(8)
    picture.unlink()
    with pytest.raises(SpatialbenchError, match=r"no picture .*77\.jpg \(1 missing\)"):
        Mmvp(str(folder))
    (folder / "MLLM_VLM Images" / "State").rename(folder / "MLLM_VLM Images" / "Stat")
    with pytest.raises(SpatialbenchError, match=r"no folder 'State' in .*MLLM_VLM Images"):
        Mmvp(str(folder))
    (folder / "MLLM_VLM Images").rename(folder / "Images")
    with pytest.raises(SpatialbenchError, match="no folder 'MLLM_VLM Images' in "):
        Mmvp(str(folder))


@pytest.mark.parametrize("shape", [(50, 33), (33, 50), (24, 24), (301, 200)])
def test_pictures_are_open_clips_to_the_pixel(shape: tuple[int, int]) -> None:
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    )
    for mode, resize in (("shortest", "crop"), ("squash", "squash")):
        transform = open_clip.image_transform(
            24, False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode
        )
        theirs = (transform(picture) * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(square(picture, 24, resize), theirs), (mode, shape)  # type: ignore[arg-type]
