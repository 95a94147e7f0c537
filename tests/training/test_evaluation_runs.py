"""A track's evaluations through fit and run: kept in the run folder, added where missing."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spatialbench.cli.main import main
from spatialbench.config.evaluations import evaluations_of
from spatialbench.config.experiment import Resolved, resolve
from spatialbench.config.pages import load_track
from spatialbench.data.images import Resize
from spatialbench.data.selection_sets import ImagePairs, SelectionSet
from spatialbench.evaluation.evidence import Evidence
from spatialbench.methods.clip import Clip
from spatialbench.results.files import read_result
from spatialbench.results.run_folder import RunRecord, clear, is_current, outdated
from spatialbench.training.fit import fit
from spatialbench.training.plan import run
from spatialbench.training.score import evaluate_all, load_method, stamped
from tests.support import tiny
from tests.support.checks import refused
from tests.support.models import student

pytestmark = pytest.mark.usefixtures("place")
SELECTION = "spatialbench.evaluation.selection.ImageSelection"
NOISE = "tests.training.test_evaluation_runs.Noise"


class Noise(SelectionSet):
    """Pairs of noise in two patterns."""

    name = "noise"

    def __init__(self, count: int) -> None:
        self.count = count

    def pairs(self, size: int, resize: Resize = "crop") -> ImagePairs:
        assert resize == "crop"
        shape = (self.count, 2, size, size, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        pattern, scenes = np.arange(self.count) % 2, [f"s{k}" for k in range(self.count)]
        captions = [("a sofa", "a lamp")] * self.count
        return ImagePairs(images, captions, pattern, ("one", "two"), scenes, "noise")


def blocks(count: int) -> dict:
    source = {"class_path": NOISE, "init_args": {"count": count}}
    return {"noise": {"class_path": SELECTION, "init_args": {"source": source}}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")
    plain = (made / "tracks" / "tiny.yaml").read_text()
    (made / "tracks" / "plain.yaml").write_text(plain)  # without evaluations
    with (made / "tracks" / "tiny.yaml").open("a") as stream:
        stream.write(f"evaluations: {json.dumps(blocks(40))}\n")
    return made


def made(folder: Path, seed: int = 0, count: int = 40, **overrides: dict) -> Resolved:
    resolved = resolve(folder / "clip.yaml", "tiny", "smoke", seed, overrides)
    return replace(resolved, track=replace(resolved.track, evaluations=blocks(count)))


@pytest.mark.slow
def test_what_is_lacking_is_evaluated_from_the_checkpoint(folder: Path) -> None:
    resolved = made(folder)
    record = fit(resolved)
    path = record.evidence("noise")
    first = Evidence.load(path)
    assert (first.labels, first.units, len(first.commits)) == (("one", "two"), 40, 1)
    spec = evaluations_of(resolved.track, "smoke")["noise"]
    assert first.settings == spec.settings
    again = spec.load().run(load_method(resolved, None, Path("runs"))[0])
    assert stamped(again, spec.settings).digest == first.digest
    trained = record.checkpoint.stat().st_mtime_ns
    for damage in (path.unlink, lambda: path.write_bytes(b"PK")):
        damage()
        assert outdated(resolved, record) == ["noise"]
        fit(resolved)
        assert is_current(resolved, record)
        assert Evidence.load(path).digest == first.digest
    path.unlink()
    record.checkpoint.rename(record.run_dir / "away")
    fit(resolved)  # from the weights of the start: other weights give other evidence
    assert Evidence.load(path).digest != first.digest
    (record.run_dir / "away").rename(record.checkpoint)
    other = made(folder, count=4)  # the track asks for something else today
    assert not is_current(other, record)
    fit(other)
    assert Evidence.load(path).units == 4
    assert record.checkpoint.stat().st_mtime_ns == trained
    clear(resolved.run_dir)
    assert not path.exists()


@pytest.mark.slow
def test_pairs_of_the_user_s_own_are_all_that_is_evaluated(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = folder / "own.json"
    own.write_text((folder / "test.json").read_text())
    resolved = made(folder, data={"path": str(own)})
    record = fit(resolved)
    assert [path.name for path in record.run_dir.glob("*.npz")] == ["pairs.npz"]
    assert is_current(resolved, record)
    assert "Image selection" not in capsys.readouterr().out


def test_missing_data_are_told_before_training(folder: Path) -> None:
    resolved = made(folder)
    source = {"class_path": "spatialbench.data.captions.mmvp.Mmvp", "init_args": {"path": "none"}}
    block = {"mmvp": {"class_path": SELECTION, "init_args": {"source": source}}}
    lacking = replace(resolved, track=replace(resolved.track, evaluations=block))
    with refused(r"none/Questions\.csv"):
        fit(lacking)
    assert not (resolved.run_dir / "last.ckpt").exists()


@pytest.mark.slow
def test_a_stored_row_gets_a_new_evaluation_without_training(folder: Path) -> None:
    page, path = str(folder / "clip.yaml"), Path("results/tiny/smoke/clip.json")
    records = [RunRecord(made(folder, seed).run_dir, {}) for seed in (0, 1)]
    track = folder / "tracks" / "tiny.yaml"
    whole = track.read_text()
    try:
        track.write_text((folder / "tracks" / "plain.yaml").read_text())
        assert run([page], "tiny", "smoke", [0, 1]) == 0
    finally:
        track.write_text(whole)
    before = read_result(path)
    trained = [record.checkpoint.stat().st_mtime_ns for record in records]
    assert run([page], "tiny", "smoke", [0, 1]) == 0
    after = read_result(path)
    assert list(after.evaluations) == ["pairs", "noise"]
    assert replace(after, evaluations=before.evaluations) == before
    assert after.pairs == before.pairs
    assert [record.checkpoint.stat().st_mtime_ns for record in records] == trained


@pytest.mark.slow
def test_the_test_verb_prints_every_evaluation(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(resolve(folder / "clip.yaml", "tiny", "smoke", 0))
    capsys.readouterr()
    page = ["--config", str(folder / "clip.yaml"), "--track", "tiny", "--budget", "smoke"]
    assert main(["test", *page]) == 0
    shown = capsys.readouterr().out
    assert "Close" in shown
    assert "Image selection" in shown
    assert main(["test", *page, "--format", "json"]) == 0
    assert "select_cls" in capsys.readouterr().out


OWN = SimpleNamespace(run=lambda model: {"accuracy": 1.0})
TRAINER = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
CUONT = {"class_path": NOISE, "init_args": {"cuont": 3}}


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"count": 3}, r"unknown key 'evaluations\.noise\.count'"),
        ({"init_args": {"count": 3}}, "noise needs 'class_path'"),
        ({"class_path": SELECTION, "budgets": {"smok": {}}}, r"unknown budget 'smok' .*noise"),
        ({"class_path": f"{SELECTION}x"}, "no class 'ImageSelectionx'.*ImageSelection"),
        ({"class_path": NOISE}, "is not an Evaluation"),
        ({"class_path": SELECTION, "init_args": {"suorce": 3}}, "unknown key 'suorce'.*source"),
        ({"class_path": SELECTION}, "noise: .*missing"),
        ({"class_path": SELECTION, "init_args": {"source": CUONT}}, "unknown key 'cuont'.*count"),
    ],
)
def test_a_wrong_evaluation_of_a_track_is_one_line(
    folder: Path, tmp_path: Path, block: dict, message: str
) -> None:
    path = tmp_path / "other.yaml"
    plain = (folder / "tracks" / "plain.yaml").read_text()
    path.write_text(f"{plain}evaluations: {json.dumps({'noise': block})}\n")
    with refused(message):
        evaluations_of(load_track(path), "smoke")["noise"].load()


@pytest.mark.parametrize("name", ["pairs", "controls", "a.b", "Big", "a b"])
def test_a_name_that_an_evaluation_cannot_have(folder: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "other.yaml"
    plain = (folder / "tracks" / "plain.yaml").read_text()
    path.write_text(f"{plain}evaluations: {json.dumps({name: {'class_path': SELECTION}})}\n")
    with refused(rf"evaluations\.{name}: the name of an evaluation is of lower-case"):
        load_track(path)


def test_an_evaluation_that_returns_no_evidence_is_named(folder: Path) -> None:
    built = SimpleNamespace(model=Clip(student()), trainer=TRAINER)
    with refused("evaluation own: run must return Evidence, not dict"):
        evaluate_all(built, {"own": (None, OWN)})  # type: ignore[arg-type]
