"""Image selection through fit, test and run: measured once, kept in the run folder, made up for where it is lacking."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spatialbench.cli.evaluation import evaluation_set
from spatialbench.cli.main import main
from spatialbench.config.evaluations import selection_set, selection_settings
from spatialbench.config.experiment import Resolved, resolve
from spatialbench.config.pages import load_track
from spatialbench.data.images import Resize
from spatialbench.data.rooms.counterfactual import Counterfactual
from spatialbench.data.selection_sets import ImagePairs, SelectionSet
from spatialbench.evaluation.measures import Measures
from spatialbench.results.files import read_result, read_selection
from spatialbench.results.measures import patterns
from spatialbench.results.run_folder import RunRecord, clear, selected
from spatialbench.training.fit import fit
from spatialbench.training.plan import run
from spatialbench.utils.errors import SpatialbenchError
from tests.data.captions.test_mmvp import copy
from tests.support import BENCHMARKS, tiny

SELECTION = {"class_path": "tests.training.test_selection_runs.Noise", "init_args": {"count": 40}}


class Noise(SelectionSet):
    """Pairs of noise in two patterns."""

    name = "noise"

    def __init__(self, count: int) -> None:
        self.count = count

    def pairs(self, size: int, resize: Resize = "crop") -> ImagePairs:
        assert resize == "crop"
        images = np.random.default_rng(0).integers(
            0, 256, (self.count, 2, size, size, 3), dtype=np.uint8
        )
        pattern, scenes = np.arange(self.count) % 2, [f"s{k}" for k in range(self.count)]
        return ImagePairs(
            images, [("a sofa", "a lamp")] * self.count, pattern, ("one", "two"), scenes, "noise"
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")
    with (made / "tracks" / "tiny.yaml").open("a") as stream:
        stream.write(f"selection: {json.dumps(SELECTION)}\n")
    return made


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))


def made(folder: Path, seed: int = 0) -> Resolved:
    return resolve(folder / "clip.yaml", "tiny", "smoke", seed)


def test_fit_selects_and_what_is_lacking_is_made_up_for_from_the_checkpoint(folder: Path) -> None:
    resolved = made(folder)
    record = fit(resolved)
    first = Measures.load(record.selection)
    assert (first.labels, first.pictures) == (("one", "two"), 40)
    assert first.settings == selection_settings(resolved.track, "smoke")
    assert len(first.commits) == 1
    assert not record.measures.exists()  # the track names no regions
    trained = record.checkpoint.stat().st_mtime_ns
    for damage in (record.selection.unlink, lambda: record.selection.write_bytes(b"PK")):
        damage()
        assert not selected(resolved, record)
        fit(resolved)
        assert Measures.load(record.selection).digest == first.digest
    other = replace(
        resolved, track=replace(resolved.track, selection={**SELECTION, "init_args": {"count": 4}})
    )
    assert not selected(other, record)
    fit(other)
    assert Measures.load(record.selection).pictures == 4
    assert record.checkpoint.stat().st_mtime_ns == trained
    clear(resolved.run_dir)
    assert not record.selection.exists()


def test_the_weights_of_the_checkpoint_are_the_ones_that_select(folder: Path) -> None:
    """Other weights (here the start's) would select otherwise, and a file made up for is that of training's end."""
    resolved = made(folder)
    record = fit(resolved)
    trained = Measures.load(record.selection).digest
    record.selection.unlink()
    record.checkpoint.rename(record.run_dir / "away")
    fit(resolved)
    (record.run_dir / "away").rename(record.checkpoint)
    assert Measures.load(record.selection).digest != trained


def test_a_row_gets_it_and_a_stored_row_without_is_filled_in_without_training(folder: Path) -> None:
    page = str(folder / "clip.yaml")
    track = folder / "tracks" / "tiny.yaml"
    whole = track.read_text()
    path = Path("results/tiny/smoke/clip.json")
    try:
        track.write_text(
            "\n".join(line for line in whole.splitlines() if not line.startswith("selection:"))
            + "\n"
        )
        assert run([page], "tiny", "smoke", [0, 1]) == 0
    finally:
        track.write_text(whole)
    before = read_result(path)
    assert before.selection is None
    trained = [
        RunRecord.read(made(folder, seed).run_dir).checkpoint.stat().st_mtime_ns for seed in (0, 1)
    ]
    assert run([page], "tiny", "smoke", [0]) == 0  # not the row's seeds: it is left alone
    assert read_result(path) == before
    assert run([page], "tiny", "smoke", [0, 1]) == 0
    after = read_result(path)
    assert after.selection is not None
    found = read_selection(path, after)
    assert found is not None
    assert (found.seeds, after.selection.patterns) == (2, patterns(found))
    assert replace(after, selection=None) == before
    assert [
        RunRecord.read(made(folder, k).run_dir).checkpoint.stat().st_mtime_ns for k in (0, 1)
    ] == trained


def test_a_stored_row_without_it_and_without_its_run_folders_is_current(
    folder: Path, capsys: object
) -> None:
    page, track = str(folder / "clip.yaml"), folder / "tracks" / "tiny.yaml"
    whole = track.read_text()
    try:
        track.write_text(
            "\n".join(line for line in whole.splitlines() if not line.startswith("selection:"))
            + "\n"
        )
        assert run([page], "tiny", "smoke", [0]) == 0
    finally:
        track.write_text(whole)
    assert run([page], "tiny", "smoke", [0], runs="elsewhere") == 0
    assert "clip is current" in capsys.readouterr().err  # type: ignore[attr-defined]
    assert not Path("elsewhere").exists()


def test_the_test_verb_prints_it_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resolved = made(folder)
    stored = Measures.load(fit(resolved).selection)
    arguments = [
        "test",
        "--config",
        str(folder / "clip.yaml"),
        "--track",
        "tiny",
        "--budget",
        "smoke",
    ]
    capsys.readouterr()
    assert main(arguments) == 0
    assert "Image selection" in capsys.readouterr().out
    assert main([*arguments, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["selection"]["select_cls"]["value"] == pytest.approx(stored.values()["select_cls"])
    assert found["pairs"] == 40
    own = folder / "own.json"
    own.write_text((folder / "test.json").read_text())
    assert main([*arguments, "--format", "json", "--data.path", str(own)]) == 0
    assert "selection" not in json.loads(
        capsys.readouterr().out
    )  # pairs of one's own: nothing beside them


def test_evaluation_mmvp_of_a_downloaded_copy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(made(folder))
    downloaded = copy(tmp_path / "copy")
    arguments = [
        "test",
        "--config",
        str(folder / "clip.yaml"),
        "--track",
        "tiny",
        "--budget",
        "smoke",
    ]
    arguments += ["--evaluation", "mmvp", "--evaluation_path", str(downloaded)]
    capsys.readouterr()
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "on mmvp" in text
    assert all(word in text for word in ("orientation", "viewpoint", "135 pairs"))
    assert main([*arguments, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["evaluation"] == "mmvp"
    assert found["pairs"] == 135
    assert len(found["selection"]["select_local"]["patterns"]) == 9
    (downloaded / "Questions.csv").unlink()
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--evaluation", "mmpv"], "unknown --evaluation 'mmpv'.*'mmvp'"),
        (
            ["--evaluation", "mmvp"],
            "data download mmvp brings it, or --evaluation_path FOLDER, a copy of the Hub's dataset",
        ),
        (
            ["--evaluation", "counterfactual", "--evaluation_path", "x"],
            "leave --evaluation_path out",
        ),
        (["--evaluation_path", "x"], "belongs to --evaluation mmvp"),
    ],
)
def test_wrong_flags_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main(["test", "--config", str(folder / "clip.yaml"), "--track", "tiny", *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error


def test_the_counterfactual_pairs_are_those_of_the_track(folder: Path) -> None:
    rooms = load_track(BENCHMARKS / "tracks/rooms.yaml")
    found = evaluation_set("counterfactual", None, rooms, "smoke")
    assert isinstance(found, Counterfactual)
    assert (found.split, found.count) == ("test", 2)
    assert evaluation_set("counterfactual", None, rooms, "full").count == 100  # type: ignore[attr-defined]
    tiny_track = load_track(folder / "tracks" / "tiny.yaml")
    assert isinstance(evaluation_set("counterfactual", None, tiny_track, "smoke"), Counterfactual)
    assert isinstance(selection_set(tiny_track, "smoke"), Noise)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{count: 3}", r"unknown key 'selection\.count'"),
        ("{init_args: {count: 3}}", "selection needs 'class_path', a SelectionSet"),
        (
            "{class_path: tests.training.test_selection_runs.Noise, budgets: {smok: {}}}",
            r"unknown budget 'smok' .*selection",
        ),
        (
            "{class_path: tests.training.test_selection_runs.Noise, init_args: {cuont: 3}}",
            "unknown key 'cuont'.*selection",
        ),
        ("{class_path: tests.training.test_selection_runs.Noise}", "selection: .*missing"),
        (
            "{class_path: spatialbench.data.captions.mmvp.Mmvp, init_args: {path: nowhere}}",
            r"nowhere/Questions\.csv",
        ),
    ],
)
def test_a_wrong_block_of_a_track_is_one_line(
    folder: Path, tmp_path: Path, block: str, message: str
) -> None:
    lines = (folder / "tracks" / "tiny.yaml").read_text().splitlines()
    path = tmp_path / "other.yaml"
    path.write_text(
        "\n".join(line for line in lines if not line.startswith("selection:"))
        + f"\nselection: {block}\n"
    )
    with pytest.raises(SpatialbenchError, match=message) as caught:
        selection_set(load_track(path), "smoke")
    assert "\n" not in str(caught.value)
