"""GenHancer's two stages and the fine-tuning after them: stopped and resumed in each, and what the run folders hold."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

from spatialbench.cli.main import main
from spatialbench.config.experiment import Resolved, resolve
from spatialbench.methods.genhancer import GenHancer
from spatialbench.models.denoiser import PRESETS, Architecture
from spatialbench.models.open_clip_student import load_clip
from spatialbench.results.run_folder import RunRecord, read_checkpoint
from spatialbench.training import fit as training
from spatialbench.training.callbacks import Interrupted
from spatialbench.training.fit import fit
from spatialbench.utils.errors import SpatialbenchError
from tests.support import BENCHMARKS, tiny
from tests.support.diffusions import vae
from tests.support.images import Noise

DATA = """\
data:
  class_path: spatialbench.data.pictures.PictureDataModule
  init_args: {{picture_path: {folder}/pictures, picture_size: 32, picture_batch: 2, picture_crop: [0.8, 1.0]}}
"""
CLIP = "  init_args: {{stage: clip, lora: {{rank: 2, dropout: 0.5}}{rest}}}\ninit_from: {first}\n"


class Stopping(GenHancer):
    """Gets Ctrl-C in its fourth step, the first time."""

    seen = 0

    def training_step(self, batch: object, batch_idx: int) -> torch.Tensor:
        type(self).seen += 1
        if type(self).seen == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return super().training_step(batch, batch_idx)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")
    (made / "pictures").mkdir()
    noise = Noise(6, 40)
    for row in range(6):
        noise.image(row).save(made / "pictures" / f"{row}.png")
    vae().save_pretrained(made / "diffusion" / "vae")
    track = made / "tracks" / "tiny.yaml"
    model = f"model:\n  diffusion: {made}/diffusion\n  dtype: float32\n  denoiser: tiny\n"
    text = track.read_text().replace("model:\n", model)
    track.write_text(text.replace("trainer:\n", "trainer:\n  log_every_n_steps: 2\n"))
    method, stopping = (
        "spatialbench.methods.genhancer.GenHancer",
        "tests.training.test_genhancer_runs.Stopping",
    )
    data = DATA.format(folder=made)
    tiny.page(made, "denoiser", method, data)
    tiny.page(made, "clip", method, CLIP.format(first="denoiser", rest="") + data)
    tiny.page(made, "tuned", rest="init_from: clip\n")
    both = CLIP.format(first="denoiser", rest=", train_denoiser: true") + data
    tiny.page(made, "both", method, both)
    tiny.page(made, "stopping_denoiser", stopping, data)
    tiny.page(made, "stopping_clip", stopping, CLIP.format(first="denoiser", rest="") + data)
    tiny.page(made, "stopping_both", stopping, both)
    tiny.page(made, "tested", stopping, CLIP.format(first="denoiser", rest="") + data)
    tiny.page(made, "killed", stopping, CLIP.format(first="denoiser", rest="") + data)
    tiny.page(made, "tuned_after", rest="init_from: killed\n")
    return made


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
    monkeypatch.setattr(Stopping, "seen", 0)
    monkeypatch.setitem(PRESETS, "tiny", Architecture(2, 12, 10, 14, (4, 4, 4), 1, 1))


def run(page: Path, seed: int = 0) -> Resolved:
    """In one folder of runs, so that the first stage is made once for all tests."""
    return resolve(page, "tiny", "quick", seed, runs=page.parent.parent / "runs")


def state(resolved: Resolved) -> dict[str, torch.Tensor]:
    return read_checkpoint(resolved.run_dir / "last.ckpt")["state_dict"]


def logged(resolved: Resolved, name: str) -> dict[int, float]:
    lines = [
        json.loads(line) for line in (resolved.run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    return {line["step"]: line[name] for line in lines if name in line}


def test_one_command_makes_every_stage_and_leaves_a_clip(folder: Path) -> None:
    last = run(folder / "tuned.yaml")
    fit(last)
    second = last.init_from
    assert second is not None
    first = second.init_from
    assert first is not None
    denoiser, clip, tuned = (state(stage) for stage in (first, second, last))
    assert {name.split(".")[0] for name in denoiser} == {"student", "denoiser"}
    assert (
        {name.split(".")[0] for name in clip}
        == {name.split(".")[0] for name in tuned}
        == {"student"}
    )
    moved = {
        name for name in clip if not torch.equal(clip[name], denoiser[name])
    }  # the first stage's student is CLIP
    names = ("attn.in_proj_", "attn.out_proj.", "mlp.c_fc.", "mlp.c_proj.")
    blocks = [f"student.visual.transformer.resblocks.{number}." for number in range(2)]
    wanted = {
        f"{block}{name}{part}" for block in blocks for name in names for part in ("weight", "bias")
    }
    assert moved == wanted
    start = load_clip(str(folder / "tiny-student.json"))
    assert set(clip) == {f"student.{name}" for name in start.state_dict()}
    for stage in (first, second):
        shown = Image.open(stage.run_dir / "reconstructions.png")
        assert shown.size == (4 + 13 * 100, 26 + 4 * 100)
    drift, cosine = logged(second, "drift/weights"), logged(second, "drift/cosine")
    assert set(drift) == set(cosine) == set(logged(second, "train/loss"))
    assert list(drift.values()) == sorted(drift.values())
    assert 0 < drift[max(drift)] < 10
    assert not logged(first, "drift/weights")
    record = RunRecord.read(second.run_dir)
    assert record.info["total_parameters"] == sum(value.numel() for value in clip.values())
    assert (
        main(
            [
                "test",
                "--config",
                str(folder / "denoiser.yaml"),
                "--track",
                "tiny",
                "--seed",
                "0",
                "--runs",
                str(folder.parent / "runs"),
            ]
        )
        == 0
    )


@pytest.mark.parametrize("name", ["denoiser", "clip", "both"])
def test_after_ctrl_c_it_ends_where_one_run_ends(folder: Path, name: str) -> None:
    """Bit for bit: the denoiser, the adapters, their dropout, the crops."""
    whole = run(folder / f"{name}.yaml")
    fit(whole)
    made = run(folder / f"stopping_{name}.yaml")
    with pytest.raises(Interrupted) as stopped:
        fit(made)
    assert stopped.value.step == 4
    in_the_middle, wanted = state(made), state(whole)
    assert in_the_middle.keys() == wanted.keys()
    assert any(not torch.equal(value, wanted[part]) for part, value in in_the_middle.items())
    fit(made)
    assert Stopping.seen == 6
    found = state(made)
    for part, value in wanted.items():
        assert torch.equal(value, found[part]), part
    pictures = [Image.open(one.run_dir / "reconstructions.png").tobytes() for one in (whole, made)]
    assert pictures[0] == pictures[1]
    drift = logged(made, "drift/weights")
    assert drift == {step: logged(whole, "drift/weights")[step] for step in drift}


def test_a_checkpoint_in_the_middle_can_be_tested(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(folder / "tested.yaml")
    with pytest.raises(Interrupted):
        fit(made)
    last = made.run_dir / "last.ckpt"
    arguments = [
        "test",
        "--config",
        str(folder / "tested.yaml"),
        "--track",
        "tiny",
        "--ckpt_path",
        str(last),
    ]
    capsys.readouterr()
    assert main([*arguments, "--format", "json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores
    plain = load_clip(f"{folder}/tiny-student.json:{last}")  # nor does open_clip see any adapter
    stored = state(made)
    assert all(
        torch.equal(value, stored[f"student.{name}"]) for name, value in plain.state_dict().items()
    )


def test_a_kill_between_the_last_step_and_the_merge_is_of_no_harm(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint of the loop is a CLIP's already; a stage may start from it."""
    monkeypatch.setattr(Stopping, "seen", 100)
    made = run(folder / "tuned_after.yaml")
    assert made.init_from is not None
    with monkeypatch.context() as patch:
        patch.setattr(GenHancer, "on_fit_end", lambda self: 1 / 0)
        patch.setattr(training, "CHECKPOINTS", 6)
        fit(made.init_from.init_from)
        with pytest.raises(ZeroDivisionError):
            fit(made.init_from)
    assert not RunRecord.read(made.init_from.run_dir).finished
    fit(made)
    assert Stopping.seen == 106
    assert state(made.init_from).keys() == state(made).keys()
    assert (made.init_from.run_dir / "reconstructions.png").is_file()


