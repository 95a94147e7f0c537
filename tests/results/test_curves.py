"""Curves of a run folder, and those kept beside a row."""

from dataclasses import replace
from pathlib import Path

import pytest

from spatialbench.results import curves
from spatialbench.results.curves import curves_path, keep_curves, read_curves, read_metrics
from spatialbench.results.schema import Result
from spatialbench.utils.errors import SpatialbenchError
from tests.support import fakes


@pytest.fixture
def row(tmp_path: Path) -> tuple[Path, Result, list[Path]]:
    """Return the path of a result, the result, and the folders of its runs."""
    result = fakes.row("b", fakes.benchmarks(tmp_path / "benchmarks", "b"), seeds=(0, 1)).result
    folders = [fakes.write_metrics(tmp_path / f"seed{seed}", float(seed)) for seed in (0, 1)]
    return tmp_path / "b.json", result, folders


def test_metrics_that_were_cut_short(tmp_path: Path) -> None:
    found = read_metrics(fakes.write_metrics(tmp_path / "run") / "metrics.jsonl")
    assert len(found["train/loss"]) == 400
    assert found["val/all"] == [(99.0, 51.0 - 0.01), (399.0, 54.0 - 0.01)]
    thin = curves.thinned(found["train/loss"], 100)
    assert len(thin) == 100
    assert thin[0] == (3.0, pytest.approx((2 + 1 + 2 / 3 + 0.5) / 4))


def test_what_is_kept_comes_back(row: tuple[Path, Result, list[Path]]) -> None:
    path, result, folders = row
    assert read_curves(path, result) == {}
    keep_curves(path, result, folders)
    found = read_curves(path, result)
    assert list(found) == [0, 1]
    assert list(found[1]) == ["train/loss", "val/all", "val/left"]  # not the learning rate
    wanted = curves.thinned(read_metrics(folders[1] / "metrics.jsonl")["train/loss"])
    assert len(wanted) == curves.MOST
    assert [step for step, _ in found[1]["train/loss"]] == [step for step, _ in wanted]
    values = [value for _, value in wanted]
    assert [value for _, value in found[1]["train/loss"]] == pytest.approx(values, rel=1e-4)
    assert found[1]["train/loss"][-1][1] > 1 > found[0]["train/loss"][-1][1]


def test_a_row_without_run_folders_loses_the_curves_of_an_earlier_one(
    row: tuple[Path, Result, list[Path]], tmp_path: Path
) -> None:
    path, result, folders = row
    keep_curves(path, result, folders)
    keep_curves(path, result, [tmp_path / "gone", tmp_path / "gone"])
    assert not curves_path(path).exists()
    keep_curves(path, replace(result, budget="smoke"), folders)  # not of the table
    assert not curves_path(path).exists()


def test_curves_of_other_runs_and_damaged_ones_are_refused(
    row: tuple[Path, Result, list[Path]],
) -> None:
    path, result, folders = row
    keep_curves(path, result, folders)
    text = curves_path(path).read_text()
    other = replace(result, runs=[replace(run, commit="f" * 40) for run in result.runs])
    with pytest.raises(SpatialbenchError, match=r"seed 0 of another run .*; restore it"):
        read_curves(path, other)
    for damaged, message in (
        (text[:-50], "restore it"),
        (text.replace("val/all", "val/any", 1), "'val/any' is no curve of steps and values"),
        (text.replace("[[", "[[NaN, 1], [", 1), "'train/loss' is no curve of steps and values"),
        (text.replace('"points"', '"point"', 1), "cannot be read"),
    ):
        curves_path(path).write_text(damaged)
        with pytest.raises(SpatialbenchError, match=rf"b\.curves\.jsonl: .*{message}"):
            read_curves(path, result)
