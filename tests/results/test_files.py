"""Result files: round trip, and every way of being wrong refused with file, field and advice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatialbench.evaluation.measures import Measures
from spatialbench.evaluation.pairs import Count
from spatialbench.results.files import (
    ResultOutcomes,
    compact,
    list_results,
    read_measures,
    read_outcomes,
    read_result,
    result_path,
    write_result,
)
from spatialbench.utils.errors import SpatialbenchError
from tests.support import RESULTS, fakes


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The result file of a row ``clip`` with three seeds."""
    return fakes.store(
        tmp_path / "results", "clip", fakes.benchmarks(tmp_path / "benchmarks", "clip", "other")
    )


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_round_trip(stored: Path, tmp_path: Path) -> None:
    result, outcomes = fakes.row("clip", tmp_path / "benchmarks")
    assert read_result(stored) == result
    again = read_outcomes(stored, result)
    assert again.margins.dtype == np.float16
    assert all(
        np.array_equal(again.arrays()[name], array) for name, array in outcomes.arrays().items()
    )


def test_the_numbers_are_those_of_the_runs(stored: Path) -> None:
    result = read_result(stored)
    assert result.seeds == [0, 1, 2]
    assert result.n == 120
    assert result.counts == dict.fromkeys(result.counts, 20)
    by_seed = [run.relations["left"].accuracy for run in result.runs]
    assert result.accuracy["left"] == pytest.approx(np.mean(by_seed), abs=1e-4)
    assert result.spread()["left"] == pytest.approx(np.std(by_seed, ddof=1))
    assert result.accuracy["all"] == pytest.approx(
        np.mean([run.micro for run in result.runs]), abs=1e-4
    )
    low, high = result.interval["all"] or (0, 0)
    assert low < (result.accuracy["all"] or 0) < high


def test_files_are_the_same_bytes_each_time(stored: Path, tmp_path: Path) -> None:
    again = fakes.store(tmp_path / "again", "clip", tmp_path / "benchmarks")
    for name in ("clip.json", "clip.outcomes.npz"):
        assert (stored.parent / name).read_bytes() == (again.parent / name).read_bytes()


