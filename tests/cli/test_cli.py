"""The command line: every verb once, every mistake one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from spatialbench.cli.main import COMMANDS, VERBS, main
from spatialbench.training.build import condense
from spatialbench.utils.errors import SpatialbenchError, write_atomic
from tests.support import tiny

Capsys = pytest.CaptureFixture[str]
SAID = ("--caption", "The sofa is left of the lamp.")


def base(folder: Path | str, page: str = "clip") -> list[str]:
    return ["--config", f"{folder}/{page}.yaml", "--track", "tiny", "--budget", "smoke"]


def mistake(capsys: Capsys, *argv: object) -> str:
    """Run a command that must fail with status 2; return its one line."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if line.startswith("spatialbench: "))
    return line


def output(capsys: Capsys, *argv: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


def test_help_is_quick() -> None:
    code = "import sys; from spatialbench.cli.main import main; main(['--help']); "
    argv = [sys.executable, "-c", code + "print('torch' in sys.modules)"]
    text = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert all(f"  {name} " in text for name in (*VERBS, *COMMANDS))
    assert text.splitlines()[-1] == "False"


@pytest.mark.parametrize("name", [*VERBS, *COMMANDS])
def test_every_command_has_help(name: str, capsys: Capsys) -> None:
    assert f"spatialbench {name}" in output(capsys, name, "--help")


def test_help_of_a_page_lists_every_flag(folder: Path, capsys: Capsys) -> None:
    text = output(capsys, "fit", *base(folder), "--help")
    assert "--trainer.max_steps" in text
    assert "--data.path" in text


def test_flags_win_over_a_second_config_over_the_page(
    folder: Path, tmp_path: Path, capsys: Capsys
) -> None:
    """Arguments as the printed configuration says."""
    (tmp_path / "more.yaml").write_text(
        "trainer: {max_steps: 4}\nmodel: {init_args: {finetuning: {lr: 1e-4}}}"
    )
    argv = ["fit", *base(folder), "--config", "more.yaml", "--print_config"]
    config = yaml.safe_load(output(capsys, *argv))
    assert config["trainer"]["max_steps"] == 4
    assert config["model"]["init_args"]["finetuning"]["lr"] == 1e-4
    flags = ["--trainer.max_steps=3", "--model.init_args.finetuning.lr", "1e-3"]
    flags += ["--data.path", "a.json", "--seed", "5"]
    config = yaml.safe_load(output(capsys, *argv, *flags))
    assert config["trainer"]["max_steps"] == 3
    assert config["model"]["init_args"]["finetuning"]["lr"] == 1e-3
    assert config["data"]["path"] == "a.json"
    assert config["seed_everything"] == config["data"]["seed"] == 5


def test_the_newest_run_is_tested_and_the_page_wins_over_the_checkpoint(
    folder: Path, trained: Path, capsys: Capsys
) -> None:
    run = next(trained.rglob("run.json"))
    expected = json.loads(run.read_text())["scores"]["all"]
    runs = ["--runs", trained, "--format", "json"]
    for extra in ([], ["--ckpt_path", "LAST"], ["--ckpt_path", run.parent / "last.ckpt"]):
        made = json.loads(output(capsys, "test", *base(folder), *runs, *extra))
        assert made["pairs"]["measures"]["all"]["value"] == pytest.approx(expected, abs=1e-3)
    assert json.loads(output(capsys, "validate", *base(folder), *runs))["all"] >= 0
    lr = ["--model.init_args.finetuning.lr", "0.125"]
    assert main(["test", *base(folder), "--runs", str(trained), *lr]) == 0
    said = capsys.readouterr()
    assert "Close" in said.out
    note = "note: last.ckpt was trained with finetuning.lr=0.01; finetuning.lr=0.125 is used"
    assert note in said.err


def test_another_seed_is_tested_only_if_it_is_named(
    folder: Path, trained: Path, tmp_path: Path, capsys: Capsys
) -> None:
    runs = shutil.copytree(trained, tmp_path / "both")
    assert main(["fit", *base(folder), "--runs", str(runs), "--seed", "1"]) == 0
    capsys.readouterr()
    assert main(["test", *base(folder), "--runs", str(runs)]) == 0
    assert "seed0/last.ckpt" in capsys.readouterr().err
    assert main(["test", *base(folder), "--runs", str(runs), "--seed", "1"]) == 0
    said = capsys.readouterr()
    assert "seed1/last.ckpt" in said.err
    assert "seed 1)" in said.out


def test_predict_gives_both_captions_both_scores_and_the_verdict(
    folder: Path, trained: Path, tmp_path: Path, capsys: Capsys
) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(tmp_path / name)
    alone = ["predict", *base(folder), "--runs", trained]
    argv = [*alone, "--image", "a.png", "--image", "b.png", "--caption"]
    argv += ["The sofa is left of the lamp", "--caption", "The coffee table is under the lamp."]
    verdicts = json.loads(output(capsys, *argv, "--format", "json"))
    pairs = [
        ("The sofa is left of the lamp.", "The lamp is left of the sofa."),
        ("The coffee table is under the lamp.", "The lamp is under the coffee table."),
    ]
    expected = [(image, *pair) for image in ("a.png", "b.png") for pair in pairs]
    assert [(v["image"], v["caption"], v["negated"]) for v in verdicts] == expected
    for v in verdicts:
        assert -1 <= v["negative"] <= 1
        assert v["verdict"] == ("caption" if v["positive"] > v["negative"] else "negated caption")
    assert "The lamp is left of the sofa." in output(capsys, *argv)
    records = [json.loads(line) for line in output(capsys, *alone).splitlines()]
    assert len(records) == 24  # without an image, the test set
    assert {"record_id", "caption", "negated", "positive", "negative", "verdict"} <= set(records[0])


def test_data_check_counts(folder: Path, capsys: Capsys) -> None:
    text = output(capsys, "data", "check", folder / "test.json")
    assert "24 of 24" in text
    assert "distinct images" in text


def test_ctrl_c_says_how_to_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.setattr(tiny.Stopping, "seen", 0)
    monkeypatch.setattr(tiny.Stopping, "stop_at", 1)
    argv = ["fit", *base(folder, "stopping")]
    assert main([*argv, "--force"]) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    said = "spatialbench: stopped at step 1, which is saved; the same command goes on from there: "
    assert line == f"{said}spatialbench {' '.join(argv)}"
    assert main(argv) == 0
    assert "going on from step 1 of 2" in capsys.readouterr().err


FIT = "fit --config pages/clip.yaml --track tiny --budget smoke"


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("fti", "unknown command 'fti': did you mean 'fit'?"),
        (
            "--config pages/clip.yaml fit",
            "the command comes first: spatialbench fit --config pages/clip.yaml",
        ),
        ("fit", "spatialbench fit needs --config PAGE.yaml"),
        ("fit pages/clip.yaml", "did you mean 'spatialbench fit --config pages/clip.yaml'?"),
        ("fit --config pages/clipp.yaml", "clip.yaml'?"),
        ("fit --config pages/zzzz.yaml", "'spatialbench list' shows the pages"),
        (f"{FIT} --evaluation regions", "--evaluation"),
        ("table --reported --measures", "--reported has no numbers for regions"),
        ("table --reported --selection", "--reported has no numbers for selection"),
        (f"{FIT} --buget full", "unknown option '--buget': did you mean '--budget'?"),
        (f"{FIT} --ckpt_path LAST", "fit resumes from its run folder by itself"),
        (f"{FIT} --seed true", "--seed/--seed_everything: needs an integer, got 'true'"),
        (f"{FIT} --trainer.max_step 3", "unknown key 'max_step' for trainer"),
        (f"{FIT} --trainer.max_steps x", "trainer.max_steps: expected int, got x"),
        (f"{FIT} --trainer.max_steps -5", "trainer: `max_steps` must be a non-negative integer"),
        (f"{FIT} --trainer.accelerator gpuu", "trainer: You selected an invalid accelerator name"),
        (f"{FIT} --data.train_image=3", "did you mean 'train_images'?"),
        (f"{FIT} --model.init_args.finetuning.lrr 3", "did you mean 'finetuning.lr'?"),
        (f"{FIT} --model.finetuning.lr x", "model.finetuning.lr: expected float, got x"),
        (f"{FIT} --model.init_args.student nope", "spatialbench: student 'nope'"),
        (f"{FIT} --model nope", "the class path 'nope' names no module"),
        (f"{FIT} --track tinny", "unknown track 'tinny': did you mean 'tiny'?"),
        ("run pages/clip.yaml --seeds 0,a", "--seeds: needs integers with commas, as 0,1,2"),
        ("run --config pages/clip.yaml", "pages stand without --config"),
        ("run pages/clipp.yaml pages/clip.yaml --track tiny", "did you mean 'pages/clip.yaml'?"),
        ("run pages/clip.yaml --track tiny --budget ful", "unknown budget 'ful'"),
        ("data chek", "unknown command 'data chek': did you mean 'check'?"),
        ("data check none.json", "none.json"),
        ("list --benchmarks nowhere", "no pages in"),
        ("table --controls --budget smoke", "controls are those of budget full"),
        ("table --write --results nowhere", "no results in nowhere"),
        ("compare a", "give two rows"),
        ("reproduce clip", "no stored row clip"),
    ],
)
def test_a_mistake_in_words(command: str, part: str, capsys: Capsys) -> None:
    assert part in mistake(capsys, *command.split())


