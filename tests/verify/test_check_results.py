"""The check of stored results: green when nothing changed, red for every change.

The proof that it sees "left" and "right" swapped in the grammar is at the end, with a real model.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from spatialbench.config.experiment import Resolved
from spatialbench.data import relations
from spatialbench.data.relations import RELATIONS
from spatialbench.report.readme import write_readme
from spatialbench.results.files import Row
from spatialbench.results.run_folder import RunRecord
from spatialbench.results.stale import Today
from spatialbench.training.plan import run
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.verify import check_results as check
from spatialbench.verify import repeat
from spatialbench.verify.check_results import check_results, check_smoke, check_stored
from spatialbench.verify.repeat import FLIP_MARGIN, OTHER_DRIFT, SAME_DRIFT, compare
from spatialbench.verify.reproduce import reproduce
from tests.support import fakes, tiny

Folders = tuple[Path, Path]


def fit(resolved: Resolved, force: bool) -> RunRecord:
    """Write a run whose evidence is always the same."""
    return fakes.write_run(resolved, {"pairs": fakes.pairs(0), "regions": fakes.regions(0)})


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Store rows and smoke results of the pages a and b, and an evaluation by itself."""
    monkeypatch.chdir(tmp_path)
    benchmarks = fakes.benchmarks(Path("benchmarks"), "a", "b")
    pages = ["benchmarks/a.yaml", "benchmarks/b.yaml"]
    assert run(pages, budget="smoke", seeds=[0], fit=fit) == 0
    for name in "ab":
        regions = fakes.seeds_of("regions", name)
        path = fakes.store(Path("results"), name, benchmarks, regions=regions)
    alone = path.parent / "regions"
    alone.mkdir()
    for name in ("b.json", "b.pairs.npz", "b.regions.npz"):
        shutil.copy(path.with_name(name), alone)
    write_readme("results", "benchmarks")
    return tmp_path / "results", tmp_path / "benchmarks"


