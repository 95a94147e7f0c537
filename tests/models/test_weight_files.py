"""Published weights: where they are looked for, that their hash is held, and what is said when they are missing."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from spatialbench.models.files import weight_files as module
from spatialbench.models.files.weight_files import PINNED, WeightFile, hub_weights, obtain
from spatialbench.models.timm_vfm import load_vfm
from spatialbench.utils.errors import SpatialbenchError
from tests.support.models import SAME

COMMIT, CONTENT = "0123456789abcdef0123456789abcdef01234567", b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BEHIND_URL = WeightFile("some.pth", SHA256, url="https://example.org/some.pth")
ON_HUB = WeightFile("some.pth", SHA256, repository="owner/name", commit=COMMIT)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and home of the test's own, and no network."""
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SPATIALBENCH_WEIGHTS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def in_hub_cache(folder: Path, content: bytes) -> None:
    """A file as huggingface_hub keeps it."""
    snapshot = folder / "models--owner--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "some.pth").write_bytes(content)


def test_what_is_pinned_is_pinned_whole() -> None:
    for (model, tag), file in PINNED.items():
        assert re.fullmatch("[0-9a-f]{64}", file.sha256), (model, tag)
        assert bool(file.url) != bool(file.repository)
        assert file.url.startswith("https://") or re.fullmatch("[0-9a-f]{40}", file.commit)
        assert file.licence


@pytest.mark.parametrize("file", [BEHIND_URL, ON_HUB])
def test_a_folder_of_the_user_comes_first(
    file: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "some.pth").write_bytes(CONTENT)
    monkeypatch.setenv("SPATIALBENCH_WEIGHTS", str(tmp_path / "mine"))
    assert obtain(file, "vfm 'x'") == tmp_path / "mine" / "some.pth"
    (tmp_path / "mine" / "some.pth").write_bytes(b"other")
    with pytest.raises(
        SpatialbenchError, match=r"vfm 'x': .*some\.pth has the sha256 .*, not .*remove it"
    ) as caught:
        obtain(file, "vfm 'x'")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["cache/weights", "home/.cache/clip"])
def test_what_was_loaded_before_is_found(place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "some.pth").write_bytes(CONTENT)
    assert obtain(BEHIND_URL, "x") == tmp_path / place / "some.pth"


def test_the_hubs_cache_is_found_offline(tmp_path: Path) -> None:
    in_hub_cache(tmp_path / "hub", CONTENT)
    assert obtain(ON_HUB, "x").read_bytes() == CONTENT
    with pytest.raises(SpatialbenchError, match="has the sha256"):
        obtain(WeightFile("some.pth", "0" * 64, repository="owner/name", commit=COMMIT), "x")


def test_what_is_missing_offline_is_told_in_one_line() -> None:
    with pytest.raises(SpatialbenchError) as caught:
        obtain(BEHIND_URL, "student 'x'")
    assert re.search(
        r"student 'x': .*HF_HUB_OFFLINE.*; put https://example.org/some.pth into", str(caught.value)
    )
    with pytest.raises(SpatialbenchError) as on_hub:
        obtain(ON_HUB, "vfm 'x'")
    assert f"hf download owner/name some.pth --revision {COMMIT}" in str(on_hub.value)
    assert "\n" not in str(caught.value) + str(on_hub.value)


def test_a_download_is_kept_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, target: str, hash_prefix: str | None) -> None:
        asked.append((url, hash_prefix))
        Path(target).write_bytes(CONTENT)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert obtain(BEHIND_URL, "x") == tmp_path / "cache" / "weights" / "some.pth"
    assert asked == [(BEHIND_URL.url, SHA256)]


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no\nnetwork")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", broken)
    with pytest.raises(SpatialbenchError, match=r"cannot be loaded \(no network\)") as caught:
        obtain(BEHIND_URL, "x")
    assert "\n" not in str(caught.value)


def test_a_reference_to_the_hub() -> None:
    plain = hub_weights(f"owner/name@{COMMIT}/folder/model.safetensors")
    assert plain == WeightFile(
        "folder/model.safetensors", "", repository="owner/name", commit=COMMIT
    )
    assert hub_weights(f"owner/name@{COMMIT}/some.pth#{SHA256}") == ON_HUB
    for other in (
        "openai",
        "my/file.pth",
        "owner/name@main/some.pth",
        f"owner/name@{COMMIT}",
        f"x@{COMMIT}/a#12",
    ):
        assert hub_weights(other) is None


def test_a_vfm_by_its_short_name_and_by_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_vfm(SAME).model.state_dict()
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "some.safetensors"
    save_file(weights, path)
    file: dict[str, Any] = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "url": "https://example.org/x",
    }
    for name in ("short", "dinov2"):
        monkeypatch.setitem(
            module.PINNED, ("spatialbench_same", name), WeightFile("some.safetensors", **file)
        )
    monkeypatch.setenv("SPATIALBENCH_WEIGHTS", str(tmp_path / "mine"))
    reference = f"owner/name@{COMMIT}/some.safetensors#{file['sha256']}"
    for spec in ("spatialbench_same:short", "spatialbench_same", f"spatialbench_same:{reference}"):
        found = load_vfm(spec).model.state_dict()
        assert all(value.equal(weights[name]) for name, value in found.items()), spec
    with pytest.raises(
        SpatialbenchError, match=r"no weights file long, nor published .*names: short, dinov2"
    ):
        load_vfm("spatialbench_same:long")
