"""Batches of images alone: always the same for the same key; unreadable files are reported."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image

from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.image_batches import (
    ImageDataModule,
    ImageDataset,
    images_of,
    random_crop,
    resized,
)
from spatialbench.data.image_sources import FolderImages
from spatialbench.data.images import fit
from tests.support.checks import refused

CROP = (0.9, 1.0)
ASPECT = (3 / 4, 4 / 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight images, 40 x 30, in two folders; file k is nearly of the grey 20 k."""
    for k in range(8):
        place = tmp_path / ("a" if k < 4 else "b") / "deep"
        place.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(k).integers(0, 8, (30, 40, 3), dtype=np.uint8)
        name = f"{k}.PNG" if k % 2 else f"{k}.png"
        Image.fromarray(noise + np.uint8(20 * k)).save(place / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    return tmp_path


def level(pixels: torch.Tensor) -> list[int]:
    """Return the file number of each image of a batch."""
    return (pixels.float().mean((1, 2, 3)) / 20).long().tolist()


def test_a_folder_is_read_recursively_in_the_order_of_its_paths(folder: Path) -> None:
    dataset = ImageDataset(FolderImages(folder), 16)
    assert len(dataset) == 8
    made = dataset[np.array([5, 0, 3]), (0, 0, 0)]["pixels"]
    assert (made.dtype, made.shape) == (torch.uint8, (3, 3, 16, 16))
    assert level(made) == [5, 0, 3]
    assert len(FolderImages(folder, images=3)) == 3
    with Image.open(folder / "b" / "deep" / "5.PNG") as opened:  # the centre square
        square = fit(opened.convert("RGB"), 16, "crop")
    assert np.array_equal(made[0].numpy().transpose(1, 2, 0), square)
    assert torch.equal(dataset.whole(5), made[0])


def test_crops_depend_on_the_key_alone(folder: Path) -> None:
    dataset = ImageDataset(FolderImages(folder), 16, CROP, ASPECT)
    rows = np.array([2, 2, 6])
    first, again, other = (dataset[rows, (1, 2, number)]["pixels"] for number in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])  # every image has its own
    assert not torch.equal(first[2], dataset.whole(6))
    plain = ImageDataset(FolderImages(folder), 16)
    assert torch.equal(plain[rows, (1, 2, 3)]["pixels"], plain[rows, (1, 2, 4)]["pixels"])


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (100, 100)])
def test_crops_have_the_requested_share_and_shape(size: tuple[int, int]) -> None:
    boxes = np.array(
        [random_crop(np.random.default_rng(k), size, (0.5, 0.8), (0.8, 1.25)) for k in range(300)]
    )
    x, y, w, h = boxes.T
    assert min(x.min(), y.min(), (size[0] - x - w).min(), (size[1] - y - h).min()) >= 0
    share, aspect = w * h / (size[0] * size[1]), w / h
    assert 0.49 < share.min() < 0.52
    assert 0.75 < share.max() < 0.81
    assert 0.78 < aspect.min() < 0.83
    assert 1.2 < aspect.max() < 1.28
    assert (x == 0).mean() < 0.2  # not all at the corner


def test_an_image_without_a_possible_crop_gives_its_centre() -> None:
    rng = np.random.default_rng(0)
    assert random_crop(rng, (400, 40), CROP, ASPECT) == (173, 0, 53, 40)
    assert random_crop(rng, (40, 400), CROP, ASPECT) == (0, 173, 40, 53)
    assert random_crop(rng, (1, 1), CROP, ASPECT) == (0, 0, 1, 1)


def test_the_students_size_is_antialiased_but_not_in_the_legacy_code() -> None:
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 255  # finer than 16 pixels can show
    assert resized(stripes, 16).float().std() < 5
    assert resized(stripes, 24, antialias=False).float().std() > 20
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pillow = Image.fromarray(noise).resize((24, 24), Image.Resampling.BICUBIC)
    wanted = torch.from_numpy(np.asarray(pillow).transpose(2, 0, 1).astype(int))
    image = torch.from_numpy(noise.transpose(2, 0, 1).copy())[None]
    assert (resized(image, 24)[0].int() - wanted).abs().max() <= 1  # CLIP's own transform
    assert resized(image, 64) is image


def test_unreadable_files_are_reported_and_replaced(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    broken = folder / "a" / "deep" / "2.png"
    broken.write_bytes(broken.read_bytes()[:200])
    (folder / "a" / "deep" / "3.PNG").write_bytes(b"no image")
    dataset = ImageDataset(FolderImages(folder), 16)
    for epoch in range(2):
        assert level(dataset[np.array([1, 2, 3]), (0, epoch, 0)]["pixels"]) == [1, 4, 4]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # each once
    assert str(broken) in lines[0]
    assert "the next image replaces it" in lines[0]
    with refused(r"3\.PNG: not an image .*; repair or remove it"):
        FolderImages(folder, strict=True).image(3)
    for path in folder.rglob("*.*"):
        path.write_bytes(b"")
    with refused(r"none of the 8 images in .* can be read"):
        dataset[np.array([0]), (0, 0, 0)]
    for k in range(110):
        (folder / f"{k:03d}.jpg").write_bytes(b"no image")
    capsys.readouterr()
    with refused("none of the 118"):
        FolderImages(folder).image(0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["10", "100"]  # many are counted


def test_the_rooms_are_as_many_as_the_pairs_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    whole, few = (
        ImageDataModule(picture_size=32, train_images=4, picture_images=count, picture_batch=2)
        for count in (None, 2)
    )
    whole.setup_training()
    few.setup_training()
    assert (len(whole.image_set), len(few.image_set)) == (4, 2)
    assert whole.image_set.whole(0).float().std() > 10
    assert torch.equal(few.image_set.whole(1), whole.image_set.whole(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"picture_batch": 0}, r"data\.picture_batch is 0"),
        ({"picture_images": 0}, r"data\.picture_images is 0"),
        ({"picture_size": 4}, r"data\.picture_size is 4; it must be 8 or more"),
        ({"picture_path": "nowhere"}, r"data\.picture_path: there is no folder nowhere"),
        ({"picture_crop": (0.9, 0.5)}, "must rise"),
        ({"picture_crop": (0.9, 1.5)}, "must rise"),
        ({"picture_aspect": (0.0, 1.0)}, "must rise"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with refused(message):
        ImageDataModule(**settings)


def test_folders_without_enough_images(folder: Path, tmp_path: Path) -> None:
    few = r"has 8 images, fewer than one batch of 9; lower data\.picture_batch"
    with refused(few):
        ImageDataModule(str(folder), 16, picture_batch=9).setup_training()
    (tmp_path / "empty").mkdir()
    with refused(r"there is no image .* in .*empty"):
        FolderImages(tmp_path / "empty")


def test_a_method_of_images_needs_their_datamodule() -> None:
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.datamodule = PairDataModule()  # type: ignore[attr-defined]
    with refused(r"needs data\.class_path .*\.ImageDataModule"):
        images_of(trainer)
