"""The benchmark of a step runs on every kind of page; its times are not asserted."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import BENCHMARKS
from tools import throughput

pytestmark = pytest.mark.slow
STEP = {"batch_images", "loader_images", "step_ms", "train_images", "student_forward_ms"}
TEACHER = {"teacher_map_ms", "teacher_crops_cached_ms", "teacher_crops_ms"}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIALBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(
    ("page", "parts"), [("r_sc_rla", TEACHER), ("region_text", set()), ("refiner", set())]
)
def test_a_step_of_regions_is_measured_by_its_parts(page: str, parts: set[str]) -> None:
    rates = throughput.distillation(BENCHMARKS / f"{page}.yaml", 0)
    assert rates.keys() == STEP | parts
    assert all(value > 0 for value in rates.values())


def test_a_step_of_images_is_measured(tmp_path: Path) -> None:
    (tmp_path / "tracks").mkdir()
    shutil.copy(BENCHMARKS / "tracks" / "rooms.yaml", tmp_path / "tracks")
    text = (BENCHMARKS / "diva.yaml").read_text()
    named = "  init_args:\n    diffusion: rooms-diffusion:random\n"
    random = text.replace("  init_args:\n", named, 1)
    (tmp_path / "diva.yaml").write_text(
        random + "  init_args: {picture_images: 32, val_images: 4}\n"
    )
    rates = throughput.feedback(tmp_path / "diva.yaml", 0)
    assert rates.keys() == {"batch_images", "loader_images", "encoded_images", "train_images"}
    assert all(value > 0 for value in rates.values())
