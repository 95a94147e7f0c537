"""DIVA and GenHancer on a folder of images, and the fine-tuning after them: stages and resuming."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from spatialbench.config.experiment import Resolved, model_of, resolve, weights_digests
from spatialbench.methods.diva import Diva
from spatialbench.methods.genhancer import GenHancer
from spatialbench.models.denoiser import PRESETS, Architecture
from spatialbench.models.open_clip_student import load_clip
from spatialbench.models.token_selection import TokenSelector
from spatialbench.results.run_folder import RunRecord
from spatialbench.training import fit as training
from spatialbench.training.fit import fit
from spatialbench.utils.cache import cache_root
from tests.support import BENCHMARKS, tiny
from tests.support.checks import refused
from tests.support.diffusions import write_folder

pytestmark = pytest.mark.slow
DATA = """\
data:
  class_path: spatialbench.data.pictures.PictureDataModule
  init_args: {{picture_path: {folder}/pictures, picture_size: 32, picture_batch: 2{rest}}}
"""
TOKENS = "  init_args: {tokens: {mode: random, count: 2}, optimizer: adamw}\n"
CLIP = "  init_args: {{stage: clip, lora: {{rank: 2, dropout: 0.5}}{rest}}}\ninit_from: denoiser\n"


class StoppedDiva(tiny.SendsCtrlC, Diva):
    """DIVA that is interrupted."""


class StoppedGenHancer(tiny.SendsCtrlC, GenHancer):
    """GenHancer that is interrupted."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.pictures(tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks"))
    write_folder(made / "diffusion")
    model = f"model:\n  diffusion: {made}/diffusion\n  dtype: float32\n  denoiser: tiny\n"
    log = ("trainer:\n", "trainer:\n  log_every_n_steps: 2\n")
    tiny.edit_track(made, ("model:\n", model), log)
    here, methods = "tests.training.test_picture_runs", "spatialbench.methods"

    def page(name: str, method: str, arguments: str = "", crop: str = "") -> None:
        rest = f", picture_crop: [{crop}]" if crop else ""
        tiny.page(made, name, method, arguments + DATA.format(folder=made, rest=rest))

    page("diva", f"{here}.StoppedDiva", TOKENS)
    page("cropped", f"{here}.StoppedDiva", TOKENS, "0.5, 1.0")
    page("denoiser", f"{methods}.genhancer.GenHancer", crop="0.8, 1.0")
    page("stopped", f"{here}.StoppedGenHancer", crop="0.8, 1.0")
    page("clip", f"{here}.StoppedGenHancer", CLIP.format(rest=""), "0.8, 1.0")
    both = CLIP.format(rest=", train_denoiser: true")
    page("both", f"{here}.StoppedGenHancer", both, "0.8, 1.0")
    for start in ("diva", "clip"):
        tiny.page(made, f"{start}_tuned", rest=f"init_from: {start}\n")
    return made


@pytest.fixture(autouse=True)
def denoiser(monkeypatch: pytest.MonkeyPatch, place: None) -> None:
    monkeypatch.setitem(PRESETS, "tiny", Architecture(2, 12, 10, 14, (4, 4, 4), 1, 1))


def run(folder: Path, name: str, runs: str = "runs", seed: int = 0) -> Resolved:
    """Resolve a page; all tests share a folder of runs, so that a stage is made once."""
    return resolve(folder / f"{name}.yaml", "tiny", "quick", seed, runs=folder.parent / runs)


def fitted(resolved: Resolved) -> list[Resolved]:
    """Fit; return all stages, the first first."""
    fit(resolved, show=False)
    stages = [resolved]
    while stages[0].init_from is not None:
        stages.insert(0, stages[0].init_from)
    return stages


def check_logs(stage: Resolved) -> None:
    """Check the drift that a stage logged and the reconstructions that it drew."""
    assert Image.open(stage.run_dir / "reconstructions.png").size == (4 + 13 * 100, 26 + 4 * 100)
    drift, cosine = (tiny.logged(stage, f"drift/{name}") for name in ("weights", "cosine"))
    assert set(drift) == set(cosine) == set(tiny.logged(stage, "train/loss"))
    assert list(drift.values()) == sorted(drift.values())
    assert 0 < drift[max(drift)] < 10
    assert all(-1 < value <= 1 for value in cosine.values())


