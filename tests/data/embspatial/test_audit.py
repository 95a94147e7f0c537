from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from spatialbench.data.embspatial.audit import check_file, print_report
from spatialbench.data.problems import KINDS
from spatialbench.utils.errors import SpatialbenchError
from tests.support.records import depth, direction, write


def test_the_report_of_a_file_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    raws = [
        direction("a"),
        direction("b", "above"),
        depth("c"),
        depth("d") | {"relation": "[bold]on top[/]"},
    ]
    report = check_file(write(tmp_path / "file.json", raws))
    assert (report.questions, report.kept, report.images, report.pairs.total()) == (4, 3, 1, 5)
    assert not (tmp_path / "cache").exists()  # a check keeps nothing
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=200))
    lines = [line.replace("│", " ").split() for line in stream.getvalue().splitlines()]
    assert ["far", "1", "3"] in lines
    assert ["left", "1", "1"] in lines
    assert ["close", "0", "0"] in lines
    assert ["kept", "3", "of", "4", "5"] in lines
    for kind in KINDS:
        count = ["1", "0"] if kind == "unknown_relation" else ["0", "0"]
        assert [kind, *count] in [line[:3] for line in lines]
    text = stream.getvalue()
    assert "1 distinct images" in text
    assert (
        'consistent 3, counter 0, ambiguous 0; "higher in the picture = farther" is right on 100.0 %'
        in text
    )
    assert "first bad record: " in text
    assert "record 'd': unknown relation '[bold]on top[/]'" in text


def test_strict_and_missing_files_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path / "file.json", [direction("a"), direction("a")])
    with pytest.raises(SpatialbenchError, match="record 'a': the question_id was used before"):
        check_file(path, strict=True)
    with pytest.raises(SpatialbenchError, match="cannot read"):
        check_file(tmp_path / "missing.json")


def test_an_empty_list_is_reported_as_it_is(tmp_path: Path) -> None:
    report = check_file(write(tmp_path / "file.json", []))
    assert (report.questions, report.pairs.total(), report.elevation_baseline) == (0, 0, None)
    print_report(report, Console(file=io.StringIO()))
