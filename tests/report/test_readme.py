"""results/README.md and the table of README.md: sections, and the same bytes every time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spatialbench.report.readme import readme, with_tables, write_readme
from spatialbench.results.files import read_result
from spatialbench.utils.errors import SpatialbenchError
from tests.support import ROOT, fakes

Folders = tuple[Path, Path]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Rows a (near chance) and b (better, with regions and image selection)."""
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a", "b")
    results = tmp_path / "results"
    for name, shift in (("a", 0.0), ("b", 2.0)):
        more = {key: fakes.seeds_of(key, name) for key in ("regions", "selection")}
        fakes.store(results, name, benchmarks, shift=shift, **more)
    return results, benchmarks


@pytest.mark.slow
def test_the_same_bytes_whatever_the_surroundings(folders: Folders) -> None:
    path = write_readme(*folders)
    first = path.read_bytes()
    assert first.decode() == readme(*folders)
    code = (
        "import locale, sys, time; locale.setlocale(locale.LC_ALL, ''); from pathlib import Path;"
        "from spatialbench.report.readme import readme;"
        "sys.stdout.buffer.write(readme(Path(sys.argv[1]), Path(sys.argv[2])).encode())"
    )
    other = {"LC_ALL": "C", "TZ": "Asia/Tokyo", "COLUMNS": "40", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code, *map(str, folders)]
    environment = {**os.environ, **other}
    again = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True)
    assert again.stdout == first


def test_sections(folders: Folders) -> None:
    (folders[0] / "findings.md").write_text("## Findings\n\nb is better.\n")
    text = readme(*folders)
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles[:5] == [
        *("# Results", "## Findings", "## rooms", "### 95 % intervals"),
        "### Paired differences on All",
    ]
    assert titles[5:7] == ["### Regions, dense quality, retrieval", "### Image selection"]
    assert titles[7:] == ["### Cost", "### Origin"]
    assert "| b | 1.50 | 2.00 | 100 | 51200 | 2.0 | 0.9 | 0.0 | 2 cores of Test CPU |" in text
    assert "aaaaaaaaaa" in text
    a, b = (read_result(folders[0] / f"rooms/{name}.json").pairs.value["all"] or 0 for name in "ab")
    line = next(line for line in text.splitlines() if line.startswith("| b | **+"))
    assert f"**{b - a:+.1f} (" in line
    assert "| minus a | Boxes top-1 | Same-mask AUC | Image R@1 |" in text
    assert "| minus a | Selection, cls | Selection, cls + local |" in text


def test_the_table_of_another_page_may_have_some_rows_only(folders: Folders) -> None:
    text = "before\n<!-- table: rooms{} -->\nold\n<!-- end of table -->\nafter\n"
    whole = with_tables(text.format(""), *folders)
    assert whole.startswith("before\n<!-- table: rooms -->\n| | Close |")
    assert "| a |" in whole
    assert "Smallest paired gain" in whole
    assert whole.endswith("<!-- end of table -->\nafter\n")
    some = with_tables(text.format(" b"), *folders)
    assert "| b |" in some
    assert "| a |" not in some
    assert "Smallest" not in some
    with pytest.raises(SpatialbenchError, match="no stored row 'c' of track rooms"):
        with_tables(text.format(" c"), *folders)


def test_the_front_table_is_named_by_the_track(folders: Folders) -> None:
    text = "<!-- table: rooms front -->\nold\n<!-- end of table -->\n"
    path = folders[1] / "tracks/rooms.yaml"
    track = path.read_text()
    with pytest.raises(SpatialbenchError, match="track rooms names no pages of the front table"):
        with_tables(text, *folders)
    (folders[1] / "later.yaml").write_text(fakes.page_text())
    path.write_text(f"{track}front: [b, later]\n")  # a page without a row yet
    shown = with_tables(text, *folders)
    assert ("| b |" in shown, "| a |" in shown) == (True, False)
    assert "stale" not in shown, "the list is in no hash"
    path.write_text(f"{track}front: [b, latr]\n")
    with pytest.raises(SpatialbenchError, match="front names no page 'latr': did you mean"):
        with_tables(text, *folders)


def test_without_rows(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "No rows yet" in readme(tmp_path / "none", folders[1])
    for path in (folders[0] / "rooms").glob("*.json"):  # evidence without result files
        path.unlink()
    assert "No rows yet" in readme(*folders)
    with pytest.raises(SpatialbenchError, match=r"no results in .*nowhere, which is no folder"):
        write_readme(tmp_path / "nowhere", folders[1])
