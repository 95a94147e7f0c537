"""The command line: every verb once, every mistake one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from spatialbench.cli.main import main
from spatialbench.training.build import condense
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from tests.support import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A folder of runs with one finished run of the page ``clip`` at the budget ``smoke``."""
    runs = folder.parent / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
        assert main(["fit", *base(folder), "--runs", str(runs)]) == 0
    return runs


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
    monkeypatch.delenv("SPATIALBENCH_DEBUG", raising=False)


def base(folder: Path, page: str = "clip") -> list[str]:
    return ["--config", str(folder / f"{page}.yaml"), "--track", "tiny", "--budget", "smoke"]


def mistake(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Runs a command that must fail with status 2; its one line."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("spatialbench: ")
    ]
    assert len(lines) == 1
    return lines[0]


def output(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


# ---- what works


def test_help_is_quick() -> None:
    code = "import sys; from spatialbench.cli.main import main; main(['--help']); print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert "fit" in result.stdout
    assert result.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    "name",
    [
        "fit",
        "validate",
        "test",
        "predict",
        "run",
        "table",
        "compare",
        "check-results",
        "reproduce",
        "list",
    ],
)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"spatialbench {name}" in output(capsys, name, "--help")


def test_help_of_a_page_lists_every_flag(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "fit", *base(folder), "--help")
    assert "--trainer.max_steps" in text
    assert "--data.path" in text


def test_print_config_says_what_the_flags_say(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--trainer.max_steps",
        3,
        "--model.init_args.finetuning.lr=1e-3",
        "--data.path",
        "a.json",
        "--seed",
        5,
    ]
    config = yaml.safe_load(output(capsys, "fit", *base(folder), *flags, "--print_config"))
    assert config["seed_everything"] == 5
    assert config["trainer"]["max_steps"] == 3
    assert config["model"]["init_args"]["finetuning"]["lr"] == 1e-3
    assert config["data"]["path"] == "a.json"
    assert config["data"]["seed"] == 5


def test_a_second_config_lies_over_the_page(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "more.yaml").write_text(
        "trainer: {max_steps: 4}\nmodel: {init_args: {finetuning: {lr: 1e-4}}}"
    )
    more = [*base(folder), "--config", tmp_path / "more.yaml"]
    config = yaml.safe_load(output(capsys, "fit", *more, "--trainer.max_steps=5", "--print_config"))
    assert config["trainer"]["max_steps"] == 5
    assert config["model"]["init_args"]["finetuning"]["lr"] == 1e-4


