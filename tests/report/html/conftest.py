"""The made-up rows of the tests of the report, and the page they give."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatialbench.report.html.inputs import Material
from spatialbench.report.html.page import html
from tests.support import report as made


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(results, benchmarks); not to be changed."""
    base = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIALBENCH_CACHE", str(base / "cache"))
        return made.folders(base)


@pytest.fixture(scope="session")
def cache(folders: tuple[Path, Path]) -> Path:
    return folders[0].parent / "cache"


@pytest.fixture(scope="session")
def material(folders: tuple[Path, Path]) -> Material:
    """With curves of ``b`` alone, and no weights."""
    found = made.material(folders, folders[0].parent / "runs")
    made.run_folder(found, "b")
    return found


@pytest.fixture(scope="session")
def page(material: Material, cache: Path) -> str:
    """The whole file, with maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIALBENCH_CACHE", str(cache))
        return html(material, 4, True)
