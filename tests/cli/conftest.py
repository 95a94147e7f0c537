"""A benchmark in small, a finished run of its page ``clip``, and an empty folder to work in."""

from pathlib import Path

import pytest

from spatialbench.cli.main import main
from tests.support import tiny

SMOKE = ["--track", "tiny", "--budget", "smoke"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the pages ``clip``, ``zeroshot`` (nothing is trained) and ``stopping``."""
    made = tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")
    tiny.page(made, "stopping", "tests.support.tiny.Stopping")
    tiny.page(made, "zeroshot", rest="trainer: {max_steps: 0}\n")
    return made


@pytest.fixture(scope="session")
def trained(folder: Path) -> Path:
    """Train the page ``clip`` at the budget ``smoke``; the folder of its run."""
    runs = folder.parent / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
        assert main(["fit", "--config", f"{folder}/clip.yaml", *SMOKE, "--runs", str(runs)]) == 0
    return runs


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Work in an empty folder, from which ``pages`` leads to the benchmark."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pages").symlink_to(folder)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
    monkeypatch.delenv("SPATIALBENCH_DEBUG", raising=False)
