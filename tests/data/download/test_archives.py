from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from spatialbench.data.download.archives import unpack
from spatialbench.utils.errors import SpatialbenchError


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


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize("outer", ["", "pictures/", "data/other name/"])
def test_the_content_becomes_the_folder(make: object, outer: str, tmp_path: Path) -> None:
    names = {
        f"{outer}a.jpg": b"a",
        f"{outer}flickr/b.jpg": b"b",
        f"{outer}._a.jpg": b"mac",
        "__MACOSX/x": b"mac",
    }
    unpack(make(tmp_path / "archive", names), tmp_path / "to" / "images")  # type: ignore[operator]
    found = {
        str(p.relative_to(tmp_path / "to")) for p in (tmp_path / "to").rglob("*") if p.is_file()
    }
    assert found == {"images/a.jpg", "images/flickr/b.jpg"}


@pytest.mark.parametrize("make", [tar, zipped])
def test_nothing_lands_outside_and_nothing_is_left(make: object, tmp_path: Path) -> None:
    archive = make(tmp_path / "archive", {"a.jpg": b"a", "../../evil": b"x"})  # type: ignore[operator]
    with pytest.raises(SpatialbenchError, match="cannot be unpacked") as caught:
        unpack(archive, tmp_path / "to" / "images")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "to").iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    archive = tar(tmp_path / "archive.tar.gz", {"a.jpg": bytes(100_000)})
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(SpatialbenchError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "images")
    assert not (tmp_path / "images").exists()
