"""``spatialbench maps``: the numbers by hand, both figures, the command and its mistakes."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spatialbench.cli.main import main
from spatialbench.cli.maps import share_inside, token_at
from spatialbench.config.experiment import resolve
from spatialbench.data.images import fit
from spatialbench.evaluation.relevance import relevance
from spatialbench.report.map_figures import Point, draw_relevance, draw_similarity, overlay
from spatialbench.training.controls import test_set as records_of
from spatialbench.training.score import load_method
from tests.support import tiny

CAPTION = "The sofa is left of the lamp."
BASE = ["--track", "tiny", "--budget", "smoke"]


@pytest.mark.parametrize(
    ("x", "y", "token"),
    [
        (0, 0, (0, 0)),
        (59, 39, (1, 3)),  # the last pixel
        (59.999999999999999, 39.999999999999996, (1, 3)),  # the first rounds to 60
        (14, 19, (0, 0)),  # the last pixel of the first cell, both ways
        (15, 20, (1, 1)),  # the first of the next
    ],
)
def test_a_point_lies_in_the_cell_that_holds_it(x: float, y: float, token: tuple) -> None:
    assert token_at(Point(x, y), (60, 40), (2, 4)) == token


def test_shares_by_hand() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert share_inside(values, (0, 0, 1, 1)) == pytest.approx(100)
    assert share_inside(values, (0.5, 0, 0.5, 1)) == pytest.approx(60)
    assert share_inside(values, (0.25, 0.5, 0.25, 0.5)) == pytest.approx(15)  # half of 3's cell
    assert share_inside(values * 0, (0, 0, 1, 1)) == 0


def test_one_colour_scale_a_row_and_points_where_they_were_given() -> None:
    """Two points (rows), two pages of other grids; the second row's values are half the first's."""
    first = np.linspace(0, 1, 6).reshape(2, 3), np.linspace(-0.1, 0.7, 24).reshape(4, 6)
    maps = {f"page{k}": [values, values / 2] for k, values in enumerate(first)}
    points = [Point(5, 30), Point(50, 10)]
    figure = draw_similarity(Image.new("RGB", (60, 40), (200, 30, 30)), points, maps)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["image", "page0", "page1"]
    for row, point in enumerate(points):
        axes = figure.axes[3 * row : 3 * row + 3]
        ends = min(m[row].min() for m in maps.values()), max(m[row].max() for m in maps.values())
        for axis, page in zip(axes[1:], maps.values(), strict=True):
            assert axis.images[-1].get_clim() == pytest.approx(ends)
            np.testing.assert_array_equal(axis.images[-1].get_array(), page[row])
        for axis in axes:
            assert axis.get_ylim() == (40, 0)  # y downwards
            assert axis.lines[0].get_xydata().tolist() == [list(point)]


def test_relevance_is_bright_and_both_boxes_stand_on_every_image() -> None:
    values = np.zeros((4, 4), dtype=np.float32)
    values[0, 3] = 2
    shown = np.asarray(overlay(Image.new("RGB", (40, 40), (120, 120, 120)), values)).astype(int)
    assert shown[2, 37].sum() > shown[30, 5].sum() + 150
    boxes = [(0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.25, 0.25)]
    maps = {"a": np.ones((2, 2)), "b": np.ones((4, 4))}
    figure = draw_relevance(Image.new("RGB", (60, 40)), CAPTION, boxes, maps)
    assert [axis.get_title() for axis in figure.axes] == ["image", "a", "b"]
    for axis in figure.axes:
        drawn = [patch.get_bbox().bounds for patch in axis.patches]
        np.testing.assert_allclose(drawn, [(6, 8, 18, 16), (30, 20, 15, 10)])


@pytest.fixture(autouse=True)
def image(tmp_path: Path, place: None) -> None:
    """Write an image of 60 x 40 pixels where the commands run."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")


def pages(folder: Path, *names: str) -> list[str]:
    return [word for name in names for word in ("--config", str(folder / f"{name}.yaml"))] + BASE


def run(capsys: pytest.CaptureFixture[str], *argv: object, status: int = 0) -> tuple[str, str]:
    """Return the standard output and error of a command."""
    capsys.readouterr()
    assert main(["maps", *(str(word) for word in argv)]) == status
    return capsys.readouterr()


