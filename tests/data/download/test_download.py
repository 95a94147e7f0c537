"""``spatialbench data download``, with a local server, a fake cache of the Hub, and folders."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import yaml

from spatialbench.cli.data import data
from spatialbench.cli.main import main
from spatialbench.data.download import fetch, manifest
from spatialbench.data.download.fetch import LOCK
from tests.data.download.test_unpack import tar
from tests.support import records as samples
from tests.support.checks import refused

LINES = b'{"image": "1.jpg"}\n{"image": "2.jpg"}\n'
COMMIT = "c" * 40
FIXED = "d" * 40


@dataclass
class Server:
    """Serves ``contents`` (path -> bytes), the next answer cut short after ``cut`` bytes."""

    contents: dict[str, bytes]
    url: str = ""
    cut: int | None = None
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    names = {"images/a.jpg": b"a", "images/b.jpg": b"bb"}
    archive = tar(tmp_path / "made.tar.gz", names).read_bytes()
    served = Server({"data/test.jsonl": LINES, "images.tar.gz": archive})

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            served.asked.append(path)
            if path not in served.contents:
                self.send_error(404)
                return
            content = served.contents[path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: served.cut])
            served.cut = None

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=lambda: http.serve_forever(poll_interval=0.01), daemon=True).start()
    yield served
    http.shutdown()
    http.server_close()


def declare(url: str, **changes: Any) -> None:
    """Write the declarations of the tests; ``changes`` of the data set ``lines``."""
    said = {
        "title": "Some data",
        "homepage": "https://example.org",
        "licence": "MIT",
        "terms": "photos of others",
        "after": "spatialbench use {name} {folder}",
    }
    https = said | {"from": {"url": f"{url}/{{path}}"}}
    lines = {"name": "random/test.jsonl", "path": "data/test.jsonl"}
    lines |= {"size": len(LINES), "sha256": sha(LINES)}
    archive = {"name": "images.tar.gz", "folder": "images"}
    coco = {"folder": "images", "parts": ["train2017", "val2017"], "otherwise": "ask for it"}
    pinned = {"from": {"repository": "a/b", "revision": FIXED}}
    free = {"from": {"repository": "a/free", "revision": "main"}}
    folder = {"name": "Some Images", "path": "Some Images/*", "files": 2}
    sources = {
        "lines": https | {"files": [lines | changes, archive]},
        "coco": https | {"files": [lines], "coco": coco},
        "pinned": said | pinned | {"files": [{"name": "Mine.json", "path": "its.json"}]},
        "free": said | free | {"files": [{"name": "Q.csv"}, folder]},
        "drive": said | {"files": [{"name": "d.json", "drive": "KEY"}]},
        "embspatial": https | {"files": [{"name": "bench.json"}], "check": True},
    }
    manifest.FILE.write_text(yaml.safe_dump(sources))
    manifest.data_sets.cache_clear()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPATIALBENCH_DEBUG", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(manifest, "FILE", tmp_path / "sources.yaml")
    declare(server.url)
    yield
    manifest.data_sets.cache_clear()


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def lock(name: str) -> dict[str, Any]:
    return json.loads(Path(f"data/{name}/{LOCK}").read_text())["files"]


@dataclass
class Command:
    """``spatialbench data download``, and what it prints."""

    capsys: pytest.CaptureFixture[str]

    def run(self, *argv: object) -> tuple[int, str, str]:
        self.capsys.readouterr()
        status = main(["data", "download", *map(str, argv)])
        return status, *self.capsys.readouterr()

    def output(self, *argv: object) -> str:
        status, out, _ = self.run(*argv)
        assert status == 0
        return out

    def mistake(self, *argv: object) -> str:
        status, _, err = self.run(*argv)
        (line,) = [line for line in err.splitlines() if line.startswith("spatialbench: ")]
        assert status == 2
        return line


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def hub(tmp_path: Path, repository: str, commit: str, names: dict[str, bytes]) -> Path:
    """Make a repository in the cache of the Hub, as huggingface_hub does; main is ``commit``."""
    folder = tmp_path / "hub" / f"datasets--{repository.replace('/', '--')}"
    for name, content in names.items():
        blob, link = folder / "blobs" / sha(content), folder / "snapshots" / commit / name
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return folder


def test_a_data_set_is_downloaded_checked_recorded_and_kept(
    server: Server, command: Command
) -> None:
    text = command.output("lines")
    assert "licence  MIT; photos of others" in text
    assert text.index("licence") < text.index("random/test.jsonl: 0.0 MB, downloaded")
    assert text.rstrip().endswith("\nin data/lines; next:\n  spatialbench use lines data/lines")
    assert Path("data/lines/random/test.jsonl").read_bytes() == LINES
    assert Path("data/lines/images/b.jpg").read_bytes() == b"bb"
    assert {p.name for p in Path("data/lines").iterdir()} == {"random", "images", LOCK}
    entries = lock("lines")
    assert entries["random/test.jsonl"]["sha256"] == sha(LINES)
    assert entries["images.tar.gz"]["sha256"] == sha(server.contents["images.tar.gz"])
    assert (entries["images.tar.gz"]["files"], entries["images.tar.gz"]["size"]) == (2, 3)
    assert "random/test.jsonl: 0.0 MB, here, unchanged" in command.output("lines")
    assert len(server.asked) == 2


def test_a_change_after_the_download_is_noticed(server: Server, command: Command) -> None:
    command.output("lines")
    Path("data/lines/images/a.jpg").unlink()
    assert "has 1 files of 2 bytes, and had 2 files of 3 bytes" in command.mistake("lines")
    Path("data/lines/random/test.jsonl").write_bytes(LINES.replace(b"1", b"3"))
    assert "data/lines/random/test.jsonl has the sha256" in command.mistake("lines")
    server.contents["bench.json"] = json.dumps([samples.direction("a")]).encode()
    command.output("embspatial")  # no hash known: that of the first download
    Path("data/embspatial/bench.json").write_text(json.dumps([samples.direction("a", a="b")]))
    assert "has the sha256" in command.mistake("embspatial")


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (LINES.replace(b"1", b"3"), {}, "SHA256 hash of downloaded file"),
        (LINES.replace(b"1", b"3"), {"sha256": "", "md5": "0" * 32}, "MD5 hash of downloaded"),
        (b"<!DOCTYPE html>come back", {"sha256": "", "size": None}, "is a web page"),
        (LINES[1:], {"sha256": ""}, f"has {len(LINES) - 1} bytes, not {len(LINES)}"),
    ],
)
def test_an_unexpected_file_is_refused_and_removed(
    content: bytes,
    changes: dict[str, Any],
    message: str,
    server: Server,
    command: Command,
) -> None:
    declare(server.url, **changes)
    server.contents["data/test.jsonl"] = content
    assert message in command.mistake("lines")
    assert not [path for path in Path("data").rglob("*") if path.is_file()]


def test_an_interrupted_file_leaves_nothing_and_starts_again(
    server: Server, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    server.cut = 10
    assert "random/test.jsonl: http://127.0.0.1" in command.mistake("lines")
    with monkeypatch.context() as patch:
        patch.setattr(fetch, "_examine", interrupted)
        status, _, err = command.run("lines")
    assert status == 130
    assert "stopped; the same command goes on from there: spatialbench data download lines" in err
    assert not [path for path in Path("data").rglob("*") if path.is_file()]
    command.output("lines")


def test_a_file_that_cannot_be_loaded_is_listed_for_fetching_by_hand(
    server: Server, command: Command
) -> None:
    del server.contents["images.tar.gz"]
    status, out, err = command.run("lines")
    assert status == 2
    assert f"  images.tar.gz: {server.url}/images.tar.gz" in out
    assert "random/test.jsonl: http" not in out  # that one is here
    assert "404" in err
    assert err.rstrip().endswith("their folder: spatialbench data download lines --from FOLDER")
    declare("http://127.0.0.1:9", size=None)  # nothing listens there
    assert "Connection refused" in command.mistake("lines", "--to", "other")
    _, out, err = command.run("drive")
    assert "  d.json: https://drive.google.com/file/d/KEY/view" in out
    assert "d.json: it is published on Google Drive only" in err


def test_one_file_of_many(server: Server, command: Command) -> None:
    text = command.output("lines", "--only", "*.jsonl")
    assert "in data/lines; still missing: images; then:" in text
    assert server.asked == ["data/test.jsonl"]
    assert "1 of 2, without images" in " ".join(command.output("--list").split())
    assert "no file 'random/tset.jsonl': did you mean 'random/test.jsonl'?" in command.mistake(
        "lines", "--only", "random/tset.jsonl"
    )


def test_unknown_words_are_one_line(command: Command) -> None:
    assert "unknown data set 'line': did you mean 'lines'?" in command.mistake("line")
    assert "say which data set: coco, drive" in command.mistake()
    nowhere = command.mistake("lines", "--from", "nowhere")
    assert "--from nowhere: there is no such folder" in nowhere
    Path("file").touch()
    assert "cannot write in file/x: " in command.mistake("lines", "--to", "file/x")
    with refused("unknown command 'data downlaod': did you mean 'download'?"):
        data(["downlaod"])


@pytest.mark.parametrize("copied", [False, True])
def test_files_of_a_folder_are_checked_and_linked_or_copied(
    copied: bool, tmp_path: Path, server: Server, command: Command
) -> None:
    clone, there = tmp_path / "clone", tmp_path / "there"
    (clone / "data").mkdir(parents=True)
    (clone / "data" / "test.jsonl").write_bytes(LINES)
    argv = ["lines", "--from", clone, "--to", there, *(["--copy"] if copied else [])]
    declare(server.url, name="test.jsonl")
    assert f"--from {clone} lacks images of lines; add" in command.mistake(*argv)
    assert (there / "test.jsonl").is_symlink() != copied  # what is there is taken
    assert (there / "test.jsonl").read_bytes() == LINES
    (clone / "images.tar.gz").write_bytes(server.contents["images.tar.gz"])
    command.output(*argv)
    assert (there / "images" / "a.jpg").read_bytes() == b"a"
    assert not server.asked


def test_an_unpacked_folder_is_taken(tmp_path: Path, command: Command) -> None:
    mine = tmp_path / "mine"
    (mine / "random").mkdir(parents=True)
    (mine / "images").mkdir()
    (mine / "random" / "test.jsonl").write_bytes(LINES[:-3])
    message = command.mistake("lines", "--from", mine)
    assert f"has {len(LINES) - 3} bytes, not {len(LINES)}" in message
    assert not Path("data/lines/random/test.jsonl").exists()
    (mine / "random" / "test.jsonl").write_bytes(LINES)
    assert "images has 0 files" in command.mistake("lines", "--from", mine)
    (mine / "images" / "a.jpg").write_bytes(b"a")
    assert "in data/lines; next:" in command.output("lines", "--from", mine)
    assert Path("data/lines/images").is_symlink()
    assert "here, unchanged" in command.output("lines")  # and again


def test_files_put_into_the_folder_itself_are_recorded(server: Server, command: Command) -> None:
    Path("data/lines/random").mkdir(parents=True)
    Path("data/lines/random/test.jsonl").write_bytes(LINES)
    Path("data/lines/images.tar.gz").write_bytes(server.contents["images.tar.gz"])
    command.output("lines")
    assert not server.asked
    assert len(lock("lines")) == 2
    assert Path("data/lines/images/a.jpg").is_file()


@pytest.mark.parametrize("text", ["{", '{"files": [1]}', '{"files": {"a": {"b": 1}}}'])
def test_a_damaged_lock_file_is_one_line(text: str, command: Command) -> None:
    Path("data/lines/random").mkdir(parents=True)
    Path("data/lines/random/test.jsonl").write_bytes(LINES)
    Path(f"data/lines/{LOCK}").write_text(text)
    assert "remove it, and the files are recorded anew" in command.mistake("lines")


def test_a_new_embspatial_file_is_checked(server: Server, command: Command) -> None:
    records = [samples.direction("a"), samples.depth("b")]
    server.contents["bench.json"] = json.dumps(records).encode()
    text = command.output("embspatial")
    assert "2 of 2" in text
    assert "spatialbench use embspatial data/embspatial" in text
    assert "2 of 2" not in command.output("embspatial")  # once


def test_images_of_coco_are_linked_or_asked_for(command: Command) -> None:
    argv = ["coco", "--to", "data/vsr"]
    text = command.output(*argv)
    assert "images: missing; unpack http://images.cocodataset.org/zips/train2017.zip and" in text
    assert "as data/coco/train2017 and data/coco/val2017 and start again, or ask for it" in text
    assert "in data/vsr; still missing: images; then:\n  spatialbench use coco data/vsr" in text
    for part, name in (("train2017", "1.jpg"), ("val2017", "2.jpg")):
        Path(f"data/coco/{part}").mkdir(parents=True)
        Path(f"data/coco/{part}/{name}").write_text(part)
    assert "images: 2 images linked" in command.output(*argv)
    assert Path("data/vsr/images/2.jpg").read_text() == "val2017"
    assert "images: here" in command.output(*argv)
    Path("data/coco/val2017/2.jpg").unlink()
    message = command.mistake("coco", "--to", "data/other")
    assert "there is no image 2.jpg in data/coco/train2017 or data/coco/val2017" in message
    assert not Path("data/other/images").exists()


def test_a_file_of_the_hub_is_linked_to_its_cache(tmp_path: Path, command: Command) -> None:
    missing = "a/b is neither in the cache of the Hugging Face Hub nor can it be downloaded"
    assert missing in command.mistake("pinned")
    folder = hub(tmp_path, "a/b", FIXED, {"its.json": b"[1]"})
    command.output("pinned")
    path = Path("data/pinned/Mine.json")
    assert path.resolve() == (folder / "blobs" / sha(b"[1]")).resolve()
    entry = lock("pinned")["Mine.json"]
    assert (entry["source"], entry["commit"]) == (f"a/b@{FIXED}", "")
    path.resolve().unlink()  # the cache was emptied
    assert missing in command.mistake("pinned")


def test_a_blob_that_does_not_fit_its_name_is_refused(tmp_path: Path, command: Command) -> None:
    folder = hub(tmp_path, "a/b", FIXED, {"its.json": b"[1]"})
    (folder / "blobs" / sha(b"[1]")).write_bytes(b"[2]")
    assert f"not {sha(b'[1]')}; it is another file than expected" in command.mistake("pinned")


def test_the_commit_of_a_branch_is_that_of_the_first_download(
    tmp_path: Path, command: Command
) -> None:
    names = {"Q.csv": b"id\n1\n", "Some Images/x y/1.jpg": b"1", "Some Images/2.jpg": b"2"}
    hub(tmp_path, "a/free", COMMIT, names)
    command.output("free", "--only", "Q.csv")
    hub(tmp_path, "a/free", FIXED, {"Q.csv": b"id\n2\n"})  # main moves on
    assert "Some Images: 0.0 MB, 2 files, downloaded" in command.output("free")
    assert Path("data/free/Some Images/x y/1.jpg").read_bytes() == b"1"
    assert {entry["commit"] for entry in lock("free").values()} == {COMMIT}


def test_an_incomplete_folder_of_the_hub_is_refused(tmp_path: Path, command: Command) -> None:
    hub(tmp_path, "a/free", COMMIT, {"Q.csv": b"id\n1\n", "Some Images/2.jpg": b"2"})
    assert "Some Images has 1 files, not 2" in command.mistake("free")


def test_importing_and_listing_work_offline() -> None:
    code = (
        "import socket\n"
        "def no(*a, **k): raise SystemExit('a network call')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = no\n"
        "import spatialbench.cli.main, spatialbench.utils.hub\n"
        "assert spatialbench.cli.main.main(['data', 'download', '--list']) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
