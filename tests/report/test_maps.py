"""Affinity maps: the cosine by hand, where a point lies, the shared colour scale, the command and its mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image

from spatialbench.cli.main import main
from spatialbench.config.experiment import resolve
from spatialbench.data.images import fit
from spatialbench.report.maps import Point, above_midpoint, affinity, draw, titles, token_at
from spatialbench.training.score import load_method
from tests.support import tiny

# ---- the maps


def test_affinity_is_the_cosine_by_hand() -> None:
    dense = torch.tensor(
        [[[1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], [-1.0, 0.0]]]
    )  # [2, 2, 2], unit norm
    torch.testing.assert_close(affinity(dense, (0, 1)), torch.tensor([[0.6, 1.0], [0.8, -0.6]]))
    torch.testing.assert_close(affinity(dense, (1, 0)), torch.tensor([[0.0, 0.8], [1.0, 0.0]]))


def test_affinity_is_one_at_the_query() -> None:
    dense = F.normalize(torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)), dim=-1)
    for row in range(3):
        for column in range(5):
            found = affinity(dense, (row, column))
            assert found.shape == (3, 5)
            assert found.argmax() == row * 5 + column
            assert found.max() == pytest.approx(1)


@pytest.mark.parametrize(
    ("point", "token"),
    [
        ((0, 0), (0, 0)),
        ((59, 39), (1, 3)),  # the last pixel
        (
            (59.999999999999999, 39.999999999999996),
            (1, 3),
        ),  # the first rounds to 60, past the last column
        ((14, 19), (0, 0)),  # the last pixel of the first cell, both ways
        ((15, 20), (1, 1)),  # the first of the next
        ((44.5, 0), (0, 2)),
        ((45, 0), (0, 3)),
    ],
)
def test_a_point_lies_in_the_cell_that_holds_it(
    point: tuple[float, float], token: tuple[int, int]
) -> None:
    assert token_at(Point(*point), (60, 40), (2, 4)) == token


def test_cells_of_a_grid_that_does_not_divide_the_picture() -> None:
    columns = [token_at(Point(x, 0), (10, 10), (3, 3))[1] for x in range(10)]
    assert columns == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]  # borders at 3.33 and 6.67
    assert all(
        token_at(Point(0, y * 100 / 7), (100, 100), (7, 7))[0] == y for y in (0, 1, 2, 3, 4, 5, 6)
    )


def test_above_midpoint_is_of_the_given_scale() -> None:
    values = np.array([[0.2, 0.6], [0.7, 1.0]])
    assert above_midpoint(values, (0.0, 1.0)) == 75  # 0.6, 0.7 and 1.0 lie above 0.5
    assert above_midpoint(values, (0.4, 1.0)) == 25  # 0.7 is the middle itself
    assert above_midpoint(values, (-1.0, 1.0)) == 100


def test_names_that_come_again_are_numbered() -> None:
    assert titles(["a", "b", "a"]) == ["a #1", "b", "a #2"]


# ---- the figure


def drawn() -> tuple[Figure, list[list[np.ndarray]]]:
    """Two points (rows) and two pages of other grids and ranges; the second row's values are half of the first's."""
    first = np.linspace(0, 1, 6).reshape(2, 3), np.linspace(-0.1, 0.7, 24).reshape(4, 6)
    maps = [[values, values / 2] for values in first]
    picture = Image.new("RGB", (60, 40), (200, 30, 30))
    return draw(
        picture, [Point(5, 30), Point(50, 10)], {f"page{k}": m for k, m in enumerate(maps)}
    ), maps


def test_one_colour_scale_a_row_and_it_spans_all_pages() -> None:
    figure, maps = drawn()
    for row in range(2):
        heats = [figure.axes[3 * row + 1 + k].images[-1] for k in range(2)]
        ends = min(m[row].min() for m in maps), max(m[row].max() for m in maps)
        for heat, page in zip(heats, maps, strict=True):
            assert heat.get_clim() == pytest.approx(ends)
            np.testing.assert_array_equal(heat.get_array(), page[row])
    assert figure.axes[1].images[-1].get_clim() != figure.axes[4].images[-1].get_clim()


def test_the_map_lies_over_the_whole_picture_and_the_point_where_it_was_given() -> None:
    figure, _ = drawn()
    assert [axis.get_title() for axis in figure.axes[:3]] == ["picture", "page0", "page1"]
    assert len(figure.axes) == 6 + 2  # and a colour bar each row
    for row, point in enumerate([(5, 30), (50, 10)]):
        for axis in figure.axes[3 * row : 3 * row + 3]:
            assert [tuple(image.get_extent()) for image in axis.images] == [(0, 60, 40, 0)] * len(
                axis.images
            )
            assert axis.get_ylim() == (40, 0)  # y downwards
            assert (axis.lines[0].get_xdata(), axis.lines[0].get_ydata()) == (
                [point[0]],
                [point[1]],
            )
        assert all(
            axis.images[-1].get_interpolation() == "bilinear"
            for axis in figure.axes[3 * row + 1 : 3 * row + 3]
        )


# ---- the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")
    tiny.page(folder, "zeroshot", rest="trainer: {max_steps: 0}\n")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A folder of runs with a run of the page ``clip`` at the budget ``smoke``."""
    runs = folder.parent / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
        assert main(["fit", "--config", str(folder / "clip.yaml"), *BASE, "--runs", str(runs)]) == 0
    return runs


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A working folder with a picture of 60 x 40 pixels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
    monkeypatch.delenv("SPATIALBENCH_DEBUG", raising=False)
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")


