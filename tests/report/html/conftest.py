"""The made-up rows of the tests of the report, and the page of them."""

from pathlib import Path

import pytest

from spatialbench.cli.report_file import row_maps
from spatialbench.report.html.inputs import ReportInputs
from spatialbench.report.html.page import html
from spatialbench.report.html.record_browser import sample
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
def inputs(folders: tuple[Path, Path]) -> ReportInputs:
    """With curves of ``b`` alone, and no weights."""
    inputs = made.read(folders, folders[0].parent / "runs")
    made.run_folder(inputs, "b")
    return inputs


@pytest.fixture(scope="session")
def page(inputs: ReportInputs, cache: Path) -> str:
    """Render the whole file, with maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIALBENCH_CACHE", str(cache))
        shown = sample(inputs, 4)
        return html(inputs, shown, row_maps(inputs, shown))
