"""The store of rendered scenes: grown, cut, shared, keyed by its content."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spatialbench.data.rooms import RoomsSet, load, store
from spatialbench.utils.provenance import usable_cores
from tests.support.checks import refused

SIZE = 24


def same(a: RoomsSet, b: RoomsSet) -> bool:
    arrays = ("images", "depth", "masks")
    equal = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)
    return equal and a.scenes == b.scenes


def test_growing_gives_the_same_as_rendering_at_once(tmp_path: Path) -> None:
    first = load("train", 3, SIZE, tmp_path / "a")
    grown = load("train", 7, SIZE, tmp_path / "a")
    whole = load("train", 7, SIZE, tmp_path / "b")
    assert same(grown, whole)
    assert grown.scenes[:3] == first.scenes
    assert grown.record_set().fingerprint == whole.record_set().fingerprint


@pytest.mark.parametrize("name", ["images.u8", "depth.f16", "masks.u8", "scenes.jsonl"])
def test_a_half_written_file_is_repaired_and_a_complete_one_left_alone(
    tmp_path: Path, name: str
) -> None:
    whole = load("train", 4, SIZE, tmp_path / "whole")
    load("train", 4, SIZE, tmp_path / "cut")
    path = next((tmp_path / "cut" / "rooms").glob(f"*/train/{name}"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert same(load("train", 4, SIZE, tmp_path / "cut"), whole)
    before = path.stat().st_mtime_ns
    load("train", 2, SIZE, tmp_path / "cut")
    assert path.stat().st_mtime_ns == before


def test_another_size_or_generator_misses_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("train", 1, SIZE, tmp_path)
    load("train", 1, SIZE + 4, tmp_path)
    monkeypatch.setattr(store, "code_hash", lambda: "another")
    load("train", 1, SIZE, tmp_path)
    assert len(list((tmp_path / "rooms").iterdir())) == 3


def test_words_and_layout_do_not_change_the_hash_of_code() -> None:
    code = "X = 1\ndef f(a):\n    return a + 1\n"
    words = '"""A."""\nX = 1  # one\n"""B."""\n\n\ndef f(\n  a,\n):\n  "C."\n  return a + 1\n'
    assert store.bare_code(words) == store.bare_code(code)
    assert store.bare_code(code.replace("+ 1", "+ 2")) != store.bare_code(code)


def test_unwritable_cache_and_wrong_arguments_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with refused("SPATIALBENCH_CACHE"):
        load("train", 1, SIZE, tmp_path / "file")
    with refused("unknown split"):
        load("nowhere", 1, SIZE, tmp_path)
    with refused("how many"):
        load("train", None, SIZE, tmp_path)


@pytest.mark.skipif(usable_cores() < 2, reason="one core renders in the process itself")
def test_a_script_without_the_main_guard_fails_with_advice(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from spatialbench.data.rooms import load\nload('val', 40, 24)\n")
    environment = {**os.environ, "SPATIALBENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode != 0
    assert '`if __name__ == "__main__":`' in done.stderr