BASE = ["--track", "tiny", "--budget", "smoke"]


def pages(folder: Path, *names: str) -> list[str]:
    return [word for name in names for word in ("--config", str(folder / f"{name}.yaml"))]


def output(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["maps", *(str(word) for word in argv)]) == 0
    return capsys.readouterr()


def mistake(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Runs a command that must fail with status 2; its one line."""
    capsys.readouterr()
    assert main(["maps", *(str(word) for word in argv)]) == 2
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("spatialbench: ")
    ]
    assert len(lines) == 1
    return lines[0]


def test_the_maps_of_two_pages(
    folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*pages(folder, "zeroshot", "clip"), *BASE, "--runs", trained, "--image", "a.png"]
    argv += ["--point", "10,30", "--point", "59,0"]
    found = json.loads(output(capsys, *argv, "--format", "json")[0])
    assert Image.open("maps.png").size[0] > 400
    assert [point["point"] for point in found["points"]] == [[10, 30], [59, 0]]
    for name, checkpoint in (("zeroshot", None), ("clip", str(next(trained.rglob("last.ckpt"))))):
        model, _ = load_method(resolve(folder / f"{name}.yaml", "tiny", "smoke"), None, trained)
        square = fit(Image.open("a.png"), 64, "squash")  # twice the student's 32
        with torch.inference_mode():
            dense = model.dense(torch.from_numpy(square.transpose(2, 0, 1).copy())[None])[0]
        assert dense.shape == (4, 4, 16)
        for point, token in zip(found["points"], ((3, 0), (0, 3)), strict=True):
            (page,) = [each for each in point["pages"] if each["name"] == name]
            assert (page["checkpoint"], page["token"], page["size"]) == (
                checkpoint,
                list(token),
                64,
            )
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
    argv = [
        *pages(folder, "zeroshot", "zeroshot"),
        *BASE,
        "--image",
        "a.png",
        "--point",
        "1,2",
        "--point",
        "3.5,4",
    ]
    out, err = output(capsys, *argv, "--out", "b/c.png")
    starts = [line.split("  mean")[0].split() for line in out.splitlines()]
    assert [" ".join(words) for words in starts] == [
        "zeroshot #1 (1, 2)",
        "zeroshot #2 (1, 2)",
        "zeroshot #1 (3.5, 4)",
        "zeroshot #2 (3.5, 4)",
    ]
    assert "wrote b/c.png" in err
    assert Path("b/c.png").is_file()
    assert len(list(Path("b").iterdir())) == 1


def test_a_size_that_is_no_multiple_of_the_patch(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        *pages(folder, "zeroshot"),
        *BASE,
        "--image",
        "a.png",
        "--point",
        "1,2",
        "--format",
        "json",
    ]
    out, err = output(capsys, *argv, "--size", 90)
    assert json.loads(out)["points"][0]["pages"][0]["size"] == 96
    assert (
        "note: zeroshot: --size 90 is not a multiple of the patch of 16 pixels; 96 is used" in err
    )
    out, err = output(capsys, *argv, "--size", 3)
    assert np.shape(json.loads(out)["points"][0]["pages"][0]["map"]) == (1, 1)
    assert "note" not in output(capsys, *argv, "--size", 48)[1]


def test_the_picture_is_turned_upright(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held upright: stored 60 x 40, seen 40 x 60
    Image.open("a.png").save("turned.jpg", exif=exif)
    argv = [*pages(folder, "zeroshot"), *BASE, "--image", "turned.jpg", "--format", "json"]
    found = json.loads(output(capsys, *argv, "--point", "10,55")[0])
    assert found["image_size"] == [40, 60]
    assert found["points"][0]["pages"][0]["token"] == [3, 1]
    assert "40 x 60 pixels" in mistake(capsys, *argv, "--point", "55,10")


def test_checkpoints_once_a_page(
    folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = next(trained.rglob("last.ckpt"))
    argv = [
        *pages(folder, "zeroshot", "clip"),
        *BASE,
        "--runs",
        trained,
        "--image",
        "a.png",
        "--point",
        "1,2",
    ]
    argv += ["--format", "json"]
    found = json.loads(output(capsys, *argv, "--ckpt_path", "LAST", "--ckpt_path", last)[0])
    assert [page["checkpoint"] for page in found["points"][0]["pages"]] == [None, str(last)]
    found = json.loads(output(capsys, *argv, "--ckpt_path", last, "--ckpt_path", "LAST")[0])
    assert [page["checkpoint"] for page in found["points"][0]["pages"]] == [str(last), str(last)]
    assert "2 --config and 1 --ckpt_path" in mistake(capsys, *argv, "--ckpt_path", last)


def test_mistakes(folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:300])
    Path("folder.png").mkdir()
    rest = "data: {class_path: tests.support.tiny.OtherData}\ntrainer: {max_steps: 0}\n"
    tiny.page(folder, "other", "tests.support.tiny.Other", rest)
    one, where = [*pages(folder, "zeroshot"), *BASE], ["--image", "a.png", "--point", "1,2"]
    cases = {
        (*BASE, *where): "--config",
        (*one, "--point", "1,2"): "--image",
        (*one, "--image", "a.png"): "--point",
        (
            *one,
            "--image",
            "none.png",
            "--point",
            "1,2",
        ): "cannot read the image none.png: No such file",
        (*one, "--image", "cut.png", "--point", "1,2"): "cut.png: the image cannot be decoded",
        (
            *one,
            "--image",
            "a.png",
            "--point",
            "60,2",
        ): "--point 60,2 lies outside of a.png, which has 60 x 40 pixels",
        (*one, "--image", "a.png", "--point", "1,40"): "--point 1,40 lies outside of a.png",
        (*one, "--image", "a.png", "--point", "-1,2"): "--point -1,2 lies outside of a.png",
        (
            *one,
            "--image",
            "a.png",
            "--point",
            "1,2,3",
        ): "--point: needs x,y in pixels of the picture, as 120,80; got",
        (*one, "--image", "a.png", "--point", "1,nan"): "got '1,nan'",
        (*one, "--image", "a.png", "--point", "a"): "got 'a'",
        (*one, *where, "--out", "maps.jpg"): "give a name that ends in .png, not maps.jpg",
        (*one, *where, "--out", "folder.png"): "--out: ",
        (*one, *where, "--out", "a.png/b.png"): "cannot write a.png/b.png",
        (*one, *where, "--size", "0"): "--size: needs a whole number, 1 or more; got '0'",
        (*one, *where, "--buget", "full"): "did you mean '--budget'?",
        (*pages(folder, "clip"), *BASE, *where, "--runs", "none"): "no run of page",
        (*pages(folder, "clip"), *BASE, *where, "--runs", trained, "--seed", 1): "with seed 1",
        (*pages(folder, "other"), *BASE, *where): "has no student",
        (*pages(folder, "zeroshott"), *BASE, *where): "zeroshot.yaml'?",
    }
    for argv, part in cases.items():
        assert part in mistake(capsys, *argv), argv
        assert not Path("maps.png").exists()