def square(size: int) -> torch.Tensor:
    return torch.tensor(fit(Image.open("a.png"), size, "squash").transpose(2, 0, 1))[None]


@pytest.mark.slow
def test_the_maps_of_two_pages(
    folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*pages(folder, "zeroshot", "clip"), "--runs", trained, "--image", "a.png"]
    argv += ["--point", "10,30", "--point", "59,0"]
    found = json.loads(run(capsys, *argv, "--format", "json")[0])
    assert Image.open("maps.png").size[0] > 400
    assert [point["point"] for point in found["points"]] == [[10, 30], [59, 0]]
    for name, checkpoint in (("zeroshot", None), ("clip", str(next(trained.rglob("last.ckpt"))))):
        model, _ = load_method(resolve(folder / f"{name}.yaml", "tiny", "smoke"), None, trained)
        with torch.inference_mode():
            dense = model.dense(square(64))[0]  # twice the student's 32
        assert dense.shape == (4, 4, 16)
        for point, token in zip(found["points"], ((3, 0), (0, 3)), strict=True):
            (page,) = [each for each in point["pages"] if each["name"] == name]
            facts = page["checkpoint"], page["token"], page["size"]
            assert facts == (checkpoint, list(token), 64)
            np.testing.assert_allclose(page["map"], (dense @ dense[token]).numpy(), atol=2e-6)
            assert page["mean"] == pytest.approx(np.mean(page["map"]), abs=1e-5)
    maps = [np.array([page["map"] for page in point["pages"]]) for point in found["points"]]
    for point, both in zip(found["points"], maps, strict=True):
        assert point["scale"] == pytest.approx([both.min(), both.max()], abs=1e-5)
        shares = [100 * (m > (both.min() + both.max()) / 2).mean() for m in both]
        assert [page["above_midpoint"] for page in point["pages"]] == pytest.approx(shares)
    assert not np.allclose(maps[0][0], maps[0][1])  # the checkpoint was read


def test_the_text_has_a_line_for_every_page_and_point(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*pages(folder, "zeroshot", "zeroshot"), "--image", "a.png", "--point", "1,2"]
    out, err = run(capsys, *argv, "--point", "3.5,4", "--out", "b/c.png")
    starts = [" ".join(line.split("  mean")[0].split()) for line in out.splitlines()]
    names, places = ("zeroshot #1", "zeroshot #2"), ("(1, 2)", "(3.5, 4)")
    assert starts == [f"{name} {place}" for place in places for name in names]
    assert "wrote b/c.png" in err
    assert [path.name for path in Path("b").iterdir()] == ["c.png"]


def test_a_size_that_is_no_multiple_of_the_patch(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*pages(folder, "zeroshot"), "--image", "a.png", "--point", "1,2", "--format", "json"]
    out, err = run(capsys, *argv, "--size", 90)
    assert json.loads(out)["points"][0]["pages"][0]["size"] == 96
    note = "zeroshot: --size 90 is not a multiple of the patch of 16 pixels; 96 is used"
    assert f"note: {note}" in err
    assert "note" not in run(capsys, *argv, "--size", 48)[1]


@pytest.mark.slow
def test_checkpoints_once_a_page(
    folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = str(next(trained.rglob("last.ckpt")))
    argv = [*pages(folder, "zeroshot", "clip"), "--runs", trained, "--image", "a.png"]
    argv += ["--point", "1,2", "--format", "json"]
    for given, used in ((("LAST", last), [None, last]), ((last, "LAST"), [last, last])):
        words = [word for path in given for word in ("--ckpt_path", path)]
        found = json.loads(run(capsys, *argv, *words)[0])
        assert [page["checkpoint"] for page in found["points"][0]["pages"]] == used
    error = run(capsys, *argv, "--ckpt_path", last, status=2)[1]
    assert "2 --config and 1 --ckpt_path" in error


def test_relevance_of_an_image_of_ones_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*pages(folder, "zeroshot"), "--relevance", "--image", "a.png", "--caption", CAPTION]
    argv += ["--box", "0,0,30,40", "--box", "30,0,30,40"]
    found = json.loads(run(capsys, *argv, "--format", "json")[0])
    model, _ = load_method(resolve(folder / "zeroshot.yaml", "tiny", "smoke"), None, Path("runs"))
    expected = relevance(model, square(32), CAPTION)[0].numpy()
    (page,) = found["pages"]
    np.testing.assert_allclose(page["map"], expected / expected.sum(), atol=1e-5)
    assert sum(page["inside"]) == pytest.approx(100, abs=1e-3)
    before = Path("relevance.png").read_bytes()
    assert "in the box of the subject" in run(capsys, *argv)[0]
    assert Path("relevance.png").read_bytes() == before
    again = json.loads(run(capsys, *argv, "--format", "json", "--attention")[0])
    assert again["pages"] == found["pages"]
    with Image.open("relevance.png") as wide, Image.open(io.BytesIO(before)) as narrow:
        assert wide.width > narrow.width  # a column more


