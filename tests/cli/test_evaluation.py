"""``test --evaluation`` of a benchmark of captions, from the command line to the tables."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from spatialbench.cli.evaluation import EVALUATIONS, FOLDERS

from spatialbench.cli.main import main
from spatialbench.config.signatures import import_class
from spatialbench.data.captions.caption_set import CaptionSet
from tests.data.captions.test_whatsup import change, write
from tests.support import RESULTS, tiny


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a page of which nothing was trained: its student's own weights."""
    folder = tiny.benchmark(tmp_path / "benchmarks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    page = tiny.page(folder, "zero")
    made = ["test", "--config", str(page), "--track", "tiny", "--budget", "smoke"]
    assert main(["fit", *made[1:]]) == 0
    return [
        *made,
        "--evaluation",
        "whatsup",
        "--evaluation_path",
        str(write(tmp_path / "whats up")),
    ]


def test_whatsup_from_the_command_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "on whatsup" in text
    assert "12 pairs on 12 pictures" in text
    assert "30.6" not in text  # no results folder here
    (tmp_path / "results").mkdir(exist_ok=True)
    shutil.copy(RESULTS / "reported.yaml", tmp_path / "results")
    change(tmp_path / "whats up", 0, caption_options=["a", "b", "c", "d"])
    assert main(arguments) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if "A: one of four" in line)
    assert re.findall(r"[\d.]+", row)[-3:] == ["30.6", "26.9", "26.5"]
    assert (
        "Published: OpenAI CLIP, which a run of its weights must reproduce.\nOh et al. 2024" in text
    )
    assert "1 dropped: the four captions do not name the four arrangements" in text
    assert main([*arguments, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["evaluation"], found["pairs"], found["account"]["read"]) == ("whatsup", 11, 12)
    assert list(found["measures"]) == [
        f"{part}_{what}" for part in "ab" for what in ("pair", "four", "both", "set")
    ]
    four = found["measures"]["b_four"]
    assert (four["n"], four["chance"], four["published"]["clip"]["L/14"]) == (4, 25, 25.2)
    assert four["interval"][0] <= four["value"] <= four["interval"][1]
    assert list(found["relations"]["B"]) == ["behind", "front", "left", "right"]


def test_a_downloaded_benchmark_is_found(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where ``data download`` puts it; a folder given goes before it."""
    write(tmp_path / "data" / "whatsup")
    (tmp_path / "whats up" / "controlled_images_dataset.json").unlink()
    capsys.readouterr()
    assert main([*arguments[:-2]]) == 0
    assert "12 pairs on 12 pictures" in capsys.readouterr().out
    assert main(arguments) == 2


def test_a_mistake_is_one_line(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "whats up" / "controlled_images_dataset.json").unlink()
    for wrong, message in (
        (arguments, "no file controlled_images_dataset.json in "),
        (
            [*arguments[:-2]],
            "spatialbench data download whatsup brings it, or --evaluation_path FOLDER, the ",
        ),
        ([*arguments, "--evaluation", "vqa"], "unknown --evaluation 'vqa': did you mean 'vgqa'?"),
    ):
        capsys.readouterr()
        assert main(wrong) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error


def test_every_name_is_that_of_its_class_and_in_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["test", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in EVALUATIONS)
    for name, path in FOLDERS.items():
        found = import_class(path, name)
        assert found.name == name  # type: ignore[attr-defined]
        assert found.source  # type: ignore[attr-defined]
        assert name == "mmvp" or issubclass(found, CaptionSet)