def test_test_finds_the_newest_run(
    folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next(trained.rglob("run.json"))
    expected = json.loads(run.read_text())["scores"]
    runs = ["--runs", trained, "--format", "json"]
    for extra in ([], ["--ckpt_path", "LAST"], ["--ckpt_path", run.parent / "last.ckpt"]):
        found = json.loads(output(capsys, "test", *base(folder), *runs, *extra))
        assert found["accuracy"] == expected["accuracy"]
    assert "Close" in output(capsys, "test", *base(folder), "--runs", trained)
    assert json.loads(output(capsys, "validate", *base(folder), *runs))["all"] >= 0


def test_what_is_named_seed_0_is_seed_0(
    folder: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though another run is newer: what is printed, and stored by controls and export, names the seed."""
    runs = shutil.copytree(trained, tmp_path / "both")
    assert main(["fit", *base(folder), "--runs", str(runs), "--seed", "1"]) == 0
    capsys.readouterr()
    assert main(["test", *base(folder), "--runs", str(runs)]) == 0
    assert "seed0/last.ckpt" in capsys.readouterr().err
    assert main(["test", *base(folder), "--runs", str(runs), "--seed", "1"]) == 0
    said = capsys.readouterr()
    assert "seed1/last.ckpt" in said.err
    assert "seed 1)" in said.out


def test_the_page_wins_over_the_checkpoint(
    folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--runs", trained, "--model.init_args.finetuning.lr", "0.125"]
    capsys.readouterr()
    assert main(["test", *base(folder), *map(str, flags)]) == 0
    note = "note: last.ckpt was trained with finetuning.lr=0.01; finetuning.lr=0.125 is used"
    assert note in capsys.readouterr().err


def test_a_page_without_training_needs_no_checkpoint(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.page(folder, "zeroshot", rest="trainer: {max_steps: 0}\n")
    found = json.loads(output(capsys, "test", *base(folder, "zeroshot"), "--format", "json"))
    assert sum(count["n"] for count in found["relations"].values()) == 24


def test_predict_gives_both_captions_both_scores_and_the_verdict(
    folder: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(tmp_path / name)
    argv = ["predict", *base(folder), "--runs", trained, "--image", "a.png", "--image", "b.png"]
    argv += [
        "--caption",
        "The sofa is left of the lamp",
        "--caption",
        "The coffee table is under the lamp.",
    ]
    verdicts = json.loads(output(capsys, *argv, "--format", "json"))
    assert [(v["image"], v["caption"], v["negated"]) for v in verdicts] == [
        (image, caption, negated)
        for image in ("a.png", "b.png")
        for caption, negated in (
            ("The sofa is left of the lamp.", "The lamp is left of the sofa."),
            ("The coffee table is under the lamp.", "The lamp is under the coffee table."),
        )
    ]
    for v in verdicts:
        assert -1 <= v["negative"] <= 1
        assert v["verdict"] == ("caption" if v["positive"] > v["negative"] else "negated caption")
    assert "The lamp is left of the sofa." in output(capsys, *argv)


def test_predict_without_a_picture_goes_through_the_test_set(
    folder: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = output(capsys, "predict", *base(folder), "--runs", trained).splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 24
    assert records[0].keys() == {
        "record_id",
        "relation",
        "caption",
        "negated",
        "positive",
        "negative",
        "verdict",
    }


def test_data_check_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "data", "check", folder / "test.json")
    assert "24 of 24" in text
    assert "distinct images" in text


def test_ctrl_c_says_how_to_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.page(folder, "stopping", "tests.support.tiny.Stopping")
    monkeypatch.setattr(tiny.Stopping, "seen", 0)
    monkeypatch.setattr(tiny.Stopping, "stop_at", 1)
    argv = ["fit", *base(folder, "stopping")]
    assert main([*argv, "--force"]) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        "spatialbench: stopped at step 1, which is saved; the same command goes on from there: spatialbench "
        + " ".join(argv)
    )
    assert main(argv) == 0
    assert "going on from step 1 of 2" in capsys.readouterr().err


# ---- what does not


def test_mistakes_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder / "clip.yaml"
    cases = {
        ("fti",): "unknown command 'fti': did you mean 'fit'?",
        ("--config", page, "fit"): f"the command comes first: spatialbench fit --config {page}",
        ("fit",): "spatialbench fit needs --config PAGE.yaml",
        ("fit", page): f"did you mean 'spatialbench fit --config {page}'?",
        (
            "fit",
            *base(folder),
            "--buget",
            "full",
        ): "unknown option '--buget': did you mean '--budget'?",
        ("fit", *base(folder), "--ckpt_path", "LAST"): "fit goes on by itself from its run folder",
        (
            "fit",
            *base(folder),
            "--seed",
            "true",
        ): "--seed/--seed_everything: needs an integer, got 'true'",
        ("fit", *base(folder), "--trainer.max_step", 3): "unknown key 'max_step' for trainer",
        (
            "fit",
            *base(folder),
            "--trainer.max_steps",
            "x",
        ): "trainer.max_steps: expected int, got x",
        ("fit", *base(folder), "--data.train_image=3"): "did you mean 'train_images'?",
        (
            "fit",
            *base(folder),
            "--model.init_args.finetuning.lrr",
            3,
        ): "did you mean 'finetuning.lr'?",
        (
            "fit",
            *base(folder),
            "--model.finetuning.lr",
            "x",
        ): "model.finetuning.lr: expected float, got x",
        ("fit", *base(folder), "--model.init_args.student", "nope"): "spatialbench: student 'nope'",
        ("fit", *base(folder), "--track", "tinny"): "unknown track 'tinny': did you mean 'tiny'?",
        ("fit", "--config", folder / "clipp.yaml"): "clip.yaml'?",
        (
            "run",
            page,
            "--seeds",
            "0,a",
        ): "--seeds: needs integers with commas between them, as 0,1,2; got '0,a'",
        ("data", "chek"): "unknown command 'data chek': did you mean 'check'?",
        ("data", "check", "none.json"): "none.json",
        ("list", "--benchmarks", folder / "nowhere"): "no pages in",
        ("fit", "--config", folder / "zzzz.yaml"): "'spatialbench list' shows the pages",
        ("fit", *base(folder), "--model", "nope"): "the class path 'nope' names no module",
        (
            "fit",
            *base(folder),
            "--trainer.accelerator",
            "gpuu",
        ): "trainer: You selected an invalid accelerator name",
        (
            "fit",
            *base(folder),
            "--trainer.max_steps",
            -5,
        ): "trainer: `max_steps` must be a non-negative integer",
        ("run", "--config", page): "pages stand without --config",
        ("run", folder / "clipp.yaml", page, "--track", "tiny"): f"did you mean '{page}'?",
        ("run", page, "--track", "tiny", "--budget", "ful"): "unknown budget 'ful'",
        ("table", "--controls", "--budget", "smoke"): "--controls are those of the table",
        ("table", "--write", "--results", "nowhere"): "no results in nowhere, which is no folder",
        ("reproduce", "clip"): "no stored row clip: give its file",
    }
    for argv, part in cases.items():
        assert part in mistake(capsys, *argv), argv


def test_mistakes_with_checkpoints(
    folder: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = next(trained.rglob("last.ckpt"))
    tiny.page(folder, "stopping", "tests.support.tiny.Stopping")
    (tmp_path / "short.ckpt").write_bytes(last.read_bytes()[:2000])
    where = ["--runs", trained]
    cases = {
        ("test", *base(folder), "--runs", "none"): "spatialbench fit --config",
        ("test", *base(folder)[:-1], "quick", *where): "--budget smoke has one",
        ("test", *base(folder), *where, "--seed", 1): "with seed 1 under "
        + f"{trained}: --seed 0 has one",
        (
            "test",
            *base(folder),
            "--ckpt_path",
            last,
            "--seed",
            1,
        ): "is of a run with seed 0, not 1: --seed 0",
        ("test", *base(folder), "--ckpt_path", "none.ckpt"): "no such checkpoint: none.ckpt",
        ("test", *base(folder), "--ckpt_path", tmp_path / "short.ckpt"): "damaged, truncated",
        ("test", *base(folder, "stopping"), "--ckpt_path", last): (
            f"checkpoint {last} holds spatialbench.methods.clip.Clip (page clip), but page "
            f"{folder / 'stopping.yaml'} asks for tests.support.tiny.Stopping"
        ),
    }
    for argv, part in cases.items():
        assert part in mistake(capsys, *argv), argv


def test_mistakes_with_files(
    folder: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(np.full((64, 64, 3), 9, dtype=np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:400])
    records = json.loads((folder / "test.json").read_text())
    records[1]["relation"] = "beside"
    (tmp_path / "beside.json").write_text(json.dumps(records))
    (tmp_path / "list.yaml").write_text("[]")
    (tmp_path / "weights.bin").write_text("no weights")
    student = (
        "--model.init_args.student",
        f"{folder / 'tiny-student.json'}:{tmp_path / 'weights.bin'}",
    )
    export = ["export", *base(folder), "--to", "open_clip", "--runs", trained]
    look = ["predict", *base(folder), "--runs", trained]
    said = ["--caption", "The sofa is left of the lamp."]
    score = ["test", *base(folder), "--runs", trained]
    cases = {
        (*look, *said, "--image", "none.jpg"): "cannot read the image none.jpg",
        (*look, *said, "--image", "cut.jpg"): "cut.jpg: ",
        (*look, *said): "--caption needs a picture",
        (*look, "--image", "a.jpg"): "there is no caption",
        (
            *look,
            "--image",
            "a.jpg",
            "--caption",
            "The sofa lamp",
        ): "cannot read the caption 'The sofa lamp'",
        (*score, "--data.path", "none.json"): "none.json",
        (*score, "--data.path", "beside.json", "--data.strict", "true"): records[1]["question_id"],
        ("fit", *base(folder), "--runs", tmp_path / "a.jpg"): "cannot use the run folder",
        (
            "fit",
            *base(folder),
            "--config",
            "list.yaml",
        ): "list.yaml: must be a mapping with the keys trainer, model",
        ("fit", *base(folder), *student): "weights.bin is no file of weights, or damaged",
        (*score, "--ckpt_path", tmp_path): "is a folder; give the last.ckpt of a run",
        (*export, "a.jpg"): "a.jpg cannot be a folder: a file is in its place",
        (*export, "a.jpg/new"): "a.jpg/new cannot be a folder",
    }
    for argv, part in cases.items():
        assert part in mistake(capsys, *argv), argv
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "a.jpg" / "cache"))
    assert "cannot write the cache folder" in mistake(capsys, "fit", *base(folder), "--seed", 1)


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(SpatialbenchError, match="it is a folder; give the name of a file"):
        write_atomic(tmp_path, "")
    assert list(tmp_path.parent.glob(f".{tmp_path.name}.*")) == []


def test_debug_shows_the_trace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_DEBUG", "1")
    with pytest.raises(ValueError, match="unknown command"):
        main(["fti"])


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "Parser key \"trainer.max_steps\":\n  Expected a <class 'int'>. Got value: x",
            "trainer.max_steps: expected int, got x",
        ),
        (
            'Parser key "model":\n  Does not validate against any of the Union subtypes\n  Errors:\n'
            "    - Problem with given class_path 'a.B':\n        Parser key \"k\":\n"
            "          Expected a <class 'int'>. Got value: abc\n    - Expected a <class 'NoneType'>",
            "model.k: expected int, got abc",
        ),
        (
            'Parser key "data":\n  Errors:\n    - Problem with given class_path \'a.B\':\n        Parser key "crop":\n'
            "          Does not validate against any of the Union subtypes\n          Errors:\n"
            "            - Expected a tuple with 2 elements\n            - Expected a <class 'NoneType'>\n"
            "          Given value: [0.9]\n    - Expected a <class 'NoneType'>\n  Given value: NestedArg('crop')",
            "data.crop: expected tuple with 2 elements, got [0.9]",
        ),
        ("something else", "something else"),
    ],
)
def test_nested_reports_are_condensed(message: str, line: str) -> None:
    assert condense(message) == line