def test_settings_that_do_not_fit(folder: Path) -> None:
    model = {"model": {"init_args": {"guidance": 4.0}}}
    with pytest.raises(SpatialbenchError, match="its denoiser is another than this page's"):
        fit(resolve(folder / "clip.yaml", "tiny", "quick", 0, model, runs=folder.parent / "runs"))
    page = tiny.page(folder, "pairs", "spatialbench.methods.genhancer.GenHancer")
    with pytest.raises(
        SpatialbenchError, match=r"learns from pictures alone: the page needs data\.class_path"
    ):
        fit(run(page))
    page = tiny.page(
        folder, "alone", "spatialbench.methods.genhancer.GenHancer", "  init_args: {stage: clip}\n"
    )
    with pytest.raises(SpatialbenchError, match="the page needs init_from, of stage denoiser"):
        fit(run(page))


def test_the_pages_are_genhancers() -> None:
    """docs/genhancer.md, "Beyond the list"."""
    first, second, tuned = (
        resolve(BENCHMARKS / f"{name}.yaml", "rooms", "full")
        for name in ("genhancer_denoiser", "genhancer", "genhancer_finetune")
    )
    assert tuned.init_from.run_dir == second.run_dir
    assert second.init_from.run_dir == first.run_dir
    models = [stage.config["model"]["init_args"] for stage in (first, second)]
    assert [model["stage"] for model in models] == ["denoiser", "clip"]
    for model in models:
        settings = model["finetuning"]
        assert (settings["betas"], settings["eps"], settings["weight_decay"]) == (
            [0.9, 0.999],
            1e-8,
            0.01,
        )
    assert models[1]["lora"] == {"rank": 16, "alpha": 16, "dropout": 0.1}
    assert [stage.config["trainer"]["max_steps"] for stage in (first, second)] == [1600, 1600]