def test_diva_and_the_fine_tuning_after_it(folder: Path) -> None:
    first, last = fitted(run(folder, "diva_tuned"))
    assert tiny.parts(first) == {"student", "visual_proj"}
    assert tiny.parts(last) == {"student"}
    check_logs(first)
    assert not (last.run_dir / "reconstructions.png").exists()
    assert len(list((cache_root() / "latents").iterdir())) == 1
    parameters = sum(value.numel() for value in tiny.state(first).values())  # no diffusion model's
    assert RunRecord.read(first.run_dir).info["total_parameters"] == parameters


def test_every_stage_of_genhancer_and_the_clip_that_it_leaves(folder: Path) -> None:
    first, second, last = fitted(run(folder, "clip_tuned"))
    assert tiny.parts(first) == {"student", "denoiser"}
    assert tiny.parts(second) == tiny.parts(last) == {"student"}
    before, clip = tiny.state(first), tiny.state(second)  # the first stage's student is CLIP
    moved = {name for name in clip if not torch.equal(clip[name], before[name])}
    blocks = [f"student.visual.transformer.resblocks.{number}." for number in range(2)]
    names = ("attn.in_proj_", "attn.out_proj.", "mlp.c_fc.", "mlp.c_proj.")
    wanted = {f"{b}{name}{part}" for b in blocks for name in names for part in ("weight", "bias")}
    assert moved == wanted
    start = load_clip(str(folder / "tiny-student.json"))
    assert set(clip) == {f"student.{name}" for name in start.state_dict()}
    check_logs(second)
    assert (first.run_dir / "reconstructions.png").is_file()
    assert not tiny.logged(first, "drift/weights")
    parameters = sum(value.numel() for value in clip.values())
    assert RunRecord.read(second.run_dir).info["total_parameters"] == parameters


@pytest.mark.parametrize(
    ("name", "method", "stop_at"),
    [
        ("cropped", StoppedDiva, 4),
        ("diva", StoppedDiva, 6),
        ("stopped", StoppedGenHancer, 4),
        ("both", StoppedGenHancer, 4),
    ],
)
def test_after_ctrl_c_it_ends_where_one_run_ends(
    folder: Path, name: str, method: type[tiny.SendsCtrlC], stop_at: int
) -> None:
    """The denoiser, the adapters, their dropout, the crops; at last only the drawing is missing."""
    tiny.ends_alike_after_ctrl_c(run(folder, name), method, stop_at)


