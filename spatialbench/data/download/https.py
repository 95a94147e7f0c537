"""A file over HTTPS that goes on where it stopped: after a cut, after Ctrl-C, at a second start.

Bytes are kept in a file ``<name>.part``, which the caller checks and renames. A server that says which version it has
(ETag) is asked for the rest of that version only, so that no file is made of two.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests

from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.progress import progress

TRIES = 4
"""In a row without a byte."""
WAIT = 1.0
"""Seconds before the second try; twice as long before each further one."""
_TIMEOUT = (15, 60)
"""Seconds to connect, and between two bytes."""
CHUNK = 1 << 15
"""Bytes that a cut can lose."""
_AGAIN = (408, 429, 500, 502, 503, 504)


class _Cut(Exception):
    """The connection broke, or the server asks to come again."""


def fetch(url: str, part: Path, size: int | None = None) -> None:
    """Completes ``part`` with the file at ``url``; what it holds already is not loaded again.

    Args:
        size: of the whole file in bytes, where it is known.

    Raises:
        SpatialbenchError: the server cannot be reached, does not have the file or has one of another size, the
            connection broke again and again, or the disk is full. What was loaded stays.
    """
    failures = 0
    while True:
        before = length(part)
        try:
            _stream(url, part, size)
            return
        except _Cut as cut:
            failures = 1 if length(part) > before else failures + 1
            if failures >= TRIES:
                raise SpatialbenchError(
                    f"{url}: {cut}; {_kept(part)}the same command goes on from there"
                ) from cut
            time.sleep(WAIT * 2 ** (failures - 1))


def length(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def discard(part: Path) -> None:
    """Removes what was loaded."""
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


def _stream(url: str, part: Path, size: int | None) -> None:
    have = length(part)
    headers = {"Accept-Encoding": "identity"}  # else lengths would be those of a compressed stream
    if have:
        headers["Range"] = f"bytes={have}-"
        if _tag(part).is_file():
            headers["If-Range"] = _tag(part).read_text()
    with _opened(url, headers) as response:
        if response.status_code == 416:
            if response.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return  # it was complete
            discard(part)
            raise _Cut("the file is another one than before")
        start = _start(response, have, url)
        said = response.headers.get("Content-Length", "")
        total = start + int(said) if said.isdecimal() else size
        if size is not None and total != size:
            raise SpatialbenchError(
                f"{url}: the file has {total} bytes and not {size}; it is another one than expected"
            )
        _check_room(part, None if total is None else total - start)
        etag = response.headers.get("ETag", "")
        if etag and not etag.startswith("W/"):
            _tag(part).write_text(etag)
        _write(response, part, start, total)


@contextmanager
def _opened(url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    host = urlsplit(url).hostname
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT)
    except requests.Timeout as error:
        raise _Cut(f"{host} does not answer") from error
    except requests.RequestException as error:
        raise SpatialbenchError(f"{host} cannot be reached ({reason(error)})") from error
    with response:
        if response.status_code in _AGAIN:
            raise _Cut(f"{host} answers {response.status_code} {response.reason}")
        if response.status_code not in (200, 206, 416):
            raise SpatialbenchError(
                f"{url}: {host} answers {response.status_code} {response.reason}"
            )
        yield response


def _start(response: requests.Response, have: int, url: str) -> int:
    """Where the bytes of the answer belong: at ``have``, or at 0 where the server begins again."""
    if response.status_code != 206:
        return 0
    if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise SpatialbenchError(
            f"{url}: the server does not give the part of the file that was asked for"
        )
    return have


def _write(response: requests.Response, part: Path, start: int, total: int | None) -> None:
    label = part.name.removesuffix(".part") + (f", from {start / 1e6:.0f} MB on" if start else "")
    rest = None if total is None else (total - start) / 1e6
    try:
        with part.open("ab" if start else "wb") as stream, progress(label, rest, "MB") as advance:
            for chunk in response.iter_content(CHUNK):
                stream.write(chunk)
                advance(len(chunk) / 1e6)
    except requests.RequestException as error:
        raise _Cut("the connection broke") from error
    except OSError as error:
        raise SpatialbenchError(
            f"cannot write {part}: {error.strerror or error}; {_kept(part)}"
        ) from error
    if total is not None and length(part) != total:
        raise _Cut(f"the file ended after {length(part)} of {total} bytes")


def _check_room(part: Path, needed: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed is not None and needed > free:
        raise SpatialbenchError(
            f"{part.parent} has {free / 1e6:.0f} MB free and {needed / 1e6:.0f} MB are to come; give --to FOLDER on "
            "another disk"
        )


def _kept(part: Path) -> str:
    return f"{length(part) / 1e6:.1f} MB are kept in {part}; " if length(part) else ""


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def reason(error: requests.RequestException) -> str:
    """Why a host could not be reached, in few words."""
    kinds = {
        requests.exceptions.SSLError: "TLS",
        requests.exceptions.ProxyError: "the proxy does not let it through",
    }
    return next((text for kind, text in kinds.items() if isinstance(error, kind)), "no connection")
