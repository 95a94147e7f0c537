"""The benchmark of a step runs on every kind of page; what it measures is not asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatialbench import throughput

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
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
