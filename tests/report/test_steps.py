"""Steps to 60 %: by hand on curves, and the table beside stored rows."""

import json
from pathlib import Path

import pytest

from spatialbench.report.steps import section, steps_to
from spatialbench.results.curves import keep_curves
from spatialbench.results.files import Row
from tests.support import fakes


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([50, 59.9, 60, 70], 300),
        ([61, 59, 62, 63], 300),  # the first one does not stay
        ([60, 60, 60, 60], 100),
        ([50, 55, 58, 60], 400),
        ([70, 80, 70, 59.9], None),
        ([], None),
    ],
)
def test_it_counts_from_where_the_curve_stays(values: list[float], expected: float | None) -> None:
    assert steps_to([(100 * k + 99.0, value) for k, value in enumerate(values)]) == expected


def row_with(folder: Path, *curves: dict[str, list[float]]) -> Row:
    """Return a row whose seeds have these curves, validated every 100 steps."""
    row = fakes.row("b", fakes.benchmarks(folder / "benchmarks", "b"), seeds=range(len(curves)))
    for seed, values in enumerate(curves):
        (folder / f"seed{seed}").mkdir()
        points = [
            {"step": 100 * k + 99, f"val/{name}": value}
            for name, column in values.items()
            for k, value in enumerate(column)
        ]
        lines = [json.dumps(point) for point in [{"step": 0, "train/loss": 1.0}, *points]]
        (folder / f"seed{seed}" / "metrics.jsonl").write_text("\n".join(lines))
    folders = [folder / f"seed{seed}" for seed in range(len(curves))]
    keep_curves(folder / "b.json", row.result, folders)
    return row


def test_a_cell_is_the_mean_of_the_seeds_that_get_there(tmp_path: Path) -> None:
    row = row_with(
        tmp_path,
        {"close": [60, 70, 80], "left": [50, 50, 61], "above": [50, 50, 59]},
        {"close": [50, 50, 80], "left": [50, 50, 50], "above": [60, 50, 50]},
    )
    lines = section([row], tmp_path)
    assert lines[0] == "### Steps to 60 %"
    assert lines[-1] == "| b | 200 | – | 300 (1 of 2 seeds) | – | – | – |"


def test_curves_without_relations_have_no_table(tmp_path: Path) -> None:
    assert section([row_with(tmp_path, {"all": [50, 70, 80]})], tmp_path) == []
