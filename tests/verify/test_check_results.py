"""The check of stored results: green when nothing changed, red for every way in which something did.

The proof that it sees an exchange of "left" and "right" in the grammar is at the end, with a real model and images.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spatialbench.evaluation.outcomes import RunOutcomes

from spatialbench.config.experiment import Resolved
from spatialbench.data import relations
from spatialbench.data.relations import RELATIONS, Statement
from spatialbench.report.readme import write_readme
from spatialbench.results.files import ResultOutcomes
from spatialbench.results.run_folder import RunRecord
from spatialbench.results.schema import MeasuresFile, Result
from spatialbench.results.stale import Today
from spatialbench.training.plan import run
from spatialbench.utils.errors import SpatialbenchError
from spatialbench.verify.check_results import check_results, check_smoke, check_stored
from spatialbench.verify.repeat import (
    FLIP_MARGIN,
    OTHER_DRIFT,
    OTHER_PICTURES,
    OTHER_POINTS,
    SAME_DRIFT,
    SAME_POINTS,
    compare,
)
from tests.support import fakes

NAMES = ("sofa", "bed", "floor lamp", "plant", "chair", "table", "book", "clock")


def fit_by_captions(resolved: Resolved, force: bool) -> RunRecord:
    """A scorer near chance that reads the captions: random words and places, random images, all from fixed seeds."""
    rng = np.random.default_rng(3)
    words = {
        word: rng.normal(size=16) for word in sorted({*" ".join(NAMES).split(), *_grammar_words()})
    }
    n, relation = 240, np.tile(RELATIONS, 40)
    images, names = (
        rng.normal(size=(n, 16)),
        [rng.choice(NAMES, 2, replace=False) for _ in range(n)],
    )

    def text(caption: str) -> np.ndarray:
        return sum(
            np.roll(words[word], place)
            for place, word in enumerate(caption.lower().strip(".").split())
        )

    statements = [Statement(a, r, b) for (a, b), r in zip(names, relation.tolist(), strict=True)]
    scores = [
        [images[i] @ text(s.caption), images[i] @ text(s.negated.caption)]
        for i, s in enumerate(statements)
    ]
    positive, negative = np.array(scores, dtype=np.float32).T
    ids = np.array([f"r{index}" for index in range(n)])
    return fakes.write_run(resolved, RunOutcomes(ids, relation, ids, positive, negative))


def _grammar_words() -> set[str]:
    return set(
        " ".join(
            Statement("x", relation, "y").caption.lower().strip(".") for relation in RELATIONS
        ).split()
    )


def exchange_left_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = relations.PHRASE["left"], relations.PHRASE["right"]
    monkeypatch.setitem(relations.PHRASE, "left", right)
    monkeypatch.setitem(relations.PHRASE, "right", left)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Stored rows and smoke results of the pages a and b, all current."""
    monkeypatch.chdir(tmp_path)
    benchmarks = fakes.benchmarks(Path("benchmarks"), "a", "b")
    pages = ["benchmarks/a.yaml", "benchmarks/b.yaml"]
    assert run(pages, budget="smoke", seeds=[0], fit=fit_by_captions) == 0
    for name in "ab":
        fakes.store(Path("results"), name, benchmarks)
    write_readme("results", "benchmarks")
    return tmp_path / "results", tmp_path / "benchmarks"


