"""The benchmark of a step runs on every kind of page; what it measures is not asserted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import BENCHMARKS
from tools import throughput

STEP = {"batch_images", "loader_images", "step_ms", "train_images", "student_forward_ms"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("page", "parts"),
    [
        ("r_sc_rla", {"teacher_map_ms", "teacher_crops_cached_ms", "teacher_crops_ms"}),
        ("region_text", set()),
        ("refiner", set()),
    ],
)
def test_a_step_of_regions_is_measured_by_its_parts(
    page: str, parts: set[str], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(cache))
    found = throughput.distillation(BENCHMARKS / f"{page}.yaml", 0)
    assert found.keys() == STEP | parts
    assert all(value > 0 for value in found.values())


def test_a_step_of_pictures_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(cache))
    (tmp_path / "tracks").mkdir()
    shutil.copy(BENCHMARKS / "tracks" / "rooms.yaml", tmp_path / "tracks")
    text = (BENCHMARKS / "diva.yaml").read_text()
    random = text.replace(
        "  init_args:\n", "  init_args:\n    diffusion: rooms-diffusion:random\n", 1
    )
    (tmp_path / "diva.yaml").write_text(
        random + "  init_args: {picture_images: 32, val_images: 4}\n"
    )
    found = throughput.feedback(tmp_path / "diva.yaml", 0)
    assert found.keys() == {"batch_images", "loader_images", "encoded_images", "train_images"}
    assert all(value > 0 for value in found.values())
