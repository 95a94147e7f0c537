"""The cache directory and progress."""

import sys
import time
from pathlib import Path

import pytest

from spatialbench.utils.cache import cache_root
from spatialbench.utils.progress import progress
from tests.support.checks import refused


def test_the_cache_is_the_folder_of_the_variable_or_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "deep" / "cache"))
    assert cache_root() == tmp_path / "deep" / "cache"
    assert list(cache_root().iterdir()) == []  # created, and the write test leaves nothing behind
    monkeypatch.delenv("SPATIALBENCH_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "spatialbench"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with refused(f"{tmp_path}/file/cache: .*SPATIALBENCH_CACHE"):
        cache_root()


def test_progress_without_a_terminal_prints_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("making things", 4, "things", interval=0.01) as advance:
        for _ in range(4):
            time.sleep(0.02)
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("making things: 1/4 things")
    assert "things/s  ETA" in lines[0]
    assert lines[-1].startswith("making things: 4/4 things")
    with progress("making things", 4, "things") as advance:
        advance(4)
    assert capsys.readouterr().err == ""  # short work is silent


def test_progress_on_a_terminal_shows_bar_rate_and_count(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for total, unit in ((None, "MB"), (4, "things")):
        with progress("making", total, unit) as advance:
            advance(4)
    shown = capsys.readouterr().err
    assert all(words in shown for words in ("4/4 things", "things/s", "4 MB"))
