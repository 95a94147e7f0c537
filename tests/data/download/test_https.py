"""Downloads that are cut, resumed, changed and refused, against a local server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from spatialbench.data.download import https
from spatialbench.utils.errors import SpatialbenchError
from tests.support.server import Files, serving

CONTENT = os.urandom(1 << 20)


@pytest.fixture
def files() -> Iterator[Files]:
    with serving(Files({"a.bin": CONTENT})) as found:
        yield found


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "WAIT", 0.0)


def mistake(url: str, part: Path, size: int | None = None) -> str:
    with pytest.raises(SpatialbenchError) as caught:
        https.fetch(url, part, size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_cut_download_goes_on_from_where_it_was_cut(files: Files, tmp_path: Path) -> None:
    files.cuts = [10 * https.CHUNK, 3 * https.CHUNK + 5]
    part = tmp_path / "a.bin.part"
    https.fetch(f"{files.url}/a.bin", part, len(CONTENT))
    assert part.read_bytes() == CONTENT
    assert files.asked == [("a.bin", None), ("a.bin", "bytes=327680-"), ("a.bin", "bytes=425984-")]


def test_a_second_start_loads_only_the_rest(files: Files, tmp_path: Path) -> None:
    part = tmp_path / "a.bin.part"
    part.write_bytes(CONTENT[:1000])
    https.fetch(f"{files.url}/a.bin", part)
    assert part.read_bytes() == CONTENT
    https.fetch(f"{files.url}/a.bin", part)  # complete: the server is asked, and nothing is loaded
    assert part.read_bytes() == CONTENT
    assert files.asked == [("a.bin", "bytes=1000-"), ("a.bin", f"bytes={len(CONTENT)}-")]


def test_ctrl_c_keeps_what_was_loaded(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = requests.Response.iter_content

    def interrupted(self: requests.Response, size: int) -> Iterator[bytes]:
        yield next(iter(whole(self, size)))
        raise KeyboardInterrupt

    part = tmp_path / "a.bin.part"
    with monkeypatch.context() as patch:
        patch.setattr(requests.Response, "iter_content", interrupted)
        with pytest.raises(KeyboardInterrupt):
            https.fetch(f"{files.url}/a.bin", part)
    kept = part.stat().st_size
    assert 0 < kept < len(CONTENT)
    https.fetch(f"{files.url}/a.bin", part)
    assert part.read_bytes() == CONTENT
    assert files.asked[-1] == ("a.bin", f"bytes={kept}-")


def test_no_file_is_made_of_two_versions(files: Files, tmp_path: Path) -> None:
    part = tmp_path / "a.bin.part"
    files.cuts = [1000] * https.TRIES
    files.ranges = False  # no byte more at any try
    mistake(f"{files.url}/a.bin", part)
    files.cuts, files.ranges, files.etag, files.contents = [], True, '"2"', {"a.bin": CONTENT[::-1]}
    https.fetch(f"{files.url}/a.bin", part)
    assert part.read_bytes() == CONTENT[::-1]


def test_a_part_longer_than_the_file_is_begun_anew(files: Files, tmp_path: Path) -> None:
    part = tmp_path / "a.bin.part"
    part.write_bytes(CONTENT + b"more")
    https.fetch(f"{files.url}/a.bin", part)
    assert part.read_bytes() == CONTENT


def test_a_server_without_ranges_begins_again(files: Files, tmp_path: Path) -> None:
    files.ranges = False
    part = tmp_path / "a.bin.part"
    part.write_bytes(b"x" * 1000)
    https.fetch(f"{files.url}/a.bin", part)
    assert part.read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(files: Files, tmp_path: Path) -> None:
    files.failures = [503, 429]
    https.fetch(f"{files.url}/a.bin", tmp_path / "a.bin.part")
    assert len(files.asked) == 3


def test_a_connection_that_always_breaks_is_one_line_and_keeps_the_bytes(
    files: Files, tmp_path: Path
) -> None:
    part = tmp_path / "a.bin.part"
    files.cuts = [3 * https.CHUNK] + [0] * https.TRIES
    assert "0.1 MB are kept in" in mistake(f"{files.url}/a.bin", part)
    assert part.read_bytes() == CONTENT[: 3 * https.CHUNK]


def test_another_size_is_refused_before_a_byte_is_loaded(files: Files, tmp_path: Path) -> None:
    part = tmp_path / "a.bin.part"
    assert f"the file has {len(CONTENT)} bytes and not 7" in mistake(f"{files.url}/a.bin", part, 7)
    assert not part.exists()


def test_what_is_not_there_is_one_line(files: Files, tmp_path: Path) -> None:
    part = tmp_path / "a.bin.part"
    assert "127.0.0.1 answers 404 Not Found" in mistake(f"{files.url}/b.bin", part)
    port = files.url.rpartition(":")[2]
    with serving(Files()) as other:  # a port that nobody listens on, in a moment
        port = other.url.rpartition(":")[2]
    assert "127.0.0.1 cannot be reached (no connection)" in mistake(
        f"http://127.0.0.1:{port}/a.bin", part
    )
    assert not part.exists()


def test_a_full_disk_is_told_before(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(https.shutil, "disk_usage", lambda folder: usage)
    assert "give --to FOLDER on another disk" in mistake(
        f"{files.url}/a.bin", tmp_path / "a.bin.part"
    )
