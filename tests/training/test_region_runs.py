"""Refiner, distillation, ensemble and fine-tuning one after the other, on a file in COCO's format."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spatialbench.cli.main import main
from spatialbench.config.evaluations import region_set, region_settings
from spatialbench.config.experiment import Resolved, resolve
from spatialbench.config.pages import load_track
from spatialbench.data.region_batches import RegionDataModule
from spatialbench.evaluation.measures import Measures
from spatialbench.methods.r_sc_rla import RegionDistillation
from spatialbench.results.run_folder import RunRecord, measured, read_checkpoint
from spatialbench.training import fit as training
from spatialbench.training.build import build
from spatialbench.training.callbacks import Interrupted
from spatialbench.training.fit import fit
from spatialbench.training.score import measure_into
from spatialbench.utils.errors import SpatialbenchError
from tests.support import tiny

DATA = """\
data:
  class_path: spatialbench.data.region_batches.RegionDataModule
  init_args: {{kind: {kind}, region_path: {folder}/coco.json, region_folder: {folder}/pictures, region_size: 48,
              region_images: 0, region_batch: 2, wide: 2}}
"""


class Stopping(RegionDistillation):
    """Gets Ctrl-C in its fourth step, the first time."""

    seen = 0

    def training_step(self, batch: object, batch_idx: int) -> torch.Tensor:
        type(self).seen += 1
        if type(self).seen == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return super().training_step(batch, batch_idx)  # type: ignore[arg-type]


def coco(folder: Path, count: int = 6) -> None:
    """Noise with two boxed objects in each picture."""
    (folder / "pictures").mkdir()
    images, annotations = [], []
    for k in range(count):
        pixels = np.random.default_rng(k).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{k}.png")
        images.append({"id": k, "file_name": f"{k}.png", "width": 48, "height": 40})
        for n, (x, y) in enumerate(((2, 3), (25, 16))):
            box = {
                "bbox": [x, y, 20, 20],
                "segmentation": [[x, y, x + 20, y, x + 20, y + 20, x, y + 20]],
            }
            annotations.append(
                {
                    "id": 2 * k + n,
                    "image_id": k,
                    "category_id": n + 1,
                    "area": 400,
                    "iscrowd": 0,
                    **box,
                }
            )
    categories = [{"id": 1, "name": "sofa"}, {"id": 2, "name": "lamp"}]
    (folder / "coco.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")
    coco(made)
    regions = {
        "class_path": "spatialbench.data.coco.coco_regions.CocoRegions",
        "init_args": {"path": f"{made}/coco.json", "images": f"{made}/pictures", "size": 48},
    }
    with (made / "tracks" / "tiny.yaml").open("a") as stream:
        stream.write(f"regions: {json.dumps(regions)}\n")
    distil = "spatialbench.methods.r_sc_rla.RegionDistillation"
    refiner = "  init_args: {blocks: 1}\n" + DATA.format(folder=made, kind="grid")
    tiny.page(made, "refiner", "spatialbench.methods.refiner.Refiner", refiner)
    scd = "  init_args: {scd: {teacher: refiner, size: 3}}\ninit_from: refiner\n"
    tiny.page(made, "r_sc_rla", distil, scd + DATA.format(folder=made, kind="grid"))
    tiny.page(
        made,
        "stopping",
        "tests.training.test_region_runs.Stopping",
        scd + DATA.format(folder=made, kind="boxes"),
    )
    tiny.page(
        made,
        "text",
        distil,
        "  init_args: {language: text}\n" + DATA.format(folder=made, kind="boxes"),
    )
    tiny.page(
        made,
        "clipself",
        distil,
        "  init_args: {language: image}\n" + DATA.format(folder=made, kind="grid"),
    )
    tiny.page(made, "finetune", rest="init_from: r_sc_rla\n")
    ensemble = "  init_args: {alpha: 0.5}\ntrainer: {max_steps: 0}\ninit_from: r_sc_rla\n"
    tiny.page(made, "ensemble", "spatialbench.methods.weight_ensemble.WeightEnsemble", ensemble)
    return made


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPATIALBENCH_CACHE", str(folder.parent / "cache"))
    monkeypatch.setattr(Stopping, "seen", 0)


def run(page: Path, runs: str = "runs") -> Resolved:
    return resolve(page, "tiny", "quick", 0, runs=runs)


def state(resolved: Resolved) -> dict[str, torch.Tensor]:
    return read_checkpoint(resolved.run_dir / "last.ckpt")["state_dict"]


def test_one_command_makes_every_stage_and_leaves_a_clip(folder: Path) -> None:
    last = run(folder / "finetune.yaml")
    record = fit(last)
    assert last.init_from is not None
    assert last.init_from.init_from is not None
    stages = [last.init_from.init_from, last.init_from, last]
    assert all(RunRecord.read(stage.run_dir).finished for stage in stages)
    refiner, distilled, tuned = (state(stage) for stage in stages)
    assert any(name.startswith("refiner.") for name in refiner)
    assert (
        {name.split(".")[0] for name in distilled}
        == {name.split(".")[0] for name in tuned}
        == {"student"}
    )
    assert (
        RunRecord.read(stages[1].run_dir).info["total_parameters"]
        == record.info["total_parameters"]
    )
    blocks = "student.visual.transformer.resblocks."
    moved = {
        name for name in distilled if not torch.equal(distilled[name], refiner[name])
    }  # the refiner's is CLIP
    assert moved
    assert all(name.startswith(blocks) for name in moved)
    assert any(
        not torch.equal(tuned[name], distilled[name])
        for name in tuned
        if not name.startswith(blocks)
    )
    for stage in stages:
        done = RunRecord.read(stage.run_dir)
        assert done.info["wall_seconds"]["measure"] > 0
        found = Measures.load(done.measures)
        assert {"box_top1", "mask_top1", "same_mask", "cluster"} <= found.values().keys()
        assert found.pictures == 6


def test_an_ensemble_is_the_mean_of_the_stage_and_of_what_it_began_with(folder: Path) -> None:
    made = run(folder / "ensemble.yaml")
    fit(made)
    assert made.init_from is not None
    assert made.init_from.init_from is not None
    begun, trained, found = state(made.init_from.init_from), state(made.init_from), state(made)
    name = "student.visual.transformer.resblocks.0.mlp.c_fc.weight"
    torch.testing.assert_close(found[name], (begun[name] + trained[name]) / 2)
    assert not torch.equal(begun[name], trained[name])


def test_after_ctrl_c_it_ends_where_one_run_ends(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Refiner and the teacher, which no checkpoint holds, are there again; crops come from the cache."""
    whole = run(folder / "stopping.yaml", "whole")
    monkeypatch.setattr(Stopping, "seen", 100)
    fit(whole)
    monkeypatch.setattr(Stopping, "seen", 0)
    made = run(folder / "stopping.yaml")
    with pytest.raises(Interrupted) as stopped:
        fit(made)
    assert stopped.value.step == 4
    fit(made)
    assert Stopping.seen == 6
    for name, value in state(whole).items():
        assert torch.equal(value, state(made)[name]), name
    measured = [Measures.load(RunRecord.read(one.run_dir).measures).digest for one in (whole, made)]
    assert measured[0] == measured[1]


