"""Batches of pictures alone: always the same for the same key, and every file told of that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer
from PIL import Image

from spatialbench.data.datamodule import PairDataModule
from spatialbench.data.image_batches import (
    ImageDataset,
    PictureDataModule,
    images_of,
    random_crop,
    resized,
)
from spatialbench.data.image_sources import FolderImages
from spatialbench.data.images import fit
from spatialbench.utils.errors import SpatialbenchError

CROP = (0.9, 1.0)
ASPECT = (3 / 4, 4 / 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight pictures, 40 x 30, in two folders; file k is nearly of the grey 20 k."""
    for k in range(8):
        place = tmp_path / ("a" if k < 4 else "b") / "deep"
        place.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(k).integers(0, 8, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise + np.uint8(20 * k)).save(
            place / (f"{k}.PNG" if k % 2 else f"{k}.png")
        )
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    return tmp_path


def level(pixels: torch.Tensor) -> list[int]:
    """Which file each picture of a batch is."""
    return (pixels.float().mean((1, 2, 3)) / 20).long().tolist()


def test_a_folder_is_read_with_all_its_folders_in_the_order_of_its_paths(folder: Path) -> None:
    dataset = ImageDataset(FolderImages(folder), 16)
    assert len(dataset) == 8
    found = dataset[np.array([5, 0, 3]), (0, 0, 0)]
    assert found["pixels"].dtype == torch.uint8
    assert found["pixels"].shape == (3, 3, 16, 16)
    assert level(found["pixels"]) == [5, 0, 3]
    assert len(FolderImages(folder, images=3)) == 3
    with Image.open(folder / "b" / "deep" / "5.PNG") as opened:  # the centre square
        square = fit(opened.convert("RGB"), 16, "crop")
    assert np.array_equal(found["pixels"][0].numpy().transpose(1, 2, 0), square)
    assert torch.equal(dataset.whole(5), found["pixels"][0])


def test_crops_are_of_the_key_and_only_of_it(folder: Path) -> None:
    dataset = ImageDataset(FolderImages(folder), 16, CROP, ASPECT)
    rows = np.array([2, 2, 6])
    first, again, other = (
        dataset[rows, key]["pixels"] for key in ((1, 2, 3), (1, 2, 3), (1, 2, 4))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])  # every picture has its own
    assert not torch.equal(first[2], dataset.whole(6))
    plain = ImageDataset(FolderImages(folder), 16)
    assert torch.equal(plain[rows, (1, 2, 3)]["pixels"], plain[rows, (1, 2, 4)]["pixels"])


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (100, 100)])
def test_crops_have_the_share_and_the_shape_that_is_asked_for(size: tuple[int, int]) -> None:
    boxes = np.array(
        [random_crop(np.random.default_rng(k), size, (0.5, 0.8), (0.8, 1.25)) for k in range(300)]
    )
    x, y, w, h = boxes.T
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (x + w <= size[0]).all()
    assert (y + h <= size[1]).all()
    share, aspect = w * h / (size[0] * size[1]), w / h
    assert 0.49 < share.min() < 0.52
    assert 0.75 < share.max() < 0.81
    assert 0.78 < aspect.min() < 0.83
    assert 1.2 < aspect.max() < 1.28
    assert (x == 0).mean() < 0.2  # not all at the corner


def test_a_picture_that_no_crop_fits_in_gives_its_centre() -> None:
    rng = np.random.default_rng(0)
    assert random_crop(rng, (400, 40), (0.9, 1.0), ASPECT) == (173, 0, 53, 40)
    assert random_crop(rng, (40, 400), (0.9, 1.0), ASPECT) == (0, 173, 40, 53)
    assert random_crop(rng, (1, 1), (0.9, 1.0), ASPECT) == (0, 0, 1, 1)


