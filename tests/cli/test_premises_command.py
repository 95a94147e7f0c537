"""The command premises: any student, VFM and data, and every mistake one line."""

import json
from pathlib import Path

import pytest

from spatialbench.cli.main import main
from tests.support import coco_files, models, tiny

Capsys = pytest.CaptureFixture[str]
STUDENT = ("--student", models.student(), "--vfm", models.SAME)


def mistake(capsys: Capsys, *words: str) -> str:
    assert main(["premises", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_records_with_boxes_give_all_but_depth_and_retrieval(capsys: Capsys) -> None:
    files = ("--data", "pages/train.json", "--json", "p.json", "--figure", "p.png")
    assert main(["premises", *STUDENT, *files]) == 1  # random weights are below some bar
    report = json.loads(Path("p.json").read_text())
    printed = capsys.readouterr().out
    assert report["data"] == "embspatial/train"
    assert report["below"]
    assert all(line in printed for line in report["below"])
    assert "zero_shot" in report["student"]["relations"]["left"]
    assert "object_top1" in report["student"]["recognition"]
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_s_checkpoint_brings_its_own_vfm(folder: Path) -> None:
    cls = "spatialbench.methods.spatial_attn.SpatialAttention"
    tiny.page(
        folder, "connected", cls, f"  init_args: {{vfm: '{models.TWO_HEADS}', cache: false}}\n"
    )
    page = ("--config", "pages/connected.yaml", "--track", "tiny", "--budget", "smoke")
    assert main(["fit", *page]) == 0
    assert main(["premises", *page, "--data", "pages/train.json", "--json", "p.json"]) == 1
    names = json.loads(Path("p.json").read_text())["models"]
    assert names["vfm"] == models.TWO_HEADS
    assert names["student"].startswith("connected (runs")


def test_a_coco_file_without_statements(tmp_path: Path, capsys: Capsys) -> None:
    raw = coco_files.instances(tmp_path)
    for id_ in range(3, 7):
        coco_files.write_image(tmp_path / "images", f"{id_}.png", seed=id_)
        raw["images"].append(coco_files.entry(id_, f"{id_}.png"))
    Path("file.json").write_text(json.dumps(raw))
    data = ("--data", "file.json", "--images", "images")
    assert main(["premises", "--student", "none", "--vfm", models.OTHER, *data]) == 1
    printed = capsys.readouterr().out
    assert "on 6 images of coco/file" in printed
    assert "captions" not in printed
    line = mistake(capsys, *STUDENT, *data[:2])
    assert "file.json is a COCO file; give its images: --images FOLDER" in line


def test_mistakes_are_one_line(capsys: Capsys) -> None:
    assert "the test split is kept for the table" in mistake(capsys, "--data", "rooms/test")
    assert "there is no model" in mistake(capsys, "--student", "none", "--vfm", "none")
    both = ("--student", "rooms-student", "--config", "page.yaml")
    assert "--student and --config: give one" in mistake(capsys, *both)
    assert "--ckpt_path belongs to --config" in mistake(capsys, "--ckpt_path", "x.ckpt")
    assert "ends in .png" in mistake(capsys, "--figure", "p.pdf")
