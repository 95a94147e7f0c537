"""Images: decoding, the three ways to a square, and the place of boxes; the cache of pixels."""

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spatialbench.data import image_cache
from spatialbench.data.embspatial.reader import load
from spatialbench.data.images import (
    PADDING,
    BadImage,
    Resize,
    clip,
    decode,
    fit,
    place,
)
from spatialbench.data.records import Box
from spatialbench.utils.cache import ABANDONED_SECONDS
from tests.support.checks import refused
from tests.support.records import direction, jpeg, text, write

RESIZES: tuple[Resize, ...] = ("squash", "crop", "letterbox")


@pytest.fixture(autouse=True)
def entries(cache: Path) -> Path:
    return cache / "images"


@pytest.mark.parametrize(
    ("resize", "expected"),
    [
        ("squash", (24, 24, 9.6, 9.6)),
        ("crop", (16, 24, 12.8, 9.6)),  # 0.2 a pixel, 16 pixels lost on either side
        ("letterbox", (24, 30, 9.6, 7.2)),  # 0.15 a pixel, 12 rows of padding above
    ],
)
def test_places_by_hand(resize: Resize, expected: tuple[float, ...]) -> None:
    placed = place(Box(160, 120, 64, 48), (640, 480), 96, resize)
    assert (placed.x, placed.y, placed.w, placed.h) == pytest.approx(expected)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(64, 48), (48, 64), (31, 97), (1, 1), (32, 32)])
def test_a_marked_box_is_where_place_says(resize: Resize, size: tuple[int, int]) -> None:
    width, height = size
    box = Box(width // 4, height // 4, max(width // 4, 1), max(height // 2, 1))  # left of centre
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[int(box.y) : int(box.y + box.h), int(box.x) : int(box.x + box.w)] = 255
    fitted = fit(Image.fromarray(pixels), 32, resize)
    assert fitted.shape == (32, 32, 3)
    placed = clip(place(box, size, 32, resize), 32, 32)
    centre = fitted[int(placed.centre[1]), int(placed.centre[0])]
    assert (centre > 128).all()
    lit = (fitted.min(axis=2) > 128).sum()
    assert lit == pytest.approx(placed.w * placed.h, rel=0.15, abs=placed.w + placed.h)


def test_the_letterbox_pads_with_the_mean_colour_and_a_square_comes_back_exactly() -> None:
    fitted = fit(Image.new("RGB", (64, 32), (255, 255, 255)), 32, "letterbox")
    assert (fitted[[*range(8), *range(24, 32)]] == PADDING).all()
    assert (fitted[8:24] == 255).all()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for resize in RESIZES:
        assert np.array_equal(fit(Image.fromarray(pixels), 32, resize), pixels)


def test_upright_turns_a_photograph_and_datasets_stay_as_stored() -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.new("RGB", (64, 48)).save(stream, "JPEG", exif=exif)
    assert decode(stream.getvalue()).size == (64, 48)
    assert decode(stream.getvalue(), upright=True).size == (48, 64)


def test_an_image_beyond_the_limit_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BadImage, match="exceeds limit"):
        decode(jpeg())


def records_file(tmp_path: Path, images: int = 3) -> Path:
    raws = [direction(f"r{i}", image=text(jpeg(i))) for i in range(images)]
    return write(tmp_path / "file.json", raws)


def test_the_cache_holds_the_resized_pixels(tmp_path: Path, entries: Path) -> None:
    loaded = load(records_file(tmp_path), 24)
    images = loaded.record_set.images
    assert isinstance(images, np.memmap)
    assert images.shape == (3, 24, 24, 3)
    for i in range(3):
        assert np.array_equal(images[i], fit(decode(jpeg(i)), 24, "squash"))
    assert loaded.image_keys == [hashlib.sha1(jpeg(i)).hexdigest() for i in range(3)]
    (entry,) = entries.iterdir()  # and no temporary folder
    assert {path.name for path in entry.iterdir()} == {"images.u8", "index.json"}


def test_a_second_load_decodes_nothing_and_is_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = records_file(tmp_path)
    first = load(path, 24)
    monkeypatch.setattr(image_cache, "decode", lambda data: pytest.fail("decoded again"))
    second = load(path, 24)
    assert second.record_set.records == first.record_set.records
    assert second.record_set.fingerprint == first.record_set.fingerprint
    assert np.array_equal(second.record_set.images, first.record_set.images)
    assert (second.image_keys, second.report) == (first.image_keys, first.report)


