"""``spatialbench list``: what it says of every page, and what it prints."""

from pathlib import Path

import pytest

from spatialbench.report.listing import listing, show
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Full rows of a, old (stale) and broken; smaller ones of a, b and c; none of ``none``."""
    monkeypatch.chdir(tmp_path)
    benchmarks = fakes.benchmarks(Path("benchmarks"), "a", "old", "broken", "b", "c", "none")
    results = Path("results")
    for name in ("a", "old", "broken"):
        fakes.store(results, name, benchmarks)
    for name, budget in (("a", "smoke"), ("b", "smoke"), ("c", "smoke"), ("c", "quick")):
        fakes.store(results, name, benchmarks, budget=budget)
    (results / "rooms/broken.json").write_text("{")
    (benchmarks / "old.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n"))
    return benchmarks, results


def test_every_page_says_what_there_is(folders: tuple[Path, Path]) -> None:
    found = {row["name"]: row for row in listing(*folders, "rooms")}
    states = {"a": "current", "old": "stale", "broken": "damaged", "b": "smoke only"}
    states |= {"c": "smoke, quick only", "none": "missing"}
    assert {name: row["status"] for name, row in found.items()} == states
    assert found["old"]["why"] == "page old changed"
    with pytest.raises(SpatialbenchError, match=r"unknown track 'room': did you mean 'rooms'\?"):
        listing(*folders, "room")


def test_the_command_stands_once_and_another_one_beside_its_page(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    benchmarks, results = folders
    for page in benchmarks.glob("*.yaml"):
        page.write_text(page.read_text().replace("--config x", f"--config benchmarks/{page.name}"))
    odd, command = benchmarks / "c.yaml", "benchmarks/c.yaml"
    odd.write_text(odd.read_text().replace(command, f"{command} --track embspatial"))
    show(listing(benchmarks, results, "rooms"), benchmarks, "rooms")
    printed = capsys.readouterr().out
    assert [line.split("  ")[-1].strip() for line in printed.splitlines()[-3:]] == [
        "spatialbench fit --config benchmarks/PAGE.yaml",
        "spatialbench run benchmarks/PAGE.yaml",
        "spatialbench fit --config benchmarks/c.yaml --track embspatial",
    ]
    assert "A paper." in printed
    show(listing(benchmarks, results, "rooms"), benchmarks, "other")
    assert "spatialbench run benchmarks/PAGE.yaml --track other\n" in capsys.readouterr().out