def test_relevance_of_a_record(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It brings its caption and its boxes."""
    record = records_of(resolve(folder / "zeroshot.yaml", "tiny", "smoke"))[0].records[2]
    argv = [*pages(folder, "zeroshot"), "--relevance", "--record", record.record_id]
    found = json.loads(run(capsys, *argv, "--format", "json", "--out", "b.png")[0])
    assert found["caption"] == record.statement.caption
    box = record.boxes[record.subject]
    frame = [value / 32 for value in (box.x, box.y, box.w, box.h)]
    np.testing.assert_allclose(found["boxes"][0], frame, atol=1e-6)
    assert Path("b.png").is_file()


IMAGE, POINT = ("--image", "a.png"), ("--point", "1,2")
OWN = (*IMAGE, "--caption", CAPTION, "--relevance")
MISTAKES = {
    IMAGE: "--point",
    POINT: "--image",
    (*POINT, "--image", "none.png"): "cannot read the image none.png: No such file",
    (*POINT, "--image", "cut.png"): "cut.png: the image cannot be decoded",
    (*IMAGE, "--point", "60,2"): "60,2 lies outside of a.png, which has 60 x 40 pixels",
    (*IMAGE, "--point", "1,nan"): "got '1,nan'",
    (*IMAGE, "--point", "1"): "needs x,y in pixels",
    (*IMAGE, *POINT, "--size", "0"): "1 or more",
    ("--relevance", *IMAGE): "--image needs --caption",
    (*OWN, *("--box", "1,1,2,2") * 3): "no more",
    (*IMAGE, *POINT, "--caption", "x"): "belong to --relevance",
    (*IMAGE, *POINT, "--out", "maps.jpg"): "give a name that ends in .png, not maps.jpg",
    (*IMAGE, *POINT, "--out", "a.png/b.png"): "cannot write a.png/b.png",
    ("--relevance",): "give --record ID, or --image FILE with --caption",
    (*OWN, *POINT): "--point and --size do not go with --relevance",
    ("--relevance", "--record", "x", "--box", "1,1,2,2"): "--box belongs to --image",
    ("--relevance", "--record", "nothing"): "no record 'nothing' in",
    (*OWN, "--box", "1,1,2"): "needs x,y,w,h in pixels",
    (*OWN, "--box", "50,0,20,5"): "does not lie in a.png, which has 60 x 40 pixels",
}


@pytest.mark.slow
def test_mistakes_are_one_line(
    folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:300])
    rest = "data: {class_path: tests.support.tiny.OtherData}\ntrainer: {max_steps: 0}\n"
    tiny.page(folder, "other", "tests.support.tiny.Other", rest)
    zeroshot, where = pages(folder, "zeroshot"), (*IMAGE, *POINT)
    cases = {(*zeroshot, *words): said for words, said in MISTAKES.items()} | {
        where: "--config",
        (*pages(folder, "clip"), *where, "--runs", "none"): "no run of page",
        (*pages(folder, "clip"), *where, "--runs", trained, "--seed", 1): "with seed 1",
        (*pages(folder, "other"), *where): "has no student",
        (*pages(folder, "zeroshott"), *where): "zeroshot.yaml'?",
    }
    for argv, said in cases.items():
        error = run(capsys, *argv, status=2)[1]
        lines = [line for line in error.splitlines() if line.startswith("spatialbench: ")]
        assert len(lines) == 1, argv
        assert said in lines[0], argv
        assert not Path("maps.png").exists()
