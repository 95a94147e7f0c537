import io
import os
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from spatialbench.data.download.fetch import unpack
from spatialbench.utils.cache import ABANDONED_SECONDS
from tests.support.checks import refused

Maker = Callable[[Path, dict[str, bytes]], Path]


def tar(path: Path, names: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def zipped(path: Path, names: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in names.items():
            file.writestr(name, content)
    return path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize("outer", ["", "images/", "data/other name/"])
def test_the_content_becomes_the_folder(make: Maker, outer: str, tmp_path: Path) -> None:
    names = {f"{outer}a.jpg": b"a", f"{outer}flickr/b.jpg": b"b"}
    names |= {f"{outer}._a.jpg": b"mac", "__MACOSX/x": b"mac"}
    unpack(make(tmp_path / "archive", names), tmp_path / "to" / "images")
    assert files(tmp_path / "to") == {"images/a.jpg", "images/flickr/b.jpg"}


@pytest.mark.parametrize("name", ["../../evil", "/evil"])
def test_nothing_lands_outside(name: str, tmp_path: Path) -> None:
    unpack(zipped(tmp_path / "zip", {"a.jpg": b"a", name: b"x"}), tmp_path / "to" / "images")
    assert files(tmp_path / "to") == {"images/a.jpg"}
    archive = tar(tmp_path / "tar", {"a.jpg": b"a", "../../evil": b"x"})
    with refused("outside"):
        unpack(archive, tmp_path / "other" / "images")
    assert list((tmp_path / "other").iterdir()) == []
    assert not Path("/evil").exists()
    assert not list(tmp_path.rglob("evil"))


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    archive = tar(tmp_path / "archive.tar.gz", {"a.jpg": os.urandom(100_000)})
    archive.write_bytes(archive.read_bytes()[:60_000])
    with refused(r"images cannot be written \("):
        unpack(archive, tmp_path / "to" / "images")
    assert list((tmp_path / "to").iterdir()) == []


def test_leftovers_of_a_killed_process_are_removed_after_an_hour(tmp_path: Path) -> None:
    then = time.time() - 2 * ABANDONED_SECONDS
    for name in (".images.old", ".images.new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ".images.old", (then, then))
    unpack(tar(tmp_path / "archive", {"a.jpg": b"a"}), tmp_path / "images")
    assert {p.name for p in tmp_path.iterdir()} == {"images", ".images.new", "archive"}
