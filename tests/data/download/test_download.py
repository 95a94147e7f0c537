"""``spatialbench data download`` from end to end, against a local server, a made-up cache of the Hub, and folders."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import requests
import yaml
from filelock import FileLock

from spatialbench.cli.main import main
from spatialbench.data.download import command, https, manifest
from spatialbench.data.download import fetch as bring
from spatialbench.data.download.lock import NAME
from tests.data.download.test_archives import tar
from tests.support import records as samples
from tests.support.server import Files, serving

LINES = b'{"image": "1.jpg"}\n{"image": "2.jpg"}\n'
COMMIT = "c" * 40
FIXED = "d" * 40


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    archive = tar(
        tmp_path / "made.tar.gz", {"images/a.jpg": b"a", "images/b.jpg": b"bb"}
    ).read_bytes()
    with serving(Files({"data/test.jsonl": LINES, "pictures.tar.gz": archive})) as found:
        yield found


@pytest.fixture(autouse=True)
def place(tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPATIALBENCH_DEBUG", raising=False)
    monkeypatch.setattr(https, "WAIT", 0.0)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(manifest, "FILE", tmp_path / "sources.yaml")
    (tmp_path / "sources.yaml").write_text(yaml.safe_dump(sources(files.url)))
    manifest.data_sets.cache_clear()
    yield
    manifest.data_sets.cache_clear()


def sources(url: str) -> dict[str, Any]:
    said = {
        "title": "Some data",
        "homepage": "https://example.org",
        "licence": "MIT",
        "terms": "photos of others",
    }
    said["after"] = "spatialbench use {name} {folder}"
    lines = {
        "name": "random/test.jsonl",
        "path": "data/test.jsonl",
        "size": len(LINES),
        "rows": 2,
        "sha256": sha(LINES),
    }
    return {
        "lines": said
        | {
            "from": {"url": f"{url}/{{path}}"},
            "files": [lines, {"name": "pictures.tar.gz", "folder": "pictures"}],
        },
        "coco": said
        | {"from": {"url": f"{url}/{{path}}"}, "files": [lines]}
        | {
            "pictures": {
                "folder": "images",
                "parts": ["train2017", "val2017"],
                "otherwise": "ask for it",
            }
        },
        "pinned": said
        | {
            "from": {"hub": "a/b", "revision": FIXED},
            "files": [{"name": "Mine.json", "path": "its.json"}],
        },
        "free": said
        | {"from": {"hub": "a/free", "revision": "main"}}
        | {
            "files": [
                {"name": "Q.csv", "rows": 1},
                {"name": "Some Pictures", "path": "Some Pictures/*", "files": 2},
            ]
        },
        "drive": said | {"files": [{"name": "d.json", "drive": "KEY", "rows": 3}]},
        "embspatial": said
        | {"from": {"url": f"{url}/{{path}}"}, "files": [{"name": "bench.json"}], "check": True},
    }


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def output(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    capsys.readouterr()
    assert main(["data", "download", *map(str, argv)]) == 0
    return capsys.readouterr().out


def mistake(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    capsys.readouterr()
    assert main(["data", "download", *map(str, argv)]) == 2
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("spatialbench: ")
    ]
    assert len(lines) == 1
    return lines[0]


def hub(tmp_path: Path, repository: str, commit: str, names: dict[str, bytes]) -> Path:
    """A repository in the cache of the Hub, as huggingface_hub lays it out; ``main`` is ``commit``."""
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


# ---- over HTTPS


def test_a_data_set_is_brought_checked_recorded_and_kept(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, "lines")
    assert "licence  MIT; photos of others" in text
    assert text.index("licence") < text.index("random/test.jsonl: 0.0 MB, downloaded")
    assert text.rstrip().endswith("\nin data/lines; next:\n  spatialbench use lines data/lines")
    assert Path("data/lines/random/test.jsonl").read_bytes() == LINES
    assert Path("data/lines/pictures/b.jpg").read_bytes() == b"bb"
    assert {p.name for p in Path("data/lines").iterdir()} == {
        "random",
        "pictures",
        NAME,
        command.BUSY,
    }
    lock = json.loads(Path(f"data/lines/{NAME}").read_text())["files"]
    assert lock["random/test.jsonl"]["sha256"] == sha(LINES)
    assert lock["pictures.tar.gz"]["sha256"] == sha(files.contents["pictures.tar.gz"])
    assert (lock["pictures.tar.gz"]["files"], lock["pictures.tar.gz"]["size"]) == (2, 3)
    asked = len(files.asked)
    assert "random/test.jsonl: 0.0 MB, here, as it came" in output(capsys, "lines")
    assert len(files.asked) == asked


def test_what_changed_after_it_came_is_noticed(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    output(capsys, "lines")
    Path("data/lines/pictures/a.jpg").unlink()
    assert "data/lines/pictures has 1 files of 2 bytes, and had 2 of 3" in mistake(capsys, "lines")
    Path("data/lines/random/test.jsonl").write_bytes(LINES.replace(b"1", b"3"))
    assert "data/lines/random/test.jsonl has the sha256" in mistake(capsys, "lines")


def test_a_file_without_a_known_hash_is_held_to_the_first_one(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    files.contents["bench.json"] = json.dumps([samples.direction("a")]).encode()
    output(capsys, "embspatial")
    raw = samples.direction("a", a="other")
    Path("data/embspatial/bench.json").write_text(json.dumps([raw]))
    assert "has the sha256" in mistake(capsys, "embspatial")


def test_another_file_than_expected_is_refused_and_removed(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    files.contents["data/test.jsonl"] = LINES.replace(b"1", b"3")
    assert f"not {sha(LINES)}; it is another file than expected" in mistake(capsys, "lines")
    assert [p.name for p in Path("data").rglob("*") if p.is_file()] == [command.BUSY]
    files.contents["data/test.jsonl"] = b"<!DOCTYPE html><html>come back later".ljust(len(LINES))
    assert "it is a web page and not the data" in mistake(capsys, "lines")


def test_ctrl_c_leaves_what_a_second_start_goes_on_from(
    files: Files, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(url: str, part: Path, size: int | None) -> None:
        part.write_bytes(LINES[:10])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(https, "fetch", interrupted)
        assert main(["data", "download", "lines"]) == 130
    assert (
        "stopped; the same command goes on from there: spatialbench data download lines"
        in capsys.readouterr().err
    )
    assert "0 of 2 files, 0.0 MB of the next" in output(capsys, "--list")
    output(capsys, "lines")
    assert files.asked[0] == ("data/test.jsonl", "bytes=10-")


def test_two_at_once_are_kept_apart(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/lines").mkdir(parents=True)
    with FileLock(Path("data/lines") / command.BUSY):
        assert "another download into data/lines is running" in mistake(capsys, "lines")
    output(capsys, "lines")


def test_without_a_network_it_says_what_to_do_by_hand(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    del files.contents["pictures.tar.gz"]
    assert main(["data", "download", "lines"]) == 2
    out, err = capsys.readouterr()
    assert f"  pictures.tar.gz: {files.url}/pictures.tar.gz" in out
    assert "random/test.jsonl: http" not in out  # that one is here
    assert "answers 404" in err
    assert err.rstrip().endswith("give its folder: spatialbench data download lines --from FOLDER")


def test_one_file_of_many(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert "in data/lines; still missing: pictures; then:" in output(
        capsys, "lines", "--only", "*.jsonl"
    )
    assert [path for path, _ in files.asked] == ["data/test.jsonl"]
    assert "1 of 2 files" in output(capsys, "--list")
    assert "no file 'random/tset.jsonl': did you mean 'random/test.jsonl'?" in mistake(
        capsys, "lines", "--only", "random/tset.jsonl"
    )


def test_words_that_are_not_known_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown data set 'line': did you mean 'lines'?" in mistake(capsys, "line")
    assert "say which data set: coco, drive" in mistake(capsys)
    assert "--from nowhere: there is no such folder" in mistake(
        capsys, "lines", "--from", "nowhere"
    )
    assert main(["data", "downlaod"]) == 2
    assert "unknown command 'data downlaod': did you mean 'download'?" in capsys.readouterr().err


# ---- from a folder


@pytest.mark.parametrize("copied", [False, True])
def test_files_that_are_on_disk_are_checked_and_linked_or_copied(
    copied: bool, tmp_path: Path, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = tmp_path / "clone"
    (clone / "data").mkdir(parents=True)
    (clone / "data" / "test.jsonl").write_bytes(LINES)
    flag = ["--copy"] if copied else []
    source = sources(files.url)
    source["lines"]["files"][0]["name"] = "test.jsonl"
    manifest.FILE.write_text(yaml.safe_dump(source))
    manifest.data_sets.cache_clear()
    assert "not in " in output(capsys, "lines", "--from", clone, "--to", tmp_path / "there", *flag)
    found = tmp_path / "there" / "test.jsonl"
    assert found.is_symlink() != copied
    assert found.read_bytes() == LINES
    (clone / "pictures.tar.gz").write_bytes(files.contents["pictures.tar.gz"])
    output(capsys, "lines", "--from", clone, "--to", tmp_path / "there", *flag)
    assert (tmp_path / "there" / "pictures" / "a.jpg").read_bytes() == b"a"
    assert not files.asked


def test_a_folder_of_an_archive_unpacked_already_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    (mine / "random").mkdir(parents=True)
    (mine / "pictures").mkdir()
    (mine / "random" / "test.jsonl").write_bytes(LINES)
    (mine / "pictures" / "a.jpg").write_bytes(b"a")
    assert "in data/lines; next:" in output(capsys, "lines", "--from", mine)
    assert Path("data/lines/pictures").is_symlink()
    assert "here, as it came" in output(capsys, "lines")  # and again


def test_a_folder_without_the_files_or_with_others_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    (mine / "random").mkdir(parents=True)
    assert "holds no file of lines, which has random/test.jsonl, pictures" in mistake(
        capsys, "lines", "--from", mine
    )
    (mine / "random" / "test.jsonl").write_bytes(LINES[:-3])
    assert f"has {len(LINES) - 3} bytes, not {len(LINES)}" in mistake(
        capsys, "lines", "--from", mine
    )
    assert not Path("data/lines/random/test.jsonl").exists()


def test_files_put_into_the_folder_itself_are_recorded(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/lines/random").mkdir(parents=True)
    Path("data/lines/random/test.jsonl").write_bytes(LINES)
    Path("data/lines/pictures.tar.gz").write_bytes(files.contents["pictures.tar.gz"])
    output(capsys, "lines")
    assert not files.asked
    assert len(json.loads(Path(f"data/lines/{NAME}").read_text())["files"]) == 2
    assert Path("data/lines/pictures/a.jpg").is_file()


def test_a_damaged_lock_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/lines").mkdir(parents=True)
    for text in ("{", '{"files": [1]}', '{"files": {"a": {"b": 1}}}'):
        Path(f"data/lines/{NAME}").write_text(text)
        assert "remove it, and the files are recorded anew" in mistake(capsys, "lines")


# ---- EmbSpatial, pictures of COCO


def test_a_new_embspatial_file_is_looked_through(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    files.contents["bench.json"] = json.dumps([samples.direction("a"), samples.depth("b")]).encode()
    text = output(capsys, "embspatial")
    assert "2 of 2" in text
    assert "spatialbench use embspatial data/embspatial" in text
    assert "2 of 2" not in output(capsys, "embspatial")  # once


def test_pictures_of_coco_are_linked_or_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = output(capsys, "coco", "--to", "data/vsr")
    assert (
        "images: missing; unpack http://images.cocodataset.org/zips/train2017.zip and http" in text
    )
    assert "as data/coco/train2017 and data/coco/val2017 and start again, or ask for it" in text
    assert "in data/vsr; still missing: images; then:\n  spatialbench use coco data/vsr" in text
    for part, name in (("train2017", "1.jpg"), ("val2017", "2.jpg")):
        Path(f"data/coco/{part}").mkdir(parents=True)
        Path(f"data/coco/{part}/{name}").write_text(part)
    assert "images: 2 pictures linked" in output(capsys, "coco", "--to", "data/vsr")
    assert Path("data/vsr/images/2.jpg").read_text() == "val2017"
    assert "images: here" in output(capsys, "coco", "--to", "data/vsr")
    Path("data/coco/val2017/2.jpg").unlink()
    assert "there is no picture 2.jpg in data/coco/train2017 or data/coco/val2017" in mistake(
        capsys, "coco", "--to", "data/other"
    )
    assert not Path("data/other/images").exists()


# ---- the Hub, Google Drive


def test_a_file_of_the_hub_is_linked_to_its_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        "a/b is neither in the cache of the Hugging Face Hub nor can it be downloaded"
        in mistake(capsys, "pinned")
    )
    hub(tmp_path, "a/b", FIXED, {"its.json": b"[1]"})
    output(capsys, "pinned")
    path = Path("data/pinned/Mine.json")
    assert path.resolve() == (tmp_path / "hub" / "datasets--a--b" / "blobs" / sha(b"[1]")).resolve()
    entry = json.loads(Path(f"data/pinned/{NAME}").read_text())["files"]["Mine.json"]
    assert (entry["source"], entry["commit"]) == (f"a/b@{FIXED}", "")
    path.resolve().unlink()  # the cache was emptied
    assert "- " in output(capsys, "--list")
    assert "neither in the cache" in mistake(capsys, "pinned")


def test_a_blob_that_does_not_fit_its_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hub(tmp_path, "a/b", FIXED, {"its.json": b"[1]"})
    (folder / "blobs" / sha(b"[1]")).write_bytes(b"[2]")
    assert f"not {sha(b'[1]')}; it is another file than expected" in mistake(capsys, "pinned")


def test_the_commit_of_a_branch_is_that_of_the_first_download(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {
        "Q.csv": b"id,what\n1,a\n",
        "Some Pictures/x y/1.jpg": b"1",
        "Some Pictures/2.jpg": b"2",
    }
    hub(tmp_path, "a/free", COMMIT, names)
    output(capsys, "free", "--only", "Q.csv")
    hub(tmp_path, "a/free", FIXED, {"Q.csv": b"id,what\n1,new\n"})  # main moves on
    text = output(capsys, "free")
    assert "Some Pictures: 0.0 MB, 2 files, downloaded" in text
    assert Path("data/free/Some Pictures/x y/1.jpg").read_bytes() == b"1"
    entries = json.loads(Path(f"data/free/{NAME}").read_text())["files"]
    assert {entry["commit"] for entry in entries.values()} == {COMMIT}


def test_a_folder_of_the_hub_that_is_not_whole_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub(tmp_path, "a/free", COMMIT, {"Q.csv": b"id,what\n1,a\n", "Some Pictures/2.jpg": b"2"})
    assert "has 1 of the 2 files of Some Pictures" in mistake(capsys, "free")


def gdown_with(download: Callable[..., str]) -> types.ModuleType:
    module = types.ModuleType("gdown")
    module.__spec__ = ModuleSpec("gdown", None)
    vars(module)["download"] = download
    return module


def test_google_drive_goes_through_gdown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    monkeypatch.setattr(bring, "has_gdown", lambda: False)
    assert main(["data", "download", "drive"]) == 2
    out, err = capsys.readouterr()
    assert "d.json: https://drive.google.com/file/d/KEY/view" in out
    assert "pip install 'spatialbench[drive]'" in err

    def closed(**given: Any) -> str:
        raise requests.ConnectionError(
            "HTTPSConnectionPool(host='drive.google.com', port=443): ..."
        )

    monkeypatch.setitem(sys.modules, "gdown", gdown_with(closed))
    assert "drive.google.com cannot be reached (no connection)" in mistake(capsys, "drive")

    def download(**given: Any) -> str:
        assert (given["id"], given["resume"]) == ("KEY", True)
        Path(given["output"]).write_text("[1, 2]")
        return str(given["output"])

    monkeypatch.setitem(sys.modules, "gdown", gdown_with(download))
    assert "note: 2 records, where 3 were expected" in output(capsys, "drive")
    assert Path("data/drive/d.json").read_text() == "[1, 2]"


# ---- no network of its own


def test_importing_asks_no_network() -> None:
    code = (
        "import socket\n"
        "def no(*a, **k): raise SystemExit('a network call')\n"
        "socket.socket.connect = socket.getaddrinfo = socket.create_connection = no\n"
        "import spatialbench.cli.main, spatialbench.cli.commands, spatialbench.utils.hub\n"
        "import spatialbench.data.download.command as command\n"
        "assert spatialbench.cli.main.main(['data', 'download', '--list']) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert socket.socket.connect  # of this process, untouched