def test_green_when_nothing_changed(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_results(*folders, fit=fit_by_captions) == []
    assert (
        "same machine and versions, 0 records answered differently, drift at most 0.00"
        in capsys.readouterr().err
    )


def test_red_when_left_and_right_are_exchanged(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the hash of the captions, and by the margins alone (what a renamed word inside a method would do)."""
    exchange_left_and_right(monkeypatch)
    today = Today.read(folders[1])
    assert any("the captions changed" in problem for problem in check_stored(folders[0], today))
    problems = check_smoke(folders[0], today, fit_by_captions)
    for page, (drift, flips) in zip("ab", (problems[:2], problems[2:]), strict=True):
        pattern = rf"smoke run of {page} on rooms: the margins drifted by more than {SAME_DRIFT} \((left|right) .*\)"
        assert re.match(pattern, drift)
        assert "left" in drift
        assert "right" in drift
        assert "far" not in drift
        assert "records are answered differently (first: r" in flips


# ------------------------------------------------------------------------------------------ what is stored


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda r, b: (b / "a.yaml").write_text(fakes.page_text("  init_args: {width: 2}\n")),
            "page a changed",
        ),
        (lambda r, b: (b / "a.yaml").unlink(), "page a is gone"),
        (
            lambda r, b: _sub(b / "tracks/rooms.yaml", "image_size: 96", "image_size: 64"),
            "track rooms changed",
        ),
        (lambda r, b: _sub(r / "rooms/a.json", '"ties": 0', '"ties": 1'), "the outcomes give"),
        (
            lambda r, b: _sub(r / "rooms/smoke/a.json", '"ties": 0', '"ties": 1'),
            "the outcomes give",
        ),
        (lambda r, b: (r / "rooms/a.json").write_text("{"), "not valid JSON"),
        (
            lambda r, b: shutil.copy(r / "rooms/b.outcomes.npz", r / "rooms/a.outcomes.npz"),
            "another result",
        ),
        (lambda r, b: (r / "rooms/a.json").unlink(), "no result file names it"),
        (
            lambda r, b: (r / "rooms/x.curves.jsonl").write_text("{}"),
            "x.curves.jsonl: no result file names it; delete it",
        ),
        (
            lambda r, b: (r / "rooms/a.curves.jsonl").write_text("{}"),
            "a.curves.jsonl line 1: field 'seed'",
        ),
        (lambda r, b: (r / "rooms/smoke/b.json").unlink(), "b.json: no stored smoke result"),
        (
            lambda r, b: shutil.rmtree(r / "rooms/smoke"),
            "no stored smoke results; spatialbench run",
        ),
        (
            lambda r, b: (r / "README.md").write_text("x"),
            "README.md is not what the result files give; make table",
        ),
        (lambda r, b: (r / "README.md").unlink(), "README.md is not what the result files give"),
        (lambda r, b: shutil.copytree(r / "rooms", r / "old"), "results of a track that is gone"),
        (lambda r, b: _sub(r / "rooms/a.json", "f" * 16, "e" * 16), "rows of different data"),
        (lambda r, b: (b / "a.yaml").write_text("model: ["), "not valid YAML"),
        (
            lambda r, b: fakes.run_measures(0).save(r / "rooms/a.measures.npz"),
            "a.measures.npz: no result file names it",
        ),
        (
            lambda r, b: fakes.run_measures(0).save(r / "rooms/smoke/x.measures.npz"),
            "x.measures.npz: no result file na",
        ),
        (
            lambda r, b: fakes.run_measures(0).save(r / "old/x.measures.npz"),
            "results of a track that is gone",
        ),
        (
            lambda r, b: (r / "claims.yaml").write_text("- {claim: x}"),
            "README.md: cannot be made: ",
        ),
    ],
)
def test_red_for_everything_that_does_not_hold(
    folders: tuple[Path, Path], break_it: Callable[[Path, Path], object], message: str
) -> None:
    break_it(*folders)
    problems = check_results(*folders, fit=fit_by_captions)
    assert any(message in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_a_stale_row_comes_with_the_command_that_makes_it_again(folders: tuple[Path, Path]) -> None:
    _sub(folders[1] / "tracks/rooms.yaml", "image_size: 96", "image_size: 64")
    again = "stale, track rooms changed; spatialbench run benchmarks/a.yaml --track rooms --budget"
    problems = check_results(*folders, smoke=False)
    assert f"{folders[0]}/rooms/a.json: {again} full --seeds 0,1,2 --force" in problems
    assert f"{folders[0]}/rooms/smoke/a.json: {again} smoke --seeds 0 --force" in problems


def test_pages_that_are_named_are_checked_alone(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name or path; the table and the other rows are not looked at, and nobody else is run again."""
    results, benchmarks = folders
    (results / "README.md").unlink()
    _sub(results / "rooms/b.json", '"ties": 0', '"ties": 1')
    _sub(results / "rooms/smoke/b.json", '"ties": 0', '"ties": 1')
    for name in ("a", "benchmarks/a.yaml", str(benchmarks / "a.yaml")):
        assert check_results(*folders, fit=fit_by_captions, pages=[name]) == []
    said = capsys.readouterr().err
    assert "smoke run of a:" in said
    assert "smoke run of b:" not in said
    assert len(check_results(*folders, smoke=False, pages=["a", "b"])) == 2
    (benchmarks / "new.yaml").write_text(fakes.page_text())
    assert check_results(*folders, smoke=False, pages=["new"]) == [
        f"{results}: no row of page new; spatialbench run {benchmarks / 'new.yaml'}"
    ]
    with pytest.raises(SpatialbenchError, match=r"unknown page 'aa': did you mean 'a'\?"):
        check_results(*folders, pages=["aa"])
    with pytest.raises(SpatialbenchError, match="no results in nowhere, which is no folder"):
        check_results("nowhere", benchmarks)


def _sub(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_interval_edited_by_hand_is_found(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "rooms/a.json"
    low = path.read_text().split('"interval"')[1].split('"all": [')[1].split(",")[0].strip()
    _sub(path, low, "1.0")
    assert any(
        "field 'interval.all'" in problem for problem in check_results(*folders, smoke=False)
    )


@pytest.fixture
def measured(folders: tuple[Path, Path]) -> tuple[Path, Path]:
    """The same rows, a and b of the table with measures."""
    for name in "ab":
        fakes.store(folders[0], name, folders[1], fakes.measures_of(name))
    write_readme(*folders)
    return folders


def test_green_with_measures(measured: tuple[Path, Path]) -> None:
    assert check_results(*measured, smoke=False) == []


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda r: (r / "a.measures.npz").unlink(),
            "a.measures.npz: no such file; restore it from git",
        ),
        (
            lambda r: (r / "a.measures.npz").write_bytes(b"PK"),
            "a.measures.npz: not a readable file of measures",
        ),
        (
            lambda r: shutil.copy(r / "b.measures.npz", r / "a.measures.npz"),
            "belongs to another result",
        ),
        (
            lambda r: _sub(r / "a.json", '"pictures": 60', '"pictures": 61'),
            "field 'measures.pictures': says 61",
        ),
        (lambda r: (r / "a.json").unlink(), "a.measures.npz: no result file names it; delete it"),
    ],
)
def test_red_for_measures_that_do_not_hold(
    measured: tuple[Path, Path], break_it: Callable[[Path], object], message: str
) -> None:
    break_it(measured[0] / "rooms")
    problems = check_results(*measured, smoke=False)
    assert any(message in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_nothing_beside_a_damaged_result_is_called_stray(measured: tuple[Path, Path]) -> None:
    (measured[0] / "rooms/a.json").write_text("{")
    problems = check_stored(measured[0], Today.read(measured[1]))
    assert len(problems) == 1
    assert "not valid JSON" in problems[0]


def test_an_interval_of_measures_edited_by_hand_is_found(measured: tuple[Path, Path]) -> None:
    path = measured[0] / "rooms/a.json"
    data = json.loads(path.read_text())
    data["measures"]["interval"]["same_mask"][1] += 0.1  # within the tolerance
    path.write_text(json.dumps(data))
    assert check_stored(measured[0], Today.read(measured[1])) == []
    data["measures"]["interval"]["same_mask"][1] += 0.2
    path.write_text(json.dumps(data))
    (problem,) = check_stored(measured[0], Today.read(measured[1]))
    assert re.search(
        r"a\.json: field 'measures\.interval\.same_mask': says .* but the measures give", problem
    )


def test_rows_measured_on_other_pictures_are_found(measured: tuple[Path, Path]) -> None:
    fakes.store(measured[0], "b", measured[1], fakes.measures_of("b", data="e" * 16))
    problems = check_results(*measured, smoke=False)
    found = f"b measured on other data ({'e' * 16}) than a ({'d' * 16}) cannot share a table"
    assert found in problems[0]
    assert found in problems[1]  # the README cannot be made
    assert "cannot be made" in problems[1]


def test_a_smoke_run_that_fails_is_a_problem_not_an_end(folders: tuple[Path, Path]) -> None:
    def fit(resolved: Resolved, force: bool) -> RunRecord:
        if resolved.page.name == "a":
            from spatialbench.utils.errors import SpatialbenchError

            raise SpatialbenchError("no weights")
        return fit_by_captions(resolved, force)

    assert check_smoke(folders[0], Today.read(folders[1]), fit) == [
        "smoke run of a on rooms: no weights"
    ]


# ------------------------------------------------------------------------------------------ the rule


@pytest.fixture
def row(tmp_path: Path) -> tuple[Result, ResultOutcomes]:
    benchmarks = fakes.benchmarks(tmp_path / "benchmarks", "a")
    return fakes.row("a", benchmarks, seeds=(0,), budget="smoke")


def moved(outcomes: ResultOutcomes, change: Callable[[np.ndarray], np.ndarray]) -> ResultOutcomes:
    return replace(outcomes, margins=change(outcomes.margins.astype(np.float32)).astype(np.float16))


def elsewhere(result: Result) -> Result:
    return replace(
        result, runs=[replace(run, hardware={**run.hardware, "threads": 1}) for run in result.runs]
    )


def test_the_same_machine_repeats_every_sign(row: tuple[Result, ResultOutcomes]) -> None:
    result, outcomes = row
    assert compare(result, outcomes, result, outcomes).problems == []
    small = np.abs(outcomes.margins).argmin()

    def flip_smallest(margins: np.ndarray) -> np.ndarray:
        margins[0, small] *= -1
        return margins

    found = compare(result, outcomes, result, moved(outcomes, flip_smallest))
    assert found.same
    assert found.flips == 1
    assert f"1 records are answered differently (first: rooms-test-{small:05d}" in found.problems[0]
    drifted = compare(result, outcomes, result, moved(outcomes, lambda m: m * (1 + 3 * SAME_DRIFT)))
    assert (drifted.flips, len(drifted.problems)) == (0, 1)


def test_another_version_of_this_package_is_the_same_machine(
    row: tuple[Result, ResultOutcomes],
) -> None:
    result, outcomes = row
    newer = replace(
        result,
        runs=[replace(run, versions={**run.versions, "spatialbench": "9"}) for run in result.runs],
    )
    other = replace(
        result, runs=[replace(run, versions={**run.versions, "torch": "9"}) for run in result.runs]
    )
    noted = replace(
        result, runs=[replace(run, versions={**run.versions, "soon": "1"}) for run in result.runs]
    )
    assert compare(result, outcomes, newer, outcomes).same
    assert not compare(result, outcomes, other, outcomes).same
    assert compare(result, outcomes, noted, outcomes).same, (
        "a package that was not noted yet tells nothing"
    )


def test_another_machine_may_flip_what_is_near_zero(row: tuple[Result, ResultOutcomes]) -> None:
    result, outcomes = row
    scale = {
        r: np.sqrt(np.mean(outcomes.margins[0, outcomes.relation == r].astype(float) ** 2))
        for r in RELATIONS
    }
    near = np.abs(outcomes.margins[0]) < [
        FLIP_MARGIN / 2 * scale[r] for r in outcomes.relation.tolist()
    ]
    assert near.any()
    found = compare(
        result, outcomes, elsewhere(result), moved(outcomes, lambda m: np.where(near, -m, m))
    )
    assert not found.same
    assert found.flips == near.sum()
    assert found.problems == []


def test_another_machine_may_not_drift_far(row: tuple[Result, ResultOutcomes]) -> None:
    result, outcomes = row
    fine = compare(
        result, outcomes, elsewhere(result), moved(outcomes, lambda m: m * (1 + OTHER_DRIFT / 2))
    )
    assert fine.problems == []
    far = compare(
        result, outcomes, elsewhere(result), moved(outcomes, lambda m: m * (1 + 2 * OTHER_DRIFT))
    )
    assert far.problems[0].startswith("the margins drifted by more than 0.05 (")
    assert all(f"{relation} 0.1" in far.problems[0] for relation in RELATIONS)


def test_large_flips_count_only_outside_of_the_paired_interval(
    row: tuple[Result, ResultOutcomes],
) -> None:
    """One flip of a relation, the same drift: three each way are chance, six in one direction are not."""
    result, outcomes = row
    flipped = [
        6 * (3 * relation + 1) + relation for relation in range(6)
    ]  # of six relations, in six scenes
    both, one = np.ones((2, 1, 120), dtype=np.float16)
    both[0, flipped] = [0.104, -0.104] * 3
    one[0, flipped] = -0.104
    for margins, problems in ((both, 0), (one, 2)):
        before, after = replace(outcomes, margins=margins), margins.copy()
        after[0, flipped] *= -1
        found = compare(result, before, elsewhere(result), replace(before, margins=after))
        assert FLIP_MARGIN / 2 * 0.9 < max(found.drift.values()) < OTHER_DRIFT
        assert found.flips == 6
        assert len(found.problems) == problems
    assert (
        "6 records with large margins are answered differently (first: rooms-test-00006, close)"
        in found.problems[0]
    )
    assert "all moved by +5.0 points, outside of chance" in found.problems[0]


def test_other_data_are_told(row: tuple[Result, ResultOutcomes]) -> None:
    result, outcomes = row
    found = compare(result, outcomes, replace(result, data_fingerprint="e" * 16), outcomes)
    assert found.problems[0].startswith("other data: eeeeeeeeeeeeeeee, stored ffffffffffffffff")


def test_a_scorer_that_was_constant_and_is_not_any_more(row: tuple[Result, ResultOutcomes]) -> None:
    result, outcomes = row
    constant = moved(outcomes, np.zeros_like)
    assert compare(result, constant, result, constant).problems == []
    assert (
        "close inf, far inf" in compare(result, constant, elsewhere(result), outcomes).problems[0]
    )


def measured_as(result: Result, **values: float) -> Result:
    """A row with these measures."""
    interval = {name: [value - 1, value + 1] for name, value in values.items()}
    return replace(
        result,
        measures=MeasuresFile(
            "a.measures.npz", "0" * 64, 60, "d" * 16, "e" * 16, ["f" * 40], values, interval
        ),
    )


@pytest.mark.parametrize("same", [True, False])
def test_measures_may_move_by_the_limit(row: tuple[Result, ResultOutcomes], same: bool) -> None:
    result, outcomes = row
    limit = SAME_POINTS if same else OTHER_POINTS + 100 * OTHER_PICTURES / 60
    stored = measured_as(result, box_top1=40.0, same_mask=70.0)
    for factor, problems in ((-0.9, []), (0.9, []), (-1.1, ["box_top1"]), (1.1, ["box_top1"])):
        fresh = measured_as(result, box_top1=40.0 + factor * limit, same_mask=70.0)
        found = compare(stored, outcomes, fresh if same else elsewhere(fresh), outcomes)
        assert found.same is same
        assert [re.sub(r".*\((\w+) .*", r"\1", problem) for problem in found.problems] == problems
    assert "the measures moved by more than" in found.problems[0]
    assert f"(box_top1 {1.1 * limit:+.2f})" in found.problems[0]


def test_measures_that_the_repeated_run_lacks(row: tuple[Result, ResultOutcomes]) -> None:
    result, outcomes = row
    stored = measured_as(result, box_top1=40.0, same_mask=70.0)
    assert compare(stored, outcomes, stored, outcomes).problems == []
    assert (
        compare(result, outcomes, stored, outcomes).problems == []
    )  # more than is stored is no problem
    assert compare(stored, outcomes, result, outcomes).problems == [
        "no measures, stored box_top1, same_mask"
    ]
    fewer = measured_as(result, same_mask=70.0)
    assert compare(stored, outcomes, fewer, outcomes).problems == [
        "the measures box_top1 are missing"
    ]
    assert stored.measures is not None
    other = replace(stored, measures=replace(stored.measures, data="e" * 16))
    assert (
        compare(stored, outcomes, other, outcomes)
        .problems[0]
        .startswith("measured on other data: eeeeeeeeeeeeeeee")
    )


def test_a_smoke_run_is_compared_in_its_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    benchmarks = fakes.benchmarks(Path("benchmarks"), "a")

    def fit(level: float | None) -> Callable[[Resolved, bool], RunRecord]:
        measures = None if level is None else fakes.run_measures(0, level)
        return lambda resolved, force: fakes.write_run(resolved, fakes.run_outcomes(0), measures)

    assert run(["benchmarks/a.yaml"], budget="smoke", seeds=[0], fit=fit(0.5)) == 0
    today = Today.read(benchmarks)
    assert check_smoke(Path("results"), today, fit(0.5)) == []
    (moved_away,) = check_smoke(Path("results"), today, fit(0.6))
    assert re.match(
        r"smoke run of a on rooms: the measures moved by more than 0\.01 points \(box_top1 \+",
        moved_away,
    )
    (none,) = check_smoke(Path("results"), today, fit(None))
    assert none == "smoke run of a on rooms: no measures, stored box_top1, same_mask, image_r1"


# ------------------------------------------------------------------------------------------ the real thing

PAGE = """\
# The student with random weights: near chance, as every smoke run is.
model:
  class_path: spatialbench.methods.clip.Clip
  init_args: {student: "rooms-student:random"}
"""
TRACK = """\
name: rooms
trainer: {accelerator: cpu, max_epochs: -1, enable_progress_bar: false}
data: {image_size: 96, train_images: 64, val_images: 8, test_images: 64, batch_images: 8}
budgets: {smoke: {trainer: {max_steps: 2, limit_val_batches: 0}}}
"""


def test_a_real_run_repeats_and_sees_the_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rendered images, the real student, two steps of training: green again and again, red with the words exchanged."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks/tracks").mkdir(parents=True)
    Path("benchmarks/clip.yaml").write_text(PAGE)
    Path("benchmarks/tracks/rooms.yaml").write_text(TRACK)
    assert run(["benchmarks/clip.yaml"], budget="smoke", seeds=[0]) == 0
    results, today = Path("results"), Today.read(Path("benchmarks"))
    assert check_smoke(results, today) == []
    said = capsys.readouterr().err
    assert "same machine and versions, 0 records answered differently, drift at most 0.000" in said
    exchange_left_and_right(monkeypatch)
    problems = "\n".join(check_smoke(results, today))
    assert re.search(
        r"drifted by more than 0\.01 \((left 0\.\d+, right|right 0\.\d+, left) 0\.\d+", problems
    )
    assert "records are answered differently" in problems
