"""``test --evaluation`` from the command line: a published benchmark, and the controls."""

import json
import re
import shutil
from pathlib import Path

import pytest

from spatialbench.cli.main import main
from spatialbench.config.evaluations import PUBLISHED
from spatialbench.config.signatures import import_class
from tests.data.captions.test_whatsup import change, write
from tests.support import RESULTS

ARGUMENTS = [
    "test",
    "--config",
    "pages/zeroshot.yaml",
    "--track",
    "tiny",
    "--budget",
    "smoke",
    "--evaluation",
]


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main([*argv]) == 0
    return capsys.readouterr().out


def test_a_benchmark_with_published_numbers_ties_and_relations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "whats up")
    (tmp_path / "results").mkdir()
    shutil.copy(RESULTS / "reported.yaml", tmp_path / "results")
    change(folder, 0, caption_options=["a", "b", "c", "d"])
    argv = [*ARGUMENTS, "whatsup", "--evaluation_path", str(folder)]
    text = run(capsys, *argv)
    row = next(line for line in text.splitlines() if "A: one of four" in line)
    chance, *published = re.findall(r"[\d.]+", row)[-4:]
    assert (float(chance), published) == (25, ["30.6", "26.9", "26.5"])
    assert "Published: OpenAI CLIP, which a run of its weights must reproduce.\nOh et al." in text
    assert "12 read; 1 dropped: the four captions do not name the four arrangements" in text
    made = json.loads(run(capsys, *argv, "--format", "json"))
    assert (made["evaluation"], made["records"]) == ("whatsup", 11)
    names = [f"{part}_{what}" for part in "ab" for what in ("pair", "four", "both", "set")]
    assert list(made["measures"]) == list(made["counts"]) == names
    assert made["counts"]["b_four"] == {"n": 4, "ties": 0, "chance": 25}
    assert made["published"]["b_four"]["L/14"] == 25.2
    low, high, *_ = made["measures"]["b_four"]["interval"]
    assert low <= made["measures"]["b_four"]["value"] <= high
    relations = made["relations"]["B"]
    assert list(relations) == ["behind", "front", "left", "right"]
    pairs = relations["left"]
    line = f"B left: pair accuracy {pairs['accuracy']:.1f} of {pairs['n']}, ties {pairs['ties']}"
    assert line in text


def test_the_controls(capsys: pytest.CaptureFixture[str]) -> None:
    assert "constant: all" in run(capsys, *ARGUMENTS, "controls")
    made = json.loads(run(capsys, *ARGUMENTS, "controls", "--format", "json"))
    assert made["measures"]["constant: all"]["value"] == 50


def test_a_downloaded_benchmark_is_found_and_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "data" / "whatsup")
    assert "12 records of 3" in run(capsys, *ARGUMENTS, "whatsup")
    (tmp_path / "empty").mkdir()
    for words, message in (
        (["whatsup", "--evaluation_path", "empty"], "no file controlled_images_dataset.json in "),
        (["vsr"], "get it by spatialbench data download vsr, or give --evaluation_path"),
        (["vqa"], "unknown evaluation 'vqa': did you mean 'vgqa'?"),
    ):
        capsys.readouterr()
        assert main([*ARGUMENTS, *words]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error


def test_every_name_is_that_of_its_class_and_in_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = run(capsys, "test", "--help")
    for name, path in PUBLISHED.items():
        assert name in text
        assert import_class(f"spatialbench.data.captions.{path}", name).name == name  # type: ignore[attr-defined]
