"""The store of rendered scenes: grown, cut, shared, keyed by its content."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spatialbench.data.rooms import load, store
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.utils.provenance import usable_cores

SIZE = 24


def _folder(root: Path) -> Path:
    return next((root / "rooms").glob("*/train"))


def test_growing_gives_the_same_as_rendering_at_once(tmp_path: Path) -> None:
    first = load("train", 3, SIZE, tmp_path / "a")
    grown = load("train", 7, SIZE, tmp_path / "a")
    whole = load("train", 7, SIZE, tmp_path / "b")
    assert grown.scenes == whole.scenes
    assert grown.scenes[:3] == first.scenes
    for name in ("images", "depth", "masks"):
        assert np.array_equal(getattr(grown, name), getattr(whole, name))
    assert grown.record_set().fingerprint == whole.record_set().fingerprint


@pytest.mark.parametrize("name", ["images.u8", "depth.f16", "masks.u8", "scenes.jsonl"])
def test_what_a_kill_left_half_written_is_rendered_again(tmp_path: Path, name: str) -> None:
    whole = load("train", 5, SIZE, tmp_path)
    expected = (whole.images.copy(), whole.depth.copy(), whole.masks.copy(), whole.scenes)
    path = _folder(tmp_path) / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = load("train", 5, SIZE, tmp_path)
    for found, wanted in zip((again.images, again.depth, again.masks), expected[:3], strict=True):
        assert np.array_equal(found, wanted)
    assert again.scenes == expected[3]


def test_a_finished_store_is_not_rendered_again(tmp_path: Path) -> None:
    load("train", 4, SIZE, tmp_path)
    path = _folder(tmp_path) / "images.u8"
    before = path.stat().st_mtime_ns
    load("train", 4, SIZE, tmp_path)
    load("train", 2, SIZE, tmp_path)
    assert path.stat().st_mtime_ns == before


def test_another_size_or_generator_misses_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("train", 1, SIZE, tmp_path)
    load("train", 1, SIZE + 4, tmp_path)
    monkeypatch.setattr(store, "code_hash", lambda: "another")
    load("train", 1, SIZE, tmp_path)
    assert len(list((tmp_path / "rooms").iterdir())) == 3


def test_unwritable_cache_and_wrong_arguments_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpatialbenchError, match="SPATIALBENCH_CACHE"):
        load("train", 1, SIZE, tmp_path / "file")
    with pytest.raises(SpatialbenchError, match="unknown split"):
        load("nowhere", 1, SIZE, tmp_path)
    with pytest.raises(SpatialbenchError, match="how many"):
        load("train", None, SIZE, tmp_path)


@pytest.mark.skipif(usable_cores() < 2, reason="one core renders in the process itself")
def test_a_script_without_the_main_guard_is_told_instead_of_waiting_for_itself(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text("from spatialbench.data.rooms import load\nload('val', 40, 24)\n")
    environment = {**os.environ, "SPATIALBENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert '`if __name__ == "__main__":`' in done.stderr
