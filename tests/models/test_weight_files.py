"""Published weights: where they are looked for, their hash, and the message without them."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from spatialbench.models.files.weight_files import PINNED, WeightFile, hub_weights, obtain
from spatialbench.models.timm_vfm import load_vfm
from tests.support.checks import refused
from tests.support.models import SAME

COMMIT, CONTENT = "0123456789abcdef0123456789abcdef01234567", b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BEHIND_URL = WeightFile("some.pth", SHA256, url="https://example.org/some.pth")
ON_HUB = WeightFile("some.pth", SHA256, repository="owner/name", commit=COMMIT)
SNAPSHOT = f"hub/models--owner--name/snapshots/{COMMIT}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Isolate caches and home, without network."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SPATIALBENCH_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def put(place: Path, content: bytes = CONTENT) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "some.pth").write_bytes(content)
    return place / "some.pth"


def test_every_pinned_file_has_a_hash_and_one_fixed_place() -> None:
    for model, file in PINNED.items():
        assert re.fullmatch("[0-9a-f]{64}", file.sha256), model
        assert file.url.startswith("https://") != bool(re.fullmatch("[0-9a-f]{40}", file.commit))


@pytest.mark.parametrize(
    ("file", "place"),
    [(BEHIND_URL, "cache/weights"), (BEHIND_URL, "home/.cache/clip"), (ON_HUB, SNAPSHOT)],
)
def test_a_local_file_is_found_and_its_hash_checked(
    file: WeightFile, place: str, folder: Path
) -> None:
    path = put(folder / place)
    assert obtain(file, "x") == path
    put(folder / place, b"other")
    with refused(r"vfm 'x': .*some\.pth has the sha256 .*, not .*remove it"):
        obtain(file, "vfm 'x'")
    mine = put(folder / "mine")  # comes first
    assert obtain(file, "x") == mine


def test_what_is_missing_offline_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPATIALBENCH_WEIGHTS")
    with refused(r"student 'x': .*HF_HUB_OFFLINE.*; put https://example.org/some.pth into"):
        obtain(BEHIND_URL, "student 'x'")
    with refused(f"hf download owner/name some.pth --revision {COMMIT}"):
        obtain(ON_HUB, "vfm 'x'")


def test_a_download_is_kept_and_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, target: str, hash_prefix: str | None) -> None:
        asked.append((url, hash_prefix))
        if len(asked) == 1:
            raise RuntimeError("no\nnetwork")
        Path(target).write_bytes(CONTENT)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with refused(r"cannot be downloaded \(no network\)"):
        obtain(BEHIND_URL, "x")
    for _ in range(2):
        assert obtain(BEHIND_URL, "x") == folder / "cache" / "weights" / "some.pth"
    assert asked == [(BEHIND_URL.url, SHA256)] * 2


def test_a_reference_to_the_hub() -> None:
    plain = hub_weights(f"owner/name@{COMMIT}/folder/model.safetensors")
    assert plain == WeightFile("folder/model.safetensors", "", "", "owner/name", COMMIT)
    assert hub_weights(f"owner/name@{COMMIT}/some.pth#{SHA256}") == ON_HUB
    wrong = ("openai", "my/file.pth", "owner/name@main/some.pth", f"owner/name@{COMMIT}")
    assert not any(map(hub_weights, [*wrong, f"x@{COMMIT}/a#12"]))


def test_a_vfm_by_its_short_name_and_by_a_reference(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, path = load_vfm(SAME).model.state_dict(), folder / "mine" / "some.safetensors"
    path.parent.mkdir()
    save_file(weights, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    file = WeightFile(path.name, sha256, url="https://example.org/x")
    for name in ("short", "dinov2"):
        monkeypatch.setitem(PINNED, ("spatialbench_same", name), file)
    reference = f"owner/name@{COMMIT}/some.safetensors#{sha256}"
    for spec in ("spatialbench_same:short", "spatialbench_same", f"spatialbench_same:{reference}"):
        state = load_vfm(spec).model.state_dict()
        assert all(value.equal(weights[name]) for name, value in state.items()), spec
    with refused(r"no weights file long, nor published .*names: short, dinov2"):
        load_vfm("spatialbench_same:long")