def test_green_when_nothing_changed(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_results(*folders, fit=fit) == []
    said = "same machine and versions, 0 records answered differently, drift at most 0.00"
    assert said in capsys.readouterr().err


def sub(path: str, old: str, new: str) -> Callable[[], object]:
    def work() -> None:
        text = Path(path).read_text()
        assert old in text
        Path(path).write_text(text.replace(old, new, 1))

    return work


def write(path: str, text: str) -> Callable[[], object]:
    return lambda: Path(path).write_text(text)


def remove(path: str) -> Callable[[], object]:
    return lambda: shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


def copy(path: str, to: str) -> Callable[[], object]:
    return lambda: (shutil.copytree if Path(path).is_dir() else shutil.copy)(path, to)


def other_data() -> None:
    other = fakes.seeds_of("regions", "b", data="e" * 16)
    fakes.store(Path("results"), "b", Path("benchmarks"), regions=other)


ROOMS, TRACKS = "results/rooms", "benchmarks/tracks/rooms.yaml"
UNITS = '"units": 120', '"units": 121'
WIDER = fakes.page_text("  init_args: {width: 2}\n")
SETTING = "RegionEvaluation", "RegionEvaluation, init_args: {a: 1}"
STRAY = "no result file names it; delete it"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (write("benchmarks/a.yaml", WIDER), "page a changed"),
        (write("benchmarks/a.yaml", "model: ["), "not valid YAML"),
        (sub(TRACKS, *SETTING), "the settings of evaluation regions changed"),
        (sub(f"{ROOMS}/a.json", *UNITS), "the evidence gives"),
        (sub(f"{ROOMS}/smoke/a.json", *UNITS), "the evidence gives"),
        (sub(f"{ROOMS}/regions/b.json", *UNITS), "the evidence gives"),
        (remove(f"{ROOMS}/a.json"), f"a.pairs.npz: {STRAY}"),
        (copy(f"{ROOMS}/a.regions.npz", f"{ROOMS}/smoke/x.regions.npz"), f"x.regions.npz: {STRAY}"),
        (write(f"{ROOMS}/x.curves.jsonl", "{}"), f"x.curves.jsonl: {STRAY}"),
        (write(f"{ROOMS}/a.curves.jsonl", "{}"), "a.curves.jsonl: cannot be read"),
        (write("results/README.md", "x"), "README.md is not what the result files give; make"),
        (write("results/claims.yaml", "- {claim: x}"), "README.md: cannot be made: "),
        (copy(ROOMS, "results/old"), "results of a track that is gone"),
        (other_data, "rows of different data of regions cannot share a table"),
    ],
)
def test_red_for_everything_that_does_not_hold(
    folders: Folders, break_it: Callable[[], object], message: str
) -> None:
    break_it()
    problems = check_results(*folders, smoke=False)
    assert any(message in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_smoke_results_that_are_missing(folders: Folders) -> None:
    today = Today.read(folders[1])
    remove(f"{ROOMS}/smoke/b.json")()
    (problem,) = check_smoke(folders[0], today, fit)
    assert "b.json: no stored smoke result; spatialbench run" in problem
    remove(f"{ROOMS}/smoke")()
    (problem,) = check_smoke(folders[0], today, fit)
    assert "no stored smoke results; spatialbench run" in problem


def test_nothing_beside_a_damaged_result_is_called_stray(folders: Folders) -> None:
    (folders[0] / "rooms/a.json").write_text("{")
    (problem,) = check_stored(folders[0], Today.read(folders[1]))
    assert "not valid JSON" in problem


def test_a_stale_row_comes_with_the_command_that_makes_it_again(folders: Folders) -> None:
    sub(TRACKS, "image_size: 96", "image_size: 64")()
    again = "stale, track rooms changed; spatialbench run benchmarks/a.yaml --track rooms --budget"
    problems = check_results(*folders, smoke=False)
    assert f"{folders[0]}/rooms/a.json: {again} full --seeds 0,1,2 --force" in problems
    assert f"{folders[0]}/rooms/smoke/a.json: {again} smoke --seeds 0 --force" in problems


def test_pages_that_are_named_are_checked_alone(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    """Select by name or path: no table or other row is checked, and no other page is run."""
    results, benchmarks = folders
    (results / "README.md").unlink()
    sub(f"{ROOMS}/b.json", *UNITS)()
    for name in ("a", "benchmarks/a.yaml", str(benchmarks / "a.yaml")):
        assert check_results(*folders, fit=fit, pages=[name]) == []
    said = capsys.readouterr().err
    assert "smoke run of a:" in said
    assert "smoke run of b:" not in said
    assert len(check_results(*folders, smoke=False, pages=["a", "b"])) == 1
    (benchmarks / "new.yaml").write_text(fakes.page_text())
    command = f"spatialbench run {benchmarks / 'new.yaml'}"
    missing = [f"{results}: no row of page new; {command}"]
    assert check_results(*folders, smoke=False, pages=["new"]) == missing
    with pytest.raises(SpatialbenchError, match=r"unknown page 'aa': did you mean 'a'\?"):
        check_results(*folders, pages=["aa"])
    with pytest.raises(SpatialbenchError, match="no results in nowhere, which is no folder"):
        check_results("nowhere", benchmarks)


def test_a_smoke_run_that_fails_is_a_problem_not_an_end(folders: Folders) -> None:
    def failing(resolved: Resolved, force: bool) -> RunRecord:
        if resolved.page.name == "a":
            raise SpatialbenchError("no weights")
        record = fit(resolved, force)
        record.evidence("regions").unlink()
        return record

    assert check_smoke(folders[0], Today.read(folders[1]), failing) == [
        "smoke run of a on rooms: no weights",
        "smoke run of b on rooms: no evaluation regions, stored box_top1, same_mask, image_r1",
    ]


# The rule


@pytest.fixture
def row(tmp_path: Path) -> Row:
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a")
    regions = fakes.seeds_of("regions", "a", (0,))
    return fakes.row("a", benchmarks, seeds=(0,), budget="smoke", regions=regions)


def moved(row: Row, change: Callable[[np.ndarray], np.ndarray]) -> Row:
    margins = change(row.pairs.answers().astype(np.float32))
    return replace(row, evidence={**row.evidence, "pairs": fakes.answered(row.pairs, margins)})


def elsewhere(row: Row) -> Row:
    runs = [replace(run, hardware={**run.hardware, "threads": 1}) for run in row.result.runs]
    return replace(row, result=replace(row.result, runs=runs))


def test_the_same_machine_repeats_every_sign(row: Row) -> None:
    assert compare(row, row).problems == []
    small = np.abs(row.pairs.answers()).argmin()
    flip = np.where(np.arange(120) == small, -1, 1)
    found = compare(row, moved(row, lambda m: m * flip))
    assert (found.same, found.flips) == (True, 1)
    message = f"1 records are answered differently (first: rooms-test-{small:05d}"
    assert message in found.problems[0]
    drifted = compare(row, moved(row, lambda m: m * (1 + 3 * SAME_DRIFT)))
    assert (drifted.flips, len(drifted.problems)) == (0, 1)


def test_another_machine_may_flip_what_is_near_zero_and_not_drift_far(row: Row) -> None:
    margins, group = row.pairs.answers()[0].astype(float), row.pairs.margins.group
    scale = {name: np.sqrt(np.mean(margins[group == name] ** 2)) for name in RELATIONS}
    near = np.abs(margins) < [FLIP_MARGIN / 2 * scale[name] for name in group.tolist()]
    assert near.any()
    found = compare(row, elsewhere(moved(row, lambda m: np.where(near, -m, m))))
    assert (found.same, found.flips, found.problems) == (False, near.sum(), [])
    little, far = (
        compare(row, elsewhere(moved(row, lambda m, factor=factor: m * (1 + factor * OTHER_DRIFT))))
        for factor in (0.5, 2)
    )
    assert little.problems == []
    assert far.problems[0].startswith("the margins drifted by more than 0.05 (")
    assert all(f"{relation} 0.1" in far.problems[0] for relation in RELATIONS)


def test_large_flips_count_only_outside_of_the_paired_interval(row: Row) -> None:
    """One flip of a relation, the same drift: three each way are chance, six in one way are not."""
    flipped = [6 * (3 * relation + 1) + relation for relation in range(6)]  # in six scenes
    both, alike = np.ones((2, 120), dtype=np.float32)
    both[flipped] = [0.104, -0.104] * 3
    alike[flipped] = -0.104
    flip = np.ones(120)
    flip[flipped] = -1
    for margins, problems in ((both, 0), (alike, 2)):
        before = moved(row, lambda _, margins=margins: margins)
        found = compare(before, elsewhere(moved(before, lambda m: m * flip)))
        assert FLIP_MARGIN / 2 * 0.9 < max(found.drift.values()) < OTHER_DRIFT
        assert (found.flips, len(found.problems)) == (6, problems)
    first = "6 records with large margins are answered differently (first: rooms-test-00006, close)"
    assert first in found.problems[0]
    assert "all moved by +5.0 points, outside of chance" in found.problems[0]


def test_versions_of_other_packages_count(row: Row) -> None:
    for version, same in (("spatialbench", True), ("torch", False), ("noted only now", True)):
        runs = [replace(run, versions={**run.versions, version: "9"}) for run in row.result.runs]
        assert compare(row, replace(row, result=replace(row.result, runs=runs))).same == same


def test_a_scorer_that_was_constant_and_is_not_any_more(row: Row) -> None:
    constant = moved(row, np.zeros_like)
    assert compare(constant, constant).problems == []
    assert "close inf, far inf" in compare(constant, elsewhere(row)).problems[0]


def changed(row: Row, name: str, **changes: object) -> Row:
    """Change the evidence of an evaluation of a row."""
    return replace(row, evidence={**row.evidence, name: replace(row.evidence[name], **changes)})


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(("factor", "wrong"), [(-0.9, False), (0.9, False), (-1.1, True)])
def test_values_may_move_by_the_limit(row: Row, same: bool, factor: float, wrong: bool) -> None:
    limit = repeat.SAME_POINTS if same else repeat.OTHER_POINTS + 100 * repeat.OTHER_UNITS / 60
    ratios = dict(row.evidence["regions"].ratios)
    above, below = ratios["same_mask"]
    ratios["same_mask"] = ratios["same_mask"]._replace(numerator=above + factor * limit / 100)
    fresh = changed(row, "regions", ratios=ratios)
    found = compare(row, fresh if same else elsewhere(fresh))
    assert found.same is same
    message = f"regions moved by more than {limit:.4g} points (same_mask {factor * limit:+.2f})"
    assert found.problems == ([message] if wrong else [])
    assert below.all()


def test_what_the_repeated_run_lacks(row: Row) -> None:
    pairs_alone = replace(row, evidence={"pairs": row.pairs})
    assert compare(pairs_alone, row).problems == [], "more than is stored is no problem"
    missing = "no evaluation regions, stored box_top1, same_mask, image_r1"
    assert compare(row, pairs_alone).problems == [missing]
    ratios = {"same_mask": row.evidence["regions"].ratios["same_mask"]}
    fewer = changed(row, "regions", ratios=ratios)
    assert compare(row, fewer).problems == ["regions lacks box_top1, image_r1"]
    other = "other data: eeee, stored"
    assert compare(row, changed(row, "pairs", data="eeee")).problems[0].startswith(other)
    found = compare(row, changed(row, "regions", data="eeee")).problems
    assert found[0].startswith(f"regions: {other} dddd")


def test_a_sample_of_smoke_runs_is_drawn_by_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {f"page{k}": SimpleNamespace(name=f"page{k}") for k in range(20)}
    today = Today(pages, {"rooms": SimpleNamespace(name="rooms")})
    monkeypatch.setattr(check, "list_results", lambda *_: ["a stored row"])
    monkeypatch.setattr(check, "_repeat", lambda work, **_: [work[1].name])
    drawn = []
    for head in ("a", "a", "b"):
        monkeypatch.setattr(check, "commit", lambda head=head: (head, False))
        drawn.append(check_smoke(tmp_path, today, sample=5))
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 5
    assert check_smoke(tmp_path, today) == list(pages), "all without a sample"


@pytest.mark.slow
def test_a_real_run_repeats_and_sees_the_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Green again, by both commands, and red with the words swapped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "cache"))
    page = tiny.benchmark(tmp_path / "benchmarks") / "clip.yaml"
    assert run([page], "tiny", "smoke", [0]) == 0
    results, today = Path("results"), Today.read(Path("benchmarks"))
    assert check_smoke(results, today, processes=2) == []
    said = capfd.readouterr().err
    assert "same machine and versions, 0 records answered differently, drift at most 0.000" in said
    assert reproduce("results/tiny/smoke/clip.json") == 0
    assert "records: all 24 margins are equal\nreproduced exactly" in capfd.readouterr().out
    left, right = relations.PHRASE["left"], relations.PHRASE["right"]
    monkeypatch.setitem(relations.PHRASE, "left", right)
    monkeypatch.setitem(relations.PHRASE, "right", left)
    problems = "\n".join(check_smoke(results, today))
    both = r"left \d\.\d+, right|right \d\.\d+, left"
    assert re.search(rf"drifted by more than 0\.01 \(({both}) \d\.\d+", problems)
    assert "records are answered differently" in problems