def test_where_rows_live(stored: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    smoke = fakes.store(results, "clip", tmp_path / "benchmarks", budget="smoke", seeds=(0,))
    assert (
        stored == results / "rooms" / "clip.json" == result_path(results, "rooms", "full", "clip")
    )
    assert smoke == results / "rooms" / "smoke" / "clip.json"
    assert list_results(results, "rooms") == [stored]
    assert list_results(results, "rooms", "smoke") == [smoke]
    assert list_results(results, "embspatial") == []


def test_float16_keeps_every_sign() -> None:
    margins = np.array([1e-9, -1e-9, 0.0, -0.0, 0.5, -1e-12, 1.9], dtype=np.float32)
    small = compact(margins)
    assert small.dtype == np.float16
    assert np.array_equal(np.sign(small), np.sign(margins))
    assert small[[4, 6]] == pytest.approx(margins[[4, 6]], rel=1e-3)


def test_a_truncated_file_is_refused_with_its_place(stored: Path) -> None:
    text = stored.read_text()
    stored.write_text(text[: len(text) // 2])
    with pytest.raises(
        SpatialbenchError, match=r"clip\.json: not valid JSON \(.*line \d+ column \d+\); restore it"
    ):
        read_result(stored)
    stored.write_bytes(b"\xff\xfe")
    with pytest.raises(SpatialbenchError, match=r"clip\.json: cannot be read"):
        read_result(stored)
    stored.unlink()
    with pytest.raises(SpatialbenchError, match=r"clip\.json: no such file"):
        read_result(stored)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("track_hash"), "field 'track_hash': missing"),
        (lambda d: d.update(note="x"), "field 'note': unknown field"),
        (lambda d: d.update(budget=3), "field 'budget': expected str, found 3"),
        (
            lambda d: d.update(schema_version=99),
            "field 'schema_version': 99 is newer .* update spatialbench",
        ),
        (lambda d: d.update(schema_version=0), "field 'schema_version': expected 1 to 3, found 0"),
        (lambda d: d.update(schema_version="1"), "field 'schema_version': expected int"),
        (lambda d: d.update(name="other"), "field 'name': says 'other'"),
        (lambda d: d.update(seeds=[0, 1]), r"seeds \[0, 1\] do not name the runs"),
        (
            lambda d: d["runs"][1].update(dirty="no"),
            r"field 'runs\[1\]\.dirty': expected bool, found 'no'",
        ),
        (
            lambda d: d["runs"][1].update(micro=None),
            r"field 'runs\[1\]\.micro': expected float, found None",
        ),
        (
            lambda d: d["runs"][2]["relations"]["far"].pop("ties"),
            r"field 'runs\[2\]\.relations\.far\.ties': missing",
        ),
        (lambda d: d["runs"][0]["relations"].pop("far"), "relations must be close, far"),
        (
            lambda d: d["runs"][0]["relations"]["far"].update(correct=99),
            r"relations\.far: 99 right and 0 ties of 20",
        ),
        (lambda d: d["interval"].update(left=[1.0]), "two bounds"),
        (
            lambda d: d["interval"].update(left=["a", 2]),
            r"field 'interval\.left\[0\]': expected float, found 'a'",
        ),
        (lambda d: d["accuracy"].pop("macro"), "must have the columns"),
        (lambda d: d["outcomes"].update(file="../x.npz"), "beside the result"),
        (lambda d: d.update(runs={}), "field 'runs': expected a list"),
    ],
)
def test_wrong_fields_are_refused(
    stored: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(stored, change)
    with pytest.raises(SpatialbenchError, match=message) as error:
        read_result(stored)
    assert str(error.value).startswith(str(stored))
    assert "\n" not in str(error.value)


def test_a_list_or_nan_is_refused(stored: Path) -> None:
    stored.write_text("[1, 2]")
    with pytest.raises(SpatialbenchError, match="expected a mapping"):
        read_result(stored)
    stored.write_text('{"schema_version": NaN}')
    with pytest.raises(SpatialbenchError, match="NaN is not a JSON number"):
        read_result(stored)


def swap_two(counts: dict[str, Any]) -> None:
    counts["correct"], counts["ties"] = counts["correct"] - 2, 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (
            lambda d: d["runs"][0]["relations"]["far"].update(correct=20),
            r"runs\[0\]\.relations\.far",
        ),
        (lambda d: swap_two(d["runs"][2]["relations"]["under"]), r"runs\[2\]\.relations\.under"),
        (lambda d: d["runs"][1].update(micro=99.0), r"runs\[1\]\.micro"),
        (lambda d: d["runs"][1].update(macro=99.0), r"runs\[1\]\.macro"),
        (lambda d: d["accuracy"].update(all=99.0), r"accuracy\.all"),
        (lambda d: d["accuracy"].update(left=None), r"accuracy\.left"),
        (lambda d: d["outcomes"].update(sha256="0" * 64), r"outcomes\.sha256"),
        (lambda d: d["outcomes"].update(records=121), r"outcomes\.records"),
    ],
)
def test_numbers_edited_by_hand_are_refused(
    stored: Path, change: Callable[[dict[str, Any]], object], field: str
) -> None:
    edit(stored, change)
    with pytest.raises(SpatialbenchError, match=f"field '{field}': says .* the file was edited"):
        read_outcomes(stored, read_result(stored))


def test_an_interval_edited_by_hand_is_refused(stored: Path) -> None:
    """By more than 0.2 points, which another machine's rounding never comes to."""
    low, high = read_result(stored).interval["left"] or (0.0, 0.0)
    edit(stored, lambda d: d["interval"].update(left=[low, high + 0.1]))
    read_outcomes(stored, read_result(stored))
    for wrong in ([low, high - 0.3], None):
        edit(stored, lambda d, wrong=wrong: d["interval"].update(left=wrong))
        with pytest.raises(
            SpatialbenchError, match=r"field 'interval\.left': says .* but the outcomes give \[\d"
        ):
            read_outcomes(stored, read_result(stored))


def test_a_row_under_another_name_is_refused(stored: Path, tmp_path: Path) -> None:
    """The file of another row copied and renamed inside: its outcomes are still the other's."""
    other = fakes.store(
        tmp_path / "results", "other", tmp_path / "benchmarks", fakes.measures_of("other")
    )
    shutil.copy(other, stored)
    with pytest.raises(
        SpatialbenchError, match="field 'name': says 'other'; give the file back its name"
    ):
        read_result(stored)
    edit(stored, lambda d: d.update(name="clip"))
    message = r"field 'outcomes\.file': expected clip\.outcomes\.npz, found other\.outcomes\.npz; restore it from git"
    with pytest.raises(SpatialbenchError, match=message):
        read_result(stored)
    edit(stored, lambda d: d["outcomes"].update(file="clip.outcomes.npz"))
    with pytest.raises(
        SpatialbenchError, match=r"field 'measures\.file': expected clip\.measures\.npz, found"
    ):
        read_result(stored)
    edit(stored, lambda d: d["measures"].update(file="clip.measures.npz"))
    with pytest.raises(
        SpatialbenchError,
        match=r"the file was edited, or clip\.outcomes.npz belongs to another result",
    ):
        read_outcomes(stored, read_result(stored))


