"""DIVA on a folder of pictures and the fine-tuning after it: stopped and resumed, and what the run folder holds."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

from spatialbench.cli.main import main
from spatialbench.config.experiment import Resolved, model_of, resolve, weights_digests
from spatialbench.methods.diva import Diva
from spatialbench.models.token_selection import TokenSelector
from spatialbench.results.run_folder import RunRecord, clear, read_checkpoint
from spatialbench.training.callbacks import Interrupted
from spatialbench.training.fit import fit
from spatialbench.utils.cache import cache_root
from spatialbench.utils.errors import SpatialbenchError
from tests.support import BENCHMARKS, tiny
from tests.support.diffusions import write_folder
from tests.support.pictures import Noise

DATA = """\
data:
  class_path: spatialbench.data.pictures.PictureDataModule
  init_args: {{picture_path: {folder}/pictures, picture_size: 32, picture_batch: 2{rest}}}
"""
TOKENS = "  init_args: {tokens: {mode: random, count: 2}, optimizer: adamw}\n"


class Stopping(Diva):
    """Gets Ctrl-C in its fourth step (or another), the first time."""

    seen, at = 0, 4

    def training_step(self, batch: object, batch_idx: int) -> torch.Tensor:
        type(self).seen += 1
        if type(self).seen == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().training_step(batch, batch_idx)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")
    (made / "pictures").mkdir()
    noise = Noise(6, 40)
    for row in range(6):
        noise.picture(row).save(made / "pictures" / f"{row}.png")
    write_folder(made / "diffusion")
    track = made / "tracks" / "tiny.yaml"
    text = track.read_text().replace(
        "model:\n", f"model:\n  diffusion: {made}/diffusion\n  dtype: float32\n"
    )
    track.write_text(text.replace("trainer:\n", "trainer:\n  log_every_n_steps: 2\n"))
    method = "spatialbench.methods.diva.Diva"
    tiny.page(made, "diva", method, TOKENS + DATA.format(folder=made, rest=""))
    tiny.page(
        made,
        "stopping",
        "tests.training.test_picture_runs.Stopping",
        TOKENS + DATA.format(folder=made, rest=""),
    )
    crop = DATA.format(folder=made, rest=", picture_crop: [0.5, 1.0]")
    tiny.page(made, "cropped", "tests.training.test_picture_runs.Stopping", TOKENS + crop)
    tiny.page(made, "tuned", rest="init_from: diva\n")
    return made


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
    monkeypatch.setattr(Stopping, "seen", 0)


def run(page: Path, runs: str = "runs", seed: int = 0) -> Resolved:
    return resolve(page, "tiny", "quick", seed, runs=runs)


def state(resolved: Resolved) -> dict[str, torch.Tensor]:
    return read_checkpoint(resolved.run_dir / "last.ckpt")["state_dict"]


def logged(resolved: Resolved, name: str) -> dict[int, float]:
    lines = [
        json.loads(line) for line in (resolved.run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    return {line["step"]: line[name] for line in lines if name in line}


def test_one_command_makes_both_stages(folder: Path, capsys: pytest.CaptureFixture) -> None:
    last = run(folder / "tuned.yaml")
    fit(last)
    first = last.init_from
    assert first is not None
    begun, tuned = state(first), state(last)
    assert {name.split(".")[0] for name in begun} == {"student", "visual_proj"}
    assert {name.split(".")[0] for name in tuned} == {"student"}
    shown = Image.open(first.run_dir / "reconstructions.png")
    assert shown.size == (4 + 13 * 100, 26 + 4 * 100)
    assert not (last.run_dir / "reconstructions.png").exists()
    drift, cosine = logged(first, "drift/weights"), logged(first, "drift/cosine")
    assert set(drift) == set(cosine) == set(logged(first, "train/loss"))
    assert list(drift.values()) == sorted(drift.values())
    assert 0 < drift[max(drift)] < 10
    assert all(-1 < value <= 1 for value in cosine.values())
    assert len(list((cache_root() / "latents").iterdir())) == 1
    record = RunRecord.read(first.run_dir)
    parameters = sum(value.numel() for value in begun.values())
    assert (
        record.info["total_parameters"] == parameters
    )  # the diffusion model is no part of what is left
    assert (
        main(["test", "--config", str(folder / "diva.yaml"), "--track", "tiny", "--seed", "0"]) == 0
    )
    assert "reconstructions" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["stopping", "cropped"])
def test_after_ctrl_c_it_ends_where_one_run_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Weights, P, and the drift from the weights before the interruption; with crops and without."""
    whole = run(folder / f"{name}.yaml", "whole")
    monkeypatch.setattr(Stopping, "seen", 100)
    fit(whole)
    monkeypatch.setattr(Stopping, "seen", 0)
    made = run(folder / f"{name}.yaml")
    with pytest.raises(Interrupted) as stopped:
        fit(made)
    assert stopped.value.step == 4
    assert {part.split(".")[0] for part in state(made)} == {"student", "visual_proj"}
    fit(made)
    assert Stopping.seen == 6
    for part, value in state(whole).items():
        assert torch.equal(value, state(made)[part]), part
    drift = logged(made, "drift/weights")
    assert drift == {step: logged(whole, "drift/weights")[step] for step in drift}
    assert max(drift) == 5
    pictures = [Image.open(one.run_dir / "reconstructions.png").tobytes() for one in (whole, made)]
    assert pictures[0] == pictures[1]


