from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from spatialbench.data.embspatial.check_report import print_report
from spatialbench.data.embspatial.reader import check_file
from tests.support.records import depth, direction, write


def test_the_report_of_a_file_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    raws = [direction("a"), direction("b", "above"), depth("c")]
    raws.append(depth("d") | {"relation": "[bold]on top[/]"})
    report = check_file(write(tmp_path / "file.json", raws))
    assert (report.read, report.kept, report.images, report.pairs.total()) == (4, 3, 1, 5)
    assert not (tmp_path / "cache").exists()  # a check keeps nothing
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=200))
    text = stream.getvalue()
    lines = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["far", "1", "3"] in lines
    assert ["left", "1", "1"] in lines
    assert ["close", "0", "0"] in lines
    assert ["kept", "3", "of", "4", "5"] in lines
    assert "1 distinct images" in text
    shortcut = '"higher in the image = farther" is right on 100.0 %'
    assert f"consistent 3, counter 0, ambiguous 0; {shortcut}" in text
    first = "record 'd': unknown relation '[bold]on top[/]'"
    assert f"1 dropped: unknown_relation (first {first}" in text


def test_an_empty_list_is_reported_as_it_is(tmp_path: Path) -> None:
    report = check_file(write(tmp_path / "file.json", []))
    assert (report.read, report.pairs.total(), report.elevation_baseline) == (0, 0, None)
    print_report(report, Console(file=io.StringIO()))