def test_language_of_the_text_encoder(folder: Path) -> None:
    made = run(folder / "text.yaml")
    fit(made)
    lines = [json.loads(line) for line in (made.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert any("val/all" in line for line in lines)
    assert {name.split(".")[0] for name in state(made)} == {"student"}


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (
            {"region_batch": 9},
            r"has 6 pictures, fewer than one batch of 9; lower data\.region_batch",
        ),
        ({"region_size": 20}, "multiples of 16 and 16"),
        ({"kind": "grid", "crops": False}, "language image learns from crops"),
    ],
)
def test_settings_that_do_not_fit(folder: Path, flags: dict, what: str) -> None:
    layer = {
        "data": {
            "class_path": "spatialbench.data.region_batches.RegionDataModule",
            "init_args": flags,
        }
    }
    with pytest.raises(SpatialbenchError, match=what):
        fit(resolve(folder / "clipself.yaml", "tiny", "quick", 0, layer))


def test_ctrl_c_after_the_last_step_goes_on_with_the_test(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Refiner is no part of a checkpoint, whenever that was written."""
    made = run(folder / "stopping.yaml")
    monkeypatch.setattr(Stopping, "seen", 100)
    assert made.init_from is not None
    fit(made.init_from)
    with monkeypatch.context() as patch:
        patch.setattr(training, "test", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            fit(made)
    assert not RunRecord.read(made.run_dir).finished
    assert {name.split(".")[0] for name in state(made)} == {"student"}
    fit(made)
    assert Stopping.seen == 106


def test_a_finished_run_is_measured_again_where_the_track_asks_for_more(folder: Path) -> None:
    made = run(folder / "text.yaml")
    fit(made)
    record = RunRecord.read(made.run_dir)
    before, trained = Measures.load(record.measures), record.checkpoint.stat().st_mtime_ns
    assert measured(made, record)
    assert before.settings == region_settings(made.track, "quick")
    other = replace(made.track, regions={**made.track.regions, "budgets": {"quick": {"limit": 4}}})
    again = replace(made, track=other)
    assert not measured(again, record)
    fit(again)
    assert Measures.load(record.measures).pictures == 4
    assert record.checkpoint.stat().st_mtime_ns == trained
    fit(made)
    assert Measures.load(record.measures).digest == before.digest
    record.measures.write_bytes(b"PK")
    fit(made)
    assert Measures.load(record.measures).digest == before.digest


def test_measures_go_where_the_track_asks_for_none(folder: Path) -> None:
    made = run(folder / "text.yaml")
    fit(made)
    path = RunRecord.read(made.run_dir).measures
    assert path.exists()
    measure_into(path, build(made), replace(made, track=replace(made.track, regions=None)), None)
    assert not path.exists()


def test_what_is_trained_on_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    plain = RegionDataModule._regions
    monkeypatch.setattr(RegionDataModule, "_regions", lambda self: opened.append(1) or plain(self))
    fit(run(folder / "text.yaml"))
    assert len(opened) == 1


@pytest.mark.parametrize("key", ["model.init_args.student", "data.init_args.region_path"])
def test_what_would_not_reach_the_stage_before_is_refused(folder: Path, key: str) -> None:
    block, _, name = key.partition(".init_args.")
    overrides = {block: {"init_args": {name: "x.json"}}}
    with pytest.raises(
        SpatialbenchError, match=f"--{key} would not reach .*refiner.yaml.*say it in a track"
    ):
        resolve(folder / "r_sc_rla.yaml", "tiny", "quick", 0, overrides)


def test_the_test_verb_prints_the_measures_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(folder / "text.yaml")
    fit(made)
    stored = Measures.load(made.run_dir / "measures.npz").values()
    arguments = ["test", "--config", str(folder / "text.yaml"), "--track", "tiny"]
    capsys.readouterr()
    assert main(arguments) == 0
    assert "Same-mask AUC" in capsys.readouterr().out
    assert main([*arguments, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["measures"] == pytest.approx(stored)
    other = json.dumps(json.loads((folder / "test.json").read_text()))
    (folder / "own.json").write_text(other)
    assert (
        main([*arguments, "--format", "json", "--data.init_args.path", str(folder / "own.json")])
        == 0
    )
    assert "measures" not in json.loads(
        capsys.readouterr().out
    )  # pairs of one's own: nothing beside them


@pytest.mark.parametrize(
    ("block", "what"),
    [
        ("{size: 3}", r"regions\.size"),
        ("{init_args: {size: 48}}", "regions needs 'class_path'"),
        (
            "{class_path: spatialbench.data.coco.coco_regions.CocoRegions, init_args: {sise: 48}}",
            r"unknown key 'sise'.*'size'",
        ),
        (
            "{class_path: spatialbench.data.coco.coco_regions.CocoRegions, init_args: {size: 48}}",
            "missing",
        ),
        (
            "{class_path: spatialbench.data.coco.coco_regions.CocoRegion}",
            "no class 'CocoRegion'.*CocoRegions",
        ),
        (
            "{class_path: spatialbench.data.coco.coco_regions.CocoRegions, init_args: {path: no.json, images: x, size: 48}}",
            r"no\.json",
        ),
    ],
)
def test_a_wrong_region_set_of_a_track_is_one_line(
    folder: Path, tmp_path: Path, block: str, what: str
) -> None:
    lines = (folder / "tracks" / "tiny.yaml").read_text().splitlines()
    path = tmp_path / "other.yaml"
    path.write_text(
        "\n".join(line for line in lines if not line.startswith("regions:"))
        + f"\nregions: {block}\n"
    )
    with pytest.raises(SpatialbenchError, match=what) as caught:
        region_set(load_track(path), "quick")
    assert "\n" not in str(caught.value)