def test_the_students_size_is_antialiased_and_the_codes_is_not() -> None:
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 255  # finer than 16 pixels can show
    assert resized(stripes, 16).float().std() < 5
    legacy = resized(stripes, 24, antialias=False)
    assert legacy.float().std() > 20
    picture = torch.randint(
        0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    pillow = [
        Image.fromarray(p.numpy().transpose(1, 2, 0)).resize((24, 24), Image.Resampling.BICUBIC)
        for p in picture
    ]
    wanted = torch.from_numpy(
        np.stack([np.asarray(p) for p in pillow]).transpose(0, 3, 1, 2).copy()
    )
    assert (resized(picture, 24).int() - wanted.int()).abs().max() <= 1  # CLIP's own transform
    assert resized(picture, 64) is picture


def test_files_that_cannot_be_read_are_told_of_and_replaced(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    broken = folder / "a" / "deep" / "2.png"
    broken.write_bytes(broken.read_bytes()[:200])
    (folder / "a" / "deep" / "3.PNG").write_bytes(b"no picture")
    dataset = ImageDataset(FolderImages(folder), 16)
    for epoch in range(2):
        assert level(dataset[np.array([1, 2, 3]), (0, epoch, 0)]["pixels"]) == [1, 4, 4]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # each once
    assert str(broken) in lines[0]
    assert "the next picture stands in" in lines[0]
    with pytest.raises(
        SpatialbenchError, match=r"3\.PNG: not an image that Pillow can read; repair or remove it"
    ):
        ImageDataset(FolderImages(folder, strict=True), 16)[np.array([3]), (0, 0, 0)]
    for path in folder.rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(SpatialbenchError, match=r"none of the 8 pictures in .* can be read"):
        dataset[np.array([0]), (0, 0, 0)]


def test_many_bad_files_are_counted(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for k in range(110):
        (folder / f"{k:03d}.jpg").write_bytes(b"no picture")
    FolderImages(folder).picture(0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["10", "100"]


def module(folder: Path, **arguments: object) -> PictureDataModule:
    made = PictureDataModule(str(folder), 16, picture_batch=2, seed=3, **arguments)  # type: ignore[arg-type]
    made.setup_training()
    return made


def test_an_epoch_shows_every_picture_once_and_goes_on_where_it_stopped(folder: Path) -> None:
    made = module(folder, picture_crop=CROP)
    whole = list(made.train_dataloader())
    assert sorted(number for batch in whole for number in level(batch["pixels"])) == list(range(8))
    assert [batch["key"] for batch in whole] == [[3, 0, k] for k in range(4)]
    loader = module(folder, picture_crop=CROP).train_dataloader()
    loader.load_state_dict({"epoch": 0, "seen": 2})  # type: ignore[attr-defined]
    rest = list(loader)
    assert len(rest) == 2
    assert all(torch.equal(a["pixels"], b["pixels"]) for a, b in zip(rest, whole[2:], strict=True))


def test_the_rooms_are_as_many_as_the_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path))
    made = PictureDataModule(picture_size=32, train_images=4, picture_batch=2)
    made.setup_training()
    assert len(made.image_set) == 4
    assert made.image_set.whole(0).float().std() > 10
    few = PictureDataModule(picture_size=32, train_images=4, picture_images=2, picture_batch=2)
    few.setup_training()
    assert len(few.image_set) == 2
    assert torch.equal(few.image_set.whole(1), made.image_set.whole(1))


@pytest.mark.parametrize(
    ("settings", "what"),
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
def test_wrong_settings(settings: dict, what: str) -> None:
    with pytest.raises(SpatialbenchError, match=what):
        PictureDataModule(**settings)


def test_folders_without_enough_pictures(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SpatialbenchError,
        match=r"has 8 pictures, fewer than one batch of 9; lower data\.picture_batch",
    ):
        PictureDataModule(str(folder), 16, picture_batch=9).setup_training()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpatialbenchError, match=r"there is no picture .* in .*empty"):
        FolderImages(tmp_path / "empty")


def test_the_datamodule_that_a_method_of_pictures_needs() -> None:
    trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.datamodule = PairDataModule()  # type: ignore[attr-defined]
    with pytest.raises(
        SpatialbenchError, match=r"the page needs data\.class_path .*pictures\.PictureDataModule"
    ):
        images_of(trainer)
