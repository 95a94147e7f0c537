"""README.md: every command of its code blocks runs, shortened, in a folder of its own, offline."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from spatialbench.cli.main import main
from tests.support import ROOT
from tests.support.caption_files import photo

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["benchmarks/clip_zeroshot.yaml", "benchmarks/clip_finetune.yaml"]
"""The pages that ``benchmarks/*.yaml`` stands for."""
SMOKE = ["--budget", "smoke"]
SHORTER = {
    "fit": SMOKE,
    "test": SMOKE,
    "predict": SMOKE,
    "run": [*SMOKE, "--seeds", "0", "--results", "made"],
    "report": ["--out", "report.html", "--records", "0", "--no-maps"],
    "check-results": ["--no-smoke"],
}
"""Command -> options that make it short, or keep it from writing to results/."""


def commands(program: str) -> list[list[str]]:
    """Return the words after ``program`` of each of its command lines."""
    lines = re.findall(r"^ {4}(.+)$", README, re.MULTILINE)
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(part, comments=True)[1:] for part in parts if part.startswith(program)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a working folder with the pages, the stored results and a photo."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("benchmarks", "results"):
        (folder / name).symlink_to(ROOT / name)
    photo(folder / "photo.jpg", size=(160, 120))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("words", commands("spatialbench "), ids=" ".join)
def test_a_command_runs(
    words: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = [w for word in words for w in (PAGES if "*" in word else [word])]
    assert main([*words, *SHORTER.get(words[0], [])]) == 0
    assert capsys.readouterr().out
    if words[0] == "report":
        assert (folder / "report.html").stat().st_size > 100_000
    if words[0] == "run":
        assert len(list((folder / "made/rooms/smoke").glob("*.json"))) == len(PAGES)


def test_make_and_pip_find_what_they_name() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [words for words in commands("make ") if set(words) <= set(targets)] == [["test"]]
    assert commands("pip ") == [["install", "-e", ".[dev]"]]
    assert "dev" in project["optional-dependencies"]


def test_it_is_one_screen() -> None:
    assert len(README.encode()) <= 7_000
