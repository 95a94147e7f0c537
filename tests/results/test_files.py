"""Result files: round trip, and every way of being wrong refused with file, field and advice."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spatialbench.evaluation.ratio import Ratio
from spatialbench.results import files
from spatialbench.results.files import Row, read_result, read_row, result_path, write_row
from spatialbench.utils.errors import SpatialbenchError
from tests.support import RESULTS, fakes

OTHERS = ("regions", "selection")


@pytest.fixture
def benchmarks(tmp_path: Path) -> Path:
    return fakes.benchmarks(tmp_path / "benchmarks", "clip", "other")


@pytest.fixture
def row(benchmarks: Path) -> Row:
    """Make a row ``clip`` with three seeds and three evaluations."""
    return fakes.row("clip", benchmarks, **{kind: fakes.seeds_of(kind, "clip") for kind in OTHERS})


@pytest.fixture
def stored(row: Row, tmp_path: Path) -> Path:
    """Its result file."""
    path = result_path(tmp_path / "results", "rooms", "full", "clip")
    write_row(path, row)
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def refused(call: Callable[[Path], object], path: Path, message: str) -> None:
    with pytest.raises(SpatialbenchError, match=message) as error:
        call(path)
    assert str(path.parent) in str(error.value)
    assert "\n" not in str(error.value)


def test_round_trip(stored: Path, row: Row) -> None:
    again = read_row(stored)
    assert again.result == row.result == read_result(stored)
    assert list(again.evidence) == ["pairs", *OTHERS]
    for name, evidence in row.evidence.items():
        assert again.evidence[name].digest == evidence.digest
        assert stored.with_name(f"clip.{name}.npz").exists()
    assert again.pairs.answers().dtype == np.float16


def test_the_numbers_are_those_of_the_runs(stored: Path, row: Row) -> None:
    result = read_result(stored)
    assert result.seeds == [0, 1, 2]
    for name, evidence in row.evidence.items():
        found = result.evaluations[name]
        assert (found.units, found.data) == (evidence.units, evidence.data)
        assert found.commits == ["a" * 40]
        for measure, value in found.value.items():
            seeds = evidence.seed_values(measure)
            assert found.by_seed[measure] == pytest.approx(seeds.tolist(), abs=1e-4)
            assert value == pytest.approx(seeds.mean(), abs=1e-4)
            low, high = found.interval[measure] or (0, 0)
            assert low < value < high
    for measure, groups in result.evaluations["selection"].groups.items():
        assert list(groups) == ["left", "colour", "presence"]
        right = row.evidence["selection"].ratios[measure].numerator.sum(1).mean(0)
        assert list(groups.values()) == pytest.approx(100 * right / 20, abs=1e-3)


def test_files_are_the_same_bytes_each_time(stored: Path, row: Row, tmp_path: Path) -> None:
    write_row(tmp_path / "again/clip.json", row)
    names = [path.name for path in stored.parent.iterdir()]
    assert len(names) == 4
    for name in names:
        assert (stored.parent / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_evidence_of_an_earlier_row_goes(stored: Path, benchmarks: Path) -> None:
    fakes.store(stored.parents[1], "clip", benchmarks)
    assert sorted(path.name for path in stored.parent.iterdir()) == ["clip.json", "clip.pairs.npz"]


def test_where_rows_live(stored: Path, tmp_path: Path, benchmarks: Path) -> None:
    results = tmp_path / "results"
    smoke = fakes.store(results, "clip", benchmarks, budget="smoke", seeds=(0,))
    assert stored == results / "rooms/clip.json"
    assert smoke == results / "rooms/smoke/clip.json"
    assert files.list_results(results, "rooms") == [stored]
    assert files.list_results(results, "rooms", "smoke") == [smoke]
    assert files.list_results(results, "embspatial") == []


def test_an_unreadable_file_is_refused_with_its_place(stored: Path) -> None:
    text = stored.read_text()
    twice = text.replace('"budget": "full"', '"budget": "full",\n "budget": "quick"')
    for content, message in (
        (text[: len(text) // 2], r"not valid JSON \(.*line \d+ column \d+\); restore it"),
        ("<<<<<<< ours\n" + text, r"not valid JSON \(.*line 1 column 1\)"),
        (twice, r"cannot be read \(duplicate key 'budget'\); restore it"),
        ('{"schema_version": NaN}', "NaN is not a JSON number"),
        ("[1, 2]", "field 'schema_version': .* reads 4, got None"),
    ):
        stored.write_text(content)
        refused(read_result, stored, message)
    stored.write_bytes(b"\xff\xfe")
    refused(read_result, stored, "cannot be read")
    stored.unlink()
    refused(read_result, stored, "no such file")


def pairs_of(data: dict[str, Any]) -> dict[str, Any]:
    return data["evaluations"]["pairs"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("track_hash"), "field 'track_hash': missing"),
        (lambda d: d.update(note="x"), "field 'note': unknown field"),
        (lambda d: d.update(schema_version=3), "'schema_version': .* reads 4, got 3; make the row"),
        (lambda d: d.update(seeds=[0, 1]), r"seeds \[0, 1\] do not name the runs"),
        (lambda d: d["runs"][1].update(dirty="no"), r"field 'runs\[1\]\.dirty': expected bool"),
        (lambda d: d.update(evaluations={}), "evaluations must have one at least"),
        (lambda d: d.update(evaluations={"../x": pairs_of(d)}), r"file must be clip\.\.\./x\.npz"),
        (lambda d: pairs_of(d).update(file="x.npz"), r"file must be clip\.pairs\.npz, got x\.npz"),
        (lambda d: pairs_of(d).update(value={}), "value must have a measure"),
        (lambda d: pairs_of(d)["value"].pop("macro"), "interval must have the measures of value"),
        (lambda d: pairs_of(d)["interval"].update(left=[1.0]), "two bounds"),
        (
            lambda d: pairs_of(d)["interval"].update(left=["a", 2]),
            r"left\[0\]': expected",
        ),
    ],
)
def test_wrong_fields_are_refused(
    stored: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(stored, change)
    refused(read_result, stored, message)


def dropped(found: dict[str, Any]) -> None:
    for field in ("value", "interval", "by_seed"):
        found[field].pop("image_r1")


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("pairs", lambda e: e["value"].update(all=99.0), r"value\.all"),
        ("pairs", lambda e: e["by_seed"]["far"].__setitem__(1, 99.0), r"by_seed\.far"),
        ("pairs", lambda e: e.update(units=121), "units"),
        ("pairs", lambda e: e.update(sha256="0" * 64), "sha256"),
        ("regions", lambda e: e["value"].update(box_top1=e["value"]["box_top1"] + 0.01), "value"),
        ("regions", dropped, "value"),
        ("regions", lambda e: e.update(settings="e" * 16), "settings"),
        ("selection", lambda e: e["groups"]["select_cls"].update(colour=99.0), r"groups\.select_"),
        ("selection", lambda e: e["groups"]["select_cls"].pop("colour"), r"groups\.select_cls"),
        ("selection", lambda e: e.update(notes={"chance": "25"}), "notes"),
    ],
)
def test_numbers_edited_by_hand_are_refused(
    stored: Path, name: str, change: Callable[[dict[str, Any]], object], field: str
) -> None:
    edit(stored, lambda d: change(d["evaluations"][name]))
    message = rf"field 'evaluations\.{name}\.{field}.*' says .* the evidence gives .*was edited"
    refused(read_row, stored, message)


def test_an_interval_edited_by_hand_is_refused(stored: Path) -> None:
    """Move by more than 0.2 points, which the rounding of another machine never reaches."""
    low, high = read_result(stored).pairs.interval["left"] or (0.0, 0.0)
    for bounds, wrong in (([low, high + 0.1], False), ([low, high - 0.3], True), (None, True)):
        edit(stored, lambda d, bounds=bounds: pairs_of(d)["interval"].update(left=bounds))
        if wrong:
            refused(read_row, stored, r"pairs\.interval\.left' says .* evidence gives \[?\d")
        else:
            read_row(stored)


def test_a_row_under_another_name_is_refused(stored: Path, benchmarks: Path) -> None:
    """The file of another row copied and renamed inside: its evidence is still the other's."""
    other = fakes.store(stored.parents[1], "other", benchmarks)
    shutil.copy(other, stored)
    refused(read_result, stored, "field 'name' says 'other'; rename the file back")
    edit(stored, lambda d: d.update(name="clip"))
    refused(read_result, stored, r"pairs\.file must be clip\.pairs\.npz, got other\.pairs\.npz")
    edit(stored, lambda d: pairs_of(d).update(file="clip.pairs.npz"))
    refused(read_row, stored, r"or clip\.pairs\.npz belongs to another result")


