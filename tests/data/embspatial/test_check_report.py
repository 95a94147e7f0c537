from pathlib import Path

import pytest

from spatialbench.data.embspatial.reader import check_file
from tests.support.records import depth, direction, write


def test_the_report_of_a_file_is_printed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    raws = [direction("a"), direction("b", "above"), depth("c")]
    raws.append(depth("d") | {"relation": "[bold]on top[/]"})
    check_file(write(tmp_path / "file.json", raws)).print_counts()
    assert not cache.exists()  # a check keeps nothing
    text = capsys.readouterr().out
    lines = [line.replace("│", " ").split() for line in text.splitlines()]
    for row in ("far 1 3", "left 1 1", "close 0 0", "kept 3 of 4 5"):
        assert row.split() in lines
    assert "1 distinct images" in text
    shortcut = '"higher in the image = farther" is right on 100.0 %'
    assert f"consistent 3, counter 0, ambiguous 0; {shortcut}" in text
    first = "record 'd': unknown relation '[bold]on top[/]'"
    assert f"1 dropped: unknown_relation (first {first}" in text
    check_file(write(tmp_path / "file.json", [])).print_counts()
    text = capsys.readouterr().out
    assert "0 of 0" in text
    assert "0 distinct images" in text
    assert "elevation" not in text
