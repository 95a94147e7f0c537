"""MMVP-VLM's files: read strictly, whatever the order of the rows and the folders' spelling."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
from PIL import Image

from spatialbench.data.captions.caption_set import square
from spatialbench.data.captions.mmvp import COLUMNS, TYPES, Mmvp
from tests.support.caption_files import complaint, photo

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
    """Make a copy whose image k has the colour (k % 256, k // 256, 0)."""
    folder.mkdir()
    write(folder, rows())
    for number, kind, _ in rows():
        colour = (int(number) % 256, 16 * (int(number) // 256), 0)
        photo(folder / images / spelled(kind) / f"{number}.jpg", colour, (12, 8))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy(tmp_path / "copy")


def test_pairs_patterns_captions_and_images(folder: Path) -> None:
    found = Mmvp(str(folder)).pairs(8)
    assert found.images.shape == (135, 2, 8, 8, 3)
    assert found.images[:, :, 4, 4, 0].ravel().tolist() == [k % 256 for k in range(1, 271)]
    assert found.captions[3] == ("a photo of statement 7", "a photo of statement 8")  # no period
    assert found.patterns == tuple(TYPES.values())
    assert np.bincount(found.pattern).tolist() == [15] * 9
    assert found.patterns[found.pattern[134]] == "viewpoint"
    assert len(set(found.scenes)) == 135
    assert Mmvp(str(folder)).pairs(16).data == found.data  # the same questions at every size


def test_the_pattern_follows_the_type_not_the_row(folder: Path) -> None:
    """Rows in any order: the official script would take another pattern and another truth."""
    expected = Mmvp(str(folder)).pairs(8)
    write(folder, rows()[::-1])
    found = Mmvp(str(folder)).pairs(8)
    assert (found.captions, found.data) == (expected.captions, expected.data)
    assert np.array_equal(found.images, expected.images)
    assert np.array_equal(found.pattern, expected.pattern)


def test_other_images_under_the_same_captions_are_other_data(folder: Path) -> None:
    expected = Mmvp(str(folder)).pairs(8).data
    photo(folder / "MLLM_VLM Images" / KINDS[0] / "1.jpg", (9, 9, 9))
    assert Mmvp(str(folder)).pairs(8).data != expected


@pytest.mark.parametrize("images", ["MLLM_VLM Images", "MLLM_VLM_Images", "MMVP_VLM_Images"])
def test_folders_with_spaces_or_underscores(tmp_path: Path, images: str) -> None:
    made = copy(tmp_path / "copy", images, lambda kind: kind.replace(" ", "_"))
    assert len(Mmvp(str(made)).pairs(8)) == 135
    write(made, [[number, kind.replace(" ", "_"), text] for number, kind, text in rows()])
    assert len(Mmvp(str(made)).pairs(8)) == 135


def change(cell: int, value: str) -> Callable[[list[Row]], list[Row]]:
    def changed(lines: list[Row]) -> list[Row]:
        lines[4][cell] = value
        return lines

    return changed


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change(0, "five"), r"Questions\.csv row 6: Question ID 'five' is not a number"),
        (change(0, "4"), "row 6: Question ID 4 is used twice"),
        (change(1, "Colour"), "row 6: unknown Type 'Colour'.*'Color'"),
        (change(2, " "), "row 6: Question ID 5 has no Statement"),
        (change(1, "Color"), "'Orientation' has only one of the Question IDs 5 and 6"),
        (lambda lines: lines[1:], "'Orientation' has only one of the Question IDs 1 and 2"),
        (lambda lines: [lines[0], *lines[2:]], "has only one of the Question IDs 1 and 2"),
        (lambda lines: lines[2:], "Type 'Orientation' has 14 pairs, not 15"),
        (lambda lines: [line[:2] for line in lines], "row 2: 2 cells, not Question ID, Type, Stat"),
    ],
)
def test_wrong_rows_are_one_line(
    folder: Path, edit: Callable[[list[Row]], list[Row]], message: str
) -> None:
    write(folder, edit(rows()))
    complaint(lambda: Mmvp(str(folder)), message)


def test_wrong_files_are_one_line(folder: Path, tmp_path: Path) -> None:
    complaint(lambda: Mmvp(str(tmp_path)), r"cannot read .*Questions\.csv .*; give a copy of the")
    write(folder, rows(), ("id", "type", "text"))
    columns = r"line 1: the columns are .'id', 'type', 'text'., not Question ID"
    complaint(lambda: Mmvp(str(folder)), columns)
    (folder / "Questions.csv").write_bytes(b"")
    complaint(lambda: Mmvp(str(folder)), "line 1: the columns are")
    write(folder, rows())
    image = folder / "MLLM_VLM Images" / "State" / "77.jpg"
    image.write_bytes(b"no image")
    complaint(lambda: Mmvp(str(folder)).pairs(8), r"77\.jpg: not an image")
    image.unlink()
    complaint(lambda: Mmvp(str(folder)), r"no image .*77\.jpg \(1 missing\)")
    image.parent.rename(image.parent.with_name("Stat"))
    complaint(lambda: Mmvp(str(folder)), r"no folder 'State' in .*MLLM_VLM Images")
    (folder / "MLLM_VLM Images").rename(folder / "Images")
    complaint(lambda: Mmvp(str(folder)), "no folder 'MLLM_VLM Images' in ")


@pytest.mark.parametrize("shape", [(50, 33), (33, 50), (24, 24), (301, 200)])
def test_images_are_open_clips_to_the_pixel(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for mode, resize in (("shortest", "crop"), ("squash", "squash")):
        transform = open_clip.image_transform(
            24, False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode
        )
        theirs = (transform(image) * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(square(image, 24, resize), theirs), (mode, shape)  # type: ignore[arg-type]