def test_a_kill_between_the_last_step_and_the_merge_does_no_harm(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last checkpoint of the loop is a CLIP's already; a stage may start from it."""
    made = run(folder, "clip_tuned", runs="killed")
    assert made.init_from is not None
    fit(made.init_from.init_from)
    with monkeypatch.context() as patch:
        patch.setattr(GenHancer, "on_fit_end", lambda self: 1 / 0)
        patch.setattr(training, "CHECKPOINTS", 6)
        with pytest.raises(ZeroDivisionError):
            fit(made.init_from)
    assert not RunRecord.read(made.init_from.run_dir).finished
    fit(made)
    assert StoppedGenHancer.seen == 6
    assert tiny.state(made.init_from).keys() == tiny.state(made).keys()
    assert (made.init_from.run_dir / "reconstructions.png").is_file()


def test_the_seed_changes_what_is_drawn(folder: Path) -> None:
    first, other = (run(folder, "diva", seed=seed) for seed in (0, 1))
    for stage in (first, other):
        fit(stage, show=False)
    for name in ("train/loss", "drift/weights"):
        assert tiny.logged(first, name) != tiny.logged(other, name)


PICTURES = "spatialbench.data.pictures.PictureDataModule"
GENHANCER = "spatialbench.methods.genhancer.GenHancer"


def changed(name: str, block: str, **arguments: object) -> Callable[[Path], object]:
    layer = {"init_args": arguments, **({"class_path": PICTURES} if block == "data" else {})}

    def call(folder: Path) -> object:
        page, runs = folder / f"{name}.yaml", folder.parent / "runs"
        return fit(resolve(page, "tiny", "quick", 0, {block: layer}, runs))

    return call


def alone(rest: str) -> Callable[[Path], object]:
    return lambda folder: fit(resolve(tiny.page(folder, "x", GENHANCER, rest), "tiny", "quick", 0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (changed("diva", "data", picture_size=40), "of 32 pixels a side: set .*size 32, not 40"),
        (changed("diva", "model", diffusion="nowhere"), "nowhere"),
        (
            changed("diva_tuned", "data", picture_path="x"),
            r"would not reach .*diva\.yaml, which",
        ),
        (changed("clip", "model", guidance=4.0), "its denoiser is another than this page's"),
        (alone(""), r"learns from \w+ alone: the page needs data\.class_path"),
        (alone("  init_args: {stage: clip}\n"), "the page needs init_from, of stage denoiser"),
    ],
)
def test_settings_that_do_not_fit(
    folder: Path, call: Callable[[Path], object], message: str
) -> None:
    with refused(message):
        call(folder)


def test_other_weights_of_the_diffusion_model_are_another_run(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    hashes = []
    for content in (b"one", b"two"):
        (tmp_path / "unet" / "weights").write_bytes(content)
        model = {"model": {"init_args": {"diffusion": str(tmp_path)}}}
        hashes.append(resolve(folder / "diva.yaml", "tiny", "quick", 0, model).config_hash)
    assert hashes[0] != hashes[1]
    plain = {"model": {"class_path": "x"}}
    shipped = {"diffusion": "rooms-diffusion"}  # counts where none is named
    assert model_of({**plain, "data": {"class_path": PICTURES}}) == shipped
    assert "diffusion" not in model_of(plain)
    both = weights_digests({"diffusion": str(tmp_path), "student": "rooms-student"})
    assert set(both) == {"student", "diffusion"}
    assert "diffusion" not in weights_digests({"diffusion": "sd-2-1-base:random"})


def test_the_paper_scale_is_divas() -> None:
    """baaivision/DIVA @ d53c668, DIVA_for_*.sh; docs/diva.md, "What the released code does"."""
    config = resolve(BENCHMARKS / "diva_legacy.yaml", "cc3m", "full").config
    data, model = config["data"]["init_args"], config["model"]["init_args"]
    trainer = config["trainer"]
    assert data["picture_batch"] * trainer["accumulate_grad_batches"] == 16 * 8 * 5
    assert (trainer["max_steps"], trainer["gradient_clip_val"]) == (4600, 1.0)
    assert (data["picture_size"], data["image_size"]) == (512, 224)
    assert data["picture_crop"] == [0.9, 1.0]
    given = {"optimizer": "sgd", "lr": 1e-4, "momentum": 0.9, "inner_weights": [5, 1]}
    assert model.items() >= given.items()
    assert model["finetuning"]["warmup_steps"] == 23
    length = TokenSelector(**model["tokens"]).length((16, 16))
    assert length == 77, "beside the prompt's 77 positions"
    assert model["legacy_range"]
    weights = {"unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"}
    assert set(model["hashes"]) == {f"{name}.safetensors" for name in weights}
    tuned = resolve(BENCHMARKS / "diva_finetune.yaml", "cc3m", "full").config
    assert not any(name.startswith("picture_") for name in tuned["data"])
    assert "lr" not in tuned["model"]["init_args"]
    rooms = resolve(BENCHMARKS / "diva.yaml", "rooms", "full").config
    assert rooms["data"]["init_args"]["train_images"] == 24000  # it learns from all of them
    assert TokenSelector(**rooms["model"]["init_args"]["tokens"]).length((8, 8)) == 20


def test_the_pages_are_genhancers() -> None:
    """docs/genhancer.md, "Beyond the list"."""
    first, second, tuned = (
        resolve(BENCHMARKS / f"{name}.yaml", "rooms", "full")
        for name in ("genhancer_denoiser", "genhancer", "genhancer_finetune")
    )
    assert tuned.init_from is not None
    assert second.init_from is not None
    assert tuned.init_from.run_dir == second.run_dir
    assert second.init_from.run_dir == first.run_dir
    models = [stage.config["model"]["init_args"] for stage in (first, second)]
    assert [model["stage"] for model in models] == ["denoiser", "clip"]
    adam = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
    assert all(model["finetuning"].items() >= adam.items() for model in models)
    assert models[1]["lora"] == {"rank": 16, "alpha": 16, "dropout": 0.1}
    assert [stage.config["trainer"]["max_steps"] for stage in (first, second)] == [1600, 1600]
