"""The tracks of paper scale: the poster's pages compose on them, and differ as named."""

from pathlib import Path
from typing import Any

import pytest

from spatialbench.cli.main import main
from spatialbench.config.experiment import resolve
from spatialbench.config.pages import load_track
from spatialbench.training.build import dump_config
from tests.support import BENCHMARKS

TRACKS = ("embspatial", "embspatial_b16", "embspatial_poster", "embspatial_dryrun")
PAGES = ("clip_zeroshot", "residual_linear", "spatial_attn_value")
FLAWS = {
    "trainer": {"accumulate_grad_batches"},
    "data": {"split", "held_out", "test_on", "depth_pairs", "drop_last"},
    "model": {"vfm_normalisation"},
    "finetuning": {"optimizer", "decay", "scored", "projections"},
}
"""The fields that only the poster's reading names; the corrected track has their defaults."""


@pytest.mark.parametrize("track", TRACKS)
@pytest.mark.parametrize("page", PAGES)
def test_every_page_and_budget_can_be_composed(track: str, page: str) -> None:
    for budget in load_track(BENCHMARKS / "tracks" / f"{track}.yaml").budgets:
        resolved = resolve(BENCHMARKS / f"{page}.yaml", track, budget, 0)
        assert resolved.config["data"]["image_size"] == (224 if track.endswith("b16") else 336)
    dump_config(resolved)  # the parser takes every value


def composed(track: str, budget: str = "full") -> dict[str, Any]:
    return resolve(BENCHMARKS / "spatial_attn.yaml", track, budget, 0).config


def test_the_posters_reading_and_ours_differ_in_the_track_alone() -> None:
    ours, posters = composed("embspatial"), composed("embspatial_poster")
    for config in (ours, posters):
        config["finetuning"] = config["model"]["init_args"].pop("finetuning")
        config["model"] = config["model"]["init_args"]
    for block, names in FLAWS.items():
        assert set(posters[block]) - set(ours[block]) == names, block
    assert posters["model"]["student"] == ours["model"]["student"]
    assert posters["model"]["vfm"] == ours["model"]["vfm"]
    assert posters["data"]["train_path"] == ours["data"]["train_path"]


@pytest.mark.parametrize("track", ["embspatial", "embspatial_b16", "embspatial_poster"])
def test_missing_data_is_told_before_weights_are_loaded(
    track: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = str(BENCHMARKS / "spatial_attn.yaml")
    assert main(["fit", "--config", page, "--track", track]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "there is no file data/embspatial/" in last
    assert "spatialbench data download embspatial" in last


def test_the_dry_run_is_of_the_same_size() -> None:
    real, dry = composed("embspatial"), composed("embspatial_dryrun", "quick")
    for key in ("student", "vfm"):
        name = real["model"]["init_args"][key].partition(":")[0]
        assert dry["model"]["init_args"][key] == f"{name}:random"
    for key in ("image_size", "batch_images", "records_per_image"):
        assert dry["data"][key] == real["data"][key]
    assert dry["model"]["init_args"]["finetuning"]["chunk_images"] == 64