def test_a_key_given_twice_is_refused(stored: Path) -> None:
    """What a merge by hand leaves behind; JSON's own rule, the last one wins, would hide it."""
    text = stored.read_text()
    stored.write_text(text.replace('"budget": "full"', '"budget": "full",\n "budget": "quick"'))
    with pytest.raises(
        SpatialbenchError,
        match=r"clip\.json: cannot be read \(duplicate key 'budget'\); restore it",
    ):
        read_result(stored)
    stored.write_text("<<<<<<< ours\n" + text)
    with pytest.raises(SpatialbenchError, match=r"not valid JSON \(.*line 1 column 1\)"):
        read_result(stored)


def test_outcomes_of_another_row_are_refused(stored: Path, tmp_path: Path) -> None:
    other = fakes.store(tmp_path / "results", "other", tmp_path / "benchmarks")
    shutil.copy(other.with_name("other.outcomes.npz"), stored.with_name("clip.outcomes.npz"))
    with pytest.raises(SpatialbenchError, match="belongs to another result"):
        read_outcomes(stored, read_result(stored))


def test_the_same_answers_in_another_order_are_refused(stored: Path) -> None:
    """Two records of one relation exchanged: every count stays, the digest does not."""
    result = read_result(stored)
    outcomes = read_outcomes(stored, result)
    order = np.arange(120)
    order[[0, 6]] = [6, 0]
    exchanged = replace(outcomes, margins=outcomes.margins[:, order])
    with pytest.raises(SpatialbenchError, match=r"outcomes\.sha256"):
        write_result(stored, result, exchanged)


def test_damaged_outcomes_are_refused(stored: Path) -> None:
    result = read_result(stored)
    file = stored.with_name("clip.outcomes.npz")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(SpatialbenchError, match="not a readable outcomes file"):
        read_outcomes(stored, result)
    file.unlink()
    with pytest.raises(SpatialbenchError, match="no such file"):
        read_outcomes(stored, result)


def test_a_result_that_does_not_fit_its_outcomes_is_not_written(tmp_path: Path) -> None:
    result, outcomes = fakes.row("clip", fakes.benchmarks(tmp_path / "benchmarks", "clip"))
    flipped = replace(outcomes, margins=-outcomes.margins)
    with pytest.raises(SpatialbenchError, match="outcomes give"):
        write_result(tmp_path / "clip.json", result, flipped)
    assert not (tmp_path / "clip.json").exists()
    assert not (tmp_path / "clip.outcomes.npz").exists()


def test_seeds_on_different_records_are_not_joined() -> None:
    first, second = fakes.run_outcomes(0), fakes.run_outcomes(1)
    with pytest.raises(SpatialbenchError, match="different records"):
        ResultOutcomes.join([first, replace(second, record_ids=second.record_ids[::-1].copy())])


def test_a_constant_scorer_gets_exactly_50(tmp_path: Path) -> None:
    constant = replace(
        fakes.run_outcomes(0),
        positive=np.full(120, 0.25, np.float32),
        negative=np.full(120, 0.25, np.float32),
    )
    outcomes = ResultOutcomes.join([constant])
    assert outcomes.scores()[0].relations["left"] == Count(n=20, correct=0, ties=20)
    folder = fakes.benchmarks(tmp_path, "clip")
    result = fakes.result_of("clip", folder, [constant])
    assert set(result.accuracy.values()) == {50.0}
    assert {tuple(pair) for pair in result.interval.values() if pair} == {(50.0, 50.0)}


def test_a_relation_without_records_has_no_number(tmp_path: Path) -> None:
    run = fakes.run_outcomes(0)
    keep = run.relation != "far"
    short = replace(run, **{name: getattr(run, name)[keep] for name in vars(run)})
    result = fakes.result_of("clip", fakes.benchmarks(tmp_path, "clip"), [short])
    assert result.accuracy["far"] is None
    assert result.interval["far"] is None
    assert result.spread()["far"] is None
    write_result(tmp_path / "clip.json", result, ResultOutcomes.join([short]))
    assert read_result(tmp_path / "clip.json") == result
    read_outcomes(tmp_path / "clip.json", result)