def test_mistakes_with_checkpoints(
    folder: Path, trained: Path, tmp_path: Path, capsys: Capsys
) -> None:
    last = next(trained.rglob("last.ckpt"))
    (tmp_path / "short.ckpt").write_bytes(last.read_bytes()[:2000])
    test, where = ["test", *base(folder)], ["--runs", trained]
    other = f"checkpoint {last} holds spatialbench.methods.clip.Clip (page clip), but page "
    cases = {
        (*test, "--runs", "none"): "spatialbench fit --config",
        (*test[:-1], "quick", *where): "--budget smoke has one",
        (*test, *where, "--seed", 1): f"with seed 1 under {trained}: --seed 0 has one",
        (*test, "--ckpt_path", last, "--seed", 1): "is of a run with seed 0, not 1: --seed 0",
        (*test, "--ckpt_path", "none.ckpt"): "no such checkpoint: none.ckpt",
        (*test, "--ckpt_path", tmp_path): "is a folder; give the last.ckpt of a run",
        (*test, "--ckpt_path", "short.ckpt"): "damaged, truncated",
        ("test", *base(folder, "stopping"), "--ckpt_path", last): other,
    }
    for argv, part in cases.items():
        assert part in mistake(capsys, *argv), argv


def test_mistakes_with_files(
    folder: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capsys,
) -> None:
    Image.fromarray(np.full((64, 64, 3), 9, dtype=np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:400])
    records = json.loads((folder / "test.json").read_text())
    records[1]["relation"] = "beside"
    (tmp_path / "beside.json").write_text(json.dumps(records))
    (tmp_path / "list.yaml").write_text("[]")
    (tmp_path / "weights.bin").write_text("no weights")
    student = ("--model.init_args.student", f"{folder / 'tiny-student.json'}:weights.bin")
    fit, runs = ["fit", *base(folder)], ["--runs", trained]
    export = ["export", *base(folder), "--to", "open_clip", *runs]
    look, score = (["predict", *base(folder), *runs], ["test", *base(folder), *runs])
    lamp = "The sofa lamp"
    cases = {
        (*look, *SAID, "--image", "none.jpg"): "cannot read the image none.jpg",
        (*look, *SAID, "--image", "cut.jpg"): "cut.jpg: ",
        (*look, *SAID): "--caption needs an image",
        (*look, "--image", "a.jpg"): "there is no caption",
        (*look, "--image", "a.jpg", "--caption", lamp): f"cannot read the caption '{lamp}'",
        (*score, "--data.path", "none.json"): "none.json",
        (*score, "--data.path", "beside.json", "--data.strict", "true"): records[1]["question_id"],
        (*fit, "--runs", tmp_path / "a.jpg"): "cannot use the run folder",
        (*fit, "--config", "list.yaml"): "list.yaml: must be a mapping with the keys trainer",
        (*fit, *student): "weights.bin is not a file of weights, or is damaged",
        (*export, "a.jpg/new"): "a.jpg/new cannot be made, as a file is there",
    }
    for argv, part in cases.items():
        assert part in mistake(capsys, *argv), argv
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(tmp_path / "a.jpg" / "cache"))
    assert "cannot write the cache folder" in mistake(capsys, *fit, "--seed", 1)


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(SpatialbenchError, match="it is a folder; give the name of a file"):
        write_atomic(tmp_path, "")
    assert list(tmp_path.parent.glob(f".{tmp_path.name}.*")) == []


def test_debug_shows_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPATIALBENCH_DEBUG", "1")
    with pytest.raises(ValueError, match="unknown command"):
        main(["fti"])


def test_nested_reports_are_condensed() -> None:
    message = (
        "Parser key \"data\":\n  Errors:\n    - Problem with given class_path 'a.B':\n"
        '        Parser key "crop":\n'
        "          Does not validate against any of the Union subtypes\n          Errors:\n"
        "            - Expected a tuple with 2 elements\n"
        "            - Expected a <class 'NoneType'>\n          Given value: [0.9]\n"
        "    - Expected a <class 'NoneType'>\n  Given value: NestedArg('crop')"
    )
    assert condense(message) == "data.crop: expected tuple with 2 elements, got [0.9]"
    assert condense("something else") == "something else"