def test_the_key_is_content_size_and_resize_and_not_the_name(tmp_path: Path, entries: Path) -> None:
    path = records_file(tmp_path)
    prints = {load(path, 24).record_set.fingerprint}
    renamed = path.rename(tmp_path / "renamed.json")
    load(renamed, 24)
    assert len(list(entries.iterdir())) == 1
    prints.add(load(renamed, 32).record_set.fingerprint)
    prints.add(load(renamed, 24, "crop").record_set.fingerprint)
    prints.add(load(records_file(tmp_path, 2), 24).record_set.fingerprint)
    assert len(list(entries.iterdir())) == len(prints) == 4


def test_only_images_of_kept_records_take_a_row(tmp_path: Path) -> None:
    """The first record of image 0 is dropped, its second one is not."""
    raws = [
        direction("r0", a="lamp"),
        direction("r1", image=text(jpeg(1))) | {"relation": "on"},
        direction("r2", image=text(jpeg(2))),
        direction("r3"),
    ]
    for _ in range(2):
        loaded = load(write(tmp_path / "file.json", raws), 24)
        assert [(r.record_id, r.image) for r in loaded.record_set.records] == [("r2", 0), ("r3", 1)]
        assert loaded.report.images == 2
        for row, seed in enumerate((2, 0)):
            expected = fit(decode(jpeg(seed)), 24, "squash")
            assert np.array_equal(loaded.record_set.images[row], expected)


def test_a_changed_image_beside_the_file_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    path = write(tmp_path / "file.json", [direction(image="a.jpg")])
    before = load(path, 24).record_set.fingerprint
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    after = load(path, 24).record_set
    assert after.fingerprint != before
    assert np.array_equal(after.images[0], fit(decode(jpeg(1)), 24, "squash"))


@pytest.mark.parametrize("damage", ["index", "pixels", "rows", "no index"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, entries: Path, damage: str) -> None:
    path = records_file(tmp_path)
    expected = np.array(load(path, 24).record_set.images)
    (entry,) = entries.iterdir()
    index = entry / "index.json"
    if damage == "index":
        index.write_text("{")
    elif damage == "pixels":
        os.truncate(entry / "images.u8", 1000)
    elif damage == "rows":
        index.write_text(json.dumps(json.loads(index.read_text()) | {"rows": 2}))
    else:
        index.unlink()
    assert np.array_equal(load(path, 24).record_set.images, expected)


BUILD_AND_DIE = """
import os, signal, sys
from spatialbench.data import image_cache
from spatialbench.data.embspatial import reader
fit, sizes = image_cache.fit, iter([24])
def dying(image, size, resize):
    return fit(image, next(sizes, None) or os.kill(os.getpid(), signal.SIGKILL), resize)
image_cache.fit = dying
reader.load(sys.argv[1], 24)
"""


def test_a_killed_build_leaves_no_entry_and_the_next_start_builds_it(
    tmp_path: Path, entries: Path
) -> None:
    path = records_file(tmp_path)
    command = [sys.executable, "-c", BUILD_AND_DIE, path]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    (leftover,) = entries.iterdir()  # a temporary folder
    assert leftover.name.startswith(".")
    old = time.time() - 2 * ABANDONED_SECONDS
    for item in (*leftover.iterdir(), leftover):
        os.utime(item, (old, old))
    assert load(path, 24).record_set.images.shape == (3, 24, 24, 3)
    (entry,) = entries.iterdir()  # the leftover is gone
    assert not entry.name.startswith(".")


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path, entries: Path) -> None:
    path = records_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-700])
    with refused("broken download"):
        load(path, 24)
    assert list(entries.iterdir()) == []


LIMITED = """
import resource, sys
from spatialbench.data.embspatial.reader import load
from spatialbench.utils.cache import ABANDONED_SECONDS
from spatialbench.utils.errors import SpatialbenchError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # as a disk that is full after 4 kB
try:
    load(sys.argv[1], 24)
except SpatialbenchError as error:
    print(error)
"""


def test_a_full_disk_is_one_line(tmp_path: Path, entries: Path) -> None:
    command = [sys.executable, "-c", LIMITED, records_file(tmp_path, 5)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = run.stdout.splitlines()
    assert line.startswith(f"cannot write the image cache in {entries.parent}: File too large")
    assert "SPATIALBENCH_CACHE" in line
    assert list(entries.iterdir()) == []