# --------------------------------------------------------------------------------------------------------- measures


@pytest.fixture
def measured(stored: Path, tmp_path: Path) -> Path:
    """The same row with measures."""
    return fakes.store(
        tmp_path / "results", "clip", tmp_path / "benchmarks", fakes.measures_of("clip")
    )


def test_measures_round_trip(measured: Path) -> None:
    measures, result = fakes.measures_of("clip"), read_result(measured)
    assert result.schema_version == 3
    again = read_measures(measured, result)
    assert again is not None
    assert again.digest == measures.digest
    assert result.measures is not None
    assert (result.measures.file, result.measures.pictures) == ("clip.measures.npz", 60)
    assert result.measures.data == measures.data
    assert result.measures.sha256 == measures.digest
    assert list(result.measures.value) == ["box_top1", "same_mask", "image_r1"]
    for name, value in measures.values().items():
        assert result.measures.value[name] == round(value, 4)
        low, high = result.measures.interval[name]
        assert low < value < high
        assert (round(low, 3), round(high, 3)) == (low, high)


def test_files_with_measures_are_the_same_bytes_each_time(measured: Path, tmp_path: Path) -> None:
    again = fakes.store(
        tmp_path / "again", "clip", tmp_path / "benchmarks", fakes.measures_of("clip")
    )
    for name in ("clip.json", "clip.outcomes.npz", "clip.measures.npz"):
        assert (measured.parent / name).read_bytes() == (again.parent / name).read_bytes()


def test_a_row_without_measures_has_none(stored: Path) -> None:
    assert read_result(stored).measures is None
    assert read_measures(stored, read_result(stored)) is None
    assert not stored.with_name("clip.measures.npz").exists()


def test_measures_of_an_earlier_row_go(measured: Path, tmp_path: Path) -> None:
    fakes.store(tmp_path / "results", "clip", tmp_path / "benchmarks")
    assert read_result(measured).measures is None
    assert not measured.with_name("clip.measures.npz").exists()


def to_version_1(path: Path) -> None:
    """The file as version 1 wrote it."""
    edit(path, lambda d: d.update(schema_version=1))
    edit(path, lambda d: (d.pop("measures"), d.pop("selection")))


def test_version_1_is_read_as_a_row_without_measures(stored: Path) -> None:
    expected = read_result(stored)
    to_version_1(stored)
    assert "measures" not in stored.read_text()
    result = read_result(stored)
    assert result == expected
    assert (result.schema_version, result.measures, result.selection) == (3, None, None)
    write_result(stored, result, read_outcomes(stored, result))
    assert json.loads(stored.read_text())["schema_version"] == 3


def test_version_2_is_read_as_a_row_with_measures_and_without_selection(measured: Path) -> None:
    expected = read_result(measured)
    edit(measured, lambda d: (d.update(schema_version=2), d.pop("selection")))
    result = read_result(measured)
    assert result == expected
    assert result.measures is not None
    assert read_measures(measured, result) is not None
    edit(measured, lambda d: d.update(selection=None))
    with pytest.raises(SpatialbenchError, match="field 'selection': unknown in schema_version 2"):
        read_result(measured)


def test_version_1_knew_no_measures(stored: Path) -> None:
    to_version_1(stored)
    edit(stored, lambda d: d.update(measures=None))
    with pytest.raises(SpatialbenchError, match="field 'measures': unknown in schema_version 1"):
        read_result(stored)
    edit(stored, lambda d: (d.pop("measures"), d.update(schema_version=True)))
    with pytest.raises(SpatialbenchError, match="field 'schema_version': expected int, found True"):
        read_result(stored)


