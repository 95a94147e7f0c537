"""Image selection in a result: what is stored is recounted, and earlier rows stay what they were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatialbench.results.files import (
    read_measures,
    read_outcomes,
    read_result,
    read_selection,
    write_result,
)
from spatialbench.results.stale import Today
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.verify.check_results import check_stored
from tests.support import fakes


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    folder = fakes.benchmarks(tmp_path / "benchmarks", "clip", "other")
    return fakes.store(
        tmp_path / "results", "clip", folder, fakes.measures_of("clip"), fakes.selection_of("clip")
    )


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_round_trip(stored: Path) -> None:
    result, selection = read_result(stored), fakes.selection_of("clip")
    again = read_selection(stored, result)
    assert again is not None
    assert (again.digest, again.labels) == (selection.digest, ("left", "colour", "presence"))
    assert result.selection is not None
    assert (result.selection.file, result.selection.pictures) == ("clip.selection.npz", 60)
    measures = read_measures(stored, result)
    assert measures is not None
    assert "select_cls" not in measures.ratios
    for name, groups in result.selection.patterns.items():
        assert list(groups) == ["left", "colour", "presence"]
        assert np.mean(list(groups.values())) == pytest.approx(
            result.selection.value[name], abs=1e-3
        )
        counts = [20 for _ in groups]
        right = selection.ratios[name].numerator.sum(1).mean(0)
        assert list(groups.values()) == pytest.approx(100 * right / counts, abs=1e-3)


def test_a_row_without_selection_has_none_and_an_earlier_file_goes(
    stored: Path, tmp_path: Path
) -> None:
    beside = stored.with_name("clip.selection.npz")
    assert beside.exists()
    fakes.store(tmp_path / "results", "clip", tmp_path / "benchmarks", fakes.measures_of("clip"))
    assert read_result(stored).selection is None
    assert read_selection(stored, read_result(stored)) is None
    assert not beside.exists()
    assert stored.with_name("clip.measures.npz").exists()


def test_version_2_is_read_as_a_row_without_selection(stored: Path) -> None:
    edit(stored, lambda d: d.update(schema_version=2))
    with pytest.raises(SpatialbenchError, match="field 'selection': unknown in schema_version 2"):
        read_result(stored)
    edit(stored, lambda d: d.pop("selection"))
    result = read_result(stored)
    assert (result.schema_version, result.selection) == (3, None)
    assert result.measures is not None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (
            lambda s: s["value"].update(select_cls=s["value"]["select_cls"] + 0.01),
            r"selection\.value\.select_cls",
        ),
        (
            lambda s: s["patterns"]["select_local"].update(colour=99.0),
            r"selection\.patterns\.select_local\.colour",
        ),
        (lambda s: s.update(pictures=61), r"selection\.pictures"),
        (lambda s: s.update(data="e" * 16), r"selection\.data"),
        (lambda s: s.update(sha256="0" * 64), r"selection\.sha256"),
    ],
)
def test_numbers_edited_by_hand_are_refused(
    stored: Path, change: Callable[[dict[str, Any]], object], field: str
) -> None:
    edit(stored, lambda d: change(d["selection"]))
    with pytest.raises(SpatialbenchError, match=f"field '{field}': says .* give .*edited"):
        read_selection(stored, read_result(stored))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["patterns"].pop("select_cls"), "patterns must have the measures of value"),
        (lambda s: s["patterns"]["select_cls"].pop("left"), "all of them the same patterns"),
        (lambda s: s.pop("patterns"), r"field 'selection\.patterns': missing"),
        (lambda s: s.update(file="../x.npz"), "must lie beside the result"),
    ],
)
def test_wrong_fields_are_refused(
    stored: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(stored, lambda d: change(d["selection"]))
    with pytest.raises(SpatialbenchError, match=message):
        read_result(stored)


def test_other_names_of_patterns_are_refused(stored: Path) -> None:
    for name in ("select_cls", "select_local"):
        edit(stored, lambda d, name=name: d["selection"]["patterns"][name].update(zebra=1.0))
        edit(stored, lambda d, name=name: d["selection"]["patterns"][name].pop("colour"))
    with pytest.raises(
        SpatialbenchError,
        match=r"field 'selection\.patterns\.select_cls': says left, presence, zebra",
    ):
        read_selection(stored, read_result(stored))


def test_a_result_and_its_selection_are_given_together(stored: Path) -> None:
    result = read_result(stored)
    outcomes, measures = read_outcomes(stored, result), read_measures(stored, result)
    with pytest.raises(
        SpatialbenchError, match="field 'selection': the result and its selection must be given"
    ):
        write_result(stored, result, outcomes, measures)


def test_the_check_of_stored_rows_looks_at_selection(stored: Path, tmp_path: Path) -> None:
    results, today = tmp_path / "results", Today.read(tmp_path / "benchmarks")
    assert check_stored(results, today) == []
    edit(stored, lambda d: d["selection"]["interval"].update(select_cls=[1.0, 2.0]))
    assert any(
        "field 'selection.interval.select_cls'" in line for line in check_stored(results, today)
    )
    shutil.copy(stored.with_name("clip.selection.npz"), stored.with_name("gone.selection.npz"))
    assert any(
        "gone.selection.npz: no result file names it" in line
        for line in check_stored(results, today)
    )
    other = fakes.selection_of("other", data="t" * 16)
    fakes.store(results, "other", tmp_path / "benchmarks", fakes.measures_of("other"), other)
    assert any("other measured on other data" in line for line in check_stored(results, today))
