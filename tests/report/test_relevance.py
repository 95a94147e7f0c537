"""``maps --relevance``: shares of a box by hand, the figure, the command and its mistakes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spatialbench.cli.main import main
from spatialbench.config.experiment import resolve
from spatialbench.data.images import fit
from spatialbench.evaluation.relevance import relevance
from spatialbench.report.relevance import Scene, draw, inside, overlay
from spatialbench.training.score import load_method
from tests.support import tiny

CAPTION = "The sofa is left of the lamp."


def test_what_lies_in_a_box_by_hand() -> None:
    found = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert inside(found, (0, 0, 1, 1)) == pytest.approx(100)
    assert inside(found, (0.5, 0, 0.5, 1)) == pytest.approx(60)
    assert inside(found, (0.25, 0.5, 0.25, 0.5)) == pytest.approx(15)  # half of the cell of 3
    assert inside(found * 0, (0, 0, 1, 1)) == 0


def test_bright_where_it_is_relevant() -> None:
    found = np.zeros((4, 4), dtype=np.float32)
    found[0, 3] = 2
    shown = np.asarray(overlay(Image.new("RGB", (40, 40), (120, 120, 120)), found)).astype(int)
    assert shown[2, 37].sum() > shown[30, 5].sum() + 150
    assert (np.asarray(overlay(Image.new("RGB", (8, 8)), found * 0)) < 10).all()


def test_the_figure_has_both_boxes_on_every_picture() -> None:
    scene = Scene(
        Image.new("RGB", (60, 40)), CAPTION, [(0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.25, 0.25)]
    )
    figure = draw(scene, {"a": np.ones((2, 2)), "b": np.ones((4, 4))})
    assert [axis.get_title() for axis in figure.axes] == ["picture", "a", "b"]
    for axis in figure.axes:
        boxes = [patch.get_bbox().bounds for patch in axis.patches]
        np.testing.assert_allclose(boxes, [(6, 8, 18, 16), (30, 20, 15, 10)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")
    tiny.page(folder, "zeroshot", rest="trainer: {max_steps: 0}\n")
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
    monkeypatch.delenv("SPATIALBENCH_DEBUG", raising=False)
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")


def argv(folder: Path, *words: str) -> list[str]:
    page = ["--config", str(folder / "zeroshot.yaml"), "--track", "tiny", "--budget", "smoke"]
    return ["maps", "--relevance", *page, *words]


def test_a_picture_of_ones_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--image", "a.png", "--caption", CAPTION, "--box", "0,0,30,40", "--box", "30,0,30,40"]
    assert main(argv(folder, *words, "--format", "json")) == 0
    found = json.loads(capsys.readouterr().out)
    model, _ = load_method(resolve(folder / "zeroshot.yaml", "tiny", "smoke"), None, Path("runs"))
    square = fit(Image.open("a.png"), 32, "squash").transpose(2, 0, 1).copy()
    expected = relevance(model, torch.from_numpy(square)[None], CAPTION)[0].numpy()
    (page,) = found["pages"]
    np.testing.assert_allclose(page["map"], expected / expected.sum(), atol=1e-5)
    assert sum(page["inside"]) == pytest.approx(100, abs=1e-3)
    before = Path("relevance.png").read_bytes()
    assert main(argv(folder, *words)) == 0
    assert "in the box of the subject" in capsys.readouterr().out
    assert Path("relevance.png").read_bytes() == before
    assert main(argv(folder, *words, "--format", "json", "--attention")) == 0
    assert json.loads(capsys.readouterr().out)["pages"] == found["pages"]
    with Image.open("relevance.png") as wide, Image.open(io.BytesIO(before)) as narrow:
        assert wide.width > narrow.width  # a column more


def test_a_record_brings_its_caption_and_boxes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from spatialbench.config.pages import load_track
    from spatialbench.report.html.record_choice import test_records as records_of

    record = records_of(load_track(folder / "tracks" / "tiny.yaml"), "smoke").records[2]
    assert (
        main(argv(folder, "--record", record.record_id, "--format", "json", "--out", "b.png")) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["caption"] == record.statement.caption
    box = record.boxes[record.subject]
    np.testing.assert_allclose(
        found["boxes"][0], [value / 32 for value in (box.x, box.y, box.w, box.h)], atol=1e-3
    )
    assert Path("b.png").is_file()


def test_mistakes_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--image", "a.png", "--caption", CAPTION]
    for words, said in {
        (): "give --record ID, or --image FILE with --caption",
        ("--image", "a.png"): "--image needs --caption",
        (*own, "--record", "x"): "give --record ID, or --image",
        ("--record", "x", "--box", "1,1,2,2"): "--box belongs to --image",
        ("--record", "nothing"): "no record 'nothing' in",
        (*own, "--box", "1,1,2"): "needs x,y,w,h in pixels",
        (*own, "--box", "50,0,20,5"): "does not lie in a.png, which has 60 x 40 pixels",
        (*own, *["--box", "1,1,2,2"] * 3): "no more",
        (*own, "--out", "a.jpg"): "a name that ends in .png",
        ("--image", "none.png", "--caption", CAPTION): "cannot read the image none.png",
    }.items():
        assert main(argv(folder, *words)) == 2
        lines = capsys.readouterr().err.splitlines()
        assert said in lines[-1]
        assert lines[-1].startswith("spatialbench: ")
