"""Refiner, distillation, ensemble and fine-tuning in turn, on a file in COCO's format."""

import json
from pathlib import Path

import pytest
import torch

from spatialbench.config.experiment import Resolved, resolve
from spatialbench.data.region_batches import RegionDataModule
from spatialbench.evaluation.evidence import Evidence
from spatialbench.methods.r_sc_rla import RegionDistillation
from spatialbench.results.run_folder import RunRecord
from spatialbench.training.fit import fit
from tests.support import tiny
from tests.support.checks import refused
from tests.support.coco_files import annotation, entry, write_image

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("place")]
DATA = """\
data:
  class_path: spatialbench.data.region_batches.RegionDataModule
  init_args: {{kind: {kind}, region_path: {folder}/coco.json, region_folder: {folder}/pictures,
              region_size: 48, region_images: 0, region_batch: 2, wide: 2}}
"""
DISTIL = "spatialbench.methods.r_sc_rla.RegionDistillation"


class Stopped(tiny.SendsCtrlC, RegionDistillation):
    """Distillation that is interrupted."""


def coco(folder: Path, count: int = 6) -> None:
    """Write noise with two boxed objects in each image."""
    images, annotations = [], []
    for k in range(count):
        write_image(folder / "pictures", f"{k}.png", 48, 40, seed=k)
        images.append(entry(k, f"{k}.png", 48, 40))
        for n, (x, y) in enumerate(((2, 3), (25, 16))):
            corners = [x, y, x + 20, y, x + 20, y + 20, x, y + 20]
            shape = {"bbox": [x, y, 20, 20], "segmentation": [corners], "area": 400}
            annotations.append(annotation(2 * k + n, k, category_id=n + 1, **shape))
    categories = [{"id": 1, "name": "sofa"}, {"id": 2, "name": "lamp"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "coco.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.benchmark(tmp_path_factory.mktemp("tiny") / "benchmarks")
    coco(made)
    arguments = {"path": f"{made}/coco.json", "images": f"{made}/pictures", "size": 48}
    reader = "spatialbench.data.coco.coco_regions.CocoRegions"
    source = {"source": {"class_path": reader, "init_args": arguments}}
    evaluation = "spatialbench.evaluation.regions.RegionEvaluation"
    regions = {"class_path": evaluation, "init_args": source}
    with (made / "tracks" / "tiny.yaml").open("a") as stream:
        stream.write(f"evaluations: {json.dumps({'regions': regions})}\n")

    def page(name: str, cls: str, arguments: str, kind: str) -> None:
        tiny.page(made, name, cls, arguments + DATA.format(folder=made, kind=kind))

    scd = "  init_args: {scd: {teacher: refiner, size: 3}}\ninit_from: refiner\n"
    page("refiner", "spatialbench.methods.refiner.Refiner", "  init_args: {blocks: 1}\n", "grid")
    page("r_sc_rla", DISTIL, scd, "grid")
    page("stopped", "tests.training.test_region_runs.Stopped", scd, "boxes")
    page("text", DISTIL, "  init_args: {language: text}\n", "boxes")
    page("clipself", DISTIL, "  init_args: {language: image}\n", "grid")
    tiny.page(made, "finetune", rest="init_from: r_sc_rla\n")
    ensemble = "  init_args: {alpha: 0.5}\ntrainer: {max_steps: 0}\ninit_from: r_sc_rla\n"
    tiny.page(made, "ensemble", "spatialbench.methods.weight_ensemble.WeightEnsemble", ensemble)
    return made


def run(folder: Path, name: str, runs: str = "runs", **data: object) -> Resolved:
    """Resolve a page; all tests share a folder of runs, so that a stage is made once."""
    name_of_class = "spatialbench.data.region_batches.RegionDataModule"
    layer = {"data": {"class_path": name_of_class, "init_args": data}} if data else None
    return resolve(folder / f"{name}.yaml", "tiny", "quick", 0, layer, folder.parent / runs)


def test_one_command_makes_every_stage_and_leaves_a_clip(folder: Path) -> None:
    last = run(folder, "finetune")
    record = fit(last)
    assert last.init_from is not None
    assert last.init_from.init_from is not None
    stages = [last.init_from.init_from, last.init_from, last]
    records = [RunRecord.read(stage.run_dir) for stage in stages]
    assert all(record.finished for record in records)
    refiner, distilled, tuned = (tiny.state(stage) for stage in stages)  # the refiner's is CLIP
    assert any(name.startswith("refiner.") for name in refiner)
    assert tiny.parts(stages[1]) == tiny.parts(last) == {"student"}
    assert records[1].info["total_parameters"] == record.info["total_parameters"]
    blocks = "student.visual.transformer.resblocks."
    moved = {name for name in distilled if not torch.equal(distilled[name], refiner[name])}
    assert moved
    assert all(name.startswith(blocks) for name in moved)
    others = [name for name in tuned if not name.startswith(blocks)]
    assert any(not torch.equal(tuned[name], distilled[name]) for name in others)
    for done in records:
        assert done.info["wall_seconds"]["measure"] > 0
        evidence = Evidence.load(done.evidence("regions"))
        assert {"box_top1", "mask_top1", "same_mask", "cluster"} <= evidence.values().keys()
        assert evidence.units == 6


def test_an_ensemble_is_the_mean_of_the_stage_and_its_start(folder: Path) -> None:
    made = run(folder, "ensemble")
    fit(made)
    assert made.init_from is not None
    assert made.init_from.init_from is not None
    stages = (made.init_from.init_from, made.init_from, made)
    begun, trained, mean = (tiny.state(stage) for stage in stages)
    name = "student.visual.transformer.resblocks.0.mlp.c_fc.weight"
    torch.testing.assert_close(mean[name], (begun[name] + trained[name]) / 2)
    assert not torch.equal(begun[name], trained[name])


def test_after_ctrl_c_it_ends_where_one_run_ends(folder: Path) -> None:
    """The Refiner and the teacher, which no checkpoint holds, are there again; crops are cached."""
    tiny.ends_alike_after_ctrl_c(run(folder, "stopped"), Stopped)


def test_language_of_the_text_encoder_and_data_opened_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    plain = RegionDataModule._regions
    monkeypatch.setattr(RegionDataModule, "_regions", lambda self: opened.append(1) or plain(self))
    made = run(folder, "text")
    fit(made)
    assert len(opened) == 1
    assert tiny.logged(made, "val/all")
    assert tiny.parts(made) == {"student"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"region_batch": 9}, r"fewer than one batch of 9; lower data\.region_batch"),
        ({"region_size": 20}, "multiples of 16 and 16"),
        ({"kind": "grid", "crops": False}, "language image and labels teacher read crops"),
    ],
)
def test_settings_that_do_not_fit(folder: Path, data: dict, message: str) -> None:
    with refused(message):
        fit(run(folder, "clipself", **data))