def test_after_ctrl_c_in_the_last_step_the_picture_is_drawn(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step is made again, and the picture is that of a run that was not stopped."""
    whole, made = run(folder / "stopping.yaml", "whole"), run(folder / "stopping.yaml")
    monkeypatch.setattr(Stopping, "seen", 100)
    fit(whole)
    monkeypatch.setattr(Stopping, "seen", 0)
    monkeypatch.setattr(Stopping, "at", 6)
    with pytest.raises(Interrupted) as stopped:
        fit(made)
    assert stopped.value.step == 6
    assert not (made.run_dir / "reconstructions.png").exists()
    before = state(made)
    fit(made)
    assert Stopping.seen == 6
    assert RunRecord.read(made.run_dir).info["train_steps"] == 6
    assert all(torch.equal(value, before[part]) for part, value in state(made).items())
    pictures = [Image.open(one.run_dir / "reconstructions.png").tobytes() for one in (whole, made)]
    assert pictures[0] == pictures[1]
    clear(made.run_dir)  # as --force does
    assert list(made.run_dir.iterdir()) == []


def test_the_seed_changes_what_is_drawn(folder: Path) -> None:
    first, other = (run(folder / "diva.yaml", seed=seed) for seed in (0, 1))
    fit(first)
    fit(other)
    assert logged(first, "train/loss") != logged(other, "train/loss")
    begun = [logged(one, "drift/weights")[1] for one in (first, other)]
    assert begun[0] != begun[1]


def test_settings_that_do_not_fit(folder: Path) -> None:
    name = "spatialbench.data.pictures.PictureDataModule"
    data = {"class_path": name, "init_args": {"picture_size": 40}}
    with pytest.raises(
        SpatialbenchError, match=r"of 32 pixels a side: set .*picture_size 32, not 40"
    ):
        fit(resolve(folder / "diva.yaml", "tiny", "quick", 0, {"data": data}))
    model = {"model": {"init_args": {"diffusion": "nowhere"}}}
    with pytest.raises(SpatialbenchError, match="nowhere"):
        fit(resolve(folder / "diva.yaml", "tiny", "quick", 0, model))
    with pytest.raises(
        SpatialbenchError, match=r"picture_path would not reach .*diva\.yaml, which page"
    ):
        resolve(
            folder / "tuned.yaml",
            "tiny",
            "quick",
            0,
            {"data": {"class_path": name, "init_args": {"picture_path": "x"}}},
        )


def test_other_weights_of_the_diffusion_model_are_another_run(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    hashes = []
    for content in (b"one", b"two"):
        (tmp_path / "unet" / "weights").write_bytes(content)
        model = {"model": {"init_args": {"diffusion": str(tmp_path)}}}
        hashes.append(resolve(folder / "diva.yaml", "tiny", "quick", 0, model).config_hash)
    assert hashes[0] != hashes[1]
    page = {
        "model": {"class_path": "x"},
        "data": {"class_path": "spatialbench.data.pictures.PictureDataModule"},
    }
    assert model_of(page) == {
        "diffusion": "rooms-diffusion"
    }  # the shipped one counts where none is named
    assert "diffusion" not in model_of({"model": {"class_path": "x"}})
    assert set(weights_digests({"diffusion": str(tmp_path), "student": "rooms-student"})) == {
        "student",
        "diffusion",
    }
    assert "diffusion" not in weights_digests({"diffusion": "sd-2-1-base:random"})


def test_the_paper_scale_is_divas() -> None:
    """baaivision/DIVA @ d53c668, DIVA_for_*.sh; docs/diva.md, "What the released code does"."""
    found = resolve(BENCHMARKS / "diva_legacy.yaml", "cc3m", "full").config
    data, model, trainer = found["data"]["init_args"], found["model"]["init_args"], found["trainer"]
    assert data["picture_batch"] * trainer["accumulate_grad_batches"] == 16 * 8 * 5
    assert (trainer["max_steps"], trainer["gradient_clip_val"], data["picture_size"]) == (
        4600,
        1.0,
        512,
    )
    assert (data["picture_crop"], data["image_size"]) == ([0.9, 1.0], 224)
    assert (model["optimizer"], model["lr"], model["momentum"], model["inner_weights"]) == (
        "sgd",
        1e-4,
        0.9,
        [5, 1],
    )
    assert model["finetuning"]["warmup_steps"] == 23
    assert (
        TokenSelector(**model["tokens"]).length((16, 16)) == 77
    )  # beside the prompt's 77 positions
    assert model["legacy_range"]
    assert set(model["hashes"]) == {
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }
    tuned = resolve(BENCHMARKS / "diva_finetune.yaml", "cc3m", "full").config
    assert not any(name.startswith("picture_") for name in tuned["data"])
    assert "lr" not in tuned["model"]["init_args"]
    rooms = resolve(BENCHMARKS / "diva.yaml", "rooms", "full").config
    assert rooms["data"]["init_args"]["train_images"] == 24000  # of which all are learned from
    assert TokenSelector(**rooms["model"]["init_args"]["tokens"]).length((8, 8)) == 20
