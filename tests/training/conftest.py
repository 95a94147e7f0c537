"""The benchmark in small for the tests that train, and where they run."""

from pathlib import Path

import pytest

from tests.support import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Work in an empty folder; the cache is shared, and no step sends Ctrl-C."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
    for method in tiny.SendsCtrlC.__subclasses__():
        for name in ("seen", "stop_at"):
            monkeypatch.setattr(method, name, 0)
