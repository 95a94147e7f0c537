"""``data check`` and ``data export`` of files in COCO's format."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from spatialbench.cli.data import data as data_command
from spatialbench.data.coco.coco_check import UNREADABLE
from spatialbench.data.coco.coco_export import CATEGORY, export_coco
from spatialbench.data.coco.coco_regions import CocoRegions
from spatialbench.data.rooms import RoomsSet, load
from spatialbench.data.rooms.kinds import KINDS
from tests.support.checks import refused
from tests.support.coco_files import annotation, instances


def test_the_check_prints_images_regions_and_the_first_of_each_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    annotations = [annotation(k, 1, category_id=c) for k, c in enumerate((2, 2, 9, 5, 3))]
    raw = instances(tmp_path, [*annotations, annotation(9, 2, iscrowd=1), annotation(10, 2)])
    (tmp_path / "file.json").write_text(json.dumps(raw))
    data = bytearray((tmp_path / "images" / "2.png").read_bytes())
    data[80] ^= 255  # whole by its ends, and broken inside
    (tmp_path / "images" / "2.png").write_bytes(data)
    command = ["check", str(tmp_path / "file.json"), "--images", str(tmp_path / "images")]
    assert data_command(command) == 0
    text = capsys.readouterr().out
    lines = [line.replace("│", " ").split() for line in text.splitlines()]
    for row in ("dog 2", "cat 1", "tree 1", "3 of 3 classes 4"):
        assert row.split() in lines
    assert "1 images, 3 left out (images and regions)" in text
    first = "annotation 4 of image 1 (1.png): no category has the id 3"
    assert f"1 dropped: category is unknown (first {first})" in text
    assert "1 dropped: crowd (first annotation 9 of image 2" in text
    assert f"1 dropped: {UNREADABLE} (first image 2: " in text
    with refused("category has the id 3; repair"):
        data_command([*command, "--strict"])


def test_the_command_refuses_what_is_no_coco_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(instances(tmp_path)), encoding="utf-8-sig")
    message = "is a COCO file; give its images: --images FOLDER"
    with refused(message):
        data_command(["check", str(path)])
    for content in (b'[{"images": 1}]', b"PAR1", b""):
        path.write_bytes(content)
        with refused("is no COCO file"):
            data_command(["check", str(path), "--images", str(tmp_path)])
    with refused(r"none\.json: No such file"):
        data_command(["check", str(tmp_path / "none.json"), "--images", str(tmp_path)])


def same(rooms: RoomsSet, regions: CocoRegions) -> int:
    """Assert that pixels, boxes, labels and masks are the same; return the number of regions."""
    size, count = rooms.images.shape[1], 0
    assert regions.classes == tuple(kind.name for kind in KINDS)
    assert len(regions) == len(rooms.scenes)
    assert not regions.skipped
    for row, scene in enumerate(rooms.scenes):
        found, views = regions[row], scene.large
        assert regions.scene(row) == str(scene.index)
        assert np.array_equal(found.pixels.permute(1, 2, 0).numpy(), rooms.images[row])
        assert [regions.classes[label] for label in found.label] == [view.name for view in views]
        boxes = [view.box.corners for view in views]
        expected = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / size
        assert torch.equal(found.boxes, expected)
        for mask, view in zip(found.masks, views, strict=True):
            assert np.array_equal(mask.numpy(), rooms.masks[row] == view.code)
        count += len(views)
    return count


def test_rooms_of_another_size_and_a_closed_folder_are_one_line(
    tmp_path: Path, cache: Path
) -> None:
    rooms = load("val", 1, 20)
    with refused("cannot export rooms of 20 pixels at 48; load that size"):
        export_coco(rooms, tmp_path / "out.json", 48)
    assert list(tmp_path.iterdir()) == [cache]
    (tmp_path / "file").write_text("")
    with refused("cannot write"):
        export_coco(rooms, tmp_path / "file" / "out.json", 20)


def test_rendered_rooms_go_out_by_the_command_and_come_back(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    options = "--split val --limit 2 --size 48 --form coco"
    assert data_command(["export", "--out", str(out), *options.split()]) == 0
    rooms = load("val", 2, 48)
    count = same(rooms, CocoRegions(out, tmp_path / "out_images", 48, strict=True, smallest=1.0))
    assert count > 4
    assert capsys.readouterr().out == f"{out}: {count} regions in 2 images\n"
    raw = json.loads(out.read_text())
    expected = list(enumerate((kind.name for kind in KINDS), start=1))
    assert [(item["id"], item["name"]) for item in raw["categories"]] == expected
    views = [(scene.index, view) for scene in rooms.scenes for view in scene.large]
    for id_, (item, (image, view)) in enumerate(zip(raw["annotations"], views, strict=True), 1):
        assert (item["id"], item["image_id"], item["iscrowd"]) == (id_, image, 0)
        assert item["category_id"] == CATEGORY[view.name]
        assert coco_mask.area(item["segmentation"]) == item["area"] == view.area