def test_the_repositorys_rows_are_read() -> None:
    """Version 1 to 3: what is stored stays readable."""
    results = RESULTS
    for path in list_results(results, "rooms"):
        result = read_result(path)
        assert (read_measures(path, result) is None) == (result.measures is None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("data"), r"field 'measures\.data': missing"),
        (lambda m: m.update(pictures="60"), r"field 'measures\.pictures': expected int"),
        (lambda m: m.update(file="../clip.measures.npz"), "must lie beside the result"),
        (lambda m: m.update(file=""), "must lie beside the result"),
        (
            lambda m: m["value"].update(speed=1.0),
            "value must have some of box_top1, .*found .*speed",
        ),
        (lambda m: m.update(value={}, interval={}), r"value must have some of .*found \[\]"),
        (lambda m: m["value"].update(box_top1=m["value"].pop("box_top1")), "in this order"),
        (
            lambda m: m["value"].update(box_top1=None),
            r"field 'measures\.value\.box_top1': expected float, found None",
        ),
        (lambda m: m["interval"].pop("same_mask"), "interval must have the measures of value"),
        (lambda m: m["interval"].update(same_mask=[1.0]), "two bounds"),
    ],
)
def test_wrong_fields_of_measures_are_refused(
    measured: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(measured, lambda d: change(d["measures"]))
    with pytest.raises(
        SpatialbenchError,
        match=f"field 'measures.*{message}" if "field" not in message else message,
    ) as error:
        read_result(measured)
    assert str(error.value).startswith(str(measured))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (
            lambda m: m["value"].update(box_top1=m["value"]["box_top1"] + 0.01),
            r"measures\.value\.box_top1",
        ),
        (lambda m: (m["value"].pop("image_r1"), m["interval"].pop("image_r1")), r"measures\.value"),
        (lambda m: m.update(pictures=61), r"measures\.pictures"),
        (lambda m: m.update(data="e" * 16), r"measures\.data"),
        (lambda m: m.update(sha256="0" * 64), r"measures\.sha256"),
    ],
)
def test_measures_edited_by_hand_are_refused(
    measured: Path, change: Callable[[dict[str, Any]], object], field: str
) -> None:
    edit(measured, lambda d: change(d["measures"]))
    with pytest.raises(
        SpatialbenchError, match=f"field '{field}': says .* but the measures give .*edited"
    ) as error:
        read_measures(measured, read_result(measured))
    assert "\n" not in str(error.value)


def test_measures_of_another_row_or_other_seeds_are_refused(measured: Path, tmp_path: Path) -> None:
    other = fakes.store(
        tmp_path / "results", "other", tmp_path / "benchmarks", fakes.measures_of("other")
    )
    file, result = measured.with_name("clip.measures.npz"), read_result(measured)
    shutil.copy(other.with_name("other.measures.npz"), file)
    with pytest.raises(
        SpatialbenchError, match=r"field 'measures\.value.*clip\.measures\.npz belongs to ano"
    ):
        read_measures(measured, result)
    fakes.measures_of("clip", seeds=(0, 1)).save(file)
    with pytest.raises(
        SpatialbenchError, match=r"field 'seeds': says \[0, 1, 2\] but the measures give 2 seeds"
    ):
        read_measures(measured, result)


def test_the_same_values_in_another_order_are_refused(measured: Path) -> None:
    """Two pictures of one scene exchanged: every value stays, the digest does not."""
    measures = fakes.measures_of("clip")
    order = np.arange(60)
    order[[0, 1]] = [1, 0]
    ratios = {
        name: type(ratio)(*(part[:, order] for part in ratio))
        for name, ratio in measures.ratios.items()
    }
    Measures(measures.scenes, ratios, measures.data).save(measured.with_name("clip.measures.npz"))
    with pytest.raises(SpatialbenchError, match=r"field 'measures\.sha256'"):
        read_measures(measured, read_result(measured))


def test_damaged_measures_are_refused(measured: Path) -> None:
    file, result = measured.with_name("clip.measures.npz"), read_result(measured)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(SpatialbenchError, match=r"clip\.measures\.npz: .*restore it from git"):
        read_measures(measured, result)
    shutil.copy(measured.with_name("clip.outcomes.npz"), file)
    with pytest.raises(SpatialbenchError, match="not a readable file of measures"):
        read_measures(measured, result)
    file.unlink()
    with pytest.raises(SpatialbenchError, match="no such file; restore it from git"):
        read_measures(measured, result)


def test_a_result_that_does_not_fit_its_measures_is_not_written(tmp_path: Path) -> None:
    folder, path = fakes.benchmarks(tmp_path / "benchmarks", "clip"), tmp_path / "clip.json"
    result, outcomes = fakes.row("clip", folder, measures=fakes.measures_of("clip"))
    for measures, message in [
        (fakes.measures_of("other"), r"field 'measures\.value"),
        (fakes.measures_of("clip", data="e" * 16), r"field 'measures\.data"),
        (None, "field 'measures': the result and its measures must be given together"),
    ]:
        with pytest.raises(SpatialbenchError, match=message):
            write_result(path, result, outcomes, measures)
    with pytest.raises(SpatialbenchError, match="must be given together"):
        write_result(path, replace(result, measures=None), outcomes, fakes.measures_of("clip"))
    assert [file.name for file in tmp_path.iterdir()] == ["benchmarks"]