@pytest.mark.parametrize("name", ["pairs", *OTHERS])
def test_evidence_that_is_not_the_row_s_own_is_refused(stored: Path, row: Row, name: str) -> None:
    file = stored.with_name(f"clip.{name}.npz")
    content = file.read_bytes()
    replace(row.evidence[name].seed(0), settings=row.evidence[name].settings).save(file)
    refused(read_row, stored, "result and evidence hold different evaluations or seeds")
    file.write_bytes(content[: len(content) // 2])
    refused(read_row, stored, rf"clip\.{name}\.npz: not a readable evidence file .*restore it")
    file.unlink()
    refused(read_row, stored, rf"clip\.{name}\.npz: no such file; restore it from git")


def test_the_same_values_in_another_order_are_refused(stored: Path, row: Row) -> None:
    """Two units of one scene and group in exchanged places: every number stays, not the digest."""
    order = np.arange(60)
    order[[0, 1]] = [1, 0]
    regions = row.evidence["regions"]
    ratios = {name: Ratio(*(p[:, order] for p in own)) for name, own in regions.ratios.items()}
    replace(regions, ratios=ratios).save(stored.with_name("clip.regions.npz"))
    refused(read_row, stored, r"evaluations\.regions\.sha256")
    order = np.arange(120)
    order[[0, 6]] = [6, 0]
    margins = row.pairs.answers()[:, order]
    swapped = Row(row.result, {**row.evidence, "pairs": fakes.answered(row.pairs, margins)})
    refused(lambda path: write_row(path, swapped), stored, r"evaluations\.pairs\.")


def test_a_result_that_does_not_fit_its_evidence_is_not_written(row: Row, tmp_path: Path) -> None:
    path = tmp_path / "new/clip.json"
    flipped = fakes.answered(row.pairs, -row.pairs.answers())
    fewer = {name: row.evidence[name] for name in ("pairs", "regions")}
    for evidence, message in (
        ({**row.evidence, "pairs": flipped}, "evidence gives"),
        (fewer, "result and evidence hold different evaluations"),
    ):
        refused(lambda path, e=evidence: write_row(path, Row(row.result, e)), path, message)
    assert not path.parent.exists()


def test_a_relation_without_records_has_no_number(benchmarks: Path, tmp_path: Path) -> None:
    whole = fakes.pairs(0)
    assert whole.margins is not None
    short = whole.only(whole.margins.group != "far")
    row = fakes.row("clip", benchmarks, seeds=(0,), pairs=[short])
    write_row(tmp_path / "clip.json", row)
    pairs = read_row(tmp_path / "clip.json").result.pairs
    assert (pairs.value["far"], pairs.interval["far"], pairs.by_seed["far"]) == (None, None, [None])
    assert pairs.value["macro"] is not None


def test_the_repository_s_rows_are_read() -> None:
    assert len(files.list_results(RESULTS, "rooms")) > 10
    for path in files.list_results(RESULTS, "rooms"):
        assert read_result(path).seeds in ([0, 1, 2], [0])  # [0]: it trains nothing
