"""A local server of files that knows ranges and versions, and can be told to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """What is served, and how.

    Attributes:
        contents: path -> bytes.
        cuts: bytes after which the next answers break off, one for each.
        ranges: whether parts of files are given.
        etag: the version of every file; none where it is empty.
        failures: statuses of the next answers, before any file is given.
        asked: (path, its Range header) of every request.
    """

    contents: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: str = '"1"'
    failures: list[int] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(files: Files) -> Iterator[Files]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(files))
    files.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()


def _handler(files: Files) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            files.asked.append((self.path.lstrip("/"), asked))
            content = files.contents.get(self.path.lstrip("/"))
            if files.failures:
                self.send_error(files.failures.pop(0))
                return
            if content is None:
                self.send_error(404)
                return
            start = 0
            if asked and files.ranges and self.headers.get("If-Range", files.etag) == files.etag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content) and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            if files.etag:
                self.send_header("ETag", files.etag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            rest = content[start:]
            self.wfile.write(rest[: files.cuts.pop(0)] if files.cuts else rest)

    return Handler
