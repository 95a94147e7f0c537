"""The benchmark at the paper's sizes: ``fit`` takes its commands, and its records are read."""

from pathlib import Path

import pytest

from spatialbench.config.experiment import resolve
from spatialbench.data.embspatial.reader import load
from spatialbench.training.build import flag_overrides
from tests.support import ROOT
from tools.paper_scale import SIZES, Variant, table, variants, write_records

VARIANTS = [variant for size in SIZES for variant in variants(size)]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: f"{variant.size} {variant.name}")
def test_a_variant_is_a_configuration(
    variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    _, _, page, _, track, _, budget, *flags = variant.arguments(tmp_path, "embspatial_dryrun")
    plain = resolve(page, track, budget)
    run = resolve(page, track, budget, overrides=flag_overrides(plain, flags))
    data, finetuning = run.data_arguments, run.config["model"]["init_args"]["finetuning"]
    assert data["train_images"] >= data["batch_images"]
    assert finetuning.get("chunk_images", 0) in (0, SIZES[variant.size].batch)
    assert run.needs_training


def test_the_records_are_read_and_their_captions_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    write_records(tmp_path, 32, 40)
    loaded = load(tmp_path / "32.json", 32, strict=True)
    assert len(loaded.record_set.images) == len(loaded.record_set.records) == 48
    assert len({record.statement.caption for record in loaded.record_set.records}) > 40


def test_the_table_has_a_line_for_what_does_not_fit() -> None:
    plain = {"size": "B/16", "variant": "plain"}
    speed, error = {"images_per_second": 1234.5, "peak_memory_mb": 9.5}, "the GPU's memory is full"
    *_, good, bad = table([plain | {"speed": speed}, plain | {"error": error}]).splitlines()
    assert good == "| B/16 | plain | 1234 |  | 9.5 |  |  |"
    assert bad.startswith(f"| B/16 | plain | {error} |")
